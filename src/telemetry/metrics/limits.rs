//! Limits of the policy: what they refuse.

use std::collections::HashMap;

use prometheus::{IntCounter, IntCounterVec};

use super::family::{Families, Table, retain};
use crate::telemetry::outcome::LimitKind;

/// Handles of one limit, resolved once when a configuration is built.
///
/// Two generations that both have the limit share its series.
#[derive(Debug)]
pub struct LimitMetrics {
    refusals: Table<LimitKind, IntCounter>,
}

impl LimitMetrics {
    /// The limit refused a request.
    pub fn refused(&self, kind: LimitKind) {
        self.refusals.get(kind).inc();
    }
}

/// The families of all limits.
#[derive(Debug)]
pub(super) struct LimitFamilies {
    refusals: IntCounterVec,
}

impl LimitFamilies {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            refusals: families.counters(
                "limit_refusals_total",
                "Requests that a limit of the policy refused, by the limit and by what of it was used up.",
                &["limit", "kind"],
            )?,
        })
    }

    pub(super) fn resolve(&self, name: &str) -> LimitMetrics {
        LimitMetrics { refusals: Table::new(|kind: LimitKind| self.refusals.with_label_values(&[name, kind.as_str()])) }
    }

    /// Stops reporting limits that are not among `names`.
    pub(super) fn retain(&self, names: &[String]) {
        retain(&self.refusals, |labels: &HashMap<&str, &str>| {
            labels.get("limit").is_some_and(|limit| names.iter().any(|name| name == limit))
        });
    }
}
