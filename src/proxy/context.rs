//! What a request carries through pingora's hooks, and the record that is written when it ends, however it ends.

mod connecting;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::integrity::Verifier;
use super::redirect::Followed;
use crate::edge::Connection;
use crate::edge::progress::{self, Phase, Stall};
use crate::oci::{Route, RouteKind, Tag};
use crate::policy::Permit;
use crate::quotas::Grant;
use crate::snapshot::Snapshot;
use crate::tag_locks::Held;
use crate::telemetry::audit::Slot;
use crate::telemetry::{
    AccessRecord, AuditLog, DecisionId, HttpVersion, Outcome, RequestId, ShadowRecord, Telemetry, Text, TraceId,
    UpstreamFault, Verdict,
};
use crate::upstream::{Admission, Dial, Upstream};

/// pingora's per-request context: empty until the head has been read.
#[derive(Debug, Default)]
pub struct Context(Option<Exchange>);

impl Context {
    pub(super) fn enter(&mut self, exchange: Exchange) -> &mut Exchange {
        self.0.insert(exchange)
    }

    /// The exchange under way.
    pub(super) fn exchange(&mut self) -> pingora::Result<&mut Exchange> {
        self.0.as_mut().ok_or_else(|| super::internal("a hook ran before the request was read"))
    }

    /// The end that pingora knows of. What it doesn't know of ends with the drop of the exchange.
    pub(super) fn finish(&mut self, session: &Session, error: Option<&Error>) {
        let Some(mut exchange) = self.0.take() else { return };
        exchange.record.bytes_in = exchange.record.bytes_in.max(session.body_bytes_read() as u64);
        if exchange.record.status.is_none() {
            exchange.record.status = session.response_written().map(|head| head.status.as_u16());
        }
        if exchange.outcome.is_none() {
            exchange.outcome = Some(error.map_or(Outcome::Proxied, |e| exchange.outcome_of(e)));
        }
    }
}

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) connection: Arc<Connection>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) route: Option<Route>,
    pub(super) upstream: Option<Arc<Upstream>>,
    /// The client's Host, checked.
    pub(super) host: HeaderValue,
    /// The Host that was sent upstream.
    pub(super) upstream_host: HeaderValue,
    pub(super) decision_id: DecisionId,
    /// The check of the answer's content, while it runs.
    pub(super) verifier: Option<Verifier>,
    /// Where the registry has sent this request.
    pub(super) followed: Option<Followed>,
    record: AccessRecord,
    outcome: Option<Outcome>,
    permit: Option<Permit>,
    /// The place of this request's record in the audit log, if it has one.
    pub(super) audit: Option<Slot>,
    /// What has been asked of the registry about the tags to be pushed.
    pub(super) known_tags: Vec<(Tag, bool)>,
    held_tags: Option<Held>,
    admission: Option<Admission>,
    /// What the limits have granted.
    pub(super) grant: Grant,
    connect_attempts: usize,
    /// The connection of a blob that is read in large pieces.
    dial: Option<Arc<Dial>>,
    started: Instant,
    /// When the whole request had been handed to the upstream.
    sent_upstream: Option<Instant>,
    telemetry: Telemetry,
}

/// How long the tags of a push are held on after the request, if it reached the registry whole and no answer came: the
/// registry may still carry it out.
const UNANSWERED: Duration = Duration::from_secs(5);

impl Exchange {
    pub(super) fn begin(
        head: &RequestHeader,
        connection: Arc<Connection>,
        snapshot: Arc<Snapshot>,
        telemetry: Telemetry,
    ) -> Self {
        let now = SystemTime::now();
        let decision_id = DecisionId::new(now);
        let record = AccessRecord {
            time: now,
            decision_id,
            generation: snapshot.generation,
            connection: connection.record.clone(),
            http_version: match head.version {
                http::Version::HTTP_2 => HttpVersion::Http2,
                http::Version::HTTP_10 => HttpVersion::Http10,
                _ => HttpVersion::Http11,
            },
            method: Text::new(head.method.as_str()),
            target: None,
            route: None,
            repository: None,
            reference: None,
            action: None,
            decision: None,
            rule: None,
            shadow: None,
            limit: None,
            tag_exists: Vec::new(),
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            upstream_first_byte: None,
            upstream: None,
            outcome: Outcome::Internal,
            end_reason: None,
            request_id: None,
            trace_id: None,
            user_agent: head.headers.get(http::header::USER_AGENT).map(|value| Text::lossy(value.as_bytes())),
        };
        Exchange {
            connection,
            snapshot,
            route: None,
            upstream: None,
            host: HeaderValue::from_static(""),
            upstream_host: HeaderValue::from_static(""),
            decision_id,
            verifier: None,
            followed: None,
            record,
            outcome: None,
            permit: None,
            audit: None,
            known_tags: Vec::new(),
            held_tags: None,
            admission: None,
            grant: Grant::default(),
            connect_attempts: 0,
            dial: None,
            started: Instant::now(),
            sent_upstream: None,
            telemetry,
        }
    }

    pub(super) fn audit_log(&self) -> &AuditLog {
        &self.telemetry.audit
    }

    /// What is known of the request so far.
    pub(super) fn record(&self) -> &AccessRecord {
        &self.record
    }

    pub(super) fn time(&self) -> SystemTime {
        self.record.time
    }

    pub(super) fn set_route(&mut self, route: Route) {
        self.record.route = Some(route.kind());
        self.record.repository = route.repository().map(|name| Text::new(name.as_str()));
        self.record.reference = route.reference().map(Text::new);
        self.record.action = route.action();
        self.route = Some(route);
    }

    /// Notes what the policy is about to be asked.
    pub(super) fn note_asked(&mut self, route: &Route) {
        self.record.target = Some(Text::target(route.deciding_target()));
    }

    pub(super) fn permit(&mut self, permit: Permit) {
        self.record.decision = Some(Verdict::Allow);
        self.record.rule = Some(permit.rule_name().clone());
        self.permit = Some(permit);
    }

    pub(super) fn deny(&mut self, rule: Option<Arc<str>>) {
        self.record.decision = Some(Verdict::Deny);
        self.record.rule = rule;
        self.permit = None;
        self.held_tags = None;
    }

    /// Holds the tags to be pushed until the registry has answered, or the request has ended.
    pub(super) fn hold_tags(&mut self, held: Held) {
        self.held_tags = Some(held);
    }

    pub(super) fn note_shadow(&mut self, shadow: ShadowRecord) {
        self.record.shadow = Some(shadow);
    }

    pub(super) fn limited_by(&mut self, limit: Arc<str>) {
        self.record.limit = Some(limit);
    }

    pub(super) fn is_permitted(&self) -> bool {
        self.permit.is_some()
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.admission.is_some()
    }

    pub(super) fn enter_upstream(&mut self, upstream: Arc<Upstream>, admission: Admission) {
        self.upstream = Some(upstream);
        self.admission = Some(admission);
    }

    /// A manifest without a length shows its size only as it comes.
    pub(super) fn check_body_size(&mut self) -> pingora::Result<()> {
        let most = self.snapshot.settings.limits.requests.manifest;
        if self.record.route == Some(RouteKind::Manifest) && self.record.bytes_in > most {
            self.outcome = Some(Outcome::TooLarge);
            return Err(Error::explain(ErrorType::HTTPStatus(413), "the manifest is too large"));
        }
        Ok(())
    }

    /// Starts, or stops, the clock for the client's body.
    pub(super) fn expect_request_body(&mut self, more: bool) {
        if !more {
            self.sent_upstream.get_or_insert_with(Instant::now);
        }
        let phase = if more { Phase::RequestBody } else { Phase::Elsewhere };
        progress::moved(phase, self.snapshot.settings.limits.body_idle_timeout);
    }

    /// Starts, or stops, the clock for the upstream's body.
    pub(super) fn expect_response_body(&self, more: bool) {
        let phase = if more { Phase::ResponseBody } else { Phase::Elsewhere };
        let idle = self.upstream.as_ref().map_or(Duration::ZERO, |upstream| upstream.settings().timeouts.idle);
        progress::moved(phase, idle);
    }

    pub(super) fn answered(&mut self, status: u16, now: Instant) {
        if (100..200).contains(&status) {
            return;
        }
        self.record.status = Some(status);
        self.held_tags = None;
        if let Some(sent) = self.sent_upstream.take() {
            let waited = now.duration_since(sent);
            self.record.upstream_first_byte = Some(waited);
            if let Some(upstream) = &self.upstream {
                upstream.metrics().first_byte(waited);
            }
        }
    }

    /// Notes an answer of the gateway's own.
    ///
    /// A status of 0 means that none was sent.
    pub(super) fn refused(&mut self, status: u16, outcome: Outcome) {
        self.record.status = (status > 0).then_some(status);
        self.outcome = Some(outcome);
    }

    pub(super) fn received(&mut self, bytes: usize) {
        self.record.bytes_in += bytes as u64;
        self.grant.moved(bytes);
        progress::received(bytes);
        self.telemetry.metrics.received(bytes);
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.record.bytes_out += bytes as u64;
        self.grant.moved(bytes);
        progress::sent(bytes);
        self.telemetry.metrics.sent(bytes);
    }

    pub(super) fn trace(&mut self, request_id: RequestId, trace_id: Option<TraceId>) {
        self.record.request_id = Some(request_id);
        self.record.trace_id = trace_id;
    }

    /// Sets how the request ends, whatever else the framework will make of it.
    pub(super) fn set_outcome(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// The level at which the log mentions an answer of the upstream that ended so.
    pub(super) fn level(&self, outcome: Outcome) -> log::Level {
        self.upstream.as_ref().map_or_else(|| outcome.level(), |upstream| upstream.level(outcome))
    }

    /// The outcome set so far by a hook.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// What an error of the framework means, and counts it against the upstream if it is the upstream's.
    pub(super) fn outcome_of(&self, error: &Error) -> Outcome {
        if let Some(reason) = self.connection.end_reason() {
            return reason.into();
        }
        // The upstream is silent because the client is.
        if matches!(error.etype(), ErrorType::ReadTimedout) && progress::phase() == Phase::RequestBody {
            return Outcome::ClientTimeout;
        }
        if *error.esource() == ErrorSource::Downstream {
            return match error.etype() {
                ErrorType::ReadTimedout => Outcome::ClientTimeout,
                ErrorType::WriteTimedout => Outcome::ClientTooSlow,
                ErrorType::InvalidHTTPHeader => Outcome::Malformed,
                _ => Outcome::ClientAborted,
            };
        }
        if *error.esource() != ErrorSource::Upstream {
            return Outcome::Internal;
        }
        let (outcome, fault) = match error.etype() {
            ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::InvalidCert
            | ErrorType::TLSWantX509Lookup => (Outcome::UpstreamConnect, UpstreamFault::Tls),
            ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::SocketError
            | ErrorType::BindError => (Outcome::UpstreamConnect, UpstreamFault::Connect),
            ErrorType::ReadTimedout if self.record.status.is_none() => {
                (Outcome::UpstreamTimeout, UpstreamFault::FirstByteTimeout)
            }
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => {
                (Outcome::UpstreamTimeout, UpstreamFault::IdleTimeout)
            }
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
                (Outcome::UpstreamError, UpstreamFault::Closed)
            }
            _ => (Outcome::UpstreamError, UpstreamFault::Protocol),
        };
        if let Some(upstream) = &self.upstream {
            upstream.metrics().fault(fault);
        }
        log::log!(outcome.level(), "decision {}: upstream failed: {error}", self.decision_id);
        outcome
    }
}

/// The record is written here, since pingora's `logging` hook doesn't run for a connection that is cut.
impl Drop for Exchange {
    fn drop(&mut self) {
        let end_reason = self.connection.end_reason();
        let outcome = match (self.outcome, end_reason) {
            (Some(outcome), _) => outcome,
            (None, Some(reason)) => reason.into(),
            (None, None) if std::thread::panicking() => Outcome::Internal,
            (None, None) => match progress::stalled() {
                Some(Stall::Lifetime) => Outcome::LifetimeExceeded,
                Some(Stall::ClientSilent) => Outcome::ClientTimeout,
                Some(Stall::ClientSlow) => Outcome::ClientTooSlow,
                Some(Stall::Upstream) => {
                    if let Some(upstream) = &self.upstream {
                        upstream.metrics().fault(UpstreamFault::IdleTimeout);
                    }
                    Outcome::UpstreamTimeout
                }
                None => Outcome::ClientAborted,
            },
        };
        if let Some(held) = self.held_tags.take().filter(|_| self.sent_upstream.is_some()) {
            held.linger(UNANSWERED);
        }
        let mut record = self.record.take();
        record.tag_exists = self.known_tags.iter().map(|(tag, exists)| (Text::new(tag.as_str()), *exists)).collect();
        record.outcome = outcome;
        record.end_reason = end_reason;
        record.duration = self.started.elapsed();
        if let Some(slot) = self.audit.take() {
            slot.fill(record.clone());
        }
        self.telemetry.finish(record);
    }
}
