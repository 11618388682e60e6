//! Revocation lists: what they say, and whether the gateway would take them.

use std::time::Duration;

use super::super::DAY;
use super::{Context, Report, date};
use crate::identity::display_name;
use crate::revocation::{Check, CrlFault, CrlSummary, Freshness, Listed, Settings, SourceInput, Sources, Standing};

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
    match CrlSummary::read(der) {
        Ok(list) => content(report, &list, context),
        // What revocation can't read is shown as far as it is a list at all; the verdict says what is wrong.
        Err(_) => outline(report, der),
    }
    verdict(report, der, context);
}

/// The list as the index reads it.
fn content(report: &mut Report, list: &CrlSummary<'_>, context: &Context) {
    report.line("issuer", &list.issuer());
    report.line("number", &list.number().map_or("none".to_owned(), |number| number.to_string()));
    if let Some(base) = list.delta_of() {
        report.line("delta", &format!("changes the list number {base}, or a later one"));
    }
    report.line("covers", &list.scope().to_string());
    report.line("thisUpdate", &date(list.this_update()));
    report.line("nextUpdate", &until(list.next_update(), context.now));
    report.line("entries", &list.entries.to_string());
    for entry in list.first(SHOWN) {
        let (serial, since) = (entry.serial, date(entry.since));
        report.line(
            "",
            &match entry.listed {
                Listed::Revoked(reason) => format!("{serial} since {since} ({reason})"),
                Listed::Removed => format!("{serial} no longer, since {since} (removeFromCRL)"),
            },
        );
    }
    if list.entries > SHOWN {
        report.line("", &format!("and {} more", list.entries - SHOWN));
    }
    if list.next_update() < context.now && list.delta_of().is_none() {
        report.fault("it has run out: the gateway refuses all clients of its issuer until there is a new one");
    }
}

/// The head of a list that revocation doesn't read.
fn outline(report: &mut Report, der: &[u8]) {
    let Ok((_, list)) = x509_parser::parse_x509_crl(der) else { return };
    report.line("issuer", &display_name(list.tbs_cert_list.issuer.as_raw()));
    report.line("number", &list.crl_number().map_or("none".to_owned(), ToString::to_string));
    report.line("thisUpdate", &date(list.last_update().timestamp()));
    report.line("nextUpdate", &list.next_update().map_or("none".to_owned(), |time| date(time.timestamp())));
    report.line("entries", &list.iter_revoked_certificates().count().to_string());
}

fn until(next: i64, now: i64) -> String {
    let left = next - now;
    if left < 0 { format!("{} (over)", date(next)) } else { format!("{} ({} days left)", date(next), left / DAY) }
}

/// Whether revocation takes the list, by the code that the gateway reads its lists with.
fn verdict(report: &mut Report, der: &[u8], context: &Context) {
    let issuers = context.trust.as_ref().map(|trust| trust.issuers()).unwrap_or_default();
    let input = SourceInput { key: "list".to_owned(), bytes: Ok(der.to_vec()), issuer: None };
    let verify = &crate::tls::verify_signed_data;
    let (_, reports) = Sources::new(settings()).update(vec![input], issuers, context.now, verify);
    let waits = reports.iter().flat_map(|source| &source.lists).any(|list| list.standing == Standing::Waiting);
    let faults: Vec<_> = reports.into_iter().flat_map(|source| source.faults).collect();
    let untrusted = |fault: &CrlFault| context.trust.is_none() && matches!(fault, CrlFault::UnknownIssuer(_));
    if faults.iter().any(untrusted) {
        report.line("signature", "not checked: give the gateway's client_ca with --ca");
    } else if faults.is_empty() && waits {
        report.line("verdict", "the gateway takes it, and applies it once it has the list that it changes");
    } else if faults.is_empty() {
        report.line("verdict", "the gateway takes it");
    }
    for fault in faults.iter().filter(|fault| !untrusted(fault)) {
        report.fault(&format!("the gateway does not take it: {fault}"));
    }
}
