//! The sources of revocation lists.

use std::time::Duration;

use prometheus::{Histogram, IntCounterVec, IntGauge, IntGaugeVec};

use super::family::{Families, retain};

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
pub(super) struct CrlFamilies {
    expiry: IntGaugeVec,
    this_update: IntGaugeVec,
    number: IntGaugeVec,
    last_success: IntGaugeVec,
    entries: IntGaugeVec,
    failed: IntGaugeVec,
    errors: IntCounterVec,
    state_failed: IntGauge,
    change_to_effect: Histogram,
}

impl CrlFamilies {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            expiry: families.gauges(
                "crl_expiry_timestamp_seconds",
                "The nextUpdate of a source's last good revocation list, in seconds since the epoch.",
                &["source"],
            )?,
            this_update: families.gauges(
                "crl_this_update_timestamp_seconds",
                "The thisUpdate of a source's last good revocation list, in seconds since the epoch.",
                &["source"],
            )?,
            number: families.gauges(
                "crl_number",
                "The number of a source's last good revocation list, unless it is too large for a metric.",
                &["source"],
            )?,
            last_success: families.gauges(
                "crl_last_success_timestamp_seconds",
                "When a source of revocation lists was last read or fetched and found good, in seconds since the epoch.",
                &["source"],
            )?,
            entries: families.gauges(
                "crl_entries",
                "Revoked certificates in a source's last good revocation list.",
                &["source"],
            )?,
            failed: families.gauges(
                "crl_failed",
                "Whether a source of revocation lists could not be read or was refused the last time (1), so that an \
                 older list or none is in force.",
                &["source"],
            )?,
            errors: families.counters(
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

    pub(super) fn publish(&self, crls: &[CrlState]) {
        let is_named = |source: Option<&&str>| crls.iter().any(|crl| Some(&crl.source.as_str()) == source);
        retain(&self.errors, |labels| is_named(labels.get("source")));
        let times = [&self.expiry, &self.this_update, &self.number, &self.last_success];
        for family in times.into_iter().chain([&self.entries, &self.failed]) {
            family.reset();
        }
        for crl in crls {
            let source = [crl.source.as_str()];
            let values = [crl.next_update, crl.this_update, crl.number, crl.last_success];
            for (family, value) in times.iter().zip(values) {
                if let Some(value) = value {
                    family.with_label_values(&source).set(value);
                }
            }
            self.entries.with_label_values(&source).set(i64::try_from(crl.entries).unwrap_or(i64::MAX));
            self.failed.with_label_values(&source).set(i64::from(crl.failed));
        }
    }

    pub(super) fn fetched(&self, source: &str, success: Option<i64>, failed: bool) {
        if let Some(success) = success {
            self.last_success.with_label_values(&[source]).set(success);
        }
        self.failed.with_label_values(&[source]).set(i64::from(failed));
    }

    pub(super) fn error(&self, source: &str, fault: &str) {
        self.errors.with_label_values(&[source, fault]).inc();
    }

    pub(super) fn state_failed(&self, failed: bool) {
        self.state_failed.set(i64::from(failed));
    }

    pub(super) fn state_is_failed(&self) -> bool {
        self.state_failed.get() != 0
    }

    pub(super) fn change_in_effect(&self, after: Duration) {
        self.change_to_effect.observe(after.as_secs_f64());
    }
}
