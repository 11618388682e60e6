//! Why a request is not proxied, in two voices: what the client may know, and how it counts.

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use pingora::http::ResponseHeader;

use crate::config::{ByteSize, HumanDuration};
use crate::oci::{ErrorCode, RouteError};
use crate::policy::{Quota, Rejection};
use crate::quotas::{Left, Refused};
use crate::telemetry::{EndReason, LimitKind, Outcome, UpstreamFault};

/// A request that ends at the gateway.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The HTTP status; for most codes the one that OCI gives it.
    pub(super) status: u16,
    /// The OCI error code (OCI distribution spec §Error codes).
    pub(super) code: ErrorCode,
    /// For the client.
    pub(super) message: String,
    /// For metrics and the access record.
    pub(super) outcome: Outcome,
    /// The methods the endpoint has, for a 405.
    pub(super) allow: Option<&'static str>,
    /// The registry's `WWW-Authenticate`, for a 401 that it asked for.
    pub(super) challenges: Vec<HeaderValue>,
    /// Seconds after which another try is worth it.
    pub(super) retry_after: Option<u64>,
    /// What the client has left of manifests to pull.
    pub(super) left: Option<Left>,
    /// Whether the connection can't be trusted to carry another request.
    pub(super) close: bool,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, outcome: Outcome, message: impl Into<String>) -> Self {
        Refusal {
            status: code.status(),
            code,
            message: message.into(),
            outcome,
            allow: None,
            challenges: Vec::new(),
            retry_after: None,
            left: None,
            close: false,
        }
    }

    /// A head that has more than one reading. The connection closes: what follows on it can't be told apart either.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Refusal { status: 400, close: true, ..Self::new(ErrorCode::Unsupported, Outcome::Malformed, message) }
    }

    /// What can't be recorded isn't done.
    pub(super) fn unaudited() -> Self {
        let message = "the gateway's audit log can't be written; try again later";
        Self::new(ErrorCode::Unavailable, Outcome::AuditUnavailable, message)
    }

    /// RFC 9110 §15.5.20: this connection doesn't stand for that host.
    pub(super) fn misdirected(message: impl Into<String>) -> Self {
        Refusal { status: 421, ..Self::new(ErrorCode::Unsupported, Outcome::Misdirected, message) }
    }

    /// RFC 9110 §15.5.16: a body of a type that the registry would read as more parameters.
    pub(super) fn body_type(message: impl Into<String>) -> Self {
        Refusal { status: 415, ..Self::new(ErrorCode::Unsupported, Outcome::Unsupported, message) }
    }

    /// A part of the head beyond its limit.
    pub(super) fn too_large(status: u16, message: impl Into<String>) -> Self {
        Refusal { status, close: true, ..Self::new(ErrorCode::Unsupported, Outcome::TooLarge, message) }
    }

    /// RFC 9110 §15.5.14, in the words registries have for it.
    pub(super) fn manifest_too_large(most: u64) -> Self {
        let message = format!("the manifest is larger than {most} bytes");
        Refusal { status: 413, ..Self::new(ErrorCode::ManifestInvalid, Outcome::TooLarge, message) }
    }

    pub(super) fn denied(rejection: &Rejection, decision_id: &str) -> Self {
        Self::new(ErrorCode::Denied, Outcome::Denied, rejection.message(decision_id))
    }

    /// A limit without room (RFC 6585 §4).
    pub(super) fn limited(refused: &Refused, decision_id: &str) -> Self {
        // Never too early: who comes then is refused again.
        let seconds = (refused.wait.as_secs() + u64::from(refused.wait.subsec_nanos() > 0)).max(1);
        let allowed = match (refused.quota, refused.places) {
            (Some(Quota { amount, window }), _) => {
                let window = HumanDuration(window);
                match refused.kind {
                    LimitKind::Bytes => format!("{} in {window}", ByteSize(amount)),
                    LimitKind::ManifestPulls => format!("{amount} manifests in {window}"),
                    _ => format!("{amount} requests in {window}"),
                }
            }
            (None, places) => format!("{} uploads at a time", places.unwrap_or_default()),
        };
        let message = format!(
            "no more than {allowed} (limit {}); try again in {seconds} s (decision {decision_id})",
            refused.limit
        );
        let refusal = Self::new(ErrorCode::TooManyRequests, Outcome::Limited, message);
        Refusal { retry_after: Some(seconds), left: refused.left, ..refusal }
    }

    /// A limit applies, and nobody can say whether it has room.
    pub(super) fn limits_unknown() -> Self {
        let message = "the gateway can't count this request at the moment; try again";
        Self::new(ErrorCode::Unavailable, Outcome::LimitsUnavailable, message)
    }

    /// Nothing may be written at the moment, by the operator's order.
    pub(super) fn read_only(message: &str, decision_id: &str) -> Self {
        Self::new(ErrorCode::Denied, Outcome::ReadOnly, format!("{message} (rule: read-only; decision {decision_id})"))
    }

    /// Another push of a tag takes too long.
    pub(super) fn tag_busy() -> Self {
        Self::new(ErrorCode::Unavailable, Outcome::TagBusy, "another push of this tag is under way; try again")
    }

    /// Redis doesn't say whether another replica pushes the tag.
    pub(super) fn tag_lock_unknown() -> Self {
        let message = "whether another push of this tag is under way can't be found out; try again";
        Self::new(ErrorCode::Unavailable, Outcome::TagBusy, message)
    }

    /// The registry doesn't say whether a tag exists, and whether it may be pushed depends on that.
    pub(super) fn tag_unknown() -> Self {
        let message =
            "the registry doesn't say whether the tag exists, which decides whether it may be pushed; try again";
        Self::new(ErrorCode::Unavailable, Outcome::UpstreamError, message)
    }

    /// An upload session that isn't this client's, or isn't at all.
    pub(super) fn unknown_upload(decision_id: &str) -> Self {
        let message = format!("this client has no such upload; start a new one (decision {decision_id})");
        Self::new(ErrorCode::BlobUploadUnknown, Outcome::Denied, message)
    }

    /// The registry knows no catalog, as many don't.
    pub(super) fn no_catalog() -> Self {
        Self::new(ErrorCode::NameUnknown, Outcome::Unsupported, "the registry has no catalog")
    }

    /// No name to show among as many as are looked at for one request.
    pub(super) fn catalog_too_large() -> Self {
        let message = "the catalog is too large to find what this client may see of it";
        Self::new(ErrorCode::Unavailable, Outcome::UpstreamUnavailable, message)
    }

    /// The client has the registry's pages read for it often enough already (RFC 6585 §4).
    pub(super) fn catalog_walks(most: usize) -> Self {
        let message = format!("no more than {most} requests for the catalog at a time; try again in 1 s");
        Refusal { retry_after: Some(1), ..Self::new(ErrorCode::TooManyRequests, Outcome::Limited, message) }
    }

    /// The registry wants credentials of the client.
    pub(super) fn unauthorized(head: &ResponseHeader) -> Self {
        let challenges = head.headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect();
        let message = "the registry asks for credentials";
        Refusal { challenges, ..Self::new(ErrorCode::Unauthorized, Outcome::Proxied, message) }
    }

    /// The registry doesn't let the client's credentials in.
    pub(super) fn denied_upstream() -> Self {
        Self::new(ErrorCode::Denied, Outcome::Proxied, "the registry refuses the catalog to these credentials")
    }

    /// The client has lost its rights since the handshake. The message doesn't say more than the alert would.
    pub(super) fn withdrawn(reason: EndReason) -> Self {
        let (outcome, message) = match reason {
            EndReason::Revoked => (Outcome::Revoked, "the client certificate is revoked"),
            EndReason::Expired => (Outcome::Expired, "the client certificate has expired"),
            EndReason::Untrusted => (Outcome::Untrusted, "the issuer of the client certificate is no longer trusted"),
            _ => (Outcome::RevocationUnknown, "the state of the client certificate is not known at the moment"),
        };
        Refusal { close: true, ..Self::new(ErrorCode::Denied, outcome, message) }
    }

    pub(super) fn upstream(fault: UpstreamFault) -> Self {
        let (outcome, message) = match fault {
            UpstreamFault::Busy => (Outcome::UpstreamBusy, "the registry is busy; try again"),
            _ => (Outcome::UpstreamUnavailable, "the registry is not available; try again later"),
        };
        Self::new(ErrorCode::Unavailable, outcome, message)
    }

    /// Something that can't happen did; refuse.
    pub(super) fn internal(message: &'static str) -> Self {
        log::error!("{message}");
        Refusal { status: 500, ..Self::new(ErrorCode::Unavailable, Outcome::Internal, "internal error of the gateway") }
    }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        let outcome = match error.code {
            ErrorCode::Unsupported | ErrorCode::NameUnknown => Outcome::Unsupported,
            _ => Outcome::Malformed,
        };
        Refusal { allow: error.allow, ..Self::new(error.code, outcome, error.message) }
    }
}
