//! The audit log's part in a request.

use super::context::Exchange;
use super::refusal::Refusal;
use crate::oci::{Action, Route};
use crate::telemetry::Outcome;

/// The status of a refused answer of the registry.
const ANSWER_REFUSED: u16 = 502;

/// Has a request that changes something recorded before it goes on.
pub(super) async fn begin(exchange: &mut Exchange) -> Result<(), Refusal> {
    let writes = exchange.route.as_ref().and_then(Route::action).is_some_and(Action::is_write);
    if writes {
        let begun = exchange.audit_log().begin(exchange.record()).await;
        exchange.audit = begun.map_err(|_| Refusal::unaudited())?;
    } else if exchange.audit_log().refuses_all() {
        return Err(Refusal::unaudited());
    }
    Ok(())
}

/// Records a refusal, unless the record of a request that was begun will tell it.
pub(super) async fn refused(exchange: &Exchange, status: u16, outcome: Outcome) {
    if exchange.audit.is_none() && outcome.is_refusal() {
        exchange.audit_log().refused(exchange.record(), status, outcome).await;
    }
}

/// The same for a request that is turned away because of the registry's answer to it, of which the client may have got
/// the head.
pub(super) async fn answer_refused(exchange: &Exchange, head: Option<u16>) {
    if let Some(outcome @ (Outcome::DigestMismatch | Outcome::RedirectRefused)) = exchange.outcome() {
        refused(exchange, head.unwrap_or(ANSWER_REFUSED), outcome).await;
    }
}
