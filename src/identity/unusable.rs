//! Kinds of names that a certificate holds and that nobody can rely on.

use std::borrow::Cow;

/// The kinds of names of which a certificate holds an unusable value, so that none of that kind is given.
///
/// Whoever grants something by a name finds none and grants nothing. Whoever denies something by a name must take such
/// a kind for a match: else a client escapes by adding an unreadable name to its certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unusable {
    /// Types of subject attributes, spelled as in [`Attribute::name`](super::Attribute::name).
    pub subject: Vec<Cow<'static, str>>,
    /// Types of issuer attributes.
    pub issuer: Vec<Cow<'static, str>>,
    /// SAN DNS names.
    pub dns: bool,
    /// SAN URIs.
    pub uris: bool,
    /// SAN email addresses.
    pub emails: bool,
    /// SAN IP addresses.
    pub ips: bool,
}

impl Unusable {
    /// Whether subject attributes of this type are unusable.
    #[must_use]
    pub fn in_subject(&self, short: &str) -> bool {
        self.subject.iter().any(|name| name == short)
    }

    /// Whether issuer attributes of this type are unusable.
    #[must_use]
    pub fn in_issuer(&self, short: &str) -> bool {
        self.issuer.iter().any(|name| name == short)
    }
}
