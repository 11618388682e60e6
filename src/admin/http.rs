//! HTTP/1 in its smallest useful form: one bounded request a connection, without a body, and one answer.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::config::Secret;

/// The longest head accepted, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// The most header fields accepted.
const MAX_FIELDS: usize = 64;

/// For a handshake, for the whole head to arrive, and for the whole answer to be taken.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// How much of what a client sends after its head is read and thrown away, and for how long.
const MAX_DISCARD: u64 = 64 * 1024;
const DISCARD_DEADLINE: Duration = Duration::from_secs(1);

/// A connection of either kind of listener.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The path without the query.
    pub(super) path: String,
    /// The query; empty if there is none.
    pub(super) query: String,
    /// Whether JSON is asked for, by the query or by `Accept`.
    pub(super) wants_json: bool,
    /// The value of the only `Host` field.
    pub(super) host: Option<String>,
    /// Whether a browser sends this on behalf of a page: there is an `Origin` field, or `Sec-Fetch-Site` names another
    /// site than this one.
    pub(super) for_page: bool,
    /// The value of the only `Authorization` field.
    pub(super) authorization: Option<Secret<Vec<u8>>>,
}

/// What is answered, always as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    /// What a browser may do for it (Content Security Policy).
    pub(super) policy: &'static str,
}

/// For what is no page: nothing, not even in a frame.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// The statuses in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    /// A token is missing, or wrong.
    Unauthorized,
    Forbidden,
    NotFound,
    /// With the methods there are, for the `Allow` field.
    MethodNotAllowed(&'static str),
    HeadTooLarge,
    InternalError,
    Unavailable,
}

impl Response {
    /// Plain text; the end of the last line is added.
    pub(super) fn text(status: Status, body: impl Into<String>) -> Self {
        let mut body = body.into();
        if !body.ends_with('\n') {
            body.push('\n');
        }
        Self::of("text/plain; charset=utf-8", status, body)
    }

    /// Anything else that is no page.
    pub(super) fn of(content_type: &'static str, status: Status, body: String) -> Self {
        Self { status, content_type, body, policy: NOTHING }
    }

    /// A page, with what a browser may do for it.
    pub(super) fn page(body: String, policy: &'static str) -> Self {
        Self { status: Status::Ok, content_type: "text/html; charset=utf-8", body, policy }
    }

    /// The bytes that go out; to a `HEAD` request without the body, but with its length.
    fn encode(&self, with_body: bool) -> Vec<u8> {
        let (code, reason) = self.status.line();
        let mut head = format!(
            "HTTP/1.1 {code} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\nContent-Security-Policy: {}\r\nConnection: close\r\n",
            self.content_type,
            self.body.len(),
            self.policy,
        );
        if self.status == Status::Unauthorized {
            // Programs send the token as it is, browsers ask for it as a password (RFC 7617).
            head.push_str("WWW-Authenticate: Bearer realm=\"portcullis\"\r\n");
            head.push_str("WWW-Authenticate: Basic realm=\"portcullis\", charset=\"UTF-8\"\r\n");
        }
        if let Status::MethodNotAllowed(allow) = self.status {
            head.push_str("Allow: ");
            head.push_str(allow);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        if with_body {
            head.push_str(&self.body);
        }
        head.into_bytes()
    }
}

impl Status {
    fn line(self) -> (u16, &'static str) {
        match self {
            Self::Ok => (200, "OK"),
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed(_) => (405, "Method Not Allowed"),
            Self::HeadTooLarge => (431, "Request Header Fields Too Large"),
            Self::InternalError => (500, "Internal Server Error"),
            Self::Unavailable => (503, "Service Unavailable"),
        }
    }
}

/// Reads one request, has it answered, and closes the connection. A client that closes before it sent anything, as TCP
/// probes do, is no error.
///
/// # Errors
///
/// Fails if the connection breaks or a deadline passes. How long `answer` takes is its own affair.
pub(super) async fn exchange<F>(mut stream: Box<dyn Stream>, answer: impl FnOnce(Request) -> F) -> io::Result<()>
where
    F: Future<Output = Response>,
{
    let (response, with_body) = match timeout(DEADLINE, read_head(&mut stream)).await?? {
        Head::None => return Ok(()),
        Head::Refused(response) => (response, true),
        Head::Complete(request) => {
            let with_body = request.method != "HEAD";
            (answer(request).await, with_body)
        }
    };
    timeout(DEADLINE, async {
        stream.write_all(&response.encode(with_body)).await?;
        stream.shutdown().await
    })
    .await??;
    // A socket closed with unread bytes resets the connection, and the client may lose its answer.
    let (mut unread, mut nowhere) = (stream.take(MAX_DISCARD), tokio::io::sink());
    let _ = timeout(DISCARD_DEADLINE, tokio::io::copy(&mut unread, &mut nowhere)).await;
    Ok(())
}

enum Head {
    Complete(Request),
    Refused(Response),
    None,
}

async fn read_head(stream: &mut Box<dyn Stream>) -> io::Result<Head> {
    let mut bytes = Vec::with_capacity(1024);
    while bytes.len() < MAX_HEAD {
        let room = MAX_HEAD - bytes.len();
        // `u64` holds any `usize` there is.
        if stream.take(room as u64).read_buf(&mut bytes).await? == 0 {
            return if bytes.is_empty() { Ok(Head::None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if let Some(head) = parse(&bytes) {
            return Ok(head);
        }
    }
    Ok(Head::Refused(Response::text(Status::HeadTooLarge, "the head of the request is too large")))
}

/// The head, once it is complete or known to be wrong.
fn parse(bytes: &[u8]) -> Option<Head> {
    let malformed = |what: &str| Some(Head::Refused(Response::text(Status::BadRequest, what)));
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Some(Head::Refused(Response::text(Status::HeadTooLarge, "the request has too many header fields")));
        }
        Err(_) => return malformed("this is not an HTTP/1 request"),
    }
    let (Some(method), Some(target)) = (head.method, head.path) else {
        return malformed("this is not an HTTP/1 request");
    };
    if !target.starts_with('/') {
        return malformed("the request target must be a path");
    }
    let named = |name: &'static str| head.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut hosts = named("host").map(|field| String::from_utf8_lossy(field.value).into_owned());
    let host = hosts.next();
    if hosts.next().is_some() {
        return malformed("the request has several Host fields");
    }
    let mut tokens = named("authorization").map(|field| Secret::new(field.value.to_vec()));
    let authorization = tokens.next();
    if tokens.next().is_some() {
        return malformed("the request has several Authorization fields");
    }
    Some(Head::Complete(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        wants_json: query.split('&').any(|pair| pair == "format=json")
            || named("accept").any(|field| field.value.starts_with(b"application/json")),
        host,
        authorization,
        for_page: named("origin").next().is_some() || named("sec-fetch-site").any(|field| !is_own(field.value)),
    }))
}

/// Whether this value of `Sec-Fetch-Site` says that the user asked (`none`), or a page of this very listener.
fn is_own(site: &[u8]) -> bool {
    matches!(site, b"none" | b"same-origin")
}
