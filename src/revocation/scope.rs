//! Which certificates and which reasons a list is about: the issuing distribution point (RFC 5280 §5.2.5).

use std::fmt;

use sha2::{Digest, Sha256};

use super::CrlFault;
use crate::identity::der::{self, DerFault, Reader};
use crate::identity::{PathCertificate, PointName, ReasonFlags, names_of_point};

/// What a list is about. Two lists of one issuer and scope replace each other, lists of different scopes are united.
///
/// A scope bounds what a list *vouches* for: it can't show that a certificate outside of it is not revoked. A certificate
/// that it names is revoked in any case, for serial numbers are unique for each issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    points: Vec<Point>,
    certificates: Certificates,
    reasons: ReasonFlags,
    /// Whether one of the points is the issuer itself, which every certificate has for a distribution point (§6.3.3).
    is_at_issuer: bool,
    id: ScopeId,
}

/// A scope as lists are told apart by it: the same for lists of the same certificates, distribution points and reasons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeId([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Point {
    name: PointName,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certificates {
    All,
    Users,
    Authorities,
}

impl Scope {
    /// The scope of a list without the extension: everything that its issuer issued.
    pub(super) fn full() -> Self {
        Self::new(Vec::new(), Certificates::All, ReasonFlags::ALL, false)
    }

    fn new(mut points: Vec<Point>, certificates: Certificates, reasons: ReasonFlags, is_at_issuer: bool) -> Self {
        points.sort_unstable_by_key(|point| point.name);
        points.dedup_by_key(|point| point.name);
        let mut hash = Sha256::new();
        hash.update([match certificates {
            Certificates::All => 0,
            Certificates::Users => 1,
            Certificates::Authorities => 2,
        }]);
        hash.update(reasons.to_octets());
        points.iter().for_each(|point| hash.update(point.name.as_bytes()));
        Self { points, certificates, reasons, is_at_issuer, id: ScopeId(hash.finalize().into()) }
    }

    /// Reads the value of an issuing distribution point in a list of `issuer_der`.
    pub(super) fn read(value: &[u8], issuer_der: &[u8]) -> Result<Self, CrlFault> {
        let mut fields = der::only(value, der::SEQUENCE)?;
        let mut points = Vec::new();
        let mut is_at_issuer = false;
        if let Some(content) = fields.optional(0xa0)? {
            let issuer = PointName::directory(issuer_der)?;
            for name in names_of_point(content, issuer_der)? {
                is_at_issuer |= name.name == issuer;
                points.push(Point { name: name.name, text: name.text() });
            }
        }
        let users = flag(&mut fields, 0x81)?;
        let authorities = flag(&mut fields, 0x82)?;
        let reasons = fields.optional(0x83)?.map_or(Ok(ReasonFlags::ALL), ReasonFlags::from_bit_string)?;
        let indirect = flag(&mut fields, 0x84)?;
        let attributes = flag(&mut fields, 0x85)?;
        fields.finish()?;
        if indirect {
            return Err(CrlFault::Indirect);
        }
        let certificates = match (users, authorities, attributes) {
            (false, false, false) => Certificates::All,
            (true, false, false) => Certificates::Users,
            (false, true, false) => Certificates::Authorities,
            (false, false, true) => return Err(CrlFault::AttributeCertificates),
            _ => return Err(CrlFault::ContradictoryScope),
        };
        if reasons.is_empty() {
            return Err(CrlFault::ContradictoryScope);
        }
        Ok(Self::new(points, certificates, reasons, is_at_issuer))
    }

    /// The scope's identity.
    #[must_use]
    pub fn id(&self) -> ScopeId {
        self.id
    }

    /// Whether the list is about everything that its issuer issued, for every reason.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.points.is_empty() && self.certificates == Certificates::All && self.reasons == ReasonFlags::ALL
    }

    /// The reasons for which a list of this scope, and of the certificate's issuer, would name the certificate (§6.3.3 (b)
    /// to (d)).
    pub(super) fn covers(&self, certificate: &PathCertificate) -> ReasonFlags {
        let is_about = match self.certificates {
            Certificates::All => true,
            Certificates::Users => !certificate.is_ca,
            Certificates::Authorities => certificate.is_ca,
        };
        if !is_about {
            return ReasonFlags::NONE;
        }
        if self.points.is_empty() || self.is_at_issuer {
            return self.reasons;
        }
        let named = |name: PointName| self.points.iter().any(|point| point.name == name);
        let points = certificate.distribution_points.iter().filter(|point| named(point.name));
        points.fold(ReasonFlags::NONE, |all, point| all.union(point.reasons.intersection(self.reasons)))
    }

    /// Bytes on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.points.iter().map(|point| size_of::<Point>() + point.text.len()).sum()
    }
}

/// Such as `all certificates of the distribution point http://crl.example.com/1.crl`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.certificates {
            Certificates::All => "all certificates",
            Certificates::Users => "certificates of clients and servers (onlyContainsUserCerts)",
            Certificates::Authorities => "certificates of authorities (onlyContainsCACerts)",
        })?;
        if let Some((first, more)) = self.points.split_first() {
            write!(f, " of the distribution point {}", first.text)?;
            more.iter().try_for_each(|point| write!(f, " or {}", point.text))?;
        }
        if self.reasons == ReasonFlags::ALL { Ok(()) } else { write!(f, ", revoked for {}", self.reasons) }
    }
}

impl ScopeId {
    /// The scope with this hash, for what was kept outside of the process.
    pub(super) fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// An implicitly tagged BOOLEAN DEFAULT FALSE.
fn flag(fields: &mut Reader<'_>, tag: u8) -> Result<bool, DerFault> {
    match fields.optional(tag)? {
        None => Ok(false),
        Some([0xff]) => Ok(true),
        Some(_) => Err(DerFault::Content("a boolean that is neither absent nor true")),
    }
}
