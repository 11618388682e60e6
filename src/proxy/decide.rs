//! From a strictly read head to a permit and an upstream.

use std::net::IpAddr;
use std::sync::Arc;

use pingora::http::RequestHeader;

use super::context::Exchange;
use super::refusal::Refusal;
use super::strict::Head;
use super::{shadow, tags, unix_seconds};
use crate::oci::{Access, Action, RepoName, Route};
use crate::policy::{Decision, Facts, KnownTags, Need, READ_ONLY_RULE, Standing, TlsFacts};
use crate::tag_locks::TagLocks;
use crate::telemetry::UpstreamFault;

/// Asks again whether the client may be connected at all. Cheap unless a generation was published since.
///
/// Whoever publishes ends the connections of clients that lost their rights. This covers the moment between the
/// publication and that end, and certificates that expire while connected.
pub(super) fn check_connection(exchange: &Exchange) -> Result<(), Refusal> {
    if let Some(reason) = exchange.connection.end_reason() {
        return Err(Refusal::withdrawn(reason));
    }
    match exchange.snapshot.judge(&exchange.connection) {
        Some(reason) => {
            // The answer is still delivered; the connection closes behind it.
            Err(Refusal::withdrawn(reason))
        }
        None => Ok(()),
    }
}

/// Decides over the request and leaves the permit in the exchange. Tags on whose existence the decision depends are held
/// until the request is over.
pub(super) async fn authorize(
    client: &RequestHeader,
    exchange: &mut Exchange,
    head: Head,
    locks: &Arc<TagLocks>,
) -> Result<(), Refusal> {
    let Head { route, host_name } = head;
    exchange.set_route(route.clone());
    if !is_addressed_here(exchange, &host_name) {
        return Err(Refusal::misdirected("the Host is not the name that the TLS connection was made for"));
    }
    choose_upstream(exchange, &route, &host_name)?;
    check_writable(exchange, &route)?;
    let route = drop_foreign_mount(exchange, route, &host_name);
    exchange.note_asked(&route);
    let mounts = route.has_mount();
    let asked = shadow::keep(exchange, &route);
    let (route, decision) = decide(exchange, route);
    if mounts {
        exchange.set_route(route.clone());
    }
    let decision = match decision {
        Decision::Reject(_) => decision,
        // Also when this client may overwrite: it must not come between another's look and its push.
        _ if exchange.snapshot.policy.looks_at_tags() && !route.pushed_tags().is_empty() => {
            Box::pin(decide_over_tags(client, exchange, &route, locks)).await?
        }
        decision => decision,
    };
    if let Some(asked) = asked {
        shadow::compare(exchange, &asked, &route, &decision);
    }
    accept(exchange, decision)
}

/// The decision over a push of tags, nobody else pushing them meanwhile, with whatever must be known of them.
async fn decide_over_tags(
    client: &RequestHeader,
    exchange: &mut Exchange,
    route: &Route,
    locks: &Arc<TagLocks>,
) -> Result<Decision, Refusal> {
    // Before the place at the upstream: whoever has one waits for nobody's lock.
    tags::hold(exchange, locks).await?;
    let deadline = tags::deadline(exchange);
    loop {
        let (_, decision) = decide(exchange, route.clone());
        let Decision::Needs(Need::TagExists { tag, .. }) = &decision else { return Ok(decision) };
        if exchange.known_tags.iter().any(|(known, _)| known == tag) {
            return Err(Refusal::internal("a decision needs what it was told"));
        }
        enter_upstream(exchange).await?;
        tags::look_up(tag, client, exchange, deadline).await?;
    }
}

/// Refuses what would write while the operator lets nothing be written.
fn check_writable(exchange: &mut Exchange, route: &Route) -> Result<(), Refusal> {
    let writes = route.action().is_some_and(Action::is_write);
    let Some(message) = exchange.snapshot.settings.read_only.clone().filter(|_| writes) else { return Ok(()) };
    exchange.deny(Some(READ_ONLY_RULE.into()));
    Err(Refusal::read_only(&message, &exchange.decision_id.to_string()))
}

/// Whether the connection stands for this host (RFC 9110 §7.4). The name of the handshake is binding; a client that gave
/// none, as clients that connect to an address do, may use an address or a name of the listener's certificates.
fn is_addressed_here(exchange: &Exchange, host_name: &str) -> bool {
    match exchange.connection.server_name.as_deref() {
        Some(server_name) => server_name.trim_end_matches('.') == host_name,
        None => {
            let listener = exchange.snapshot.listeners.get(exchange.connection.listener);
            host_name.parse::<IpAddr>().is_ok()
                || listener.is_some_and(|listener| listener.acceptor.has_name(host_name))
        }
    }
}

/// A mount is authorized by the right to pull from the source. If another upstream serves the source, the one that gets
/// the push has another repository of that name, or none: the mount is dropped.
fn drop_foreign_mount(exchange: &mut Exchange, route: Route, host_name: &str) -> Route {
    let from = route.mount().map(|mount| &mount.from);
    let foreign = from.is_some_and(|from| {
        let source = exchange.snapshot.upstreams.choose(default_upstream(exchange), Some(host_name), Some(from));
        source.map(|source| source.name()) != exchange.upstream.as_ref().map(|target| target.name())
    });
    if !foreign {
        return route;
    }
    let route = route.without_mount();
    exchange.set_route(route.clone());
    route
}

fn default_upstream(exchange: &Exchange) -> &str {
    let listener = exchange.snapshot.listeners.get(exchange.connection.listener);
    listener.map_or("", |listener| listener.upstream.as_str())
}

fn accept(exchange: &mut Exchange, decision: Decision) -> Result<(), Refusal> {
    match decision {
        Decision::Permit(permit) => {
            exchange.permit(permit);
            Ok(())
        }
        Decision::Reject(rejection) => {
            exchange.deny(rejection.rule.clone());
            Err(Refusal::denied(&rejection, &exchange.decision_id.to_string()))
        }
        // Nothing is allowed on a guess.
        Decision::Needs(_) => Err(Refusal::internal("a decision needs a fact that is not looked up")),
    }
}

/// The decision, and the route that may go on: without a mount that was refused.
fn decide(exchange: &Exchange, route: Route) -> (Route, Decision) {
    // The accesses of the route take the place of these.
    let standing = exchange.connection.standing(&exchange.snapshot.policy);
    exchange.snapshot.policy.decide_route(route, &facts(exchange, &standing, &[]))
}

/// Whether the client would get at `repository` of the upstream of this request if it asked to pull from it.
pub(super) fn may_pull(exchange: &Exchange, repository: &RepoName) -> bool {
    let upstream = exchange.upstream.as_ref().map(|upstream| upstream.name());
    // A pull of a name that another upstream claims would go there.
    let chosen = exchange.snapshot.upstreams.choose(upstream.unwrap_or_default(), None, Some(repository));
    let pull = [Access { action: Action::Pull, repository: Some(repository), tags: &[] }];
    let standing = exchange.connection.standing(&exchange.snapshot.policy);
    let facts = facts(exchange, &standing, &pull);
    let permitted = matches!(exchange.snapshot.policy.decide(&facts), Decision::Permit(_));
    permitted && chosen.map(|chosen| chosen.name()) == upstream
}

pub(super) fn facts<'a>(exchange: &'a Exchange, standing: &'a Standing, accesses: &'a [Access<'a>]) -> Facts<'a> {
    Facts {
        identity: &exchange.connection.identity,
        standing: Some(standing),
        accesses,
        now: unix_seconds(exchange.time()),
        client: exchange.connection.record.client.ip(),
        tls: TlsFacts::new(exchange.connection.record.tls_version.as_str()),
        tags: KnownTags::Each(&exchange.known_tags),
    }
}

fn choose_upstream(exchange: &mut Exchange, route: &Route, host_name: &str) -> Result<(), Refusal> {
    let default = default_upstream(exchange);
    let upstream = exchange.snapshot.upstreams.choose(default, Some(host_name), route.repository()).cloned();
    match upstream {
        Some(upstream) => {
            exchange.upstream = Some(upstream);
            Ok(())
        }
        None => Err(Refusal::internal("a listener without an upstream")),
    }
}

/// Waits for a place at the upstream, unless the request has one.
pub(super) async fn enter_upstream(exchange: &mut Exchange) -> Result<(), Refusal> {
    if exchange.is_admitted() {
        return Ok(());
    }
    let Some(upstream) = exchange.upstream.clone() else {
        return Err(Refusal::upstream(UpstreamFault::Resolve));
    };
    match upstream.admit().await {
        Ok(admission) => {
            exchange.enter_upstream(upstream, admission);
            Ok(())
        }
        Err(fault) => {
            upstream.metrics().fault(fault);
            Err(Refusal::upstream(fault))
        }
    }
}
