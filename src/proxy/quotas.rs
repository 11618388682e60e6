//! Holds a request to the limits of the policy, and tells the client what it has left.

use http::header::{CONTENT_LENGTH, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderName, Version};
use pingora::http::{RequestHeader, ResponseHeader};

use super::context::Exchange;
use super::refusal::Refusal;
use crate::oci::{Route, RouteKind};
use crate::quotas::{Demand, Denied, Left, Pull};

/// As Docker Hub has them: `100;w=21600` is a hundred in six hours.
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");

/// What the names of such fields begin with.
const PREFIX: &str = "ratelimit-";

/// Whom Docker Hub counts: an address or an account.
const SOURCE: HeaderName = HeaderName::from_static("docker-ratelimit-source");

/// Seconds after which to try again what isn't available.
const UNAVAILABLE_RETRY: u64 = 5;

/// Asks the limits that apply to the client. What the policy refused doesn't get here and counts nothing.
pub(super) async fn check(request: &RequestHeader, exchange: &mut Exchange) -> Result<(), Refusal> {
    if exchange.snapshot.policy.limits().is_empty() {
        return Ok(());
    }
    let snapshot = exchange.snapshot.clone();
    let policy = &snapshot.policy;
    let Some(demand) = exchange.route.as_ref().map(|route| demand(request, route)) else {
        return Err(Refusal::internal("limits were asked before the route was known"));
    };
    let standing = exchange.connection.standing(policy);
    let client = exchange.connection.client_id;
    match snapshot.quotas.admit(policy, &standing, client, demand).await {
        Ok(grant) => {
            exchange.grant = grant;
            Ok(())
        }
        Err(Denied::Unknown) => Err(Refusal::limits_unknown()),
        Err(Denied::Refused(refused)) => {
            let refusal = Refusal::limited(&refused, &exchange.decision_id.to_string());
            exchange.limited_by(refused.limit);
            Err(refusal)
        }
    }
}

fn demand(request: &RequestHeader, route: &Route) -> Demand {
    let method = route.method().as_str();
    let manifest = match (route.kind(), method) {
        (RouteKind::Manifest, "GET") => Some(Pull::Take),
        (RouteKind::Manifest, "HEAD") => Some(Pull::Look),
        _ => None,
    };
    let upload =
        matches!((route.kind(), method), (RouteKind::UploadStart, "POST") | (RouteKind::Upload, "PATCH" | "PUT"));
    Demand { manifest, upload, bytes: size(request) }
}

/// How many bytes the bodies have, if that can be known before the answer.
fn size(request: &RequestHeader) -> Option<u64> {
    let length = request.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match request.method.as_str() {
        "GET" => None,
        "HEAD" | "DELETE" => Some(0),
        // RFC 9112 §6.3: without either field a request has no body. HTTP/2 frames it by itself.
        _ if request.version != Version::HTTP_2 && !request.headers.contains_key(TRANSFER_ENCODING) => {
            length.or(Some(0))
        }
        _ => length,
    }
}

/// Tells in an answer what the client has left. What the registry says of limits is left out where it isn't about the
/// client: where the gateway has limits of its own, or asks with an account of its own.
pub(super) fn show(response: &mut ResponseHeader, exchange: &Exchange) -> pingora::Result<()> {
    let account = exchange.upstream.as_ref().is_some_and(|upstream| upstream.credentials().is_some());
    if account || !exchange.snapshot.policy.limits().is_empty() {
        let about_limits = |name: &&HeaderName| name.as_str().starts_with(PREFIX) || **name == SOURCE;
        let names: Vec<HeaderName> = response.headers.keys().filter(about_limits).cloned().collect();
        for name in &names {
            response.remove_header(name);
        }
    }
    exchange.grant.left().map_or(Ok(()), |left| write(response, left))
}

fn write(response: &mut ResponseHeader, left: Left) -> pingora::Result<()> {
    let seconds = left.quota.window.as_secs();
    response.insert_header(LIMIT, format!("{};w={seconds}", left.quota.amount))?;
    response.insert_header(REMAINING, format!("{};w={seconds}", left.remaining))
}

/// Tells in a refusal when to come again, and what is left.
pub(super) fn write_refusal(response: &mut ResponseHeader, refusal: &Refusal) -> pingora::Result<()> {
    let unavailable = (refusal.status == 503).then_some(UNAVAILABLE_RETRY);
    if let Some(seconds) = refusal.retry_after.or(unavailable) {
        response.insert_header(RETRY_AFTER, seconds)?;
    }
    refusal.left.map_or(Ok(()), |left| write(response, left))
}
