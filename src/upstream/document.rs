//! A document behind a URL: fetched whole, with a bound and a deadline, and only if it has changed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
    USER_AGENT,
};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::{Error, ErrorType};
use thiserror::Error;

use super::LOOKUP_TIMEOUT;
use super::client::{self, Wanted};
use crate::config::CrlUrl;
use crate::tls::UpstreamMaterial;

/// Addresses of a name that are tried in one attempt.
const MAX_ADDRESSES: usize = 4;

/// For a connection, TLS included, where the deadline leaves that much.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest validator that is kept and sent back.
const MAX_VALIDATOR: usize = 1024;

/// By what a server tells whether a document has changed (RFC 9110 §8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Validators {
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

/// What an attempt brought.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// The document that the validators belong to is still the one.
    Unchanged,
    /// A document.
    Document { body: Bytes, validators: Validators },
}

/// Why an attempt brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum FetchFault {
    #[error("the name {host} can't be resolved: {cause}")]
    Resolve { host: String, cause: String },
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no TLS connection: {0} (is the server's certificate signed by a CA that is trusted here?)")]
    Tls(String),
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
    #[error("it answers with status {0}")]
    Status(u16),
    #[error("it redirects to {0}, and redirects are not followed; write that URL")]
    Redirect(String),
    #[error("it answers with more than {0} bytes")]
    TooLarge(usize),
    #[error("its answer is encoded ({0})")]
    Encoded(String),
    #[error("its answer broke off: {0}")]
    Broken(String),
}

impl FetchFault {
    /// The kind of fault as a metric label.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "fetch_resolve",
            Self::Connect(_) => "fetch_connect",
            Self::Tls(_) => "fetch_tls",
            Self::Timeout(_) => "fetch_timeout",
            Self::Status(_) => "fetch_status",
            Self::Redirect(_) => "fetch_redirect",
            Self::TooLarge(_) => "fetch_too_large",
            Self::Encoded(_) | Self::Broken(_) => "fetch_broken",
        }
    }
}

/// Asks for what is at `url`, unless it is what `known` belongs to.
///
/// # Errors
///
/// [`FetchFault`]; anything but 200 and 304 is one, so that an error page is never taken for the document.
pub(crate) async fn fetch(
    url: &CrlUrl,
    material: &UpstreamMaterial,
    known: &Validators,
) -> Result<Fetched, FetchFault> {
    let deadline = Instant::now() + url.timeout;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut fault = None;
    for address in resolve(url, left()).await?.into_iter().take(MAX_ADDRESSES) {
        let request = request(url, known).map_err(|e| FetchFault::Broken(e.to_string()))?;
        let peer = peer(url, material, address, left().min(CONNECT_TIMEOUT));
        match client::ask(&peer, request, Wanted::Whole(url.max_size), left()).await {
            Ok(answer) => return read(&answer.head, answer.body, known),
            Err(e) => fault = Some(classify(&e, url)),
        }
        // Another address may be reachable where this one isn't; what answered has answered.
        if !matches!(fault, Some(FetchFault::Connect(_) | FetchFault::Tls(_))) {
            break;
        }
    }
    Err(fault.unwrap_or(FetchFault::Timeout(url.timeout)))
}

async fn resolve(url: &CrlUrl, limit: Duration) -> Result<Vec<SocketAddr>, FetchFault> {
    let fault = |cause: String| FetchFault::Resolve { host: url.host.clone(), cause };
    let lookup = tokio::net::lookup_host((url.host.as_str(), url.port));
    match tokio::time::timeout(limit.min(LOOKUP_TIMEOUT), lookup).await {
        Ok(Ok(found)) => Some(found.collect::<Vec<_>>())
            .filter(|found| !found.is_empty())
            .ok_or_else(|| fault("the name has no address".to_owned())),
        Ok(Err(e)) => Err(fault(e.to_string())),
        Err(_) => Err(fault("no answer in time".to_owned())),
    }
}

fn peer(url: &CrlUrl, material: &UpstreamMaterial, address: SocketAddr, connect: Duration) -> HttpPeer {
    // Behind https the host is a name; an empty one would switch verification off in the framework.
    let name = if url.tls { url.host.clone() } else { String::new() };
    #[expect(
        clippy::disallowed_methods,
        reason = "the address is resolved already, so nothing blocks and nothing fails"
    )]
    let mut peer = HttpPeer::new(address, url.tls, name);
    let mut options = PeerOptions::new();
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    options.alpn = ALPN::H1;
    options.ca.clone_from(&material.ca);
    options.verify_cert = true;
    options.verify_hostname = true;
    peer.options = options;
    peer
}

fn request(url: &CrlUrl, known: &Validators) -> pingora::Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", url.target.as_bytes(), Some(6))?;
    request.insert_header(HOST, url.host_header())?;
    request.insert_header(USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION"), " (revocation lists)"))?;
    request.insert_header(ACCEPT_ENCODING, "identity")?;
    if let Some(etag) = &known.etag {
        request.insert_header(IF_NONE_MATCH, etag)?;
    }
    if let Some(date) = &known.last_modified {
        request.insert_header(IF_MODIFIED_SINCE, date)?;
    }
    Ok(request)
}

fn read(head: &ResponseHeader, body: Bytes, known: &Validators) -> Result<Fetched, FetchFault> {
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    match head.status.as_u16() {
        // Without a question there is nothing that could be unchanged.
        304 if *known != Validators::default() => return Ok(Fetched::Unchanged),
        304 => return Err(FetchFault::Status(304)),
        200 => {}
        300..=399 => {
            let target: String = text(LOCATION).unwrap_or("nowhere").chars().take(200).collect();
            return Err(FetchFault::Redirect(format!("{target:?}")));
        }
        status => return Err(FetchFault::Status(status)),
    }
    if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(FetchFault::Encoded(format!("{:?}", encoding.chars().take(40).collect::<String>())));
    }
    let kept = |name| text(name).filter(|value| value.len() <= MAX_VALIDATOR).map(str::to_owned);
    let validators = Validators { etag: kept(ETAG), last_modified: kept(LAST_MODIFIED) };
    Ok(Fetched::Document { body, validators })
}

fn classify(error: &Error, url: &CrlUrl) -> FetchFault {
    match error.etype() {
        kind if *kind == client::TOO_LARGE => FetchFault::TooLarge(url.max_size),
        ErrorType::TLSHandshakeFailure | ErrorType::TLSHandshakeTimedout | ErrorType::InvalidCert => {
            FetchFault::Tls(error.to_string())
        }
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::ConnectTimedout
        | ErrorType::BindError
        | ErrorType::SocketError => FetchFault::Connect(error.to_string()),
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => FetchFault::Timeout(url.timeout),
        _ => FetchFault::Broken(error.to_string()),
    }
}
