//! Descriptions of clients, compiled: what a policy file's group entry says about a certificate.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Fault;
use crate::config::policy::{Effect, SelectorFile};
use crate::identity::{Attribute, PeerIdentity, SpiffeId, Unusable, names_one_subject};

use super::glob::{Segment, Wildcard, match_segments, write_segments};
use super::suggest::did_you_mean;

/// Subject and issuer attributes that a policy can name, as identities spell them.
pub(super) const ATTRIBUTES: [&str; 10] =
    ["CN", "O", "OU", "L", "ST", "C", "DC", "UID", "emailAddress", "serialNumber"];

/// One entry of a group: all its conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector(Box<[Condition]>);

/// One property of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    Subject { attribute: &'static str, value: Wildcard },
    Issuer { attribute: &'static str, value: Wildcard },
    Dns(DomainPattern),
    Uri(UriPattern),
    Email { local: Wildcard, domain: DomainPattern },
    Ip(IpNet),
    Fingerprint([u8; 32]),
    Spki([u8; 32]),
}

/// Compiles the text of one property.
type Parse = fn(&str) -> Result<Condition, String>;

impl Selector {
    /// Compiles one entry, adding what is wrong with it to `faults`. Faults make the result meaningless.
    pub(super) fn compile(file: &SelectorFile, path: &str, faults: &mut Vec<Fault>) -> Self {
        let mut conditions = Vec::new();
        let before = faults.len();
        compile_name(file.subject.as_ref(), &format!("{path}.subject"), faults, |attribute, value| {
            conditions.push(Condition::Subject { attribute, value });
        });
        compile_name(file.issuer.as_ref(), &format!("{path}.issuer"), faults, |attribute, value| {
            conditions.push(Condition::Issuer { attribute, value });
        });
        let single: [(&str, &Option<String>, Parse); 6] = [
            ("dns", &file.dns, |text| DomainPattern::parse(text).map(Condition::Dns)),
            ("uri", &file.uri, |text| UriPattern::parse(text).map(Condition::Uri)),
            ("email", &file.email, parse_email),
            ("ip", &file.ip, |text| parse_network(text).map(Condition::Ip)),
            ("fingerprint", &file.fingerprint, |text| parse_sha256(text).map(Condition::Fingerprint)),
            ("spki", &file.spki, |text| parse_sha256(text).map(Condition::Spki)),
        ];
        for (key, value, parse) in single {
            match value.as_deref().map(parse) {
                Some(Ok(condition)) => conditions.push(condition),
                Some(Err(message)) => faults.push(Fault::new(format!("{path}.{key}"), message)),
                None => {}
            }
        }
        if conditions.is_empty() && faults.len() == before {
            faults.push(Fault::new(
                path,
                "selector is empty and would describe every client: name at least one property",
            ));
        }
        Self(conditions.into())
    }

    /// Whether the identity is described. Where a certificate is ambiguous, or holds names of which one can't be read,
    /// the answer depends on what it is for: no where it would allow, yes where it would deny.
    pub(super) fn matches(&self, identity: &PeerIdentity, effect: Effect) -> bool {
        self.0.iter().all(|condition| condition.holds(identity, effect))
    }

    /// The conditions that keep an identity from being described.
    pub(super) fn failing(&self, identity: &PeerIdentity, effect: Effect) -> impl Iterator<Item = &Condition> {
        self.0.iter().filter(move |condition| !condition.holds(identity, effect))
    }
}

impl Condition {
    fn holds(&self, identity: &PeerIdentity, effect: Effect) -> bool {
        // A name that can't be read may be the one that is denied.
        (effect == Effect::Deny && self.is_about_unusable(&identity.unusable)) || self.matches(identity, effect)
    }

    fn is_about_unusable(&self, unusable: &Unusable) -> bool {
        match self {
            Self::Subject { attribute, .. } => unusable.in_subject(attribute),
            Self::Issuer { attribute, .. } => unusable.in_issuer(attribute),
            Self::Dns(_) => unusable.dns,
            Self::Uri(_) => unusable.uris,
            Self::Email { .. } => unusable.emails,
            Self::Ip(_) => unusable.ips,
            Self::Fingerprint(_) | Self::Spki(_) => false,
        }
    }

    fn matches(&self, identity: &PeerIdentity, effect: Effect) -> bool {
        match self {
            Self::Subject { attribute, value } => attribute_matches(&identity.subject, attribute, value, effect),
            Self::Issuer { attribute, value } => attribute_matches(&identity.issuer, attribute, value, effect),
            Self::Dns(pattern) => identity.dns.iter().any(|name| pattern.matches(name, effect)),
            Self::Uri(pattern) => pattern.matches_any(identity, effect),
            Self::Email { local, domain } => identity.emails.iter().any(|email| {
                let (left, right) = email.rsplit_once('@').unwrap_or((email, ""));
                local.matches(left) && domain.matches(right, effect)
            }),
            Self::Ip(network) => identity.ips.iter().any(|address| network.contains(address)),
            Self::Fingerprint(hash) => identity.fingerprint == *hash,
            Self::Spki(hash) => identity.spki == *hash,
        }
    }
}

/// As a policy has it, on one line.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |hash: &[u8; 32]| data_encoding::HEXLOWER.encode(hash);
        match self {
            Self::Subject { attribute, value } => write!(f, "subject {attribute}={value}"),
            Self::Issuer { attribute, value } => write!(f, "issuer {attribute}={value}"),
            Self::Dns(DomainPattern(labels)) => {
                f.write_str("dns ")?;
                write_segments(f, labels, '.')
            }
            Self::Uri(UriPattern { segments, .. }) => {
                f.write_str("uri ")?;
                write_segments(f, segments, '/')
            }
            Self::Email { local, domain: DomainPattern(labels) } => {
                write!(f, "email {local}@")?;
                write_segments(f, labels, '.')
            }
            Self::Ip(network) => write!(f, "ip {network}"),
            Self::Fingerprint(hash) => write!(f, "fingerprint sha256:{}", hex(hash)),
            Self::Spki(hash) => write!(f, "spki sha256:{}", hex(hash)),
        }
    }
}

fn attribute_matches(name: &[Attribute], attribute: &str, value: &Wildcard, effect: Effect) -> bool {
    let mut values = name.iter().filter(|found| found.name == attribute).map(|found| found.value.as_str());
    if effect == Effect::Allow && names_one_subject(attribute) {
        only(values).is_some_and(|found| value.matches(found))
    } else {
        values.any(|found| value.matches(found))
    }
}

/// The only one of several values; none if which one counts would be a guess.
pub(super) fn only<'v, T: AsRef<str> + ?Sized + 'v>(values: impl IntoIterator<Item = &'v T>) -> Option<&'v str> {
    let mut values = values.into_iter();
    values.next().filter(|_| values.next().is_none()).map(AsRef::as_ref)
}

/// Domain names in which `*` stands for one label or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DomainPattern(Box<[Segment<Wildcard>]>);

impl DomainPattern {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*');
        let well_formed = |label: &str| !label.is_empty() && label.bytes().all(allowed) && !label.contains("**");
        if text.len() > 253 || !text.split('.').all(well_formed) {
            return Err(format!(
                "\"{text}\" is no pattern for a domain name: \
                 labels of letters, digits, '-', '_' and *, separated by dots"
            ));
        }
        Ok(Self(text.split('.').map(|label| Segment::One(Wildcard::new(label))).collect()))
    }

    /// `name` is in lower case. A label that is itself a `*` is no host's name: stars of a rule that allows don't cover
    /// it.
    fn matches(&self, name: &str, effect: Effect) -> bool {
        let plain = effect == Effect::Deny || !name.contains('*');
        plain && match_segments(&self.0, name.split('.'), |pattern, label| !label.is_empty() && pattern.matches(label))
    }
}

/// URIs with `*` for one path segment or a part of it and `**` for any number of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UriPattern {
    spiffe: bool,
    wild: bool,
    segments: Box<[Segment<Wildcard>]>,
}

impl UriPattern {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(':') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("\"{}\" is no URI: it needs a scheme, such as spiffe://", text.escape_debug()));
        }
        let authority = text.split('/').take(3).any(|segment| segment.contains('*'));
        if authority || (text.contains('*') && !text.contains("://")) {
            return Err("* is for the path of a URI only: scheme and host must be written out".to_owned());
        }
        let segments: Box<[_]> = text
            .split('/')
            .map(|segment| if segment == "**" { Segment::Any } else { Segment::One(Wildcard::new(segment)) })
            .collect();
        if text.split('/').any(|segment| segment != "**" && segment.contains("**")) {
            return Err("** must be a whole segment of the path (use * for a part of one)".to_owned());
        }
        let spiffe = text.starts_with("spiffe:");
        if spiffe && SpiffeId::parse(&text.replace('*', "a")).is_none() {
            return Err(format!(
                "\"{text}\" can't match any SPIFFE ID \
                 (no port, no empty or dot segments, no percent signs, a lower-case trust domain)"
            ));
        }
        Ok(Self { spiffe, wild: text.contains('*'), segments })
    }

    fn matches_any(&self, identity: &PeerIdentity, effect: Effect) -> bool {
        // A certificate with several URIs has no SPIFFE ID (X.509-SVID §2).
        if effect == Effect::Allow && self.spiffe && identity.spiffe_id().is_none() {
            return false;
        }
        identity.uris.iter().any(|uri| self.matches(uri, effect))
    }

    fn matches(&self, uri: &str, effect: Effect) -> bool {
        if effect == Effect::Allow && self.wild && !has_one_reading(uri) {
            return false;
        }
        match_segments(&self.segments, uri.split('/'), Wildcard::matches)
    }
}

/// Whether a URI holds nothing that readers of URIs resolve, decode or cut off. What does must not hide under a star,
/// nor move another segment to where a placeholder looks.
pub(super) fn has_one_reading(uri: &str) -> bool {
    let mut path = uri.split('/').skip(3);
    !uri.contains(['?', '#', '%', '\\']) && path.all(|segment| !matches!(segment, "" | "." | ".."))
}

fn parse_email(text: &str) -> Result<Condition, String> {
    let (local, domain) = text
        .split_once('@')
        .filter(|(local, domain)| !local.is_empty() && !domain.contains('@'))
        .ok_or_else(|| format!("\"{text}\" is no pattern for an email address: local@domain"))?;
    Ok(Condition::Email { local: Wildcard::new(local), domain: DomainPattern::parse(domain)? })
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| format!("\"{text}\" is neither an IP address nor a network such as 10.0.0.0/8"))?,
    };
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(format!("{network} has address bits beyond its prefix: write {} or the single address", network.trunc()))
    }
}

/// Reads `sha256:` and 64 hexadecimal digits, with or without colons between the bytes, as openssl and browsers print
/// them.
pub(super) fn parse_sha256(text: &str) -> Result<[u8; 32], String> {
    let wrong = || format!("\"{text}\" is no SHA-256 hash: sha256: and 64 hexadecimal digits, with or without colons");
    let digits: Vec<u32> = text
        .strip_prefix("sha256:")
        .and_then(|hex| hex.chars().filter(|char| *char != ':').map(|char| char.to_digit(16)).collect())
        .ok_or_else(wrong)?;
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    });
    let bytes: Vec<u8> = bytes.collect::<Option<_>>().ok_or_else(wrong)?;
    bytes.try_into().map_err(|_| wrong())
}

fn compile_name(
    name: Option<&BTreeMap<String, String>>,
    path: &str,
    faults: &mut Vec<Fault>,
    mut add: impl FnMut(&'static str, Wildcard),
) {
    let Some(name) = name else { return };
    if name.is_empty() {
        faults.push(Fault::new(path, "is empty: name at least one attribute, such as CN"));
    }
    for (key, value) in name {
        let Some(attribute) = ATTRIBUTES.into_iter().find(|attribute| attribute == key) else {
            let hint = did_you_mean(key, ATTRIBUTES);
            let known = ATTRIBUTES.join(", ");
            faults.push(Fault::new(format!("{path}.{key}"), format!("unknown attribute{hint}; known are {known}")));
            continue;
        };
        if value.is_empty() {
            faults.push(Fault::new(format!("{path}.{key}"), "is empty and can't match: * stands for any value"));
        }
        add(attribute, Wildcard::new(value));
    }
}
