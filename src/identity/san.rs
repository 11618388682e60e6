//! Subject alternative names: which of them can stand for a client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::extensions::GeneralName;

use super::{SpiffeId, Unusable};

/// Most names that a certificate may hold.
pub(super) const MAX_NAMES: usize = 256;

/// Longest usable URI in bytes (SPIFFE-ID §2.3 has the same bound).
const MAX_URI: usize = 2048;

/// Usable alternative names by kind, and the kinds of which none is usable.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) dns: Vec<String>,
    pub(super) uris: Vec<String>,
    pub(super) emails: Vec<String>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) unusable: Unusable,
}

/// Sorts alternative names by kind. Kinds that no policy can name (other names, directory names, …) are passed over.
///
/// One unusable value makes all of its kind unusable: a second name must not be hidden, or the first would look like
/// the only one.
pub(super) fn names(san: &[GeneralName<'_>]) -> Names {
    let mut names = Names::default();
    names.dns = all_or_none(san, dns, &mut names.unusable.dns);
    names.uris = all_or_none(san, uri, &mut names.unusable.uris);
    names.emails = all_or_none(san, email, &mut names.unusable.emails);
    names.ips = all_or_none(san, ip, &mut names.unusable.ips);
    names
}

fn all_or_none<T>(
    san: &[GeneralName<'_>],
    pick: fn(&GeneralName<'_>) -> Option<Option<T>>,
    unusable: &mut bool,
) -> Vec<T> {
    let values: Option<Vec<T>> = san.iter().filter_map(pick).collect();
    *unusable = values.is_none();
    values.unwrap_or_default()
}

// Each of these answers `None` for a name of another kind and `Some(None)` for an unusable one of its kind.
// `Invalid` is the parser's word for text that isn't ASCII; the tag still tells the kind.

fn email(name: &GeneralName<'_>) -> Option<Option<String>> {
    match name {
        GeneralName::RFC822Name(address) => Some(usable_email(address)),
        GeneralName::Invalid(tag, _) if tag.0 == 1 => Some(None),
        _ => None,
    }
}

fn dns(name: &GeneralName<'_>) -> Option<Option<String>> {
    match name {
        GeneralName::DNSName(host) => {
            let exact = host.strip_prefix("*.").unwrap_or(host);
            Some(is_host(exact).then(|| host.to_ascii_lowercase()))
        }
        GeneralName::Invalid(tag, _) if tag.0 == 2 => Some(None),
        _ => None,
    }
}

fn uri(name: &GeneralName<'_>) -> Option<Option<String>> {
    match name {
        GeneralName::URI(uri) => Some(is_usable_uri(uri).then(|| (*uri).to_owned())),
        GeneralName::Invalid(tag, _) if tag.0 == 6 => Some(None),
        _ => None,
    }
}

fn ip(name: &GeneralName<'_>) -> Option<Option<IpAddr>> {
    match name {
        GeneralName::IPAddress(octets) => {
            let v4 = || <[u8; 4]>::try_from(*octets).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
            let v6 = || <[u8; 16]>::try_from(*octets).ok().map(|octets| Ipv6Addr::from(octets).to_canonical());
            Some(v4().or_else(v6))
        }
        GeneralName::Invalid(tag, _) if tag.0 == 7 => Some(None),
        _ => None,
    }
}

/// RFC 1123 host names, and underscores, which service names have.
fn is_host(host: &str) -> bool {
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

/// Addresses without quoting or comments. The domain is put in lower case, the local part is not ours to change.
fn usable_email(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let local_ok = (1..=64).contains(&local.len())
        && local.bytes().all(|b| b.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&b));
    (local_ok && is_host(domain)).then(|| format!("{local}@{}", domain.to_ascii_lowercase()))
}

/// RFC 3986 characters after a scheme. What claims to be a SPIFFE ID must be one.
fn is_usable_uri(uri: &str) -> bool {
    let Some((scheme, _)) = uri.split_once(':') else { return false };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let characters_ok = uri.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b));
    let spiffe_ok = !scheme.eq_ignore_ascii_case("spiffe") || SpiffeId::parse(uri).is_some();
    uri.len() <= MAX_URI && scheme_ok && characters_ok && spiffe_ok
}
