//! Revocation lists: what they say, and whether the gateway would take them.

use std::time::Duration;

use super::super::DAY;
use super::{Context, Report, date};
use crate::identity::{Serial, display_name};
use crate::revocation::{Check, CrlFault, Freshness, Reason, Settings, SourceInput, Sources};

/// Most entries that are printed.
const SHOWN: usize = 50;

/// The gateway's defaults.
pub(super) fn settings() -> Settings {
    Settings {
        freshness: Freshness::Required,
        check: Check::Chain,
        grace: Duration::ZERO,
        clock_skew: Duration::from_secs(60),
    }
}

pub(super) fn describe(report: &mut Report, place: &str, der: &[u8], context: &Context) {
    report.heading(place, "revocation list");
    if let Ok((_, list)) = x509_parser::parse_x509_crl(der) {
        report.line("issuer", &display_name(list.tbs_cert_list.issuer.as_raw()));
        report.line("number", &list.crl_number().map_or("none".to_owned(), ToString::to_string));
        report.line("thisUpdate", &date(list.last_update().timestamp()));
        let next = list.next_update().map(|time| time.timestamp());
        report.line("nextUpdate", &next.map_or("none".to_owned(), |next| until(next, context.now)));
        report.line("entries", &list.iter_revoked_certificates().count().to_string());
        for entry in list.iter_revoked_certificates().take(SHOWN) {
            let serial = Serial::from_der_content(entry.raw_serial()).map_or("?".to_owned(), |s| s.to_string());
            let reason = entry.reason_code().map_or(Reason::Unspecified, |(_, code)| Reason::from_code(code.0));
            report.line("", &format!("{serial} since {} ({reason})", date(entry.revocation_date.timestamp())));
        }
        if next.is_some_and(|next| next < context.now) {
            report.fault("it has run out: the gateway refuses all clients of its issuer until there is a new one");
        }
    }
    verdict(report, der, context);
}

fn until(next: i64, now: i64) -> String {
    let left = next - now;
    if left < 0 { format!("{} (over)", date(next)) } else { format!("{} ({} days left)", date(next), left / DAY) }
}

/// Whether revocation takes the list, by the code that the gateway reads its lists with.
fn verdict(report: &mut Report, der: &[u8], context: &Context) {
    let issuers = context.trust.as_ref().map(|trust| trust.issuers()).unwrap_or_default();
    let input = SourceInput { key: "list".to_owned(), bytes: Ok(der.to_vec()) };
    let verify = &crate::tls::verify_signed_data;
    let (_, reports) = Sources::new(settings()).update(vec![input], issuers, context.now, verify);
    let faults: Vec<_> = reports.into_iter().flat_map(|source| source.faults).collect();
    let untrusted = |fault: &CrlFault| context.trust.is_none() && matches!(fault, CrlFault::UnknownIssuer(_));
    if faults.iter().any(untrusted) {
        report.line("signature", "not checked: give the gateway's client_ca with --ca");
    } else if faults.is_empty() {
        report.line("verdict", "the gateway takes it");
    }
    for fault in faults.iter().filter(|fault| !untrusted(fault)) {
        report.fault(&format!("the gateway does not take it: {fault}"));
    }
}
