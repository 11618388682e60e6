//! The gateway's own requests, to a registry or for a revocation list: one each on a connection of its own, with a
//! deadline and a bound on what is read.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

/// One for the process, since making it reads the system's trust store. It pools nothing: no connection is given back to
/// it, so it belongs to no runtime, and a health check sees whether a registry takes connections.
static CONNECTOR: LazyLock<Connector> = LazyLock::new(|| Connector::new(None));

/// Interim answers (1xx) that are skipped before an answer.
const MAX_INTERIM: usize = 8;

/// The error of an answer that is larger than wanted.
pub(crate) const TOO_LARGE: ErrorType = ErrorType::Custom("AnswerTooLarge");

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: ResponseHeader,
    pub(crate) body: Bytes,
}

/// How much of an answer is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// The head; the connection is closed before the body.
    Head,
    /// All of it. A body of more than so many bytes is an error.
    Whole(usize),
}

/// Sends a request without a body to `peer` and waits for the answer, within `deadline` from connect to last byte.
///
/// # Errors
///
/// Marked as the upstream's, with the type that tells what failed.
pub(crate) async fn ask(
    peer: &HttpPeer,
    mut request: RequestHeader,
    wanted: Wanted,
    deadline: Duration,
) -> pingora::Result<Answer> {
    request.insert_header(http::header::CONNECTION, "close")?;
    // Boxed: the connector's future is large, and it would be part of every request's.
    match tokio::time::timeout(deadline, Box::pin(exchange(peer, request, wanted))).await {
        Ok(answer) => answer.map_err(Error::into_up),
        Err(_) => Err(failure(ErrorType::ReadTimedout, "no whole answer in time")),
    }
}

/// Refuses a connection of a TLS version that isn't safe any more (RFC 8996). The framework's connector accepts what the
/// library accepts, and libraries are patient.
///
/// # Errors
///
/// A failed handshake, as which it counts.
pub(crate) fn check_tls(digest: Option<&Digest>) -> pingora::Result<()> {
    let version = digest.and_then(|digest| digest.ssl_digest.as_ref()).map(|tls| tls.version.as_ref());
    match version {
        Some("TLSv1" | "TLSv1.1" | "SSLv3") => {
            Err(failure(ErrorType::TLSHandshakeFailure, "the upstream speaks a TLS version below 1.2"))
        }
        _ => Ok(()),
    }
}

async fn exchange(peer: &HttpPeer, request: RequestHeader, wanted: Wanted) -> pingora::Result<Answer> {
    let (mut session, _) = CONNECTOR.get_http_session(peer).await?;
    check_tls(session.digest())?;
    session.write_request_header(Box::new(request)).await?;
    session.finish_request_body().await?;
    let head = read_head(&mut session).await?;
    let body = match wanted {
        Wanted::Head => Bytes::new(),
        Wanted::Whole(most) => read_body(&mut session, &head, most).await?,
    };
    Ok(Answer { head, body })
}

async fn read_head(session: &mut HttpSession) -> pingora::Result<ResponseHeader> {
    for _ in 0..MAX_INTERIM {
        session.read_response_header().await?;
        match session.response_header() {
            Some(head) if head.status.is_informational() => {}
            Some(head) => return Ok(head.clone()),
            None => break,
        }
    }
    Err(failure(ErrorType::InvalidHTTPHeader, "no answer among the interim ones"))
}

async fn read_body(session: &mut HttpSession, head: &ResponseHeader, most: usize) -> pingora::Result<Bytes> {
    let announced = head.headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = BytesMut::with_capacity(announced.unwrap_or(0_usize).min(most));
    let too_large = || failure(TOO_LARGE, "the answer is larger than it may be");
    if announced.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    while let Some(part) = session.read_response_body().await? {
        if body.len() + part.len() > most {
            return Err(too_large());
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}

fn failure(kind: ErrorType, what: &'static str) -> Box<Error> {
    Error::explain(kind, what).into_up()
}
