//! The metrics of one upstream.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::SECONDS;
use super::family::{Families, Table, retain};
use crate::telemetry::content::{DigestCheck, RedirectResult};
use crate::telemetry::outcome::UpstreamFault;

/// Handles of one upstream, resolved once when a configuration is built.
///
/// Two generations that both have the upstream share its series.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: String,
    connections: IntGauge,
    pending: IntGauge,
    opened: IntCounter,
    reused: IntCounter,
    first_byte: Histogram,
    faults: Table<UpstreamFault, IntCounter>,
    digests: Table<DigestCheck, IntCounter>,
    redirects: Table<RedirectResult, IntCounter>,
    healthy: IntGaugeVec,
}

impl UpstreamMetrics {
    /// A request took a connection to the upstream, from the pool (`reused`) or a new one.
    pub fn connected(&self, reused: bool) {
        if reused { &self.reused } else { &self.opened }.inc();
    }

    /// How many connections are in use now.
    pub fn set_connections(&self, in_use: usize) {
        self.connections.set(saturated(in_use));
    }

    /// How many requests wait for a connection now.
    pub fn set_pending(&self, waiting: usize) {
        self.pending.set(saturated(waiting));
    }

    /// The head of an answer arrived this long after the request was handed over.
    pub fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }

    /// Something went wrong on the way to the upstream or back.
    pub fn fault(&self, fault: UpstreamFault) {
        self.faults.get(fault).inc();
    }

    /// An answer's content was looked at against its digest.
    pub fn digest(&self, check: DigestCheck) {
        self.digests.get(check).inc();
    }

    /// An answer led to another host.
    pub fn redirect(&self, result: RedirectResult) {
        self.redirects.get(result).inc();
    }

    /// Connections in use now, and requests that wait for one.
    #[must_use]
    pub fn load(&self) -> (i64, i64) {
        (self.connections.get(), self.pending.get())
    }

    /// What has gone wrong since the start, and how often.
    #[must_use]
    pub fn faults(&self) -> Vec<(UpstreamFault, u64)> {
        self.faults.iter().map(|(fault, count)| (fault, count.get())).filter(|(_, count)| *count > 0).collect()
    }

    /// The addresses the upstream has now and whether each is healthy. Those not named are no longer reported.
    pub fn set_health<'a>(&self, addresses: impl IntoIterator<Item = (&'a str, bool)>) {
        let mut present = Vec::new();
        for (address, healthy) in addresses {
            self.healthy.with_label_values(&[&self.name, address]).set(i64::from(healthy));
            present.push(address);
        }
        retain(&self.healthy, |labels| {
            labels.get("upstream") != Some(&self.name.as_str())
                || labels.get("address").is_some_and(|address| present.contains(address))
        });
    }
}

/// The families of all upstreams.
#[derive(Debug)]
pub(super) struct UpstreamFamilies {
    connections: IntGaugeVec,
    pending: IntGaugeVec,
    connects: IntCounterVec,
    first_byte: HistogramVec,
    faults: IntCounterVec,
    digests: IntCounterVec,
    redirects: IntCounterVec,
    healthy: IntGaugeVec,
}

impl UpstreamFamilies {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            connections: families.gauges(
                "upstream_connections",
                "Connections to an upstream that are in use.",
                &["upstream"],
            )?,
            pending: families.gauges(
                "upstream_pending_requests",
                "Requests that wait for a connection to an upstream.",
                &["upstream"],
            )?,
            connects: families.counters(
                "upstream_connects_total",
                "Connections taken for a request, newly made or reused from the pool.",
                &["upstream", "connection"],
            )?,
            first_byte: families.histograms(
                "upstream_first_byte_seconds",
                "Time from handing a request to an upstream to the head of its answer.",
                &["upstream"],
                SECONDS,
            )?,
            faults: families.counters(
                "upstream_errors_total",
                "What went wrong between the gateway and an upstream.",
                &["upstream", "kind"],
            )?,
            digests: families.counters(
                "digest_checks_total",
                "Blobs and manifests of upstreams with verify_digests, by what the check of their content gave.",
                &["upstream", "result"],
            )?,
            redirects: families.counters(
                "upstream_redirects_total",
                "Redirects of an upstream to other hosts, by what became of them.",
                &["upstream", "result"],
            )?,
            healthy: families.gauges(
                "upstream_healthy",
                "Whether an address of an upstream gets requests (1) or failed its health checks (0).",
                &["upstream", "address"],
            )?,
        })
    }

    pub(super) fn resolve(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics {
            name: name.to_owned(),
            connections: self.connections.with_label_values(&[name]),
            pending: self.pending.with_label_values(&[name]),
            opened: self.connects.with_label_values(&[name, "new"]),
            reused: self.connects.with_label_values(&[name, "reused"]),
            first_byte: self.first_byte.with_label_values(&[name]),
            faults: Table::new(|fault: UpstreamFault| self.faults.with_label_values(&[name, fault.as_str()])),
            digests: Table::new(|check: DigestCheck| self.digests.with_label_values(&[name, check.as_str()])),
            redirects: Table::new(|result: RedirectResult| self.redirects.with_label_values(&[name, result.as_str()])),
            healthy: self.healthy.clone(),
        }
    }

    /// Stops reporting upstreams that are not among `names`.
    pub(super) fn retain(&self, names: &[String]) {
        let keep = |labels: &std::collections::HashMap<&str, &str>| {
            labels.get("upstream").is_some_and(|upstream| names.iter().any(|name| name == upstream))
        };
        retain(&self.connections, keep);
        retain(&self.pending, keep);
        retain(&self.connects, keep);
        retain(&self.first_byte, keep);
        retain(&self.faults, keep);
        retain(&self.digests, keep);
        retain(&self.redirects, keep);
        retain(&self.healthy, keep);
    }
}

fn saturated(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
