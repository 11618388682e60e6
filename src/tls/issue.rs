//! Makes certificates: a CA, what it signs, and its CRL.
//!
//! Used by the `dev` command, whose PKI is made by the same library that later verifies it. Nothing here reads a clock
//! or a file: dates are arguments, what comes out is PEM or DER.

use std::net::IpAddr;

use super::backend;
use super::lib::asn1::{Asn1Integer, Asn1Time};
use super::lib::bn::BigNum;
use super::lib::ec::{EcGroup, EcKey};
use super::lib::error::ErrorStack;
use super::lib::hash::MessageDigest;
use super::lib::nid::Nid;
use super::lib::pkey::{HasPublic, PKey, PKeyRef, Private};
use super::lib::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use super::lib::x509::{X509, X509Builder, X509Extension, X509Name, X509NameRef, X509Ref};

mod crl;

pub use crl::CrlRequest;

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

/// A root CA with its key (ECDSA P-256, signing with SHA-256), which may sign leaves and CRLs but no other CA.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

impl Authority {
    /// Makes a new key and signs a root for it.
    ///
    /// # Errors
    ///
    /// When the library refuses `common_name` (longer than 64 characters, say) or has no entropy.
    pub fn create(common_name: &str, validity: Validity) -> Result<Self, IssueError> {
        Self::try_create(common_name, validity).map_err(IssueError::during("make a CA"))
    }

    /// Takes up a CA made before.
    ///
    /// # Errors
    ///
    /// When one of the two is not PEM, or the key is another certificate's.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, IssueError> {
        let certificate = X509::from_pem(certificate_pem).map_err(IssueError::during("read the CA's certificate"))?;
        let key = PKey::private_key_from_pem(key_pem).map_err(IssueError::during("read the CA's key"))?;
        if !belongs(&certificate, &key) {
            return Err(IssueError::new("use the CA", "its key does not belong to its certificate"));
        }
        Ok(Self { certificate, key })
    }

    /// The root and its key as PEM.
    ///
    /// # Errors
    ///
    /// When the library runs out of memory.
    pub fn to_pem(&self) -> Result<Issued, IssueError> {
        pem(&self.certificate, &self.key).map_err(IssueError::during("encode the CA"))
    }

    /// Makes a key and signs a leaf for it.
    ///
    /// # Errors
    ///
    /// When the library refuses a name.
    pub fn issue(&self, request: &LeafRequest, validity: Validity) -> Result<Issued, IssueError> {
        self.try_issue(request, validity).map_err(IssueError::during("issue a certificate"))
    }

    /// Signs a CRL and returns it as DER.
    ///
    /// # Errors
    ///
    /// When a certificate of the request is not PEM, or a date lies outside the years 1970 to 9999.
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
        let Ok(key) = PKey::private_key_from_pem(&issued.key_pem) else { return false };
        certificate.verify(&self.key).unwrap_or(false)
            && belongs(&certificate, &key)
            && outlives(&certificate, until)
            && has_names(&certificate, request)
    }

    /// Whether this CA itself is valid until `until`, in seconds since the Unix epoch.
    #[must_use]
    pub fn outlives(&self, until: i64) -> bool {
        outlives(&self.certificate, until)
    }

    fn try_create(common_name: &str, validity: Validity) -> Result<Self, ErrorStack> {
        let key = new_key()?;
        let name = name(common_name, None)?;
        let mut builder = builder(&name, &name, &key, validity)?;
        backend::append_extension(&mut builder, BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
        backend::append_extension(&mut builder, KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        let subject_key = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        backend::append_extension(&mut builder, subject_key)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: builder.build(), key })
    }

    fn try_issue(&self, request: &LeafRequest, validity: Validity) -> Result<Issued, ErrorStack> {
        let key = new_key()?;
        let subject = name(&request.common_name, request.organizational_unit.as_deref())?;
        let mut builder = builder(&subject, self.certificate.subject_name(), &key, validity)?;
        backend::append_extension(&mut builder, BasicConstraints::new().critical().build()?)?;
        backend::append_extension(&mut builder, KeyUsage::new().critical().digital_signature().build()?)?;
        backend::append_extension(&mut builder, usage(request.purpose)?)?;
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let subject_key = SubjectKeyIdentifier::new().build(&context)?;
        let issuer_key = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        let names = has_any_name(request).then(|| alternative_names(request).build(&context)).transpose()?;
        backend::append_extension(&mut builder, subject_key)?;
        backend::append_extension(&mut builder, issuer_key)?;
        if let Some(names) = names {
            backend::append_extension(&mut builder, names)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        pem(&builder.build(), &key)
    }
}

fn builder<T: HasPublic>(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKeyRef<T>,
    validity: Validity,
) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    let (not_before, not_after) = (Asn1Time::from_unix(validity.from)?, Asn1Time::from_unix(validity.until)?);
    let serial = serial()?;
    // The field counts from 0: this is v3.
    builder.set_version(2)?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&not_before)?;
    builder.set_not_after(&not_after)?;
    Ok(builder)
}

/// 127 random bits: positive whatever they are, and never long enough to break RFC 5280's 20 octets.
fn serial() -> Result<Asn1Integer, ErrorStack> {
    let mut bytes = [0; 16];
    super::random(&mut bytes)?;
    bytes[0] &= 0x7f;
    BigNum::from_slice(&bytes)?.to_asn1_integer()
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn name(common_name: &str, organizational_unit: Option<&str>) -> Result<X509Name, ErrorStack> {
    let mut name = X509Name::builder()?;
    if let Some(unit) = organizational_unit {
        name.append_entry_by_nid(Nid::ORGANIZATIONALUNITNAME, unit)?;
    }
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(name.build())
}

fn usage(purpose: Purpose) -> Result<X509Extension, ErrorStack> {
    let mut usage = ExtendedKeyUsage::new();
    match purpose {
        Purpose::Server => usage.server_auth(),
        Purpose::Client => usage.client_auth(),
    };
    usage.build()
}

fn has_any_name(request: &LeafRequest) -> bool {
    !(request.dns.is_empty() && request.ips.is_empty() && request.uris.is_empty())
}

fn alternative_names(request: &LeafRequest) -> SubjectAlternativeName {
    let mut names = SubjectAlternativeName::new();
    for dns in &request.dns {
        names.dns(dns);
    }
    for ip in &request.ips {
        names.ip(&ip.to_string());
    }
    for uri in &request.uris {
        names.uri(uri);
    }
    names
}

fn pem(certificate: &X509Ref, key: &PKeyRef<Private>) -> Result<Issued, ErrorStack> {
    Ok(Issued { certificate_pem: certificate.to_pem()?, key_pem: key.private_key_to_pem_pkcs8()? })
}

fn belongs(certificate: &X509Ref, key: &PKeyRef<Private>) -> bool {
    certificate.public_key().is_ok_and(|public| public.public_eq(key))
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
