//! What is in force, and until when.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::family::{Families, Table, retain};
use crate::telemetry::outcome::{CertificateKind, ReloadResult};

/// What a newly published generation consists of, as far as gauges tell it.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The number of the generation.
    pub generation: u64,
    /// The certificates whose expiry is watched.
    pub certificates: Vec<CertificateExpiry>,
    /// The sources of revocation lists.
    pub crls: Vec<CrlState>,
    /// The names of the upstreams.
    pub upstreams: Vec<String>,
}

/// When a certificate expires.
#[derive(Clone, Debug)]
pub struct CertificateExpiry {
    /// What the certificate is for.
    pub kind: CertificateKind,
    /// A name from the configuration. Of several certificates with the same name the earliest expiry is reported.
    pub name: String,
    /// `notAfter`, in seconds since the epoch.
    pub not_after: i64,
}

/// The state of one source of revocation lists.
#[derive(Clone, Debug, Default)]
pub struct CrlState {
    /// The path of the file, or the URL.
    pub source: String,
    /// How many revoked certificates its lists hold.
    pub entries: usize,
    /// The earliest `thisUpdate` of its lists, in seconds since the epoch. `None` without a list.
    pub this_update: Option<i64>,
    /// The earliest `nextUpdate` of its lists, in seconds since the epoch. `None` without a list.
    pub next_update: Option<i64>,
    /// The highest number of its lists, if it fits.
    pub number: Option<i64>,
    /// When it was last good, in seconds since the epoch.
    pub last_success: Option<i64>,
    /// Whether it could not be read or was refused the last time, so that an older list is in force, or none.
    pub failed: bool,
}

/// From a file that is replaced to a list of a million entries.
const EFFECT_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug)]
pub(super) struct GenerationFamilies {
    generation: IntGauge,
    reloads: Table<ReloadResult, IntCounter>,
    reload_failed: IntGauge,
    last_reload: IntGauge,
    certificate_expiry: IntGaugeVec,
    crl_expiry: IntGaugeVec,
    crl_this_update: IntGaugeVec,
    crl_number: IntGaugeVec,
    crl_last_success: IntGaugeVec,
    crl_entries: IntGaugeVec,
    crl_failed: IntGaugeVec,
    crl_errors: IntCounterVec,
    change_to_effect: Histogram,
    state_failed: IntGauge,
}

impl GenerationFamilies {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        let reloads = families.counters("reloads_total", "Attempts to reload, by how they ended.", &["result"])?;
        Ok(Self {
            generation: families.gauge("config_generation", "The number of the generation in force.")?,
            reloads: Table::new(|result: ReloadResult| reloads.with_label_values(&[result.as_str()])),
            reload_failed: families.gauge(
                "reload_failed",
                "Whether the last reload failed (1), so that the files differ from what is in force.",
            )?,
            last_reload: families.gauge(
                "last_reload_timestamp_seconds",
                "When the files were last found good, in seconds since the epoch.",
            )?,
            certificate_expiry: families.gauges(
                "certificate_expiry_timestamp_seconds",
                "When a certificate from the configuration expires, in seconds since the epoch.",
                &["kind", "name"],
            )?,
            crl_expiry: families.gauges(
                "crl_expiry_timestamp_seconds",
                "The nextUpdate of a source's last good revocation list, in seconds since the epoch.",
                &["source"],
            )?,
            crl_this_update: families.gauges(
                "crl_this_update_timestamp_seconds",
                "The thisUpdate of a source's last good revocation list, in seconds since the epoch.",
                &["source"],
            )?,
            crl_number: families.gauges(
                "crl_number",
                "The number of a source's last good revocation list, unless it is too large for a metric.",
                &["source"],
            )?,
            crl_last_success: families.gauges(
                "crl_last_success_timestamp_seconds",
                "When a source of revocation lists was last read or fetched and found good, in seconds since the epoch.",
                &["source"],
            )?,
            crl_entries: families.gauges(
                "crl_entries",
                "Revoked certificates in a source's last good revocation list.",
                &["source"],
            )?,
            crl_failed: families.gauges(
                "crl_failed",
                "Whether a source of revocation lists could not be read or was refused the last time (1), so that an \
                 older list or none is in force.",
                &["source"],
            )?,
            crl_errors: families.counters(
                "crl_errors_total",
                "What was wrong when a source of revocation lists was read or fetched, by the kind of fault.",
                &["source", "fault"],
            )?,
            state_failed: families.gauge(
                "state_failed",
                "Whether something could not be written to the state directory (1), so that a restart forgets it.",
            )?,
            change_to_effect: families.histogram(
                "change_to_effect_seconds",
                "Time from the first sign that a file has changed, or from the last byte of a fetched list, until what \
                 it holds is in force.",
                EFFECT_SECONDS,
            )?,
        })
    }

    pub(super) fn reload(&self, result: ReloadResult, now: SystemTime) {
        self.reloads.get(result).inc();
        let failed = result == ReloadResult::Failed;
        self.reload_failed.set(i64::from(failed));
        if !failed {
            let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_reload.set(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn publish(&self, published: &Published) {
        self.generation.set(i64::try_from(published.generation).unwrap_or(i64::MAX));
        self.certificate_expiry.reset();
        let mut certificates: Vec<_> = published.certificates.iter().collect();
        // Of certificates with the same name the last one set stays: the earliest to expire.
        certificates.sort_by_key(|certificate| Reverse(certificate.not_after));
        for certificate in certificates {
            self.certificate_expiry
                .with_label_values(&[certificate.kind.as_str(), &certificate.name])
                .set(certificate.not_after);
        }
        let is_named = |source: Option<&&str>| published.crls.iter().any(|crl| Some(&crl.source.as_str()) == source);
        retain(&self.crl_errors, |labels| is_named(labels.get("source")));
        let times = [&self.crl_expiry, &self.crl_this_update, &self.crl_number, &self.crl_last_success];
        for family in times.into_iter().chain([&self.crl_entries, &self.crl_failed]) {
            family.reset();
        }
        for crl in &published.crls {
            let source = [crl.source.as_str()];
            let values = [crl.next_update, crl.this_update, crl.number, crl.last_success];
            for (family, value) in times.iter().zip(values) {
                if let Some(value) = value {
                    family.with_label_values(&source).set(value);
                }
            }
            self.crl_entries.with_label_values(&source).set(i64::try_from(crl.entries).unwrap_or(i64::MAX));
            self.crl_failed.with_label_values(&source).set(i64::from(crl.failed));
        }
    }

    pub(super) fn crl_fetched(&self, source: &str, success: Option<i64>, failed: bool) {
        if let Some(success) = success {
            self.crl_last_success.with_label_values(&[source]).set(success);
        }
        self.crl_failed.with_label_values(&[source]).set(i64::from(failed));
    }

    pub(super) fn crl_error(&self, source: &str, fault: &str) {
        self.crl_errors.with_label_values(&[source, fault]).inc();
    }

    pub(super) fn state_failed(&self, failed: bool) {
        self.state_failed.set(i64::from(failed));
    }

    pub(super) fn change_in_effect(&self, after: Duration) {
        self.change_to_effect.observe(after.as_secs_f64());
    }
}
