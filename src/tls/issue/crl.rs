//! A CRL, encoded here because BoringSSL's binding can't make one.

use super::super::lib::sign::Signer;
use super::der::{BIT_STRING, ENUMERATED, INTEGER, OCTET_STRING, SEQUENCE, element, sequence, time, unsigned};
use super::{Authority, IssueError, Validity};
use crate::identity::Serial;
use crate::revocation::Reason;

/// A full CRL of one CA (RFC 5280 §5).
#[derive(Debug, Clone)]
pub struct CrlRequest<'a> {
    /// cRLNumber, which must grow from list to list.
    pub number: u64,
    /// thisUpdate and nextUpdate.
    pub validity: Validity,
    /// The certificates that are revoked.
    pub revoked: &'a [Revoked],
}

/// An entry of a CRL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// The certificate's serial number.
    pub serial: Serial,
    /// Since when, in seconds since the Unix epoch.
    pub since: i64,
    /// Why.
    pub reason: Reason,
}

/// `[0]`: constructed around `crlExtensions` (explicit), not so as a `keyIdentifier` (implicit).
const EXPLICIT_0: u8 = 0xa0;
const IMPLICIT_0: u8 = 0x80;

/// 2.5.29.35
const AUTHORITY_KEY_IDENTIFIER: &[u8] = b"\x06\x03\x55\x1d\x23";
/// 2.5.29.20
const CRL_NUMBER: &[u8] = b"\x06\x03\x55\x1d\x14";
/// 2.5.29.21
const REASON_CODE: &[u8] = b"\x06\x03\x55\x1d\x15";

pub(super) fn sign(authority: &Authority, request: &CrlRequest<'_>) -> Result<Vec<u8>, IssueError> {
    let scheme = authority.key.scheme()?;
    let algorithm = sequence(&[scheme.algorithm]);
    let list = to_be_signed(authority, request, &algorithm)?;
    let signature = Signer::new(scheme.digest, authority.key.library_key())
        .and_then(|mut signer| signer.sign_oneshot_to_vec(&list))
        .map_err(IssueError::during("sign a CRL"))?;
    // The first octet counts the unused bits of the last one.
    let signature = element(BIT_STRING, &[&[0], signature.as_slice()].concat());
    Ok(sequence(&[&list, &algorithm, &signature]))
}

fn to_be_signed(authority: &Authority, request: &CrlRequest<'_>, algorithm: &[u8]) -> Result<Vec<u8>, IssueError> {
    let issuer = authority.certificate.subject_name().to_der().map_err(IssueError::during("encode the CA's name"))?;
    let this_update = time(request.validity.from)?;
    let next_update = time(request.validity.until)?;
    let mut entries = Vec::new();
    for revoked in request.revoked {
        entries.extend(entry(revoked)?);
    }
    // RFC 5280 §5.1.2.6: without entries the list is absent, not empty.
    let entries = if entries.is_empty() { entries } else { element(SEQUENCE, &entries) };
    let v2 = element(INTEGER, &[1]);
    let extensions = element(EXPLICIT_0, &extensions(authority, request.number));
    Ok(sequence(&[&v2, algorithm, &issuer, &this_update, &next_update, &entries, &extensions]))
}

fn entry(revoked: &Revoked) -> Result<Vec<u8>, IssueError> {
    let serial = element(INTEGER, revoked.serial.as_der_content());
    let since = time(revoked.since)?;
    // RFC 5280 §5.3.1: the extension should be absent instead of saying `unspecified`.
    if revoked.reason == Reason::Unspecified {
        return Ok(sequence(&[&serial, &since]));
    }
    let reason = element(OCTET_STRING, &element(ENUMERATED, &[revoked.reason.code()]));
    let extensions = sequence(&[&sequence(&[REASON_CODE, &reason])]);
    Ok(sequence(&[&serial, &since, &extensions]))
}

fn extensions(authority: &Authority, number: u64) -> Vec<u8> {
    let number = sequence(&[CRL_NUMBER, &element(OCTET_STRING, &unsigned(&number.to_be_bytes()))]);
    let Some(key) = authority.certificate.subject_key_id() else { return element(SEQUENCE, &number) };
    let key = sequence(&[&element(IMPLICIT_0, key.as_slice())]);
    let key = sequence(&[AUTHORITY_KEY_IDENTIFIER, &element(OCTET_STRING, &key)]);
    sequence(&[&key, &number])
}
