//! Makes certificates: CAs, what they sign, and their CRLs.
//!
//! Used by the `pki` and `dev` commands, whose certificates are made by the same library that later verifies them.
//! Nothing here reads a clock or a file: dates are arguments, what comes out is PEM or DER.

use std::net::IpAddr;

use super::lib::asn1::Asn1Time;
use super::lib::error::ErrorStack;
use super::lib::x509::{X509, X509Ref};

mod crl;
mod der;
mod examine;
mod key;
mod pkcs12;
mod profile;

pub use crl::{CrlRequest, Revoked};
pub use examine::verified_path;
pub use key::{KeyFault, KeyKind, PrivateKey, PublicKey};
pub use pkcs12::pkcs12;

/// When a certificate or list holds. Both in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// notBefore, or the thisUpdate of a CRL.
    pub from: i64,
    /// notAfter, or the nextUpdate of a CRL.
    pub until: i64,
}

/// What a leaf may be used for: its extended key usage (RFC 5280 §4.2.1.12), exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// serverAuth.
    Server,
    /// clientAuth.
    Client,
}

/// How far down a CA's signatures may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Leaves only (pathlen 0).
    Leaves,
    /// Other CAs, which sign leaves (pathlen 1).
    Authorities,
}

/// A leaf to be signed.
#[derive(Debug, Clone)]
pub struct LeafRequest {
    /// What it is for.
    pub purpose: Purpose,
    /// The subject's CN.
    pub common_name: String,
    /// The subject's OU, if it has one.
    pub organizational_unit: Option<String>,
    /// SAN dNSName entries.
    pub dns: Vec<String>,
    /// SAN iPAddress entries.
    pub ips: Vec<IpAddr>,
    /// SAN uniformResourceIdentifier entries, such as a SPIFFE ID.
    pub uris: Vec<String>,
}

/// A certificate with its key. It has no `Debug`, for the key must not print.
pub struct Issued {
    /// The certificate alone, without its chain.
    pub certificate_pem: Vec<u8>,
    /// PKCS#8, not encrypted.
    pub key_pem: Vec<u8>,
}

/// Why a certificate could not be made or read. The text is the library's, with what was being done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to {step}: {cause}")]
pub struct IssueError {
    step: &'static str,
    cause: String,
}

impl IssueError {
    fn new(step: &'static str, cause: impl Into<String>) -> Self {
        Self { step, cause: cause.into() }
    }

    fn during(step: &'static str) -> impl Fn(ErrorStack) -> Self {
        move |stack| Self::new(step, stack.to_string())
    }
}

/// A CA with its key.
pub struct Authority {
    certificate: X509,
    key: PrivateKey,
}

impl Authority {
    /// Makes a root with a new ECDSA key, which may sign leaves and CRLs but no other CA.
    ///
    /// # Errors
    ///
    /// When the library refuses `common_name` (longer than 64 characters, say) or has no entropy.
    pub fn create(common_name: &str, validity: Validity) -> Result<Self, IssueError> {
        Self::root(common_name, PrivateKey::generate(KeyKind::EcdsaP256)?, Depth::Leaves, validity)
    }

    /// Signs a root for `key`.
    ///
    /// # Errors
    ///
    /// As [`Authority::create`].
    pub fn root(common_name: &str, key: PrivateKey, depth: Depth, validity: Validity) -> Result<Self, IssueError> {
        let step = "make a CA";
        let make = || {
            profile::name(common_name, None)
                .and_then(|name| profile::authority_builder(&name, &name, &key, depth, validity))
        };
        let mut builder = make().map_err(IssueError::during(step))?;
        builder.sign(key.library_key(), key.scheme()?.digest).map_err(IssueError::during(step))?;
        Ok(Self { certificate: builder.build(), key })
    }

    /// Signs a CA below this one, which may sign leaves and CRLs but no other CA.
    ///
    /// # Errors
    ///
    /// As [`Authority::create`].
    pub fn subordinate(&self, common_name: &str, key: PrivateKey, validity: Validity) -> Result<Self, IssueError> {
        let step = "make an intermediate CA";
        let make = || {
            let subject = profile::name(common_name, None)?;
            let issuer = self.certificate.subject_name();
            let mut builder = profile::authority_builder(&subject, issuer, &key, Depth::Leaves, validity)?;
            profile::append_issuer_key(&mut builder, &self.certificate)?;
            Ok(builder)
        };
        let mut builder = make().map_err(IssueError::during(step))?;
        builder.sign(self.key.library_key(), self.key.scheme()?.digest).map_err(IssueError::during(step))?;
        Ok(Self { certificate: builder.build(), key })
    }

    /// Takes up a CA made before, whose key is not encrypted.
    ///
    /// # Errors
    ///
    /// When one of the two is not PEM, or the key is another certificate's.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, IssueError> {
        let key = PrivateKey::from_pem(key_pem, None)
            .map_err(|fault| IssueError::new("read the CA's key", fault.to_string()))?;
        Self::from_parts(certificate_pem, key)
    }

    /// Takes up a CA made before.
    ///
    /// # Errors
    ///
    /// When the certificate is not PEM, or the key is another certificate's.
    pub fn from_parts(certificate_pem: &[u8], key: PrivateKey) -> Result<Self, IssueError> {
        let certificate = X509::from_pem(certificate_pem).map_err(IssueError::during("read the CA's certificate"))?;
        if !belongs(&certificate, &key) {
            return Err(IssueError::new("use the CA", "its key does not belong to its certificate"));
        }
        Ok(Self { certificate, key })
    }

    /// The certificate and its key as PEM.
    ///
    /// # Errors
    ///
    /// When the library runs out of memory.
    pub fn to_pem(&self) -> Result<Issued, IssueError> {
        Ok(Issued { certificate_pem: self.certificate_pem()?, key_pem: self.key.to_pem(None)? })
    }

    /// The certificate as PEM.
    ///
    /// # Errors
    ///
    /// When the library runs out of memory.
    pub fn certificate_pem(&self) -> Result<Vec<u8>, IssueError> {
        self.certificate.to_pem().map_err(IssueError::during("encode the CA"))
    }

    /// The certificate as DER.
    ///
    /// # Errors
    ///
    /// When the library runs out of memory.
    pub fn certificate_der(&self) -> Result<Vec<u8>, IssueError> {
        self.certificate.to_der().map_err(IssueError::during("encode the CA"))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Makes an ECDSA key and signs a leaf for it.
    ///
    /// # Errors
    ///
    /// When the library refuses a name.
    pub fn issue(&self, request: &LeafRequest, validity: Validity) -> Result<Issued, IssueError> {
        let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
        let der = self.sign_leaf(request, &key.public()?, validity)?;
        Ok(Issued { certificate_pem: certificate_pem(&der), key_pem: key.to_pem(None)? })
    }

    /// Signs a leaf for `key` and returns it as DER.
    ///
    /// # Errors
    ///
    /// When the library refuses a name.
    pub fn sign_leaf(&self, request: &LeafRequest, key: &PublicKey, validity: Validity) -> Result<Vec<u8>, IssueError> {
        let digest = self.key.scheme()?.digest;
        let sign = || {
            let mut builder = profile::leaf_builder(request, &self.certificate, key, validity)?;
            builder.sign(self.key.library_key(), digest)?;
            builder.build().to_der()
        };
        sign().map_err(IssueError::during("issue a certificate"))
    }

    /// Signs a CRL and returns it as DER.
    ///
    /// # Errors
    ///
    /// When a date lies outside the years 1970 to 9999, or the CA's key is of a kind that isn't supported.
    pub fn sign_crl(&self, request: &CrlRequest<'_>) -> Result<Vec<u8>, IssueError> {
        crl::sign(self, request)
    }

    /// Whether `issued` can still serve `request` until `until`: signed by this CA, its key its own, and good for
    /// every address and name asked for.
    ///
    /// Anything unreadable is simply not usable: the caller makes a new one.
    #[must_use]
    pub fn covers(&self, issued: &Issued, request: &LeafRequest, until: i64) -> bool {
        let Ok(certificate) = X509::from_pem(&issued.certificate_pem) else { return false };
        let Ok(key) = PrivateKey::from_pem(&issued.key_pem, None) else { return false };
        certificate.verify(self.key.library_key()).unwrap_or(false)
            && belongs(&certificate, &key)
            && outlives(&certificate, until)
            && has_names(&certificate, request)
    }

    /// Whether this CA itself is valid until `until`, in seconds since the Unix epoch.
    #[must_use]
    pub fn outlives(&self, until: i64) -> bool {
        outlives(&self.certificate, until)
    }
}

/// A certificate (DER) as PEM.
#[must_use]
pub fn certificate_pem(der: &[u8]) -> Vec<u8> {
    pem_block("CERTIFICATE", der)
}

/// A CRL (DER) as PEM.
#[must_use]
pub fn crl_pem(der: &[u8]) -> Vec<u8> {
    pem_block("X509 CRL", der)
}

/// RFC 7468: base64 in lines of 64 characters between two lines that say what it is.
fn pem_block(label: &str, der: &[u8]) -> Vec<u8> {
    let body = data_encoding::BASE64.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n").into_bytes();
    for line in body.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    pem
}

fn belongs(certificate: &X509Ref, key: &PrivateKey) -> bool {
    certificate.public_key().is_ok_and(|public| public.public_eq(key.library_key()))
}

fn outlives(certificate: &X509Ref, until: i64) -> bool {
    Asn1Time::from_unix(until).is_ok_and(|until| *certificate.not_after() > until)
}

/// Whether every name of `request` stands in the certificate; it may hold more.
fn has_names(certificate: &X509Ref, request: &LeafRequest) -> bool {
    let mut dns = Vec::new();
    let mut uris = Vec::new();
    let mut ips = Vec::new();
    for name in certificate.subject_alt_names().iter().flatten() {
        dns.extend(name.dnsname().map(str::to_owned));
        uris.extend(name.uri().map(str::to_owned));
        ips.extend(name.ipaddress().map(<[u8]>::to_vec));
    }
    request.dns.iter().all(|name| dns.contains(name))
        && request.uris.iter().all(|uri| uris.contains(uri))
        && request.ips.iter().all(|ip| ips.contains(&octets(*ip)))
}

/// An address as an iPAddress SAN holds it (RFC 5280 §4.2.1.6).
fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests;
