//! The heads that go upstream and come back.
//!
//! A request head is made anew: method and target from the route, header fields from a short list of what a registry
//! reads, our own fields last. Whatever a client invents to look like a proxy, to override a method or to carry an
//! identity is not on the list, in no spelling.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use pingora::http::{RequestHeader, ResponseHeader};

use super::context::Exchange;
use super::{location, redirect, uploads};
use crate::config::Authorization;
use crate::telemetry::{RequestId, TraceId};

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
    TRACESTATE,
];

/// Prefixes of fields that belong to the registry protocol, such as `Docker-Content-Digest` and `OCI-Chunk-Min-Length`.
const FORWARDED_PREFIXES: [&str; 2] = ["docker-", "oci-"];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Fields of an answer that are for the next hop alone, beside those that `Connection` names.
const HOPS: [HeaderName; 5] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::UPGRADE,
    header::ALT_SVC,
];

/// More fields than an ordinary request has when it goes upstream.
const USUAL: usize = 16;

/// Whether a field belongs to the registry protocol.
pub(super) fn is_registrys(name: &HeaderName) -> bool {
    FORWARDED_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// A head of these parts.
///
/// Names go in lower case: they mean the same in any (RFC 9110 §5.1), and pingora's builder, which keeps how each is
/// written, costs more than all else that is done here.
fn head(method: &str, target: String, fields: HeaderMap) -> pingora::Result<RequestHeader> {
    let target = PathAndQuery::try_from(target).map_err(|_| super::internal("a target that is none"))?;
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = Method::try_from(method).map_err(|_| super::internal("a method that is none"))?;
    parts.uri = target.into();
    parts.version = http::Version::HTTP_11;
    parts.headers = fields;
    Ok(parts.into())
}

/// The head to send upstream for the route in `exchange`.
pub(super) fn upstream_request(client: &RequestHeader, exchange: &mut Exchange) -> pingora::Result<RequestHeader> {
    let route = exchange.route.as_ref().ok_or_else(|| super::internal("no route"))?;
    let (method, target) = (route.method().as_str(), route.target());
    let mut fields = HeaderMap::with_capacity(USUAL);
    for (name, value) in &client.headers {
        if FORWARDED.contains(name) || is_registrys(name) {
            fields.append(name, value.clone());
        }
    }
    if client.version == http::Version::HTTP_2 {
        // An interim answer can't be passed on over HTTP/2 here, so none is asked for.
        fields.remove(header::EXPECT);
    }
    if exchange.upstream.as_ref().is_some_and(|upstream| upstream.settings().verify_digests) {
        // Digests are over what was pushed. Without the header any encoding would do (RFC 9110 §12.5.3).
        fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    tell(client, &mut fields, exchange)?;
    head(method, target, fields)
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
    let mut fields = HeaderMap::with_capacity(USUAL);
    fields.insert(header::ACCEPT, HeaderValue::from_static(own.accept));
    tell(client, &mut fields, exchange)?;
    head(own.method, own.target.to_owned(), fields)
}

/// Tells the registry who asks, and from where.
fn tell(client: &RequestHeader, fields: &mut HeaderMap, exchange: &mut Exchange) -> pingora::Result<()> {
    authorization(client, fields, exchange)?;
    forwarding(fields, exchange)?;
    tracing(client, fields, exchange)?;
    client_identity(fields, exchange)
}

fn authorization(client: &RequestHeader, fields: &mut HeaderMap, exchange: &Exchange) -> pingora::Result<()> {
    let Some(upstream) = &exchange.upstream else { return Ok(()) };
    match &upstream.settings().authorization {
        Authorization::Drop => {}
        Authorization::Pass => {
            for value in client.headers.get_all(header::AUTHORIZATION) {
                fields.append(header::AUTHORIZATION, value.clone());
            }
        }
        Authorization::Replace(_) => {
            let credentials = upstream.credentials().ok_or_else(|| super::internal("no credentials"))?;
            fields.insert(header::AUTHORIZATION, credentials.clone());
        }
    }
    Ok(())
}

/// `Host` and the `X-Forwarded-*` fields, which the registry believes.
fn forwarding(fields: &mut HeaderMap, exchange: &mut Exchange) -> pingora::Result<()> {
    let configured = exchange.upstream.as_ref().and_then(|upstream| upstream.settings().host.as_deref());
    exchange.upstream_host = match configured {
        Some(host) => value(host)?,
        None => exchange.host.clone(),
    };
    fields.insert(header::HOST, exchange.upstream_host.clone());
    fields.insert(X_FORWARDED_FOR, exchange.connection.forwarded_for().clone());
    fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    fields.insert(X_FORWARDED_HOST, exchange.host.clone());
    Ok(())
}

fn tracing(client: &RequestHeader, fields: &mut HeaderMap, exchange: &mut Exchange) -> pingora::Result<()> {
    let sent = |name: HeaderName| client.headers.get(name).and_then(|value| Some((value, value.to_str().ok()?)));
    let (request_id, id) = match sent(X_REQUEST_ID) {
        Some((value, id)) if is_request_id(id) => (value.clone(), RequestId::Client(id.into())),
        _ => (value(exchange.decision_id.text().as_str())?, RequestId::Decision),
    };
    let traceparent = match sent(TRACEPARENT) {
        Some((value, parent)) if is_traceparent(parent) => value.clone(),
        // Without a parent of its own, the client's state is nobody's.
        _ => {
            fields.remove(TRACESTATE);
            value(&new_traceparent())?
        }
    };
    exchange.trace(id, traceparent.to_str().ok().and_then(TraceId::of));
    fields.insert(X_REQUEST_ID, request_id);
    fields.insert(TRACEPARENT, traceparent);
    Ok(())
}

/// A text of the gateway's own as the value of a field.
fn value(text: &str) -> pingora::Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| super::internal("a text that is no header value"))
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
    let mut text = String::with_capacity("00-".len() + 32 + 1 + 16 + "-00".len());
    text.push_str("00-");
    HEXLOWER.encode_append(&fastrand::u128(1..).to_be_bytes(), &mut text);
    text.push('-');
    HEXLOWER.encode_append(&fastrand::u64(1..).to_be_bytes(), &mut text);
    text.push_str("-00");
    text
}

/// Who the client is, as far as the registry is to be told: what it is called, and its certificates (RFC 9440).
fn client_identity(fields: &mut HeaderMap, exchange: &Exchange) -> pingora::Result<()> {
    let configured = &exchange.snapshot.settings.headers;
    if let Some(name) = &configured.identity {
        fields.insert(name.clone(), value(&encode(exchange.connection.identity.label()))?);
    }
    let Some(certificates) = exchange.connection.certificates.as_ref().filter(|_| configured.client_cert) else {
        return Ok(());
    };
    fields.insert(CLIENT_CERT, value(certificates.leaf.as_str())?);
    if !certificates.chain.is_empty() {
        fields.insert(CLIENT_CERT_CHAIN, value(certificates.chain.as_str())?);
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

/// Whether an answer to GET, as the upstream sent it, ends with its head (RFC 9112 §6.3).
pub(super) fn is_bodiless(response: &ResponseHeader) -> bool {
    let mut lengths = response.headers.get_all(header::CONTENT_LENGTH).iter();
    match response.status.as_u16() {
        204 | 304 => true,
        100..200 => false,
        _ => {
            let zero = lengths.next().is_some_and(|length| length == "0") && lengths.next().is_none();
            zero && !response.headers.contains_key(header::TRANSFER_ENCODING)
        }
    }
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
    for hop in &HOPS {
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
        response.insert_header(header::LOCATION, value(&changed)?)?;
    }
    Ok(())
}

/// The hosts by which the registry may name itself where it says at which address something is, an upload for one. The
/// client's is among them, since registries believe it; who gives a wrong one spoils an address of its own.
fn ours(exchange: &Exchange) -> [String; 3] {
    let address = exchange.upstream.as_ref().map(|upstream| upstream.default_host()).unwrap_or_default();
    let text = |host: &HeaderValue| host.to_str().unwrap_or_default().to_owned();
    [text(&exchange.upstream_host), text(&exchange.host), address]
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
