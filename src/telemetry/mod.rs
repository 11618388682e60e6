//! What the gateway tells about itself: metrics, access records and its own log.
//!
//! Every handshake, request and connection ends in a variant of a closed enum ([`HandshakeResult`], [`Outcome`],
//! [`EndReason`]). [`Telemetry::finish`] takes the record of a request once and derives both the metrics and the line
//! in the access log from it, so the two cannot disagree.

mod access;
mod admin;
pub mod audit;
mod certificates;
mod content;
mod escape;
mod expiring;
mod label;
mod lately;
mod layout;
pub mod log;
mod metrics;
mod names;
mod outcome;
mod past;
mod queue;
mod recent;
mod record;
mod shadow;
mod traffic;

use std::sync::Arc;

pub use access::AccessLog;
pub use admin::AdminRefusal;
pub use audit::AuditLog;
pub use certificates::CertificateKind;
pub use content::{DigestCheck, RedirectResult};
pub(crate) use escape::Escaped;
pub use expiring::{Expiring, ExpiringClient};
pub use label::Label;
pub use lately::{Lately, RefusedHandshake, Reloaded};
pub use layout::access_line;
pub use metrics::{
    Ailments, CertificateExpiry, CrlState, LimitMetrics, Metrics, Published, SharedMetrics, UpstreamMetrics,
};
pub use outcome::{
    EndReason, HandshakeResult, HttpVersion, LimitKind, Outcome, ReloadResult, SharedFault, Unanswered, UpgradeResult,
    UpstreamFault,
};
pub use past::{Past, Unreadable};
pub use recent::Recent;
pub use record::{AccessRecord, ClientRecord, ConnectionRecord, DecisionId, RequestId, Text, TraceId, Verdict};
pub use shadow::ShadowRecord;
pub use traffic::{Counts, Fate, KEPT as STEPS_KEPT, STEP, Step};

/// Where everything that is worth telling goes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The families behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// One line per request.
    pub access: AccessLog,
    /// What was changed, refused and ordered.
    pub audit: AuditLog,
    /// Client certificates that run out soon.
    pub expiring: Arc<Expiring>,
    /// The last decisions and refusals.
    pub recent: Arc<Recent>,
    /// What else happened lately.
    pub lately: Arc<Lately>,
}

impl Telemetry {
    /// Records how a request ended. To be called exactly once per request, at its very end; never blocks.
    pub fn finish(&self, record: AccessRecord) {
        self.metrics.request(&record);
        let record = Arc::new(record);
        self.recent.note(&record);
        self.access.write(record);
    }
}
