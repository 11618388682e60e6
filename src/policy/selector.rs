//! Descriptions of clients, compiled: what a policy file's group entry says about a certificate.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Fault;
use crate::config::policy::{Effect, SelectorFile};
use crate::identity::{Attribute, PeerIdentity, Unusable, names_one_subject};

use super::capture::Unique;
use super::glob::Wildcard;
use super::names::{DomainPattern, UriPattern};
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

    /// The names under which parts of the certificate's names are kept.
    pub(super) fn captures(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(Condition::wildcards).filter_map(Wildcard::capture)
    }

    /// Adds what the selector keeps under a name of this identity, which it describes.
    pub(super) fn capture<'i>(&self, name: &str, identity: &'i PeerIdentity, effect: Effect, unique: &mut Unique<'i>) {
        let keep = |condition: &&Condition| condition.wildcards().any(|text| text.capture() == Some(name));
        for condition in self.0.iter().filter(keep) {
            // One that can't be read may be another's than the one that can.
            if condition.is_about_unusable(&identity.unusable) {
                unique.doubt();
            }
            condition.capture(identity, effect, &mut |text, value| {
                if let Some(part) = text.captured(value).filter(|_| text.capture() == Some(name)) {
                    unique.add(part);
                }
            });
        }
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

/// What a condition keeps of a certificate's names.
impl Condition {
    /// The patterns that can keep something.
    fn wildcards(&self) -> impl Iterator<Item = &Wildcard> {
        let (own, domain, uri) = match self {
            Self::Subject { value, .. } | Self::Issuer { value, .. } => (Some(value), None, None),
            Self::Dns(pattern) => (None, Some(pattern), None),
            Self::Uri(pattern) => (None, None, Some(pattern)),
            Self::Email { local, domain } => (Some(local), Some(domain), None),
            Self::Ip(_) | Self::Fingerprint(_) | Self::Spki(_) => (None, None, None),
        };
        let labels = domain.into_iter().flat_map(DomainPattern::labels);
        own.into_iter().chain(labels).chain(uri.into_iter().flat_map(UriPattern::segments))
    }

    /// Calls `each` with every such pattern and what it stands for, of each name that matches.
    fn capture<'i>(&self, identity: &'i PeerIdentity, effect: Effect, each: &mut dyn FnMut(&Wildcard, &'i str)) {
        let mut attributes = |name: &'i [Attribute], attribute: &str, value: &Wildcard| {
            let values = name.iter().filter(|found| found.name == attribute).map(|found| found.value.as_str());
            values.filter(|found| value.matches(found)).for_each(|found| each(value, found));
        };
        match self {
            Self::Subject { attribute, value } => attributes(&identity.subject, attribute, value),
            Self::Issuer { attribute, value } => attributes(&identity.issuer, attribute, value),
            Self::Dns(pattern) => {
                let names = identity.dns.iter().filter(|name| pattern.matches(name, effect));
                names.for_each(|name| pattern.each_label(name, each));
            }
            Self::Uri(pattern) => {
                let uris = identity.uris.iter().filter(|uri| pattern.matches(uri, effect));
                uris.for_each(|uri| pattern.each_segment(uri, each));
            }
            Self::Email { local, domain } => {
                let emails = identity.emails.iter().map(|email| email.rsplit_once('@').unwrap_or((email, "")));
                for (left, right) in emails.filter(|(l, r)| local.matches(l) && domain.matches(r, effect)) {
                    each(local, left);
                    domain.each_label(right, each);
                }
            }
            Self::Ip(_) | Self::Fingerprint(_) | Self::Spki(_) => {}
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
            Self::Dns(pattern) => write!(f, "dns {pattern}"),
            Self::Uri(pattern) => write!(f, "uri {pattern}"),
            Self::Email { local, domain } => write!(f, "email {local}@{domain}"),
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

fn parse_email(text: &str) -> Result<Condition, String> {
    let (local, domain) = text
        .split_once('@')
        .filter(|(local, domain)| !local.is_empty() && !domain.contains('@'))
        .ok_or_else(|| format!("\"{text}\" is no pattern for an email address: local@domain"))?;
    Ok(Condition::Email { local: Wildcard::capturing(local)?, domain: DomainPattern::parse(domain)? })
}

pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
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
        match Wildcard::capturing(value) {
            Ok(value) => add(attribute, value),
            Err(message) => faults.push(Fault::new(format!("{path}.{key}"), message)),
        }
    }
}
