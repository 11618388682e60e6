//! Distribution points: the names under which an authority publishes parts of its revocation lists, in certificates
//! (RFC 5280 §4.2.1.13) and in the lists themselves (§5.2.5).

use std::fmt;

use sha2::{Digest, Sha256};

use super::der::{self, DerFault, Reader};
use super::name;

/// Most names of distribution points that are read from one certificate; the others name no list.
const MAX_NAMES: usize = 64;

/// Tags of `GeneralName`.
const DIRECTORY_NAME: u8 = 0xa4;
const URI: u8 = 0x86;

/// A name of a distribution point as names are compared: the same for equal names.
///
/// A hash, so that a connection keeps a few octets of each name. Distinguished names are compared as RFC 5280 §7.1 asks,
/// others by their DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointName([u8; 16]);

impl PointName {
    /// The name that consists of this distinguished name.
    pub(crate) fn directory(name_der: &[u8]) -> Result<Self, DerFault> {
        Ok(Self::hashed(&[&[DIRECTORY_NAME], &name::canonical(name_der)?]))
    }

    /// The name that `issuer_der` gives with one more set at its end (the content of a `RelativeDistinguishedName`).
    fn relative(issuer_der: &[u8], set: &[u8]) -> Result<Self, DerFault> {
        let canonical = name::canonical(issuer_der)?;
        Ok(Self::hashed(&[&[DIRECTORY_NAME], &canonical, &name::canonical_set(set)?]))
    }

    fn hashed(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        let digest: [u8; 32] = hash.finalize().into();
        let mut name = [0; 16];
        name.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(name)
    }

    /// The hash itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for PointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Where revocations of a certificate are published for some reasons: one name of one of its distribution points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DistributionPoint {
    /// The name.
    pub name: PointName,
    /// The reasons that are published there.
    pub reasons: ReasonFlags,
}

/// A set of reasons for which certificates are revoked (RFC 5280 §4.2.1.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonFlags(u16);

/// Names of the reasons, in the order of their bits from bit 1 on. Bit 0 is unused.
const REASONS: [&str; ReasonFlags::COUNT] = [
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
    "aACompromise",
];

impl ReasonFlags {
    /// How many reasons there are.
    pub const COUNT: usize = 8;
    /// Every reason.
    pub const ALL: Self = Self(0x7f80);
    /// No reason.
    pub const NONE: Self = Self(0);

    /// Reads the content octets of a BIT STRING of named bits. Bits that have no name yet are passed over.
    pub(crate) fn from_bit_string(content: &[u8]) -> Result<Self, DerFault> {
        let malformed = DerFault::Content("malformed reason flags");
        let (&unused, octets) = content.split_first().ok_or(malformed)?;
        let last = octets.last().copied().unwrap_or(0);
        if unused > 7 || octets.is_empty() && unused > 0 || last.trailing_zeros() < u32::from(unused) {
            return Err(malformed);
        }
        let octet = |at: usize| octets.get(at).copied().unwrap_or(0);
        Ok(Self(u16::from_be_bytes([octet(0), octet(1)]) & Self::ALL.0))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The reasons of both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The reasons of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// For each reason, in a fixed order, whether it is in the set.
    pub(crate) fn each(self) -> [bool; Self::COUNT] {
        std::array::from_fn(|reason| self.0 & (0x4000 >> reason) != 0)
    }

    /// The flags as two octets, bit 0 first.
    pub(crate) fn to_octets(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for ReasonFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, _) in REASONS.iter().zip(self.each()).filter(|(_, is_in)| *is_in) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// A name in a `DistributionPointName`.
pub(crate) struct NameOfPoint<'a> {
    pub(crate) name: PointName,
    form: Form<'a>,
}

enum Form<'a> {
    Directory(&'a [u8]),
    Relative(&'a [u8]),
    Uri(&'a [u8]),
    Other(u8),
}

impl NameOfPoint<'_> {
    /// The name in one printable line.
    pub(crate) fn text(&self) -> String {
        match self.form {
            Form::Directory(name_der) => name::display(name_der),
            Form::Relative(set) => format!("{} below the issuer", name::display_set(set)),
            Form::Uri(uri) => name::shorten(name::escape_invisible(&String::from_utf8_lossy(uri)), 512),
            Form::Other(tag) => format!("(name of kind {})", tag & 0x1f),
        }
    }
}

/// Reads a `DistributionPointName` (the content of its context tag). A relative name is below `issuer_der`.
pub(crate) fn names_of_point<'a>(content: &'a [u8], issuer_der: &[u8]) -> Result<Vec<NameOfPoint<'a>>, DerFault> {
    let mut choice = Reader::new(content);
    let names = match choice.peek() {
        Some(0xa1) => {
            let set = choice.read(0xa1)?;
            vec![NameOfPoint { name: PointName::relative(issuer_der, set)?, form: Form::Relative(set) }]
        }
        _ => general_names(choice.read(0xa0)?)?,
    };
    choice.finish()?;
    if names.is_empty() {
        return Err(DerFault::Content("a distribution point without names"));
    }
    Ok(names)
}

/// Reads the content of `GeneralNames`.
fn general_names(content: &[u8]) -> Result<Vec<NameOfPoint<'_>>, DerFault> {
    let mut reader = Reader::new(content);
    let mut names = Vec::new();
    while !reader.is_empty() {
        if names.len() == MAX_NAMES {
            return Err(DerFault::Content("too many names of a distribution point"));
        }
        let (tag, content, whole) = reader.any()?;
        names.push(match tag {
            DIRECTORY_NAME => NameOfPoint { name: PointName::directory(content)?, form: Form::Directory(content) },
            URI => NameOfPoint { name: PointName::hashed(&[whole]), form: Form::Uri(content) },
            _ => NameOfPoint { name: PointName::hashed(&[whole]), form: Form::Other(tag) },
        });
    }
    Ok(names)
}

/// Reads the extension cRLDistributionPoints of a certificate that `issuer_der` issued.
///
/// A point with a cRLIssuer is left out: what another issuer publishes about this certificate is an indirect list, and
/// no list of the certificate's own issuer belongs to that point (§6.3.3 (b) (1)). A point without a name is left out,
/// too: it says no more than what holds of every certificate.
pub(super) fn points_of_certificate(value: &[u8], issuer_der: &[u8]) -> Result<Vec<DistributionPoint>, DerFault> {
    let mut points = der::only(value, der::SEQUENCE)?;
    let mut found = Vec::new();
    while !points.is_empty() {
        let mut point = Reader::new(points.read(der::SEQUENCE)?);
        let names = point.optional(0xa0)?;
        let reasons = point.optional(0x81)?.map_or(Ok(ReasonFlags::ALL), ReasonFlags::from_bit_string)?;
        let is_indirect = point.optional(0xa2)?.is_some();
        point.finish()?;
        let (Some(names), false) = (names, is_indirect) else { continue };
        let names = names_of_point(names, issuer_der)?;
        found.extend(names.iter().map(|name| DistributionPoint { name: name.name, reasons }));
    }
    found.truncate(MAX_NAMES);
    Ok(found)
}

/// Reads the extension issuerAltName. Its names stand for the issuer itself, as its distinguished name does, and a list
/// published under one of them counts for every certificate of it (§6.3.3, at the end).
pub(super) fn names_of_issuer(value: &[u8]) -> Result<Vec<DistributionPoint>, DerFault> {
    let mut names = Reader::new(value);
    let found = general_names(names.read(der::SEQUENCE)?)?;
    Ok(found.iter().map(|name| DistributionPoint { name: name.name, reasons: ReasonFlags::ALL }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{CN, O, common_name, name, sequence, tlv};

    fn uri(text: &str) -> Vec<u8> {
        tlv(URI, text.as_bytes())
    }

    /// A distribution point of these parts.
    fn point(parts: &[Vec<u8>]) -> Vec<u8> {
        sequence(parts)
    }

    fn full_name(names: &[Vec<u8>]) -> Vec<u8> {
        tlv(0xa0, &tlv(0xa0, &names.concat()))
    }

    fn read(points: &[Vec<u8>]) -> Vec<DistributionPoint> {
        points_of_certificate(&sequence(points), &common_name("Test CA")).unwrap()
    }

    #[test]
    fn equal_names_are_equal_in_any_form() {
        let directory = |name_der: &[u8]| full_name(&[tlv(DIRECTORY_NAME, name_der)]);
        let plain = name(&[(CN, 0x0c, b"Test CA"), (O, 0x0c, b"Part 1")]);
        let other_spelling = name(&[(CN, 0x13, b"TEST  ca"), (O, 0x13, b"part 1")]);
        let relative = sequence(&[tlv(der::OID, O), tlv(0x0c, b"Part 1")]);
        let found = read(&[
            point(&[directory(&plain)]),
            point(&[directory(&other_spelling)]),
            point(&[tlv(0xa0, &tlv(0xa1, &relative))]),
            point(&[directory(&common_name("Test CA"))]),
        ]);
        assert_eq!((found[0], found[0]), (found[1], found[2]));
        assert_ne!(found[0], found[3]);
        assert_eq!(found[3].name, PointName::directory(&common_name("test ca")).unwrap());
    }

    #[test]
    fn all_names_of_a_point_have_its_reasons() {
        let reasons = tlv(0x81, &[0x06, 0x40]);
        let found = read(&[point(&[full_name(&[uri("http://a"), uri("http://b")]), reasons]), {
            point(&[full_name(&[uri("http://A")])])
        }]);
        assert_eq!(found.iter().map(|p| p.reasons.to_string()).collect::<Vec<_>>()[..2], ["keyCompromise"; 2]);
        assert_eq!(found[2].reasons, ReasonFlags::ALL);
        assert_eq!(found.iter().map(|p| p.name).collect::<std::collections::BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn points_of_another_crl_issuer_and_without_name_are_left_out() {
        let crl_issuer = tlv(0xa2, &tlv(DIRECTORY_NAME, &common_name("Test CA")));
        assert!(read(&[point(&[full_name(&[uri("http://a")]), crl_issuer.clone()]), point(&[crl_issuer])]).is_empty());
        assert!(read(&[point(&[tlv(0x81, &[0x06, 0x40])])]).is_empty());
        let many: Vec<_> = (0..2 * MAX_NAMES).map(|n| point(&[full_name(&[uri(&n.to_string())])])).collect();
        assert_eq!(read(&many).len(), MAX_NAMES);
    }

    #[test]
    fn broken_points_are_faults() {
        for points in [
            point(&[full_name(&[])]),
            point(&[tlv(0xa0, &[])]),
            point(&[tlv(0xa0, &tlv(0xa1, &[]))]),
            point(&[full_name(&[uri("a")]), tlv(0x81, &[])]),
            point(&[full_name(&[uri("a")]), tlv(0x81, &[0x08, 0x00])]),
            point(&[full_name(&[uri("a")]), tlv(0x81, &[0x06, 0x41])]),
            point(&[full_name(&[uri("a")]), tlv(0x81, &[0x06])]),
            point(&[tlv(0x81, &[0x06, 0x40]), full_name(&[uri("a")])]),
        ] {
            let value = sequence(std::slice::from_ref(&points));
            assert!(points_of_certificate(&value, &common_name("Test CA")).is_err(), "{points:02x?}");
        }
    }

    #[test]
    fn reasons_are_read_bit_by_bit() {
        let read = |content: &[u8]| ReasonFlags::from_bit_string(content).unwrap();
        assert_eq!(read(&[0x07, 0x7f, 0x80]), ReasonFlags::ALL);
        assert_eq!(read(&[0x07, 0xff, 0x80]), ReasonFlags::ALL, "the unused bit says nothing");
        assert_eq!(read(&[0x00]), ReasonFlags::NONE);
        assert_eq!(read(&[0x05, 0x60]).to_string(), "keyCompromise, cACompromise");
        assert_eq!(read(&[0x07, 0x00, 0x80]).each().map(usize::from).iter().sum::<usize>(), 1);
        assert_eq!(read(&[0x05, 0x60]).union(read(&[0x07, 0x1f, 0x80])), ReasonFlags::ALL);
    }
}
