//! The audit log's part in a request.

use super::context::Exchange;
use super::refusal::Refusal;

/// Has a request that changes something recorded before it goes on.
pub(super) async fn begin(exchange: &mut Exchange) -> Result<(), Refusal> {
    let log = exchange.audit_log().clone();
    let writes = exchange.route.as_ref().is_some_and(|route| route.accesses().iter().any(|a| a.action.is_write()));
    if writes {
        let begun = log.begin(exchange.record()).await;
        exchange.audit = begun.map_err(|_| Refusal::unaudited())?;
    } else if log.refuses_all() {
        return Err(Refusal::unaudited());
    }
    Ok(())
}

/// Makes sure of a place in the log for a refusal. The record follows when the answer was given.
pub(super) async fn refused(exchange: &mut Exchange, refusal: &Refusal) {
    if exchange.audit.is_none() && refusal.outcome.is_refusal() {
        exchange.audit = exchange.audit_log().clone().refusal().await;
    }
}
