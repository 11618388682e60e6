//! The client CA bundle: which roots are trusted, which intermediates are known.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::lib::error::ErrorStack;
use super::lib::x509::X509;
use super::lib::x509::store::{X509Store, X509StoreBuilder};
use super::material::{MaterialError, read_chain};
use super::{CertificateInfo, material};
use crate::revocation::Issuer;

/// More certificates than any private PKI has in use; beyond it, a public bundle was configured by mistake.
const MAX_CERTIFICATES: usize = 512;

/// The certificates that may vouch for a client, as configured by `client_ca`.
///
/// Self-signed certificates are the anchors. The others are intermediates a client need not send; each must lead to an
/// anchor of the same bundle, since otherwise it would be dead weight that looks like trust.
pub struct TrustBundle {
    certificates: Vec<X509>,
    fingerprints: Vec<[u8; 32]>,
    issuers: Vec<Issuer>,
    infos: Vec<CertificateInfo>,
    anchors: Vec<String>,
    hash: [u8; 32],
}

impl std::fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustBundle").field("certificates", &self.infos).finish_non_exhaustive()
    }
}

impl TrustBundle {
    /// Reads a PEM bundle.
    ///
    /// # Errors
    ///
    /// No certificate, one that isn't a CA, or an intermediate without its root: all of them at once.
    pub fn load(path: &Path) -> Result<Arc<Self>, Vec<MaterialError>> {
        let fault = |message: String| MaterialError::new("client_ca", message);
        let certificates = read_chain(path).map_err(|message| vec![fault(message)])?;
        if certificates.len() > MAX_CERTIFICATES {
            return Err(vec![fault(format!(
                "\"{}\" holds {} certificates; a client CA bundle lists your private CAs, not the public ones",
                path.display(),
                certificates.len()
            ))]);
        }
        let mut bundle = TrustBundle {
            fingerprints: Vec::new(),
            issuers: Vec::new(),
            infos: Vec::new(),
            anchors: Vec::new(),
            hash: [0; 32],
            certificates,
        };
        let faults = bundle.examine();
        if !faults.is_empty() {
            let name = path.display();
            return Err(faults.into_iter().map(|message| fault(format!("\"{name}\": {message}"))).collect());
        }
        Ok(Arc::new(bundle))
    }

    /// Fills in what is derived from the certificates, and returns what is wrong with them.
    fn examine(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut names = Vec::new();
        for (index, certificate) in self.certificates.iter().enumerate() {
            let subject = material::subject_line(certificate);
            let place = format!("certificate {} ({subject})", index + 1);
            let Ok(der) = certificate.to_der() else {
                faults.push(format!("{place} cannot be encoded"));
                continue;
            };
            self.fingerprints.push(Sha256::digest(&der).into());
            let Ok((_, parsed)) = X509Certificate::from_der(&der) else {
                faults.push(format!("{place} is malformed"));
                continue;
            };
            let own_issuer = parsed.subject().as_raw() == parsed.issuer().as_raw();
            if !is_ca(&parsed, own_issuer) {
                faults
                    .push(format!("{place} is not a CA certificate (a leaf in the bundle would never match anything)"));
            }
            names.push((place, parsed.subject().as_raw().to_vec(), parsed.issuer().as_raw().to_vec()));
            match Issuer::from_certificate(&der) {
                Ok(issuer) => self.issuers.push(issuer),
                Err(e) => faults.push(format!("certificate {}: {e}", index + 1)),
            }
            self.infos.push(CertificateInfo::of(certificate));
            if own_issuer {
                self.anchors.push(subject);
            }
        }
        for (place, subject, issuer) in &names {
            if subject != issuer && !names.iter().any(|(_, other, _)| other == issuer) {
                faults.push(format!(
                    "{place} is an intermediate whose issuer is not in the bundle: add the root it leads to"
                ));
            }
        }
        self.fingerprints.sort_unstable();
        let mut hash = Sha256::new();
        for fingerprint in &self.fingerprints {
            hash.update(fingerprint);
        }
        self.hash = hash.finalize().into();
        faults
    }

    /// The CAs whose CRLs can be checked.
    #[must_use]
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Subject and validity of each certificate, in the order of the file.
    #[must_use]
    pub fn infos(&self) -> &[CertificateInfo] {
        &self.infos
    }

    /// The subjects of the anchors, each in one printable line, in the order of the file.
    #[must_use]
    pub fn anchors(&self) -> &[String] {
        &self.anchors
    }

    /// A hash over the set of certificates: equal bundles in any order have equal hashes.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Whether the certificate with this SHA-256 fingerprint stands in the bundle.
    #[must_use]
    pub fn contains(&self, fingerprint: &[u8; 32]) -> bool {
        self.fingerprints.binary_search(fingerprint).is_ok()
    }

    /// Whether an authority is in both, by name and key.
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        self.issuers.iter().any(|issuer| other.issuers.iter().any(|one| one.id == issuer.id))
    }

    pub(super) fn store(&self) -> Result<X509Store, ErrorStack> {
        let mut builder = X509StoreBuilder::new()?;
        for certificate in &self.certificates {
            builder.add_cert(certificate.clone())?;
        }
        Ok(builder.build())
    }

    /// The certificates whose names a server sends, so that clients choose the right one (RFC 8446 §4.2.4).
    pub(super) fn certificates(&self) -> &[X509] {
        &self.certificates
    }
}

/// RFC 5280 §4.2.1.9: a v3 certificate is a CA if it says so. A v1 root has no way to say it and is taken at its word.
fn is_ca(certificate: &X509Certificate<'_>, own_issuer: bool) -> bool {
    match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => own_issuer && certificate.version() == x509_parser::x509::X509Version::V1,
        Err(_) => false,
    }
}
