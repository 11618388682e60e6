//! What a second policy would have said, for the record alone.

use super::context::Exchange;
use super::decide::facts;
use crate::oci::Route;
use crate::policy::{Decision, Judgement};
use crate::telemetry::ShadowRecord;

/// The request to ask the shadow policy about, if there is one.
pub(super) fn keep(exchange: &Exchange, asked: &Route) -> Option<Route> {
    exchange.snapshot.shadow.as_ref().map(|_| asked.clone())
}

/// Notes how the request would have come out. The shadow policy knows the facts that the one in force knew, and has
/// nothing looked up: what it can't decide by them stays open.
pub(super) fn compare(exchange: &mut Exchange, asked: &Route, forwarded: &Route, decision: &Decision) {
    let Some(shadow) = exchange.snapshot.shadow.clone() else { return };
    let real = Judgement::of(asked, forwarded, decision).judged;
    let standing = exchange.connection.shadow_standing(&shadow);
    let judgement = shadow.judge_route(asked, &facts(exchange, &standing, &[]));
    exchange.note_shadow(ShadowRecord::new(judgement, real));
}
