//! Which name of a certificate stands for the account.

/// Which name of a certificate is what docker_auth calls the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountIs {
    /// The common name.
    CommonName,
    /// A DNS name.
    Dns,
    /// An email address.
    Email,
    /// A URI such as `spiffe://example.com/user/${account}`.
    Uri(String),
}

impl AccountIs {
    /// Reads `cn`, `dns`, `email`, or a URI with `${account}` as a segment of its path.
    ///
    /// # Errors
    /// The text is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "cn" => return Ok(Self::CommonName),
            "dns" => return Ok(Self::Dns),
            "email" => return Ok(Self::Email),
            _ => {}
        }
        let is_account = |segment: &str| segment == "${account}";
        let below_host = text.split_once("://").map(|(_, rest)| rest.split('/').skip(1));
        if below_host.is_some_and(|mut path| path.any(is_account))
            && text.matches("${").count() == 1
            && !text.contains('*')
        {
            return Ok(Self::Uri(text.to_owned()));
        }
        Err(format!("\"{text}\" must be cn, dns, email, or a URI with ${{account}} as a segment of its path"))
    }

    /// The placeholder for the account in a repository's name.
    pub(super) fn placeholder(&self) -> Option<String> {
        match self {
            Self::CommonName => Some("${subject.cn}".to_owned()),
            Self::Dns => Some("${san.dns}".to_owned()),
            Self::Email => None,
            Self::Uri(template) => {
                let (_, rest) = template.split_once("://")?;
                let position = rest.split('/').skip(1).position(|segment| segment == "${account}")?;
                Some(format!("${{san.uri.path[{position}]}}"))
            }
        }
    }

    /// What every name of this kind fits, and no client without one; none if there is no such pattern.
    pub(super) fn anybody(&self) -> Option<&'static str> {
        match self {
            Self::CommonName | Self::Uri(_) => Some("*"),
            // A star is one label of a domain.
            Self::Dns | Self::Email => None,
        }
    }

    /// What is wrong with an account of this pattern as such a name; else whether a selector with it describes fewer
    /// than the pattern does.
    pub(super) fn check(&self, text: &str) -> Result<bool, String> {
        let wild = text.contains('*');
        let host = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.*".contains(&b))
        };
        match self {
            Self::CommonName => Ok(false),
            // A star is one label there.
            Self::Dns if host(text) && !text.split('.').any(str::is_empty) => Ok(wild),
            Self::Dns => Err(format!("\"{text}\" is no DNS name in lower case")),
            Self::Email => match text.split_once('@') {
                Some((local, domain)) if !local.is_empty() && host(domain) => Ok(domain.contains('*')),
                _ => Err(format!("\"{text}\" is no email address with a domain in lower case")),
            },
            Self::Uri(_) => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.*".contains(&b);
                if !text.is_empty() && text.bytes().all(plain) {
                    return Ok(false);
                }
                Err(format!("\"{text}\" is no segment of a URI's path"))
            }
        }
    }
}
