//! A CRL, encoded here because BoringSSL's binding can't make one.

use super::super::lib::hash::MessageDigest;
use super::super::lib::sign::Signer;
use super::super::lib::x509::X509;
use super::{Authority, IssueError, Validity};

/// A full CRL of one CA (RFC 5280 §5).
#[derive(Debug, Clone)]
pub struct CrlRequest<'a> {
    /// cRLNumber, which must grow from list to list.
    pub number: u64,
    /// thisUpdate and nextUpdate. Entries are revoked as of thisUpdate.
    pub validity: Validity,
    /// The certificates to revoke, each as PEM.
    pub revoked: &'a [&'a [u8]],
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]` is constructed around `crlExtensions` (explicit), and isn't as a `keyIdentifier` (implicit).
const EXPLICIT_0: u8 = 0xa0;
const IMPLICIT_0: u8 = 0x80;

/// OBJECT IDENTIFIER 1.2.840.10045.4.3.2, ecdsa-with-SHA256 (RFC 5758 §3.2): no parameters.
const ECDSA_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
/// 2.5.29.35
const AUTHORITY_KEY_IDENTIFIER: &[u8] = b"\x06\x03\x55\x1d\x23";
/// 2.5.29.20
const CRL_NUMBER: &[u8] = b"\x06\x03\x55\x1d\x14";

pub(super) fn sign(authority: &Authority, request: &CrlRequest<'_>) -> Result<Vec<u8>, IssueError> {
    let list = to_be_signed(authority, request)?;
    let signature = Signer::new(MessageDigest::sha256(), &authority.key)
        .and_then(|mut signer| signer.sign_oneshot_to_vec(&list))
        .map_err(IssueError::during("sign a CRL"))?;
    // The first octet counts the unused bits of the last one.
    let signature = element(BIT_STRING, &[&[0], signature.as_slice()].concat());
    Ok(sequence(&[&list, &sequence(&[ECDSA_SHA256]), &signature]))
}

fn to_be_signed(authority: &Authority, request: &CrlRequest<'_>) -> Result<Vec<u8>, IssueError> {
    let issuer = authority.certificate.subject_name().to_der().map_err(IssueError::during("encode the CA's name"))?;
    let this_update = time(request.validity.from)?;
    let next_update = time(request.validity.until)?;
    let mut entries = Vec::new();
    for certificate in request.revoked {
        entries.extend(sequence(&[&serial(certificate)?, &this_update]));
    }
    // RFC 5280 §5.1.2.6: without entries the list is absent, not empty.
    let entries = if entries.is_empty() { entries } else { element(SEQUENCE, &entries) };
    let v2 = element(INTEGER, &[1]);
    let algorithm = sequence(&[ECDSA_SHA256]);
    let extensions = element(EXPLICIT_0, &extensions(authority, request.number));
    Ok(sequence(&[&v2, &algorithm, &issuer, &this_update, &next_update, &entries, &extensions]))
}

fn extensions(authority: &Authority, number: u64) -> Vec<u8> {
    let number = sequence(&[CRL_NUMBER, &element(OCTET_STRING, &unsigned(&number.to_be_bytes()))]);
    let Some(key) = authority.certificate.subject_key_id() else { return element(SEQUENCE, &number) };
    let key = sequence(&[&element(IMPLICIT_0, key.as_slice())]);
    let key = sequence(&[AUTHORITY_KEY_IDENTIFIER, &element(OCTET_STRING, &key)]);
    sequence(&[&key, &number])
}

fn serial(certificate_pem: &[u8]) -> Result<Vec<u8>, IssueError> {
    X509::from_pem(certificate_pem)
        .and_then(|certificate| certificate.serial_number().to_bn())
        .map(|number| unsigned(&number.to_vec()))
        .map_err(IssueError::during("read the serial of a certificate to revoke"))
}

/// An INTEGER that isn't negative: no leading zeros but the one that keeps the sign bit clear (X.690 §8.3.2).
fn unsigned(big_endian: &[u8]) -> Vec<u8> {
    let start = big_endian.iter().position(|byte| *byte != 0).unwrap_or(big_endian.len());
    let digits = big_endian.get(start..).unwrap_or_default();
    let padding: &[u8] = if digits.first().is_none_or(|byte| byte & 0x80 != 0) { &[0] } else { &[] };
    element(INTEGER, &[padding, digits].concat())
}

/// RFC 5280 §5.1.2.4: `UTCTime` up to the year 2049, `GeneralizedTime` from then on.
fn time(unix: i64) -> Result<Vec<u8>, IssueError> {
    let (days, second) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    if !(1970..=9999).contains(&year) {
        return Err(IssueError::new("write a date into a CRL", format!("the year {year} is out of range")));
    }
    let rest = format!("{month:02}{day:02}{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60);
    Ok(if year < 2050 {
        element(UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        element(GENERALIZED_TIME, format!("{year}{rest}").as_bytes())
    })
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    // 1970-01-01 is day 719,468 after 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = year + era * 400;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

/// One DER element: tag, length in as few octets as possible (X.690 §10.1), content.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if let Ok(short @ 0..=127) = u8::try_from(content.len()) {
        out.push(short);
    } else {
        let length = content.len().to_be_bytes();
        let octets: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
        // A usize has at most eight octets, so the count fits beside the flag.
        out.push(0x80 | octets.len().to_le_bytes()[0]);
        out.extend(octets);
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_rfc_5280_wants_them() {
        let text = |unix| {
            let der = time(unix).unwrap();
            (der[0], String::from_utf8(der[2..].to_vec()).unwrap())
        };
        assert_eq!(text(0), (UTC_TIME, "700101000000Z".to_owned()));
        assert_eq!(text(951_782_399), (UTC_TIME, "000228235959Z".to_owned()));
        assert_eq!(text(951_782_400), (UTC_TIME, "000229000000Z".to_owned()));
        assert_eq!(text(951_868_800), (UTC_TIME, "000301000000Z".to_owned()));
        assert_eq!(text(2_524_607_999), (UTC_TIME, "491231235959Z".to_owned()));
        assert_eq!(text(2_524_608_000), (GENERALIZED_TIME, "20500101000000Z".to_owned()));
        assert!(time(-1).is_err());
        assert!(time(i64::MAX / 100).is_err());
    }

    #[test]
    fn integers_are_minimal_and_never_negative() {
        assert_eq!(unsigned(&[]), [INTEGER, 1, 0]);
        assert_eq!(unsigned(&[0, 0]), [INTEGER, 1, 0]);
        assert_eq!(unsigned(&[0, 0x7f]), [INTEGER, 1, 0x7f]);
        assert_eq!(unsigned(&[0x80]), [INTEGER, 2, 0, 0x80]);
    }

    #[test]
    fn lengths_take_as_few_octets_as_possible() {
        assert_eq!(element(4, &[0; 127])[..2], [4, 127]);
        assert_eq!(element(4, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(element(4, &[0; 256])[..4], [4, 0x82, 1, 0]);
    }
}
