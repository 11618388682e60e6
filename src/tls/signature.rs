//! Signatures over `SIGNED` structures (RFC 5280 §4.1.1.3), for CRLs: the revocation module parses, this room verifies.

use super::lib::hash::MessageDigest;
use super::lib::pkey::{Id, PKey};
use super::lib::rsa::Padding;
use super::lib::sign::{RsaPssSaltlen, Verifier};
use crate::revocation::SignedData;

/// What an AlgorithmIdentifier asks for.
enum Scheme {
    /// RSASSA-PKCS1-v1_5 (RFC 8017 §8.2) or ECDSA (RFC 5758 §3.2) with this digest.
    Digest(MessageDigest, Id),
    /// RSASSA-PSS (RFC 4055 §3.1) with this digest for both hash and mask, salt as long as the digest.
    Pss(MessageDigest),
    /// Ed25519 (RFC 8410): no separate digest.
    Ed25519,
}

/// Verifies that the key in `spki_der` (a SubjectPublicKeyInfo) signed `data`.
///
/// SHA-1 and MD5 aren't accepted: a forged CRL un-revokes.
///
/// # Errors
///
/// A text for the operator: unknown algorithm, key of another kind, or a signature that doesn't match.
pub fn verify_signed_data(data: &SignedData<'_>, spki_der: &[u8]) -> Result<(), String> {
    let scheme = scheme(data.algorithm_der)?;
    let key = PKey::public_key_from_der(spki_der).map_err(|e| format!("the issuer's key is unusable: {e}"))?;
    let outcome = match scheme {
        Scheme::Digest(digest, id) => {
            if key.id() != id {
                return Err("the signature algorithm does not fit the issuer's key".to_owned());
            }
            Verifier::new(digest, &key).and_then(|mut v| v.verify_oneshot(data.signature, data.tbs))
        }
        Scheme::Pss(digest) => Verifier::new(digest, &key).and_then(|mut v| {
            v.set_rsa_padding(Padding::PKCS1_PSS)?;
            v.set_rsa_mgf1_md(digest)?;
            v.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
            v.verify_oneshot(data.signature, data.tbs)
        }),
        Scheme::Ed25519 => {
            Verifier::new_without_digest(&key).and_then(|mut v| v.verify_oneshot(data.signature, data.tbs))
        }
    };
    match outcome {
        Ok(true) => Ok(()),
        // A malformed signature is an error of the library; to the operator it is the same fault.
        Ok(false) | Err(_) => Err("the signature is not the issuer's (wrong key, or the file was changed)".to_owned()),
    }
}

/// DER of the OBJECT IDENTIFIERs, tag and length included.
mod oid {
    pub(super) const RSA_SHA256: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
    pub(super) const RSA_SHA384: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c";
    pub(super) const RSA_SHA512: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d";
    pub(super) const RSA_PSS: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
    pub(super) const ECDSA_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    pub(super) const ECDSA_SHA384: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
    pub(super) const ECDSA_SHA512: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04";
    pub(super) const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
    pub(super) const SHA256: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01";
    pub(super) const SHA384: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02";
    pub(super) const SHA512: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03";
}

fn scheme(algorithm_der: &[u8]) -> Result<Scheme, String> {
    let unknown = || "its signature algorithm is not supported (RSA, ECDSA or Ed25519 with SHA-2 are)".to_owned();
    // An AlgorithmIdentifier is a short SEQUENCE: one tag byte, one length byte, then the OID.
    let body = algorithm_der.get(2..).ok_or_else(unknown)?;
    let digests = [
        (oid::SHA256, MessageDigest::sha256()),
        (oid::SHA384, MessageDigest::sha384()),
        (oid::SHA512, MessageDigest::sha512()),
    ];
    let plain = [
        (oid::RSA_SHA256, MessageDigest::sha256(), Id::RSA),
        (oid::RSA_SHA384, MessageDigest::sha384(), Id::RSA),
        (oid::RSA_SHA512, MessageDigest::sha512(), Id::RSA),
        (oid::ECDSA_SHA256, MessageDigest::sha256(), Id::EC),
        (oid::ECDSA_SHA384, MessageDigest::sha384(), Id::EC),
        (oid::ECDSA_SHA512, MessageDigest::sha512(), Id::EC),
    ];
    if let Some((_, digest, id)) = plain.iter().find(|(oid, ..)| body.starts_with(oid)) {
        return Ok(Scheme::Digest(*digest, *id));
    }
    if body.starts_with(oid::ED25519) {
        return Ok(Scheme::Ed25519);
    }
    if let Some(parameters) = body.strip_prefix(oid::RSA_PSS) {
        // Hash and mask hash must be the same one. Salt lengths other than the digest's fail in `verify`.
        let mut used = digests.iter().filter(|(oid, _)| parameters.windows(oid.len()).any(|window| window == *oid));
        if let (Some((_, digest)), None) = (used.next(), used.next()) {
            return Ok(Scheme::Pss(*digest));
        }
    }
    Err(unknown())
}
