//! Reading one certificate, and the rules that the TLS libraries leave open.

use std::collections::HashSet;

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AlgorithmIdentifier, X509Version};

use super::der::{self, Reader};
use super::point::{names_of_issuer, points_of_certificate};
use super::{CertificateFault, Description, DistributionPoint, IssuerId, PathCertificate, PeerIdentity, Serial};
use super::{Unusable, name, san};

/// Longest certificate in bytes. The TLS room bounds what a client may send to less; this holds for bundles as well.
const MAX_CERTIFICATE: usize = 64 * 1024;

/// Most certificates in a path, leaf and anchor included.
const MAX_PATH: usize = 16;

/// What is asked of certificates beyond RFC 5280's path validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRules {
    /// Whether the leaf must hold an extended key usage. One that is there must allow client authentication anyhow.
    pub require_eku: bool,
    /// Whether the leaf may be an X.509 version 1 certificate.
    pub allow_v1: bool,
    /// Shortest RSA modulus in bits, for every key of the path.
    pub min_rsa_bits: u32,
}

impl Default for LeafRules {
    fn default() -> Self {
        Self { require_eku: false, allow_v1: false, min_rsa_bits: 2048 }
    }
}

/// Reads and judges a verified path; see [`PeerIdentity::from_path`].
pub(super) fn identity_of(path: &[&[u8]], rules: &LeafRules) -> Result<PeerIdentity, CertificateFault> {
    if path.len() > MAX_PATH {
        return Err(CertificateFault::Malformed(format!("a path of {} certificates", path.len())));
    }
    let certificates = path.iter().map(|der| Certificate::parse(der)).collect::<Result<Vec<_>, _>>()?;
    let (leaf, issuers) = match certificates.as_slice() {
        [] => return Err(CertificateFault::Malformed("an empty path".to_owned())),
        [leaf] => return Err(CertificateFault::AnchorAsLeaf { subject: leaf.subject() }),
        [leaf, issuers @ ..] => (leaf, issuers),
    };
    leaf.check_leaf(rules)?;
    for certificate in &certificates {
        certificate.check_key(rules)?;
    }
    // The anchor is trusted for its key, not for its signature on itself, its version or its purposes.
    let below_anchor = certificates.len() - 1;
    for certificate in certificates.iter().take(below_anchor) {
        certificate.check_signature_algorithm()?;
    }
    for intermediate in issuers.iter().take(below_anchor - 1) {
        intermediate.check_intermediate()?;
    }
    let issuers_of = issuers.iter().chain(issuers.last());
    let path = certificates.iter().zip(issuers_of).map(|(certificate, issuer)| certificate.in_path(issuer));
    let mut path = path.collect::<Result<Vec<_>, _>>()?;
    if let Some(anchor) = path.last_mut() {
        anchor.is_anchor = true;
    }
    Ok(PeerIdentity::new(leaf.names()?, path))
}

/// Reads and judges a leaf without its path; see [`PeerIdentity::from_leaf`].
pub(super) fn identity_of_leaf(leaf: &[u8], rules: &LeafRules) -> Result<PeerIdentity, CertificateFault> {
    let leaf = Certificate::parse(leaf)?;
    leaf.check_leaf(rules)?;
    leaf.check_key(rules)?;
    leaf.check_signature_algorithm()?;
    Ok(PeerIdentity::new(leaf.names()?, Vec::new()))
}

/// A well-formed certificate without duplicate extensions.
pub(crate) struct Certificate<'a> {
    der: &'a [u8],
    parsed: X509Certificate<'a>,
    serial: Serial,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, CertificateFault> {
        let malformed = |what: &str| CertificateFault::Malformed(what.to_owned());
        if der.len() > MAX_CERTIFICATE {
            return Err(malformed("larger than 64 KiB"));
        }
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| malformed("not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow the certificate"));
        }
        let serial = Serial::from_der_content(parsed.tbs_certificate.raw_serial())
            .ok_or_else(|| malformed("the serial number is longer than 20 octets or padded"))?;
        let certificate = Self { der, parsed, serial };
        certificate.check_extensions()?;
        if certificate.parsed.signature_algorithm != certificate.parsed.tbs_certificate.signature {
            return Err(malformed("two different signature algorithms"));
        }
        Ok(certificate)
    }

    /// The subject in one printable line.
    pub(crate) fn subject(&self) -> String {
        name::display(self.subject_der())
    }

    pub(crate) fn subject_der(&self) -> &'a [u8] {
        self.parsed.tbs_certificate.subject.as_raw()
    }

    pub(crate) fn spki_der(&self) -> &'a [u8] {
        self.parsed.tbs_certificate.subject_pki.raw
    }

    /// This certificate's subject as an issuer.
    pub(crate) fn issuer_id(&self) -> Result<IssuerId, CertificateFault> {
        IssuerId::new(self.subject_der(), self.spki_der())
            .ok_or_else(|| CertificateFault::Malformed("the subject is not a name in DER".to_owned()))
    }

    /// Whether the key usage allows signing revocation lists; without the extension it does (RFC 5280 §6.3.3 (f)).
    pub(crate) fn may_sign_crls(&self) -> bool {
        self.key_usage().is_none_or(KeyUsage::crl_sign)
    }

    fn key_usage(&self) -> Option<&KeyUsage> {
        self.extension(|extension| if let ParsedExtension::KeyUsage(usage) = extension { Some(usage) } else { None })
    }

    fn extended_key_usage(&self) -> Option<&ExtendedKeyUsage<'a>> {
        self.extension(|ext| if let ParsedExtension::ExtendedKeyUsage(usage) = ext { Some(usage) } else { None })
    }

    fn alternative_names(&self) -> &[GeneralName<'a>] {
        let san = self.extension(|ext| match ext {
            ParsedExtension::SubjectAlternativeName(san) => Some(san.general_names.as_slice()),
            _ => None,
        });
        san.unwrap_or_default()
    }

    /// Names that can't be read name no list, so none counts for the certificate because of them.
    fn distribution_points(&self) -> Vec<DistributionPoint> {
        let tbs = &self.parsed.tbs_certificate;
        let value = |oid: &[u8]| tbs.extensions().iter().find(|ext| ext.oid.as_bytes() == oid).map(|ext| ext.value);
        let points = value(CRL_DISTRIBUTION_POINTS).map(|value| points_of_certificate(value, tbs.issuer.as_raw()));
        let mut points = points.and_then(Result::ok).unwrap_or_default();
        points.extend(value(ISSUER_ALTERNATIVE_NAME).map(names_of_issuer).and_then(Result::ok).unwrap_or_default());
        points
    }

    fn extension<'s, T: ?Sized>(&'s self, pick: impl FnMut(&'s ParsedExtension<'a>) -> Option<&'s T>) -> Option<&'s T> {
        self.parsed.tbs_certificate.extensions().iter().map(X509Extension::parsed_extension).find_map(pick)
    }

    fn is_v1(&self) -> bool {
        self.parsed.tbs_certificate.version != X509Version::V3
    }

    fn check_extensions(&self) -> Result<(), CertificateFault> {
        let extensions = self.parsed.tbs_certificate.extensions();
        if self.is_v1() && !extensions.is_empty() {
            return Err(CertificateFault::Malformed("extensions in a certificate of version 1 or 2".to_owned()));
        }
        let mut seen = HashSet::with_capacity(extensions.len());
        for extension in extensions {
            let oid = extension.oid.as_bytes();
            if !seen.insert(oid) {
                return Err(CertificateFault::DuplicateExtension { subject: self.subject(), oid: name::dotted(oid) });
            }
            let mut value = Reader::new(extension.value);
            let one_value = value.any().is_ok() && value.finish().is_ok();
            if !one_value || matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. }) {
                return Err(CertificateFault::Malformed(format!("extension {} can't be read", name::dotted(oid))));
            }
        }
        if self.alternative_names().len() > san::MAX_NAMES {
            return Err(CertificateFault::Malformed(format!("more than {} alternative names", san::MAX_NAMES)));
        }
        Ok(())
    }

    fn check_leaf(&self, rules: &LeafRules) -> Result<(), CertificateFault> {
        let wrong = |usage| Err(CertificateFault::WrongUsage { subject: self.subject(), usage });
        if self.is_v1() && !rules.allow_v1 {
            return Err(CertificateFault::Version1 { subject: self.subject() });
        }
        if self.parsed.is_ca() {
            return Err(CertificateFault::CaAsLeaf { subject: self.subject() });
        }
        if self.key_usage().is_some_and(|usage| !usage.digital_signature() && !usage.key_agreement()) {
            return wrong("key usage allows neither digitalSignature nor keyAgreement");
        }
        match self.extended_key_usage() {
            // As in OpenSSL and BoringSSL, anyExtendedKeyUsage doesn't stand for clientAuth in a leaf (RFC 5280
            // §4.2.1.12 leaves that to the application): such certificates weren't issued to be clients.
            Some(usage) if !usage.client_auth => wrong("extended key usage lacks clientAuth"),
            None if rules.require_eku => wrong("it has no extended key usage, and require_eku is set"),
            _ => Ok(()),
        }
    }

    fn check_intermediate(&self) -> Result<(), CertificateFault> {
        if self.is_v1() {
            return Err(CertificateFault::Version1 { subject: self.subject() });
        }
        // In an authority's certificate the extension bounds what its leaves may be for; `any` bounds nothing.
        match self.extended_key_usage() {
            Some(usage) if !usage.client_auth && !usage.any => Err(CertificateFault::WrongUsage {
                subject: self.subject(),
                usage: "the intermediate's extended key usage lacks clientAuth",
            }),
            _ => Ok(()),
        }
    }

    fn check_signature_algorithm(&self) -> Result<(), CertificateFault> {
        let algorithm = &self.parsed.signature_algorithm;
        let parameters = algorithm.parameters.as_ref().map(|any| any.data).unwrap_or_default();
        if is_strong_signature(algorithm.algorithm.as_bytes(), parameters) {
            return Ok(());
        }
        Err(CertificateFault::WeakSignature { subject: self.subject(), algorithm: signature_name(algorithm) })
    }

    fn check_key(&self, rules: &LeafRules) -> Result<(), CertificateFault> {
        let spki = &self.parsed.tbs_certificate.subject_pki;
        let weak = |key| Err(CertificateFault::WeakKey { subject: self.subject(), key });
        match spki.algorithm.algorithm.as_bytes() {
            RSA | RSA_PSS => match rsa_bits(&spki.subject_public_key.data) {
                Some(bits) if bits >= rules.min_rsa_bits => Ok(()),
                Some(bits) => weak(format!("RSA of {bits} bits; {} are needed", rules.min_rsa_bits)),
                None => weak("an unreadable RSA key".to_owned()),
            },
            EC => {
                let curve = spki.algorithm.parameters.as_ref().map(|any| any.data).unwrap_or_default();
                if CURVES.contains(&curve) {
                    Ok(())
                } else {
                    weak("a curve other than P-256, P-384 and P-521".to_owned())
                }
            }
            ED25519 | ED448 => Ok(()),
            other => weak(format!("of the algorithm {}", name::dotted(other))),
        }
    }

    fn in_path(&self, issuer: &Certificate<'_>) -> Result<PathCertificate, CertificateFault> {
        let validity = self.parsed.validity();
        Ok(PathCertificate {
            fingerprint: Sha256::digest(self.der).into(),
            issuer: issuer.issuer_id()?,
            serial: self.serial,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_ca: self.parsed.is_ca(),
            distribution_points: self.distribution_points(),
            is_anchor: false,
            subject: self.subject(),
        })
    }

    fn names(&self) -> Result<Description, CertificateFault> {
        let tbs = &self.parsed.tbs_certificate;
        let malformed = |fault| CertificateFault::Malformed(format!("the name can't be read: {fault}"));
        let subject = name::attributes(tbs.subject.as_raw()).map_err(malformed)?;
        let issuer = name::attributes(tbs.issuer.as_raw()).map_err(malformed)?;
        let san = san::names(self.alternative_names());
        let description = Description {
            subject: subject.usable,
            issuer: issuer.usable,
            dns: san.dns,
            uris: san.uris,
            emails: san.emails,
            ips: san.ips,
            unusable: Unusable { subject: subject.unusable, issuer: issuer.unusable, ..san.unusable },
            fingerprint: Sha256::digest(self.der).into(),
            spki: Sha256::digest(self.spki_der()).into(),
            not_after: Some(self.parsed.validity().not_after.timestamp()),
        };
        if description.is_nameless() {
            return Err(CertificateFault::NoUsableName { serial: self.serial });
        }
        Ok(description)
    }
}

const ISSUER_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x12];
const CRL_DISTRIBUTION_POINTS: &[u8] = &[0x55, 0x1d, 0x1f];

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const ED448: &[u8] = &[0x2b, 0x65, 0x71];

/// P-256, P-384, P-521.
const CURVES: [&[u8]; 3] = [
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
    &[0x2b, 0x81, 0x04, 0x00, 0x22],
    &[0x2b, 0x81, 0x04, 0x00, 0x23],
];

/// RSA with PKCS #1 v1.5 and ECDSA, each with SHA-256, SHA-384 and SHA-512; Ed25519 and Ed448.
const STRONG_SIGNATURES: [&[u8]; 8] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
    ED25519,
    ED448,
];

/// SHA-256, SHA-384, SHA-512.
const STRONG_HASHES: [&[u8]; 3] = [
    &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01],
    &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02],
    &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03],
];

/// Names of the weak algorithms that people still meet.
const WEAK_SIGNATURES: [(&[u8], &str); 5] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], "MD5 and RSA"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], "SHA-1 and RSA"),
    (RSA_PSS, "RSA-PSS with a weak hash"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], "SHA-1 and ECDSA"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x03], "SHA-1 and DSA"),
];

/// Whether a signature algorithm (object identifier and content of its parameters) still protects (SP 800-131A).
pub(crate) fn is_strong_signature(oid: &[u8], parameters: &[u8]) -> bool {
    STRONG_SIGNATURES.contains(&oid)
        || (oid == RSA_PSS && pss_hash(parameters).is_some_and(|h| STRONG_HASHES.contains(&h)))
}

/// The hash of RSASSA-PSS-params (RFC 4055 §3.1). Absent it is SHA-1, and so `None` here.
fn pss_hash(parameters: &[u8]) -> Option<&[u8]> {
    let explicit = Reader::new(parameters).optional(0xa0).ok()??;
    der::only(explicit, der::SEQUENCE).ok()?.read(der::OID).ok()
}

fn signature_name(algorithm: &AlgorithmIdentifier<'_>) -> String {
    let oid = algorithm.algorithm.as_bytes();
    match WEAK_SIGNATURES.iter().find(|(known, _)| *known == oid) {
        Some((_, name)) => (*name).to_owned(),
        None => name::dotted(oid),
    }
}

/// Length of the modulus of an `RSAPublicKey` (RFC 8017 §A.1.1) in bits.
fn rsa_bits(key: &[u8]) -> Option<u32> {
    let modulus = der::only(key, der::SEQUENCE).ok()?.read(der::INTEGER).ok()?;
    let significant = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let first = significant.first()?;
    Some(u32::try_from(significant.len()).ok()? * 8 - first.leading_zeros())
}
