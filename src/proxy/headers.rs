//! The heads that go upstream and come back.
//!
//! A request head is made anew: method and target from the route, header fields from a short list of what a registry
//! reads, our own fields last. Whatever a client invents to look like a proxy, to override a method or to carry an
//! identity is not on the list, in no spelling.

use std::fmt::Write as _;

use http::header::{self, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};

use super::context::Exchange;
use super::{location, redirect, uploads};
use crate::config::Authorization;

/// Request fields that reach the registry as the client sent them. `Content-Length` and `Transfer-Encoding` were checked
/// to have one reading, and the framework frames the body anew by them.
const FORWARDED: [HeaderName; 19] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::PRAGMA,
    header::RANGE,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
    HeaderName::from_static("tracestate"),
];

/// Prefixes of fields that belong to the registry protocol, such as `Docker-Content-Digest` and `OCI-Chunk-Min-Length`.
const FORWARDED_PREFIXES: [&str; 2] = ["docker-", "oci-"];

const X_REQUEST_ID: &str = "X-Request-Id";
const TRACEPARENT: &str = "traceparent";
const TRACEPARENT_LENGTH: usize = 55;

/// Whether a field belongs to the registry protocol.
pub(super) fn is_registrys(name: &HeaderName) -> bool {
    FORWARDED_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// The head to send upstream for the route in `exchange`.
pub(super) fn upstream_request(client: &RequestHeader, exchange: &mut Exchange) -> pingora::Result<RequestHeader> {
    let route = exchange.route.as_ref().ok_or_else(|| super::internal("no route"))?;
    let mut request = RequestHeader::build(route.method().as_str(), route.target().as_bytes(), Some(24))?;
    request.set_version(http::Version::HTTP_11);
    for (name, value) in &client.headers {
        if FORWARDED.contains(name) || is_registrys(name) {
            request.append_header(name.clone(), value.clone())?;
        }
    }
    if client.version == http::Version::HTTP_2 {
        // An interim answer can't be passed on over HTTP/2 here, so none is asked for.
        request.remove_header(&header::EXPECT);
    }
    if exchange.upstream.as_ref().is_some_and(|upstream| upstream.settings().verify_digests) {
        // Digests are over what was pushed. Without the header any encoding would do (RFC 9110 §12.5.3).
        request.insert_header(header::ACCEPT_ENCODING, "identity")?;
    }
    authorization(client, &mut request, exchange)?;
    forwarding(&mut request, exchange)?;
    tracing(client, &mut request, exchange)?;
    client_identity(&mut request, exchange)?;
    Ok(request)
}

/// What the gateway asks of a registry itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) method: &'static str,
    pub(super) accept: &'static str,
    /// Path and query.
    pub(super) target: &'a str,
}

/// The head of a request of the gateway's own, made for this client: with what tells the registry who asks, and nothing
/// that asks for another form of the answer.
pub(super) fn own_request(
    own: &Own<'_>,
    client: &RequestHeader,
    exchange: &mut Exchange,
) -> pingora::Result<RequestHeader> {
    let mut request = RequestHeader::build(own.method, own.target.as_bytes(), Some(12))?;
    request.set_version(http::Version::HTTP_11);
    request.insert_header(header::ACCEPT, own.accept)?;
    authorization(client, &mut request, exchange)?;
    forwarding(&mut request, exchange)?;
    tracing(client, &mut request, exchange)?;
    client_identity(&mut request, exchange)?;
    Ok(request)
}

fn authorization(client: &RequestHeader, request: &mut RequestHeader, exchange: &Exchange) -> pingora::Result<()> {
    let Some(upstream) = &exchange.upstream else { return Ok(()) };
    match &upstream.settings().authorization {
        Authorization::Drop => {}
        Authorization::Pass => {
            for value in client.headers.get_all(header::AUTHORIZATION) {
                request.append_header(header::AUTHORIZATION, value.clone())?;
            }
        }
        Authorization::Replace(_) => {
            let credentials = upstream.credentials().ok_or_else(|| super::internal("no credentials"))?;
            request.insert_header(header::AUTHORIZATION, credentials.clone())?;
        }
    }
    Ok(())
}

/// `Host` and the `X-Forwarded-*` fields, which the registry believes.
fn forwarding(request: &mut RequestHeader, exchange: &mut Exchange) -> pingora::Result<()> {
    let configured = exchange.upstream.as_ref().and_then(|upstream| upstream.settings().host.clone());
    exchange.upstream_host = configured.map_or_else(|| exchange.host.clone(), String::into_boxed_str);
    request.insert_header(header::HOST, &*exchange.upstream_host)?;
    request.insert_header("X-Forwarded-For", exchange.connection.record.client.ip().to_string())?;
    request.insert_header("X-Forwarded-Proto", "https")?;
    request.insert_header("X-Forwarded-Host", &*exchange.host)?;
    Ok(())
}

fn tracing(client: &RequestHeader, request: &mut RequestHeader, exchange: &mut Exchange) -> pingora::Result<()> {
    let text = |name: &str| client.headers.get(name).and_then(|value| value.to_str().ok());
    let request_id = match text(X_REQUEST_ID) {
        Some(id) if is_request_id(id) => id.to_owned(),
        _ => exchange.decision_id.to_string(),
    };
    let traceparent = match text(TRACEPARENT) {
        Some(parent) if is_traceparent(parent) => parent.to_owned(),
        // Without a parent of its own, the client's state is nobody's.
        _ => {
            request.remove_header("tracestate");
            new_traceparent()
        }
    };
    exchange.trace(&request_id, traceparent.get(3..35).unwrap_or_default());
    request.insert_header(X_REQUEST_ID, request_id)?;
    request.insert_header(TRACEPARENT, traceparent)?;
    Ok(())
}

/// What is kept of a client's id: short and harmless in every log.
fn is_request_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'='))
}

/// W3C Trace Context §3.2, version 00: `00-<32 hex>-<16 hex>-<2 hex>`, neither id all zeros.
fn is_traceparent(value: &str) -> bool {
    let mut parts = value.split('-');
    let (Some("00"), Some(trace), Some(span), Some(flags), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    hex(trace, 32) && hex(span, 16) && hex(flags, 2) && !zero(trace) && !zero(span)
}

fn new_traceparent() -> String {
    // Trace ids name requests; nothing is granted to whoever guesses one.
    let mut text = String::with_capacity(TRACEPARENT_LENGTH);
    // Writing to a String doesn't fail.
    let _ = write!(text, "00-{:032x}-{:016x}-00", fastrand::u128(1..), fastrand::u64(1..));
    text
}

/// Who the client is, as far as the registry is to be told: what it is called, and its certificates (RFC 9440).
fn client_identity(request: &mut RequestHeader, exchange: &Exchange) -> pingora::Result<()> {
    let configured = &exchange.snapshot.settings.headers;
    if let Some(name) = &configured.identity {
        request.insert_header(name.clone(), encode(exchange.connection.identity.label()))?;
    }
    let Some(certificates) = exchange.connection.certificates.as_ref().filter(|_| configured.client_cert) else {
        return Ok(());
    };
    request.insert_header("Client-Cert", certificates.leaf.as_str())?;
    if !certificates.chain.is_empty() {
        request.insert_header("Client-Cert-Chain", certificates.chain.as_str())?;
    }
    Ok(())
}

/// Percent-encodes what isn't plain in a header, so that one value stays one whatever reads it: quotes, separators of
/// lists, everything beyond ASCII, and the percent sign. No two texts become the same.
fn encode(label: &str) -> String {
    let mut value = String::with_capacity(label.len());
    for (at, byte) in label.bytes().enumerate() {
        // Space at the end of a value isn't part of it (RFC 9110 §5.5).
        let plain = byte.is_ascii_alphanumeric()
            || b"-._~:/@=+!$&'()*".contains(&byte)
            || (byte == b' ' && at + 1 < label.len());
        if plain {
            value.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(value, "%{byte:02X}");
        }
    }
    value
}

/// Makes the registry's answer ours: its `Location` leads back here, and fields between it and the gateway stay behind.
pub(super) fn client_response(response: &mut ResponseHeader, exchange: &Exchange) -> pingora::Result<()> {
    // RFC 9110 §7.6.1: what `Connection` names was meant for the gateway alone.
    let named: Vec<HeaderName> = response
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION))
        .collect();
    for name in &named {
        response.remove_header(name);
    }
    for hop in ["Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Upgrade", "Alt-Svc"] {
        response.remove_header(hop);
    }
    let location = response.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let redirects = response.status.is_redirection();
    let relative = location.and_then(|location| match redirects {
        true => redirect::make_relative(location, exchange),
        false => location::make_relative(location, &ours(exchange)),
    });
    let bound = relative.as_deref().or(location).and_then(|location| uploads::bind(location, exchange));
    if let Some(changed) = bound.or(relative) {
        let value =
            HeaderValue::from_str(&changed).map_err(|_| super::internal("a Location that is no header value"))?;
        response.insert_header(header::LOCATION, value)?;
    }
    Ok(())
}

/// The hosts by which the registry may name itself where it says at which address something is, an upload for one. The
/// client's is among them, since registries believe it; who gives a wrong one spoils an address of its own.
fn ours(exchange: &Exchange) -> [String; 3] {
    let address = exchange.upstream.as_ref().map(|upstream| upstream.default_host()).unwrap_or_default();
    [exchange.upstream_host.to_string(), exchange.host.to_string(), address]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents_are_checked_before_they_are_kept() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(is_traceparent(&new_traceparent()));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn what_a_client_is_called_stays_one_value() {
        assert_eq!(encode("spiffe://corp.example/ns/build/sa/ci_7"), "spiffe://corp.example/ns/build/sa/ci_7");
        assert_eq!(encode("subject:CN=Jane Doe, O=A%2C\"B\" "), "subject:CN=Jane Doe%2C O=A%252C%22B%22%20");
        assert_eq!(encode("CN=Zoë"), "CN=Zo%C3%AB");
    }

    #[test]
    fn request_ids_are_kept_only_if_harmless() {
        assert!(is_request_id("01J-abc_DEF.9="));
        for bad in ["", "a b", "a\"b", "<script>", &"x".repeat(129)] {
            assert!(!is_request_id(bad), "{bad}");
        }
    }
}
