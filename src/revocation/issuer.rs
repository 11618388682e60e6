//! Authorities whose lists count.

use crate::identity::{Certificate, CertificateFault, IssuerId, canonical_name};

/// An authority of a trust bundle, as the issuer of revocation lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issuer {
    /// Name and key.
    pub id: IssuerId,
    /// The subject's DER.
    pub name_der: Vec<u8>,
    /// The `SubjectPublicKeyInfo`'s DER.
    pub spki_der: Vec<u8>,
    /// The subject in one printable line.
    pub subject: String,
    /// Whether its key usage allows it to sign lists. Without the extension it may (RFC 5280 §6.3.3 (f)).
    pub may_sign_crls: bool,
    canonical_name: Vec<u8>,
}

impl Issuer {
    /// Reads a CA certificate (DER).
    ///
    /// # Errors
    ///
    /// [`CertificateFault::Malformed`] or [`CertificateFault::DuplicateExtension`] if it is no proper certificate.
    pub fn from_certificate(der: &[u8]) -> Result<Self, CertificateFault> {
        let certificate = Certificate::parse(der)?;
        let id = certificate.issuer_id()?;
        let canonical_name = canonical_name(certificate.subject_der())
            .map_err(|fault| CertificateFault::Malformed(format!("the subject can't be read: {fault}")))?;
        Ok(Self {
            id,
            name_der: certificate.subject_der().to_vec(),
            spki_der: certificate.spki_der().to_vec(),
            subject: certificate.subject(),
            may_sign_crls: certificate.may_sign_crls(),
            canonical_name,
        })
    }

    /// Whether this is the issuer's name, compared as RFC 5280 §7.1 asks.
    pub(super) fn is_named(&self, canonical_name: &[u8]) -> bool {
        self.canonical_name == canonical_name
    }
}
