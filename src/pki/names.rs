//! Names that come from the command line and end in certificates and paths.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::identity::{Serial, SpiffeId};
use crate::revocation::Reason;

/// Why a text is no name of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NameFault(&'static str);

/// They print as they were read.
macro_rules! display_as_text {
    ($($name:ident),+) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        })+
    };
}

display_as_text!(ClientName, OrganizationalUnit, SpiffeUri, RegistryHost);

/// The name of a client: its CN, and the name of its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientName(String);

/// The OU of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrganizationalUnit(String);

/// A SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpiffeUri(String);

/// A registry as clients name it: `host` or `host:port`. It becomes the name of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct RegistryHost(String);

/// A name under which a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerName {
    /// A DNS name in lower case, possibly with a first label `*`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

/// RFC 5280 ub-common-name and ub-organizational-unit-name.
const MAX_ATTRIBUTE: usize = 64;

impl FromStr for ClientName {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._@+-".contains(&b);
        if text.is_empty() || text.len() > MAX_ATTRIBUTE || !text.bytes().all(plain) || text.starts_with(['.', '-']) {
            return Err(NameFault(
                "a client's name has 1 to 64 letters, digits, '.', '_', '@', '+', '-', and starts with none of '.' and '-'",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for OrganizationalUnit {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        let length = text.chars().count();
        if !(1..=MAX_ATTRIBUTE).contains(&length) || text.chars().any(char::is_control) || text.trim() != text {
            return Err(NameFault("an OU has 1 to 64 printable characters, and no space at its ends"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for SpiffeUri {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        match SpiffeId::parse(text) {
            Some(id) if !id.path().is_empty() => Ok(Self(text.to_owned())),
            _ => Err(NameFault(
                "a SPIFFE ID is spiffe://trust-domain/path, in lower case before the path, without port, query, empty or dot segments",
            )),
        }
    }
}

impl FromStr for RegistryHost {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        let fault =
            NameFault("a registry is named like images are: host or host:port, without https:// and without a path");
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) => {
                (host, Some(port))
            }
            _ => (text, None),
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_ok = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_dns(host),
        };
        let port_ok = port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if host_ok && port_ok { Ok(Self(text.to_owned())) } else { Err(fault) }
    }
}

impl TryFrom<String> for RegistryHost {
    type Error = NameFault;

    fn try_from(text: String) -> Result<Self, NameFault> {
        text.parse()
    }
}

impl From<RegistryHost> for String {
    fn from(host: RegistryHost) -> Self {
        host.0
    }
}

impl FromStr for ServerName {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let exact = text.strip_prefix("*.").unwrap_or(text);
        // What looks like an address and is none would be taken for a DNS name that nobody can resolve.
        let numeric = exact.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if numeric || !is_dns(exact) {
            return Err(NameFault(
                "a server's name is a DNS name (its first label may be *) or an IP address, without port",
            ));
        }
        Ok(Self::Dns(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

fn is_dns(host: &str) -> bool {
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// Reads a serial number in hexadecimal, as openssl prints it: with colons or without, in either case.
pub(crate) fn parse_serial(text: &str) -> Result<Serial, NameFault> {
    let fault = NameFault("a serial number is written in hexadecimal, at most 20 octets");
    let digits: String = text.strip_prefix("0x").unwrap_or(text).chars().filter(|c| *c != ':').collect();
    let padded = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
    let octets = data_encoding::HEXLOWER_PERMISSIVE.decode(padded.as_bytes()).map_err(|_| fault)?;
    let start = octets.iter().position(|octet| *octet != 0).unwrap_or(octets.len().saturating_sub(1));
    let significant = octets.get(start..).unwrap_or_default();
    let sign: &[u8] = if significant.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    Serial::from_der_content(&[sign, significant].concat()).ok_or(fault)
}

/// Reads a revocation reason by its name in RFC 5280, in any case.
pub(crate) fn parse_reason(text: &str) -> Result<Reason, NameFault> {
    let all = (0..=10).map(Reason::from_code);
    all.into_iter().find(|reason| reason.as_str().eq_ignore_ascii_case(text)).ok_or(NameFault(
        "a reason is one of unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, \
         cessationOfOperation, certificateHold, privilegeWithdrawn, aACompromise",
    ))
}
