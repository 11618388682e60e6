//! Revocation lists for tests, written octet by octet.

use std::time::Duration;

use super::{Check, Freshness, Issuer, Settings, SignedData};
use crate::identity::der;
use crate::identity::testing::{SHA256_RSA, TestCertificate, algorithm, bit_string, extension, sequence, tlv};
use crate::identity::{LeafRules, PathCertificate, PeerIdentity};

/// 2025-01-01, when the tests play.
pub(super) const NOW: i64 = 1_735_689_600;
pub(super) const DAY: i64 = 86_400;

pub(super) const SETTINGS: Settings = Settings {
    freshness: Freshness::Required,
    check: Check::Chain,
    grace: Duration::ZERO,
    clock_skew: Duration::from_mins(1),
};

pub(super) const REASON_CODE: &[u8] = &[0x55, 0x1d, 0x15];

/// A list of the authority `CN=Test CA`, valid from a day before [`NOW`] to a day after it.
#[derive(Clone)]
pub(super) struct TestCrl {
    pub(super) version: Option<u8>,
    pub(super) algorithm: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    /// The key that signs it, as the test's verification understands it.
    pub(super) signed_by: Vec<u8>,
    pub(super) this_update: String,
    pub(super) next_update: Option<String>,
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) extensions: Vec<Vec<u8>>,
}

impl TestCrl {
    pub(super) fn of(authority: &TestCertificate, number: u8, serials: &[&[u8]]) -> Self {
        Self {
            version: Some(1),
            algorithm: algorithm(SHA256_RSA),
            issuer: authority.subject.clone(),
            signed_by: authority.spki.clone(),
            this_update: "241231000000Z".to_owned(),
            next_update: Some("250102000000Z".to_owned()),
            entries: serials.iter().map(|serial| entry(serial, &[])).collect(),
            extensions: vec![crl_number(&[number])],
        }
    }

    pub(super) fn new(number: u8, serials: &[&[u8]]) -> Self {
        Self::of(&TestCertificate::authority(), number, serials)
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn der(&self) -> Vec<u8> {
        let mut tbs = Vec::new();
        tbs.extend(self.version.map(|version| tlv(der::INTEGER, &[version])));
        tbs.push(self.algorithm.clone());
        tbs.push(self.issuer.clone());
        tbs.push(tlv(der::UTC_TIME, self.this_update.as_bytes()));
        tbs.extend(self.next_update.as_ref().map(|time| tlv(der::UTC_TIME, time.as_bytes())));
        if !self.entries.is_empty() {
            tbs.push(sequence(&self.entries));
        }
        if !self.extensions.is_empty() {
            tbs.push(tlv(0xa0, &sequence(&self.extensions)));
        }
        sequence(&[sequence(&tbs), self.algorithm.clone(), bit_string(&self.signed_by)])
    }
}

pub(super) fn crl_number(content: &[u8]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 0x14], false, &tlv(der::INTEGER, content))
}

/// A revoked certificate with the content octets of its serial number.
pub(super) fn entry(serial: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut entry = vec![tlv(der::INTEGER, serial), tlv(der::UTC_TIME, b"240601000000Z")];
    if !extensions.is_empty() {
        entry.push(sequence(extensions));
    }
    sequence(&entry)
}

/// The extension that makes a list a delta.
pub(super) fn delta_of(base: u8) -> Vec<u8> {
    extension(&[0x55, 0x1d, 0x1b], true, &tlv(der::INTEGER, &[base]))
}

/// An issuing distribution point of these fields.
pub(super) fn scope(fields: &[Vec<u8>]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 0x1c], true, &sequence(fields))
}

/// Fields of an issuing distribution point.
pub(super) const USERS: &[u8] = &[0x81, 0x01, 0xff];
pub(super) const AUTHORITIES: &[u8] = &[0x82, 0x01, 0xff];
pub(super) const INDIRECT: &[u8] = &[0x84, 0x01, 0xff];
pub(super) const ATTRIBUTES: &[u8] = &[0x85, 0x01, 0xff];
/// keyCompromise and cACompromise, and all others.
pub(super) const COMPROMISE: &[u8] = &[0x83, 0x02, 0x05, 0x60];
pub(super) const OTHER_REASONS: &[u8] = &[0x83, 0x03, 0x07, 0x1f, 0x80];

/// The field `distributionPoint` with this URI; the same in certificates and lists.
pub(super) fn at(uri: &str) -> Vec<u8> {
    tlv(0xa0, &tlv(0xa0, &tlv(0x86, uri.as_bytes())))
}

/// The field `distributionPoint` with this distinguished name.
pub(super) fn at_directory(name_der: &[u8]) -> Vec<u8> {
    tlv(0xa0, &tlv(0xa0, &tlv(0xa4, name_der)))
}

/// The extension cRLDistributionPoints, with the fields of each point.
pub(super) fn distribution_points(points: &[&[Vec<u8>]]) -> Vec<u8> {
    let points: Vec<_> = points.iter().map(|fields| sequence(fields)).collect();
    extension(&[0x55, 0x1d, 0x1f], false, &sequence(&points))
}

pub(super) fn reason(code: u8) -> Vec<u8> {
    extension(REASON_CODE, false, &tlv(der::ENUMERATED, &[code]))
}

/// A signature is good if it consists of the issuer's key.
pub(super) fn verify(signed: &SignedData<'_>, spki: &[u8]) -> Result<(), String> {
    if signed.signature == spki { Ok(()) } else { Err("the signature doesn't match".to_owned()) }
}

pub(super) fn issuer(authority: &TestCertificate) -> Issuer {
    Issuer::from_certificate(&authority.der()).unwrap()
}

/// The path of a client with this serial number, below these authorities (leaf's issuer first).
pub(super) fn path(serial: &[u8], authorities: &[TestCertificate]) -> Vec<PathCertificate> {
    path_of(&TestCertificate { serial: serial.to_vec(), ..TestCertificate::client() }, authorities)
}

pub(super) fn path_of(client: &TestCertificate, authorities: &[TestCertificate]) -> Vec<PathCertificate> {
    let path: Vec<_> = std::iter::once(client).chain(authorities).map(TestCertificate::der).collect();
    let path: Vec<_> = path.iter().map(Vec::as_slice).collect();
    PeerIdentity::from_path(&path, &LeafRules::default()).unwrap().path
}

/// Numbers that look random and are the same in every run (`SplitMix64`).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`.
    pub(super) fn below(&mut self, bound: u8) -> u8 {
        u8::try_from(self.next() % u64::from(bound)).unwrap()
    }

    pub(super) fn octets<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_be_bytes()[0])
    }
}
