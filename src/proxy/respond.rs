//! Answers of the gateway's own: refusals, and errors of the upstream, in the form registry clients understand.

use std::time::Duration;

use bytes::Bytes;
use http::header;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource};

use super::catalog::Names;
use super::context::{Context, Exchange};
use super::quotas;
use super::redirect;
use super::refusal::Refusal;
use crate::oci::{self, ErrorCode};
use crate::telemetry::Outcome;

/// How much of a refused request's body is taken off the connection, and how long that may take. A client that is cut
/// off while it sends doesn't read the answer.
const DISCARD_BYTES: usize = 4 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Answers with a refusal. The connection stays usable where the protocol permits it.
pub(super) async fn refuse(session: &mut Session, exchange: &mut Exchange, refusal: &Refusal) -> pingora::Result<()> {
    exchange.refused(refusal.status, refusal.outcome);
    if refusal.outcome != Outcome::Denied {
        log::log!(
            refusal.outcome.level(),
            "decision {}: {}: {}",
            exchange.decision_id,
            refusal.outcome,
            refusal.message
        );
    }
    let usable = !refusal.close && discard_body(session, exchange).await;
    if !usable {
        session.set_keepalive(None);
    }
    let sent = write(session, refusal).await?;
    exchange.sent(sent);
    Ok(())
}

/// Answers with a page of the catalog.
pub(super) async fn names(session: &mut Session, exchange: &mut Exchange, page: &Names) -> pingora::Result<()> {
    exchange.refused(200, Outcome::Answered);
    if !discard_body(session, exchange).await {
        session.set_keepalive(None);
    }
    let body = oci::catalog_body(&page.names);
    let mut head = head(200, body.len())?;
    if let Some(next) = &page.next {
        head.insert_header(header::LINK, format!("<{next}>; rel=\"next\""))?;
    }
    session.write_response_header(Box::new(head), false).await?;
    exchange.sent(body.len());
    session.write_response_body(Some(Bytes::from(body)), true).await
}

/// What every answer of the gateway's own begins with. It is for one client only.
fn head(status: u16, length: usize) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(status, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, length)?;
    head.insert_header("Docker-Distribution-Api-Version", "registry/2.0")?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    Ok(head)
}

/// Takes the body off the connection; whether all of it came.
async fn discard_body(session: &mut Session, exchange: &mut Exchange) -> bool {
    if session.is_body_done() {
        return true;
    }
    // Who asks before sending doesn't send when refused (RFC 9110 §10.1.1), and nobody knows whether he will.
    if session.req_header().headers.contains_key(header::EXPECT) {
        return false;
    }
    let mut discarded = 0;
    let discard = async {
        while discarded < DISCARD_BYTES {
            match session.read_request_body().await {
                Ok(Some(bytes)) => discarded += bytes.len(),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    };
    let whole = tokio::time::timeout(DISCARD_TIME, discard).await.unwrap_or(false);
    exchange.received(discarded);
    whole
}

/// Writes the answer; on HEAD the same head without body. Returns the bytes of body sent.
async fn write(session: &mut Session, refusal: &Refusal) -> pingora::Result<usize> {
    let body = oci::body(refusal.code, &refusal.message, None);
    let mut head = head(refusal.status, body.len())?;
    for challenge in &refusal.challenges {
        head.append_header(header::WWW_AUTHENTICATE, challenge.clone())?;
    }
    if let Some(methods) = refusal.allow {
        head.insert_header(header::ALLOW, methods)?;
    }
    quotas::write_refusal(&mut head, refusal)?;
    let bodiless = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(head), bodiless).await?;
    if bodiless {
        // HTTP/2 has to be told; a stream that is only dropped is reset.
        session.write_response_body(None, true).await?;
        return Ok(0);
    }
    let length = body.len();
    session.write_response_body(Some(Bytes::from(body)), true).await?;
    Ok(length)
}

/// Answers after the framework gave up, unless an answer has begun or nobody is there to read one. Returns the status,
/// 0 for none.
pub(super) async fn failed(session: &mut Session, context: &mut Context, error: &Error) -> u16 {
    let Ok(exchange) = context.exchange() else { return 0 };
    let outcome = exchange.outcome().unwrap_or_else(|| exchange.outcome_of(error));
    let begun = session.response_written().is_some_and(|head| !head.status.is_informational());
    if begun {
        // The client must see that the answer is not whole: the connection is closed in the middle of it.
        exchange.refused(session.response_written().map_or(0, |head| head.status.as_u16()), outcome);
        session.set_keepalive(None);
        return 0;
    }
    let Some(refusal) = answer(outcome, error) else {
        exchange.refused(0, outcome);
        return 0;
    };
    // The request may be half read.
    session.set_keepalive(None);
    exchange.refused(refusal.status, outcome);
    match write(session, &refusal).await {
        Ok(sent) => exchange.sent(sent),
        Err(e) => log::debug!("decision {}: the error could not be delivered: {e}", exchange.decision_id),
    }
    refusal.status
}

/// The answer to a request that failed with `error`; `None` if nobody is there to read it.
pub(super) fn answer(outcome: Outcome, error: &Error) -> Option<Refusal> {
    let (status, message) = match outcome {
        Outcome::ClientAborted => return None,
        Outcome::ClientTimeout | Outcome::ClientTooSlow => (408, "the request was not complete in time"),
        Outcome::TooLarge => (413, "the manifest is too large"),
        Outcome::Malformed => (400, "the request is malformed"),
        Outcome::UpstreamUnavailable | Outcome::UpstreamBusy => (503, "the registry is not available; try again later"),
        Outcome::UpstreamConnect => (502, "the registry cannot be reached"),
        Outcome::UpstreamTimeout => (504, "the registry did not answer in time"),
        Outcome::UpstreamError if *error.etype() == redirect::NO_CONTENT => {
            (502, "the registry's storage did not give the content")
        }
        Outcome::UpstreamError => (502, "the registry broke off its answer"),
        Outcome::RedirectRefused => (502, "the registry redirects to a host that it may not redirect to"),
        Outcome::DigestMismatch => (502, "the registry answered with content that is not what its digest names"),
        _ if *error.esource() == ErrorSource::Downstream => return None,
        _ => (500, "internal error of the gateway"),
    };
    let code = if status < 500 { ErrorCode::Unsupported } else { ErrorCode::Unavailable };
    Some(Refusal { status, close: true, ..Refusal::new(code, outcome, message) })
}
