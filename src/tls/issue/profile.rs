//! What stands in the certificates that are made here.

use super::super::backend::append_extension;
use super::super::lib::asn1::{Asn1Integer, Asn1Time};
use super::super::lib::bn::BigNum;
use super::super::lib::error::ErrorStack;
use super::super::lib::nid::Nid;
use super::super::lib::pkey::{HasPublic, PKeyRef};
use super::super::lib::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use super::super::lib::x509::{X509, X509Builder, X509Extension, X509Name, X509NameRef, X509Ref};
use super::{Depth, LeafRequest, PrivateKey, PublicKey, Purpose, Validity};

/// A CA certificate, ready to be signed.
pub(super) fn authority_builder(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PrivateKey,
    depth: Depth,
    validity: Validity,
) -> Result<X509Builder, ErrorStack> {
    let mut builder = builder(subject, issuer, key.library_key(), validity)?;
    append_extension(
        &mut builder,
        BasicConstraints::new().critical().ca().pathlen(u32::from(depth == Depth::Authorities)).build()?,
    )?;
    append_extension(&mut builder, KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    let subject_key = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    append_extension(&mut builder, subject_key)?;
    Ok(builder)
}

/// A leaf's certificate, ready to be signed.
pub(super) fn leaf_builder(
    request: &LeafRequest,
    issuer: &X509Ref,
    key: &PublicKey,
    validity: Validity,
) -> Result<X509Builder, ErrorStack> {
    let subject = name(&request.common_name, request.organizational_unit.as_deref())?;
    let mut builder = builder(&subject, issuer.subject_name(), key.library_key(), validity)?;
    append_extension(&mut builder, BasicConstraints::new().critical().build()?)?;
    append_extension(&mut builder, KeyUsage::new().critical().digital_signature().build()?)?;
    append_extension(&mut builder, usage(request.purpose)?)?;
    let context = builder.x509v3_context(Some(issuer), None);
    let subject_key = SubjectKeyIdentifier::new().build(&context)?;
    let names = has_any_name(request).then(|| alternative_names(request).build(&context)).transpose()?;
    append_extension(&mut builder, subject_key)?;
    append_issuer_key(&mut builder, issuer)?;
    if let Some(names) = names {
        append_extension(&mut builder, names)?;
    }
    Ok(builder)
}

/// The identifier of the issuer's key, unless the issuer's certificate has none: older ones of other tools don't.
pub(super) fn append_issuer_key(builder: &mut X509Builder, issuer: &X509Ref) -> Result<(), ErrorStack> {
    if issuer.subject_key_id().is_none() {
        return Ok(());
    }
    let issuer_key = AuthorityKeyIdentifier::new().keyid(true).build(&builder.x509v3_context(Some(issuer), None))?;
    append_extension(builder, issuer_key)
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

/// 128 random bits as a positive number: at most 17 of the 20 octets that RFC 5280 §4.1.2.2 allows. Nobody can guess
/// the next one, and no counter has to be kept.
pub(super) fn serial() -> Result<Asn1Integer, ErrorStack> {
    let mut bytes = [0; 16];
    super::super::random(&mut bytes)?;
    BigNum::from_slice(&bytes)?.to_asn1_integer()
}

pub(super) fn name(common_name: &str, organizational_unit: Option<&str>) -> Result<X509Name, ErrorStack> {
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
