//! Who a client is: the names, keys and dates of its verified certificate path, parsed once per connection.
//!
//! The TLS library has built the path and checked signatures, dates, path lengths and name constraints before
//! [`PeerIdentity::from_path`] sees it. This module checks what the libraries leave open (purposes, weak algorithms,
//! duplicate extensions, version 1), and reads names so that nobody can look like somebody else: values are typed and
//! compared exactly, and a kind of name that holds one doubtful value is unusable as a whole. Which kinds those were is
//! kept ([`Unusable`]): a name that can't be read proves nothing, and disproves nothing either.
//!
//! It knows nothing of TLS, HTTP, policy or revocation: DER comes in, plain values go out.

mod certificate;
pub(crate) mod der;
mod fault;
mod name;
mod naming;
mod path;
mod point;
mod san;
mod spiffe;
mod unusable;

use std::net::IpAddr;

pub use self::certificate::LeafRules;
pub(crate) use self::certificate::{Certificate, is_strong_signature};
pub use self::der::DerFault;
pub use self::fault::CertificateFault;
pub use self::name::{Attribute, names_one_subject};
pub(crate) use self::name::{canonical as canonical_name, display as display_name, dotted as dotted_oid};
pub use self::naming::{ClientId, NameKind, NameOrder};
pub use self::path::{IssuerId, PathCertificate, Serial};
pub(crate) use self::point::names_of_point;
pub use self::point::{DistributionPoint, PointName, ReasonFlags};
pub use self::spiffe::SpiffeId;
pub use self::unusable::Unusable;

/// A client as its verified certificate path describes it.
///
/// Holds the whole path, since revocation and expiry of any of its certificates end the identity. The names hold only
/// usable values: no control or invisible characters, bounded, of the syntax of their kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// Attributes of the leaf's subject, in the order of the certificate. Types with an unusable value are left out.
    pub subject: Vec<Attribute>,
    /// Attributes of the leaf's issuer, read like `subject`.
    pub issuer: Vec<Attribute>,
    /// SAN DNS names, in lower case. A leading `*.` is possible and stands for itself.
    pub dns: Vec<String>,
    /// SAN URIs, ASCII, exactly as in the certificate.
    pub uris: Vec<String>,
    /// SAN email addresses: local part as in the certificate, domain in lower case.
    pub emails: Vec<String>,
    /// SAN IP addresses. An IPv4-mapped IPv6 address is given as IPv4.
    pub ips: Vec<IpAddr>,
    /// The kinds of names that are missing above although the certificate holds some.
    pub unusable: Unusable,
    /// The verified path, leaf first, anchor last. Empty only for identities made by [`PeerIdentity::described`] and
    /// [`PeerIdentity::from_leaf`].
    pub path: Vec<PathCertificate>,
    /// SHA-256 over the leaf's DER.
    pub fingerprint: [u8; 32],
    /// SHA-256 over the leaf's `SubjectPublicKeyInfo` DER.
    pub spki: [u8; 32],
    /// When the certificate runs out where there is no path, if that is known.
    alone_until: Option<i64>,
    label: String,
}

/// The names of an identity without a certificate, see [`PeerIdentity::described`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Subject attributes.
    pub subject: Vec<Attribute>,
    /// Issuer attributes.
    pub issuer: Vec<Attribute>,
    /// DNS names.
    pub dns: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
    /// Email addresses.
    pub emails: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// Kinds of names of which a certificate would hold an unusable value.
    pub unusable: Unusable,
    /// SHA-256 over the leaf's DER.
    pub fingerprint: [u8; 32],
    /// SHA-256 over the leaf's `SubjectPublicKeyInfo`.
    pub spki: [u8; 32],
    /// When the certificate would run out, in unix seconds.
    pub not_after: Option<i64>,
}

impl Description {
    /// Whether nothing here tells one client from another: there is no name, or each contradicts another of its kind,
    /// as two common names or two SPIFFE IDs do.
    fn is_nameless(&self) -> bool {
        let Self { subject, dns, uris, emails, ips, .. } = self;
        let alone = |name: &str| subject.iter().filter(|attribute| attribute.name == name).nth(1).is_none();
        let by_subject = subject.iter().any(|attribute| !names_one_subject(&attribute.name) || alone(&attribute.name));
        let by_uri = uris.len() == 1 || uris.iter().any(|uri| SpiffeId::parse(uri).is_none());
        !by_subject && !by_uri && dns.is_empty() && emails.is_empty() && ips.is_empty()
    }
}

impl PeerIdentity {
    /// Reads a path that the TLS library has verified: leaf first, trust anchor last, each in DER.
    ///
    /// # Errors
    ///
    /// What RFC 5280 or `rules` forbid and the TLS library doesn't check, see [`CertificateFault`].
    pub fn from_path(path: &[&[u8]], rules: &LeafRules) -> Result<Self, CertificateFault> {
        certificate::identity_of(path, rules)
    }

    /// Reads a leaf that nobody has verified, to try a policy with.
    ///
    /// Its path is empty, so revocation refuses it: it can never stand for a connection.
    ///
    /// # Errors
    ///
    /// As [`PeerIdentity::from_path`], as far as the leaf alone can tell.
    pub fn from_leaf(leaf: &[u8], rules: &LeafRules) -> Result<Self, CertificateFault> {
        certificate::identity_of_leaf(leaf, rules)
    }

    /// An identity made from a description instead of a certificate, to try a policy with.
    ///
    /// Its path is empty, so revocation refuses it: it can never stand for a connection.
    #[must_use]
    pub fn described(description: Description) -> Self {
        Self::new(description, Vec::new())
    }

    fn new(names: Description, path: Vec<PathCertificate>) -> Self {
        let Description { subject, issuer, dns, uris, emails, ips, unusable, fingerprint, spki, not_after } = names;
        let identity = Self {
            subject,
            issuer,
            dns,
            uris,
            emails,
            ips,
            unusable,
            path,
            fingerprint,
            spki,
            alone_until: not_after,
            label: String::new(),
        };
        identity.named_by(&NameOrder::default())
    }

    /// The same client, called by the first kind of name of this order that it has.
    #[must_use]
    pub fn named_by(mut self, order: &NameOrder) -> Self {
        self.label = naming::label(&self, order);
        self
    }

    /// What the client is called in logs, refusals and limits and toward the registry, in one printable line of at most
    /// 272 characters: `spiffe://corp.example/ci` or `CN=ci-7`, see [`NameKind`].
    ///
    /// No two kinds of names make the same label, and an ambiguous name makes none. Two authorities can still vouch for
    /// one name: what must tell their clients apart goes by [`PeerIdentity::client_id`].
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Which client it is: its label and who issued its certificate.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        ClientId::of(self)
    }

    /// The common name, or `None` when there is none or there are several: which one counts would be a guess.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        let mut names = self.attributes("CN");
        names.next().filter(|_| names.next().is_none())
    }

    /// Values of one type of subject attribute, by its short name (`CN`, `O`, `OU`, …), in the order of the certificate.
    pub fn attributes(&self, short: &str) -> impl Iterator<Item = &str> {
        self.subject.iter().filter(move |attribute| attribute.name == short).map(|attribute| attribute.value.as_str())
    }

    /// The SPIFFE ID: the certificate's only URI, if it is one.
    ///
    /// An X.509-SVID holds exactly one URI (SPIFFE X.509-SVID §2), so several make none.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<SpiffeId<'_>> {
        match self.uris.as_slice() {
            [uri] => SpiffeId::parse(uri),
            _ => None,
        }
    }

    /// When the first certificate of the path runs out, in unix seconds. `i64::MAX` for a described identity.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.path.iter().map(|certificate| certificate.not_after).min().unwrap_or(i64::MAX)
    }

    /// When the client's certificates run out, as far as anybody knows: [`PeerIdentity::not_after`] of a verified path, else
    /// what the certificate alone, or the description, says.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        if self.path.is_empty() { self.alone_until } else { Some(self.not_after()) }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
