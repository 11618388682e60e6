//! What becomes of the records of the audit log.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};

use super::family::{Families, Table};
use crate::telemetry::audit::Event;

/// The families of the audit log, which are there, at zero, without a log, too.
#[derive(Clone, Debug)]
pub(in crate::telemetry) struct AuditCounters {
    records: Arc<Table<Event, IntCounter>>,
    failed: IntGauge,
    pub(in crate::telemetry) missed: IntCounter,
}

impl AuditCounters {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        let records = families.counters(
            "audit_records_total",
            "Records handed to the audit log, by what they are about.",
            &["event"],
        )?;
        Ok(Self {
            records: Arc::new(Table::new(|event: Event| records.with_label_values(&[event.as_str()]))),
            failed: families.gauge(
                "audit_failed",
                "Whether the audit log can't be written (1), so that requests are refused as the configuration has it.",
            )?,
            missed: families.counter(
                "audit_records_missed_total",
                "Records that the audit log could not take while it could not be written. It tells the number itself.",
            )?,
        })
    }

    pub(in crate::telemetry) fn recorded(&self, event: Event) {
        self.records.get(event).inc();
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed.get() != 0
    }

    pub(in crate::telemetry) fn failed(&self, failed: bool) {
        self.failed.set(i64::from(failed));
    }
}
