//! The Redis that replicas share: whether it answers, and what became of requests when it didn't.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::family::{Families, Table, retain};
use crate::telemetry::outcome::{SharedFault, Unanswered};

/// From a socket on the same machine to the longest that is waited for.
const SECONDS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Handles of one Redis, resolved once when a configuration is built.
#[derive(Debug)]
pub struct SharedMetrics {
    available: IntGauge,
    seconds: Histogram,
    faults: Table<SharedFault, IntCounter>,
    unanswered: Table<Unanswered, IntCounter>,
}

impl SharedMetrics {
    /// Whether it answered when it was last asked.
    pub fn set_available(&self, available: bool) {
        self.available.set(i64::from(available));
    }

    /// It answered after this long.
    pub fn answered(&self, after: Duration) {
        self.seconds.observe(after.as_secs_f64());
    }

    /// It did not.
    pub fn fault(&self, fault: SharedFault) {
        self.faults.get(fault).inc();
    }

    /// What became of a request because of that.
    pub fn unanswered(&self, what: Unanswered) {
        self.unanswered.get(what).inc();
    }
}

/// The families.
#[derive(Debug)]
pub(super) struct SharedFamilies {
    available: IntGaugeVec,
    seconds: HistogramVec,
    faults: IntCounterVec,
    unanswered: IntCounterVec,
}

impl SharedFamilies {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            available: families.gauges(
                "shared_limits_available",
                "Whether the Redis of shared limits answered when it was last asked (1) or not (0).",
                &["redis"],
            )?,
            seconds: families.histograms(
                "shared_limits_seconds",
                "How long the Redis of shared limits took to answer.",
                &["redis"],
                SECONDS,
            )?,
            faults: families.counters(
                "shared_limits_errors_total",
                "Questions that the Redis of shared limits did not answer, by why.",
                &["redis", "cause"],
            )?,
            unanswered: families.counters(
                "shared_limits_unanswered_total",
                "Requests that could not be counted because Redis did not answer, by what became of them.",
                &["redis", "treatment"],
            )?,
        })
    }

    pub(super) fn resolve(&self, redis: &str) -> SharedMetrics {
        SharedMetrics {
            available: self.available.with_label_values(&[redis]),
            seconds: self.seconds.with_label_values(&[redis]),
            faults: Table::new(|fault: SharedFault| self.faults.with_label_values(&[redis, fault.as_str()])),
            unanswered: Table::new(|what: Unanswered| self.unanswered.with_label_values(&[redis, what.as_str()])),
        }
    }

    /// Stops reporting another Redis than this.
    pub(super) fn retain(&self, redis: Option<&str>) {
        let keep = |labels: &HashMap<&str, &str>| labels.get("redis").copied() == redis;
        retain(&self.available, keep);
        retain(&self.seconds, keep);
        retain(&self.faults, keep);
        retain(&self.unanswered, keep);
    }
}
