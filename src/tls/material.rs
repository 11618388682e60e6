//! Certificates and keys from files: read with bounds, checked against each other, described for the operator.

use std::path::Path;
use std::sync::Arc;

use pingora::utils::tls::CertKey;
use sha2::{Digest, Sha256};

use super::lib::asn1::{Asn1Time, Asn1TimeRef};
use super::lib::pkey::{PKey, Private};
use super::lib::x509::{X509, X509Ref};
use super::{backend, unix_now};
use crate::config::{ByteSize, read_bounded};
use crate::telemetry::CertificateKind;

/// No bundle of certificates in use is near this; a file above it is a mistake (a log, a disk image).
const MAX_FILE: ByteSize = ByteSize::from_mib(4);

/// Where systemd puts what `LoadCredential=` names, once, when the unit starts (systemd.exec(5), "Credentials").
pub(crate) const CREDENTIALS: &str = "/run/credentials";

/// Why a certificate, key or bundle can't be used. `field` is the key of the configuration it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaterialError {
    /// The configuration key relative to its section, such as `key` or `client_ca`.
    pub field: &'static str,
    /// What is wrong and the likely cause.
    pub message: String,
}

impl MaterialError {
    pub(super) fn new(field: &'static str, message: impl Into<String>) -> Self {
        MaterialError { field, message: message.into() }
    }
}

/// What a certificate says of itself, for metrics, warnings and the admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The subject in RFC 4514-like form, on one line.
    pub subject: String,
    /// Seconds since the Unix epoch.
    pub not_before: i64,
    /// Seconds since the Unix epoch.
    pub not_after: i64,
}

impl CertificateInfo {
    pub(super) fn of(certificate: &X509Ref) -> Self {
        CertificateInfo {
            subject: subject_line(certificate),
            not_before: unix_time(certificate.not_before()),
            not_after: unix_time(certificate.not_after()),
        }
    }

    /// A sentence for the operator when the certificate isn't valid now, or not for another `soon` seconds.
    #[must_use]
    pub fn validity_warning(&self, soon: i64) -> Option<String> {
        let now = unix_now();
        if self.not_after < now {
            Some(format!("the certificate of {} has expired: clients will refuse it", self.subject))
        } else if self.not_before > now {
            Some(format!("the certificate of {} is not valid yet: is the clock right?", self.subject))
        } else if self.not_after - now < soon {
            Some(format!("the certificate of {} expires in {} hours", self.subject, (self.not_after - now) / 3600))
        } else {
            None
        }
    }
}

/// A server certificate with its chain and private key, and the SNI names it answers to.
#[derive(Clone)]
pub struct ServerCertificate {
    pub(super) chain: Vec<X509>,
    pub(super) key: PKey<Private>,
    names: Vec<String>,
    info: CertificateInfo,
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("names", &self.names)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl ServerCertificate {
    /// Reads a PEM chain (leaf first) and its PEM key. `names` overrides the DNS names of the certificate.
    ///
    /// # Errors
    ///
    /// One error for each file that can't be used, or one when the two don't belong together.
    pub fn load(certificate: &Path, key: &Path, names: &[String]) -> Result<Self, Vec<MaterialError>> {
        let chain = read_chain(certificate).map_err(|message| MaterialError::new("certificate", message));
        let handed_over = key.starts_with(CREDENTIALS);
        let key = read_key(key).map_err(|message| MaterialError::new("key", message));
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let Some(leaf) = chain.first() else {
            return Err(vec![MaterialError::new("certificate", "holds no certificate")]);
        };
        let fits = leaf.public_key().is_ok_and(|public| public.public_eq(&key));
        if !fits {
            let cause = if handed_over {
                "systemd handed the key over when the service started: if it was renewed since, restart the service"
            } else {
                "was only one of the two files renewed, or is the chain not leaf first?"
            };
            let subject = subject_line(leaf);
            let message = format!("the key does not belong to the certificate of {subject} ({cause})");
            return Err(vec![MaterialError::new("key", message)]);
        }
        let info = CertificateInfo::of(leaf);
        let names = if names.is_empty() { dns_names(leaf) } else { names.to_vec() };
        let names = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(ServerCertificate { chain, key, names, info })
    }

    /// The lower-case names by which SNI chooses this certificate; `*.` stands for one label.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Subject and validity of the leaf.
    #[must_use]
    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }
}

/// What the gateway needs to speak TLS to an upstream: the CA to trust, and its own certificate if asked for one.
#[derive(Clone, Default)]
pub struct UpstreamMaterial {
    pub(crate) ca: Option<Arc<Box<[X509]>>>,
    pub(crate) client: Option<Arc<CertKey>>,
    expiries: Vec<(CertificateKind, CertificateInfo)>,
    digest: [u8; 32],
}

impl std::fmt::Debug for UpstreamMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamMaterial").field("expiries", &self.expiries).finish_non_exhaustive()
    }
}

impl UpstreamMaterial {
    /// Reads the CA bundle and the client certificate (with its key) of an upstream; each may be absent.
    ///
    /// # Errors
    ///
    /// One error for each file that can't be used.
    pub fn load(ca: Option<&Path>, client: Option<(&Path, &Path)>) -> Result<Self, Vec<MaterialError>> {
        let mut errors = Vec::new();
        let mut material = UpstreamMaterial::default();
        let mut hash = Sha256::new();
        match ca.map(read_chain) {
            Some(Ok(chain)) => {
                material.note(CertificateKind::UpstreamCa, &chain, &mut hash);
                material.ca = Some(Arc::new(chain.into_boxed_slice()));
            }
            Some(Err(message)) => errors.push(MaterialError::new("ca", message)),
            None => {}
        }
        match client.map(|(certificate, key)| ServerCertificate::load(certificate, key, &[])) {
            Some(Ok(loaded)) => {
                material.note(CertificateKind::UpstreamClient, &loaded.chain, &mut hash);
                material.client = Some(Arc::new(CertKey::new(loaded.chain, loaded.key)));
            }
            Some(Err(faults)) => errors.extend(faults),
            None => {}
        }
        material.digest = hash.finalize().into();
        if errors.is_empty() { Ok(material) } else { Err(errors) }
    }

    fn note(&mut self, kind: CertificateKind, chain: &[X509], hash: &mut Sha256) {
        for certificate in chain {
            self.expiries.push((kind, CertificateInfo::of(certificate)));
            // What can't be encoded was just decoded; a digest without it only means one rebuild too few.
            hash.update(certificate.to_der().unwrap_or_default());
        }
        hash.update([kind as u8]);
    }

    /// A hash of all certificates, by which a changed file is told from an unchanged one.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What each certificate is for and when it expires, in unix seconds.
    #[must_use]
    pub fn expiries(&self) -> &[(CertificateKind, CertificateInfo)] {
        &self.expiries
    }
}

/// Reads every certificate of a PEM file.
pub(super) fn read_chain(path: &Path) -> Result<Vec<X509>, String> {
    let pem = read_small(path)?;
    let name = path.display();
    match X509::stack_from_pem(&pem) {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) if looks_like_key(&pem) => {
            Err(format!("\"{name}\" holds a private key, not a certificate (are the two files swapped?)"))
        }
        Ok(_) => Err(format!(
            "\"{name}\" holds no certificate in PEM form (DER files must be converted: openssl x509 -inform der)"
        )),
        Err(_) => Err(format!("\"{name}\" holds a broken certificate (a half-written or truncated file?)")),
    }
}

fn read_key(path: &Path) -> Result<PKey<Private>, String> {
    let pem = read_small(path)?;
    let name = path.display();
    // The callback keeps OpenSSL from asking for a passphrase on the terminal, where nobody answers.
    PKey::private_key_from_pem_callback(&pem, |_| Ok(0)).map_err(|_| {
        if contains(&pem, b"ENCRYPTED") {
            format!("\"{name}\" is protected by a passphrase; the gateway starts unattended and needs a plain key (mode 0600)")
        } else if contains(&pem, b"BEGIN CERTIFICATE") {
            format!("\"{name}\" holds a certificate, not a private key (are the two files swapped?)")
        } else {
            format!("\"{name}\" holds no usable private key in PEM form (a half-written or truncated file?)")
        }
    })
}

/// Reads a small file, and refuses an empty one.
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read_bounded(path, MAX_FILE).map_err(|e| format!("\"{}\": {e}", path.display()))?;
    if bytes.is_empty() {
        return Err(format!(
            "\"{}\" is empty (an empty file is what a half-written Secret looks like)",
            path.display()
        ));
    }
    Ok(bytes)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn looks_like_key(pem: &[u8]) -> bool {
    contains(pem, b"PRIVATE KEY-----")
}

fn dns_names(certificate: &X509Ref) -> Vec<String> {
    let alternatives = certificate.subject_alt_names();
    alternatives.iter().flatten().filter_map(|name| name.dnsname().map(str::to_owned)).collect()
}

/// The subject on one line, with control characters escaped.
pub(super) fn subject_line(certificate: &X509Ref) -> String {
    let mut line = String::new();
    for entry in certificate.subject_name().entries() {
        let value = backend::text(entry.data()).unwrap_or_default().escape_default().to_string();
        let key = entry.object().nid().short_name().unwrap_or("?");
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(&format!("{key}={value}"));
    }
    if line.is_empty() { "(empty subject)".to_owned() } else { line }
}

fn unix_time(time: &Asn1TimeRef) -> i64 {
    let difference = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    difference.map_or(0, |d| i64::from(d.days) * 86_400 + i64::from(d.secs))
}
