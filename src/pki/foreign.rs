//! What other tools have written down: openssl's database, and lists.

use std::path::Path;

use super::PkiError;
use super::journal::{Event, Signer};
use super::names::{parse_reason, parse_serial};
use super::x509::{Facts, blocks, is_signed_by, unix_time};
use crate::identity::Serial;
use crate::revocation::Reason;

/// Reads the database of `openssl ca` (`index.txt`, which easy-rsa has, too).
///
/// Six columns, separated by tabs: V, R or E, expiry, revocation with reason, serial, file, subject.
pub(super) fn database(path: &Path, content: &[u8], now: i64) -> Result<Vec<Event>, PkiError> {
    let text = String::from_utf8_lossy(content);
    let mut events = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let found = row(line, now).ok_or_else(|| {
            PkiError::unusable(path, format!("line {number} is not one of openssl's database (index.txt)"))
        })?;
        events.extend(found);
    }
    Ok(events)
}

fn row(line: &str, now: i64) -> Option<Vec<Event>> {
    let mut columns = line.split('\t');
    let (status, expiry, revocation) = (columns.next()?, columns.next()?, columns.next()?);
    let serial = parse_serial(columns.next()?).ok()?.to_string();
    let (_, subject) = (columns.next()?, columns.next()?);
    let not_after = Some(unix_time(expiry)?);
    let by = Signer::Ca;
    let mut events = vec![Event::Known { at: now, by, name: common_name(subject), serial: serial.clone(), not_after }];
    match status {
        "V" | "E" => {}
        "R" => {
            let mut parts = revocation.split(',');
            let at = unix_time(parts.next()?)?;
            // Reasons of openssl's own (holdInstruction, CAkeyTime …) carry no code that a list could hold.
            let reason = parts.next().and_then(|text| parse_reason(text).ok()).unwrap_or(Reason::Unspecified);
            events.push(Event::Revoked { at, by, serial, reason: reason.as_str().to_owned() });
        }
        _ => return None,
    }
    Some(events)
}

/// The CN of `/C=DE/CN=ci-7`, or all of it.
fn common_name(subject: &str) -> String {
    let name = subject.split('/').find_map(|part| part.strip_prefix("CN=")).unwrap_or(subject);
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// Reads the last list of a CA, PEM or DER: its entries, and its number, which the next one has to exceed.
pub(super) fn list(path: &Path, content: &[u8], ca: &Facts, now: i64) -> Result<Vec<Event>, PkiError> {
    let fault = |cause: &str| PkiError::unusable(path, cause);
    let ders: Vec<Vec<u8>> = if content.first() == Some(&0x30) {
        vec![content.to_vec()]
    } else {
        blocks(content).into_iter().filter(|block| block.label == "X509 CRL").map(|block| block.der).collect()
    };
    if ders.is_empty() {
        return Err(fault("it holds no revocation list in PEM or DER form"));
    }
    let by = Signer::Ca;
    let mut events = Vec::new();
    let mut ours = false;
    for der in &ders {
        let (_, list) = x509_parser::parse_x509_crl(der).map_err(|_| fault("it holds a malformed revocation list"))?;
        if list.tbs_cert_list.issuer.as_raw() != ca.subject_der || !is_signed_by(der, &ca.spki_der) {
            continue;
        }
        ours = true;
        for entry in list.iter_revoked_certificates() {
            let serial = Serial::from_der_content(entry.raw_serial()).filter(|serial| !serial.is_negative());
            let serial = serial.ok_or_else(|| fault("it revokes a serial number that is malformed or negative"))?;
            let reason = entry.reason_code().map_or(Reason::Unspecified, |(_, code)| Reason::from_code(code.0));
            let (at, reason) = (entry.revocation_date.timestamp(), reason.as_str().to_owned());
            events.push(Event::Revoked { at, by, serial: serial.to_string(), reason });
        }
        if let Some(number) = list.crl_number() {
            let number = u64::try_from(number)
                .map_err(|_| fault("its number is larger than 64 bits; lists with larger numbers can't follow"))?;
            let next_update = list.next_update().map_or(now, |time| time.timestamp());
            let entries = list.iter_revoked_certificates().count();
            events.push(Event::Listed { at: now, by, number, next_update, entries });
        }
    }
    if ours { Ok(events) } else { Err(fault("none of its lists is signed by this CA")) }
}
