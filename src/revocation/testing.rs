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
    let client = TestCertificate { serial: serial.to_vec(), ..TestCertificate::client() };
    let path: Vec<_> = std::iter::once(&client).chain(authorities).map(TestCertificate::der).collect();
    let path: Vec<_> = path.iter().map(Vec::as_slice).collect();
    PeerIdentity::from_path(&path, &LeafRules::default()).unwrap().path
}
