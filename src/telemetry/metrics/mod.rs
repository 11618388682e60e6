//! What `/metrics` tells. The families are declared in the files below this one, and nowhere else.
//!
//! Labels come from closed enums or from the configuration, never from a client (see [`Label`](super::Label)).

mod audit;
mod connections;
mod crls;
mod family;
mod generation;
mod limits;
mod requests;
mod shared;
mod upstream;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::{IntCounter, IntGauge, Registry, TextEncoder};

use self::connections::ConnectionFamilies;
use self::family::{Families, Table};
use self::generation::GenerationFamilies;
use self::limits::LimitFamilies;
use self::requests::RequestFamilies;
use self::shared::SharedFamilies;
use self::upstream::UpstreamFamilies;
use super::admin::AdminRefusal;
use super::outcome::{EndReason, HandshakeResult, HttpVersion, ReloadResult, UpgradeResult};
use super::record::AccessRecord;
use super::traffic::Counts;

pub(super) use self::audit::AuditCounters;
pub(super) use self::connections::OpenConnection;
pub use self::crls::CrlState;
pub use self::generation::{CertificateExpiry, Published};
pub use self::limits::LimitMetrics;
pub use self::shared::SharedMetrics;
pub use self::upstream::UpstreamMetrics;

/// From a refusal, which takes well under a millisecond, to a layer of some gigabytes.
pub(super) const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];

/// All metrics of a gateway. There is no registry of the whole process: two gateways in one process don't mix.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Held while gauges of a generation are replaced and while they are read, so that no scrape sees half of them.
    publication: Mutex<()>,
    connections: ConnectionFamilies,
    requests: RequestFamilies,
    upstreams: UpstreamFamilies,
    limits: LimitFamilies,
    shared: SharedFamilies,
    generation: GenerationFamilies,
    open_files_limit: IntGauge,
    connections_limit: IntGauge,
    upgrades: Table<UpgradeResult, IntCounter>,
    admin_refusals: Table<AdminRefusal, IntCounter>,
    audit: AuditCounters,
    access_drops: Drops,
    log_drops: Drops,
}

/// What is wrong with what the gateway writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ailments {
    /// The audit log can't be written.
    pub audit_fails: bool,
    /// Something could not be written to the state directory.
    pub state_fails: bool,
    /// Access records that were not written, since the start.
    pub access_records_lost: u64,
    /// Messages of the log that were not written, since the start.
    pub log_messages_lost: u64,
}

/// Counters of what was meant for a log and was not written.
#[derive(Clone, Debug)]
pub(super) struct Drops {
    pub(super) queue_full: IntCounter,
    pub(super) write_failed: IntCounter,
}

impl Drops {
    fn new(families: &Families<'_>, name: &str, help: &str) -> prometheus::Result<Self> {
        let dropped = families.counters(name, help, &["cause"])?;
        Ok(Self {
            queue_full: dropped.with_label_values(&["queue_full"]),
            write_failed: dropped.with_label_values(&["write_failed"]),
        })
    }

    pub(super) fn total(&self) -> u64 {
        self.queue_full.get() + self.write_failed.get()
    }
}

impl Metrics {
    /// Makes all families, with everything at zero.
    ///
    /// # Errors
    ///
    /// Fails if a family is declared twice or with a name Prometheus doesn't permit, which a test excludes.
    pub fn new(version: &str, backend: &str) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let families = Families(&registry);
        families
            .gauges("build_info", "The build that runs; always 1.", &["version", "backend"])?
            .with_label_values(&[version, backend])
            .set(1);
        let access_drops = Drops::new(
            &families,
            "access_records_dropped_total",
            "Access records that were not written, because the queue was full or the file could not be written.",
        )?;
        let log_drops = Drops::new(
            &families,
            "log_messages_dropped_total",
            "Messages of the gateway's own log that were not written, because standard error was not read or not open.",
        )?;
        let upgrades = families.counters(
            "upgrades_total",
            "Attempts to hand over to a successor, by how they ended.",
            &["result"],
        )?;
        let admin_refusals = families.counters(
            "admin_refusals_total",
            "Connections to the admin listener, and requests there, that were turned away.",
            &["reason"],
        )?;
        Ok(Self {
            admin_refusals: Table::new(|why: AdminRefusal| admin_refusals.with_label_values(&[why.as_str()])),
            open_files_limit: families.gauge(
                "open_files_limit",
                "How many descriptors may be open at a time: connections of clients and to registries, and files.",
            )?,
            connections_limit: families.gauge(
                "connections_limit",
                "How many connections of clients there may be at a time (limits.max_connections).",
            )?,
            upgrades: Table::new(|result: UpgradeResult| upgrades.with_label_values(&[result.as_str()])),
            connections: ConnectionFamilies::new(&families)?,
            requests: RequestFamilies::new(&families)?,
            upstreams: UpstreamFamilies::new(&families)?,
            limits: LimitFamilies::new(&families)?,
            shared: SharedFamilies::new(&families)?,
            generation: GenerationFamilies::new(&families)?,
            audit: AuditCounters::new(&families)?,
            access_drops,
            log_drops,
            registry,
            publication: Mutex::new(()),
        })
    }

    /// A TLS handshake ended, `duration` after its connection was accepted.
    pub fn handshake(&self, result: HandshakeResult, duration: Duration) {
        self.connections.handshake(result, duration);
    }

    /// A connection is ready for requests; `protocol` is what was agreed by ALPN. It counts as open for as long as the
    /// value returned lives.
    pub fn connection_opened(&self, protocol: HttpVersion) -> OpenConnection {
        self.connections.opened(protocol)
    }

    /// The reason for which a connection ended is known.
    pub fn connection_ended(&self, reason: EndReason) {
        self.connections.ended(reason);
    }

    /// A request ended. [`Telemetry::finish`](super::Telemetry::finish) calls this.
    pub fn request(&self, record: &AccessRecord) {
        self.requests.finished(record);
    }

    /// A request head was refused before anything of it could be read, so that no record of it exists.
    pub fn head_refused(&self) {
        self.requests.head_refused();
    }

    /// Bytes of a request body arrived. Counted as they flow, for a transfer may take hours.
    pub fn received(&self, bytes: usize) {
        self.requests.received(bytes);
    }

    /// Bytes of a response body were handed to the client's connection.
    pub fn sent(&self, bytes: usize) {
        self.requests.sent(bytes);
    }

    /// The handles of an upstream, for as long as a generation names it.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        self.upstreams.resolve(name)
    }

    /// The handles of a limit, for as long as a generation names it.
    #[must_use]
    pub fn limit(&self, name: &str) -> LimitMetrics {
        self.limits.resolve(name)
    }

    /// The handles of the Redis that replicas share, for as long as a generation names it.
    #[must_use]
    pub fn shared(&self, redis: &str) -> SharedMetrics {
        self.shared.resolve(redis)
    }

    /// An attempt to load everything anew ended.
    pub fn reload(&self, result: ReloadResult, now: SystemTime) {
        self.generation.reload(result, now);
    }

    /// How many descriptors the process may have open.
    pub fn open_files_limit(&self, limit: u64) {
        self.open_files_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// How many connections of clients there may be.
    pub fn connections_limit(&self, limit: usize) {
        self.connections_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// An attempt to hand over to a successor ended.
    pub fn upgrade(&self, result: UpgradeResult) {
        self.upgrades.get(result).inc();
    }

    /// Somebody was turned away from the admin listener.
    pub fn admin_refused(&self, why: AdminRefusal) {
        self.admin_refusals.get(why).inc();
    }

    /// What requests and transfers add up to since the start.
    #[must_use]
    pub fn totals(&self) -> Counts {
        self.requests.totals()
    }

    /// What is wrong with this process's own records.
    #[must_use]
    pub fn ailments(&self) -> Ailments {
        Ailments {
            audit_fails: self.audit.is_failed(),
            state_fails: self.generation.crls.state_is_failed(),
            access_records_lost: self.access_drops.total(),
            log_messages_lost: self.log_drops.total(),
        }
    }

    /// A generation is in force: replaces everything that is told about certificates, revocation lists and upstreams.
    pub fn publish(&self, published: &Published) {
        let _whole = self.publication();
        self.generation.publish(published);
        self.upstreams.retain(&published.upstreams);
        self.limits.retain(&published.limits);
        self.shared.retain(published.redis.as_deref());
    }

    /// A URL with revocation lists was asked: when it answered last, in unix seconds, if it did now, and whether
    /// something is wrong with it. `source` is from the configuration.
    pub fn crl_fetched(&self, source: &str, success: Option<i64>, failed: bool) {
        let _whole = self.publication();
        self.generation.crls.fetched(source, success, failed);
    }

    /// A source of revocation lists was found at fault. `fault` is of a closed set, `source` from the configuration.
    pub fn crl_error(&self, source: &str, fault: &'static str) {
        self.generation.crls.error(source, fault);
    }

    /// Whether what must outlive a restart could not be written.
    pub fn state_failed(&self, failed: bool) {
        self.generation.crls.state_failed(failed);
    }

    /// What a change of files, or a fetched list, brought is in force.
    pub fn change_in_effect(&self, after: Duration) {
        self.generation.crls.change_in_effect(after);
    }

    /// Everything, in Prometheus' text format (version 0.0.4).
    ///
    /// # Errors
    ///
    /// Fails if a family is inconsistent in itself, which the types of this module exclude.
    pub fn render(&self) -> prometheus::Result<String> {
        let families = {
            let _whole = self.publication();
            self.registry.gather()
        };
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&families, &mut text)?;
        Ok(text)
    }

    pub(super) fn audit(&self) -> AuditCounters {
        self.audit.clone()
    }

    pub(super) fn access_drops(&self) -> Drops {
        self.access_drops.clone()
    }

    pub(super) fn log_drops(&self) -> Drops {
        self.log_drops.clone()
    }

    fn publication(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data, so a panic while it was held leaves nothing broken behind.
        self.publication.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
