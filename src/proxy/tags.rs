//! Whether tags exist: asked of the registry when a decision depends on it, with the tags held until their push is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::http::RequestHeader;

use super::context::Exchange;
use super::headers::{self, Own};
use super::refusal::Refusal;
use super::respond;
use crate::oci::{self, Route, Tag};
use crate::tag_locks::{LockFault, TagLocks};
use crate::upstream::client::{self, Answer, Wanted};

/// How long other pushes of the same tag are waited for, and the registry's answers whether tags exist. containerd gives
/// up after 30 s without an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses that are tried for one question.
const MAX_ATTEMPTS: usize = 3;

/// All kinds of manifests. A registry may say of a tag that it is unknown if it names a manifest that isn't asked for.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v1+prettyjws, \
                         application/vnd.docker.distribution.manifest.v1+json, \
                         application/vnd.oci.artifact.manifest.v1+json, */*";

/// When a request must know whether its tags exist, from now.
pub(super) fn deadline(exchange: &Exchange) -> Instant {
    Instant::now() + patience(exchange)
}

fn patience(exchange: &Exchange) -> Duration {
    exchange.upstream.as_ref().map_or(PATIENCE, |u| u.settings().timeouts.first_byte).min(PATIENCE)
}

/// Waits until nobody else pushes one of the request's tags, and holds them until the registry has answered.
pub(super) async fn hold(exchange: &mut Exchange, locks: &Arc<TagLocks>) -> Result<(), Refusal> {
    let (Some(route), Some(upstream)) = (&exchange.route, &exchange.upstream) else { return Ok(()) };
    let Some(repository) = route.repository() else { return Ok(()) };
    let shared = exchange.snapshot.quotas.shared();
    let held = locks.take((upstream.name(), repository), route.pushed_tags(), shared, patience(exchange)).await;
    let held = held.map_err(|fault| match fault {
        LockFault::Busy => Refusal::tag_busy(),
        LockFault::Unknown => Refusal::tag_lock_unknown(),
    })?;
    exchange.hold_tags(held);
    Ok(())
}

/// Asks the registry whether a tag of the request's repository exists. What isn't a clear answer refuses the request.
pub(super) async fn look_up(
    tag: &Tag,
    client: &RequestHeader,
    exchange: &mut Exchange,
    deadline: Instant,
) -> Result<(), Refusal> {
    let repository = exchange.route.as_ref().and_then(Route::repository);
    let repository = repository.ok_or_else(|| Refusal::internal("a tag without a repository"))?;
    let target = oci::tag_target(repository, tag);
    let answer = ask(&target, client, exchange, deadline).await?;
    let exists = match answer.head.status.as_u16() {
        200 => true,
        404 => false,
        401 => return Err(Refusal::unauthorized(&answer.head)),
        status => {
            log::warn!("decision {}: whether {target} exists: status {status}", exchange.decision_id);
            return Err(Refusal::tag_unknown());
        }
    };
    exchange.known_tags.push((tag.clone(), exists));
    Ok(())
}

/// Asks the upstream, and another address of it if one can't be reached.
async fn ask(
    target: &str,
    client: &RequestHeader,
    exchange: &mut Exchange,
    deadline: Instant,
) -> Result<Answer, Refusal> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut attempts = 1;
    loop {
        let own = Own { method: "HEAD", accept: MANIFESTS, target };
        let request = headers::own_request(&own, client, exchange);
        let request = request.map_err(|_| Refusal::internal("a request to the upstream could not be made"))?;
        let address = exchange.next_address().map_err(|error| failed(exchange, &error))?;
        match client::ask(address.peer(), request, Wanted::Head, left()).await {
            Ok(answer) => {
                exchange.connected(false);
                return Ok(answer);
            }
            // Asking twice does no harm.
            Err(error) if !left().is_zero() && attempts < MAX_ATTEMPTS => {
                attempts += 1;
                log::debug!("decision {}: upstream {}: {error}", exchange.decision_id, address.label());
            }
            Err(error) => return Err(failed(exchange, &error)),
        }
    }
}

/// Nothing has been sent on, and nothing is known: try again later.
fn failed(exchange: &Exchange, error: &pingora::Error) -> Refusal {
    let outcome = exchange.outcome().unwrap_or_else(|| exchange.outcome_of(error));
    match respond::answer(outcome, error) {
        Some(_) => Refusal { outcome, ..Refusal::tag_unknown() },
        None => Refusal::internal("the client's error while asking the upstream"),
    }
}
