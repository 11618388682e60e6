//! One reading of a request head. What could be read in two ways is refused before anything is decided by it.
//!
//! The framework refuses much (differing lengths, folded lines, control characters, two Hosts). This module refuses what
//! it lets through.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::context::Exchange;
use super::refusal::Refusal;
use crate::config::RequestLimits;
use crate::oci::{self, Route, RouteKind};

/// What the gateway goes by from here on.
#[derive(Debug)]
pub(super) struct Head {
    /// What the request asks for.
    pub(super) route: Route,
    /// The host the client addressed, in lower case, without port and trailing dot.
    pub(super) host_name: String,
}

/// Reads the head strictly and routes it. The host as sent is left in `exchange`.
pub(super) fn read(session: &Session, exchange: &mut Exchange) -> Result<Head, Refusal> {
    let request = session.req_header();
    let limits = &exchange.snapshot.settings.limits.requests;
    check_size(&request.headers, limits)?;
    let target = match session.as_http1() {
        Some(http1) => {
            let raw = http1.get_headers_raw_bytes();
            check_raw_head(&raw)?;
            raw_target(&raw)?.to_owned()
        }
        None => http2_target(request)?,
    };
    if target.len() > limits.target {
        return Err(Refusal::too_large(414, format!("the request target is longer than {} bytes", limits.target)));
    }
    check_values(&request.headers)?;
    exchange.host = host(request)?;
    let host_name = exchange.host.to_str().ok().and_then(host_name);
    let host_name = host_name.ok_or_else(|| Refusal::malformed("the Host is not a host name or address"))?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target.as_str(), None),
    };
    let route = oci::route(request.method.as_str(), path, query)?;
    if route.is_upload() {
        check_upload_type(&request.headers)?;
    }
    if route.kind() == RouteKind::Manifest {
        check_manifest_size(&request.headers, limits.manifest)?;
    }
    // HTTP/2 announces a body by not ending the stream with the head (RFC 9113 §8.1).
    let unannounced = session.as_http2().is_some_and(|stream| !stream.is_body_empty());
    if !route.takes_body() && (unannounced || announces_body(&request.headers)) {
        return Err(Refusal::malformed("this request takes no body"));
    }
    check_expectation(&request.headers)?;
    Ok(Head { route, host_name })
}

/// RFC 9112 §2.2, §6.3: line endings and framing, on the head before the framework reads it. The framework has removed a
/// `Content-Length` beside a `Transfer-Encoding` by the time it shows the headers. (Octets in the request line that no
/// URI has are percent-encoded even here; routing refuses those.)
fn check_raw_head(raw: &[u8]) -> Result<(), Refusal> {
    let mut lengths = 0;
    let mut encodings = 0;
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(Refusal::malformed("a line of the request head does not end in CR LF"));
        };
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str().as_bytes()) {
            lengths += 1;
            let value = line.get(name.len() + 1..).unwrap_or_default().trim_ascii();
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err(Refusal::malformed("Content-Length is not one decimal number"));
            }
        } else if name.eq_ignore_ascii_case(TRANSFER_ENCODING.as_str().as_bytes()) {
            encodings += 1;
            let value = line.get(name.len() + 1..).unwrap_or_default().trim_ascii();
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::malformed("a Transfer-Encoding other than chunked"));
            }
        }
    }
    match (lengths, encodings) {
        (0 | 1, 0) | (0, 1) => Ok(()),
        (0, _) => Err(Refusal::malformed("Transfer-Encoding is given more than once")),
        (_, 0) => Err(Refusal::malformed("Content-Length is given more than once")),
        _ => Err(Refusal::malformed("Content-Length and Transfer-Encoding exclude each other")),
    }
}

/// The target of the request line (RFC 9112 §3): exactly `method SP target SP version`, in origin form.
fn raw_target(raw: &[u8]) -> Result<&str, Refusal> {
    let line = raw.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Refusal::malformed("the request line is not ASCII"))?;
    let mut parts = line.split(' ');
    let (Some(_method), Some(target), Some(_version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::malformed("the request line is not `method target version`"));
    };
    origin_form(target)
}

/// RFC 9113 §8.3.1: `:path` is in origin form; the framework shows it as part of an absolute URI. HTTP/2 frames bodies
/// itself, but a length that is given must have one reading (§8.1.1).
fn http2_target(request: &RequestHeader) -> Result<String, Refusal> {
    if request.uri.scheme().is_some_and(|scheme| *scheme != http::uri::Scheme::HTTPS) {
        return Err(Refusal::malformed("the :scheme is not https"));
    }
    let mut lengths = request.headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next().map(HeaderValue::as_bytes);
    if lengths.next().is_some() || first.is_some_and(|value| !value.iter().all(u8::is_ascii_digit)) {
        return Err(Refusal::malformed("Content-Length is not one decimal number"));
    }
    let target = request.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    target.ok_or_else(|| Refusal::malformed("no :path")).and_then(origin_form).map(str::to_owned)
}

fn origin_form(target: &str) -> Result<&str, Refusal> {
    if !target.starts_with('/') {
        return Err(Refusal::malformed("the request target is not in origin form (a path)"));
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Refusal::malformed("the request target has characters that a URI does not have"));
    }
    Ok(target)
}

/// RFC 9110 §5.5: octets above ASCII have no meaning of their own, so two readers can give them two.
fn check_values(headers: &HeaderMap) -> Result<(), Refusal> {
    let plain = |byte: &u8| (b' '..=b'~').contains(byte) || *byte == b'\t';
    match headers.iter().find(|(_, value)| !value.as_bytes().iter().all(plain)) {
        Some((name, _)) => Err(Refusal::malformed(format!("the value of {name} is not ASCII"))),
        None => Ok(()),
    }
}

/// The host as the client wrote it. A request without one is refused on every version of HTTP.
fn host(request: &RequestHeader) -> Result<HeaderValue, Refusal> {
    let host = match request.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => request.headers.get(HOST).cloned(),
    };
    host.filter(|host| !host.is_empty()).ok_or_else(|| Refusal::malformed("no Host"))
}

/// The name in a Host (RFC 9110 §7.2), in lower case; `None` if it is none.
fn host_name(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("443"))?)
        }
        None => host.split_once(':').unwrap_or((host, "443")),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > 255 || !name.bytes().all(plain) || port.parse::<u16>().is_err() {
        return None;
    }
    Some(name.to_ascii_lowercase())
}

/// The registry reads `mount` and `from` out of a form in the body as well, and prefers them to the query: a policy that
/// looks at the query alone would be walked around. No client of the registry API sends forms.
fn check_upload_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(first) = types.next() else { return Ok(()) };
    if types.next().is_some() {
        return Err(Refusal::malformed("Content-Type is given more than once"));
    }
    let value = first.as_bytes().to_ascii_lowercase();
    let contains = |needle: &[u8]| value.windows(needle.len()).any(|window| window == needle);
    if contains(b"form-urlencoded") || contains(b"multipart") {
        return Err(Refusal::body_type(
            "uploads do not take forms; send the blob as application/octet-stream (curl: -H 'Content-Type: application/octet-stream')",
        ));
    }
    Ok(())
}

/// RFC 6585 §5: as many fields, and as many bytes of them, as are permitted.
fn check_size(headers: &HeaderMap, limits: &RequestLimits) -> Result<(), Refusal> {
    if headers.len() > limits.fields {
        return Err(Refusal::too_large(431, format!("the request head has more than {} fields", limits.fields)));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > limits.head {
        return Err(Refusal::too_large(431, format!("the request head is larger than {} bytes", limits.head)));
    }
    Ok(())
}

/// A manifest is read whole by the registry, so its size is bounded; a blob is streamed and may be of any size.
fn check_manifest_size(headers: &HeaderMap, most: u64) -> Result<(), Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(Refusal::manifest_too_large(most));
    }
    Ok(())
}

/// RFC 9110 §9.3.1: a body on GET, HEAD or DELETE has no meaning, and not every server takes it off the connection.
fn announces_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).is_some_and(|value| value.as_bytes().iter().any(|digit| *digit != b'0'));
    length || headers.contains_key(TRANSFER_ENCODING)
}

/// RFC 9110 §10.1.1: there is one expectation.
fn check_expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut expectations = headers.get_all(EXPECT).iter();
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        _ => Err(Refusal { status: 417, ..Refusal::malformed("an expectation other than 100-continue") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(raw: &str) -> bool {
        check_raw_head(raw.as_bytes()).is_err()
    }

    #[test]
    fn framing_has_one_reading() {
        assert!(!refused("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"));
        assert!(!refused("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
        for headers in [
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\ncontent-length: 4\r\n",
            "Content-Length: 4\r\nContent-Length: 4\r\n",
            "Content-Length: 4, 4\r\n",
            "Content-Length: +4\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "X: 1\nContent-Length: 4\r\n",
        ] {
            assert!(refused(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")), "{headers:?}");
        }
    }

    #[test]
    fn the_request_line_has_three_parts_and_an_origin_form_target() {
        assert_eq!(raw_target(b"GET /v2/ HTTP/1.1\r\n").ok(), Some("/v2/"));
        for line in [
            "GET  /v2/ HTTP/1.1",
            "GET http://a/v2/ HTTP/1.1",
            "GET v2/ HTTP/1.1",
            "GET * HTTP/1.1",
            "GET /v2/#x HTTP/1.1",
            "GET /v2/\u{e9} HTTP/1.1",
        ] {
            assert!(raw_target(format!("{line}\r\n").as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        assert_eq!(host_name("Registry.Example.COM:443").as_deref(), Some("registry.example.com"));
        assert_eq!(host_name("registry.example.com.").as_deref(), Some("registry.example.com"));
        assert_eq!(host_name("[::1]:5000").as_deref(), Some("::1"));
        assert_eq!(host_name("127.0.0.1").as_deref(), Some("127.0.0.1"));
        for host in ["", ":443", "a b", "a/b", "user@a", "a:port", "a:80:80", "[::1", "[::1]x", "a\"b", "a,b"] {
            assert_eq!(host_name(host), None, "{host}");
        }
    }
}
