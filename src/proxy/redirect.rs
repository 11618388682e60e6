//! Redirects by which a registry sends its clients to the storage behind it: passed on, or followed by the gateway, and
//! in either case only to hosts of the configuration. A registry that is tricked, or worse, must not send clients to
//! wherever it likes, nor have the gateway ask whomever it likes.
//!
//! A redirect is followed by the framework's own way to try again: nothing of the answer has been sent when its head
//! comes, so the attempt is given up, and the next one goes to the storage, with a request of its own. That one carries
//! nothing of who the client is, and no credentials: the address that the registry made is what grants the access.
//!
//! Whether a redirect leads elsewhere is for the configuration to say. The client's Host says nothing about it: it is
//! whatever the client likes, the storage's name included.

use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use http::header::{self, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType};

use super::context::Exchange;
use super::{headers, location};
use crate::config::{RedirectMode, StorageHost};
use crate::oci::{Method, Route, RouteKind};
use crate::telemetry::{DigestCheck, Outcome, RedirectResult, UpstreamFault};
use crate::upstream::Storage;

/// Redirects that are followed for one request.
const MAX_HOPS: u8 = 3;

/// The errors of an attempt that is given up: for another one at the storage, or for good.
const FOLLOWED: ErrorType = ErrorType::Custom("RedirectFollowed");
const REFUSED: ErrorType = ErrorType::Custom("RedirectRefused");
pub(super) const NO_CONTENT: ErrorType = ErrorType::Custom("StorageStatus");

/// What a client may ask of the storage beside the content: a part of it.
const ASKED: [HeaderName; 2] = [header::RANGE, header::IF_RANGE];

/// What the storage may say about the content. The rest (its cookies, its ids, its name) is its own.
const TOLD: [HeaderName; 11] = [
    header::ACCEPT_RANGES,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::TRANSFER_ENCODING,
];

/// Where a request is that was redirected.
#[derive(Debug)]
pub(super) struct Followed {
    storage: Arc<Storage>,
    /// Path and query.
    target: String,
    hops: u8,
    /// What the registry said about the content.
    told: Vec<(HeaderName, HeaderValue)>,
}

impl Followed {
    pub(super) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The request for the content.
    pub(super) fn request(&self, client: &RequestHeader) -> pingora::Result<RequestHeader> {
        let method = if client.method == http::Method::HEAD { "HEAD" } else { "GET" };
        let mut request = RequestHeader::build(method, self.target.as_bytes(), Some(6))?;
        request.set_version(http::Version::HTTP_11);
        request.insert_header(header::HOST, self.storage.host().authority())?;
        request.insert_header(header::USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION")))?;
        request.insert_header(header::ACCEPT_ENCODING, "identity")?;
        for name in ASKED {
            for value in client.headers.get_all(&name) {
                request.append_header(name.clone(), value.clone())?;
            }
        }
        Ok(request)
    }
}

/// Judges an answer that may lead elsewhere, and makes one of the storage look like the registry's.
///
/// # Errors
///
/// One that asks for another attempt, at the storage; or the end of the request: the answer leads where none may, or
/// isn't content. Nothing of it has been sent.
pub(super) fn answer(response: &mut ResponseHeader, exchange: &mut Exchange) -> pingora::Result<()> {
    let Some(method) = exchange.route.as_ref().map(Route::method) else { return Ok(()) };
    if response.status.is_informational() {
        return Ok(());
    }
    // 304 is no redirect (RFC 9110 §15.4.5).
    if response.status.is_redirection() && response.status != http::StatusCode::NOT_MODIFIED {
        match destination(response, exchange) {
            Destination::Here => {}
            Destination::Elsewhere(place) if matches!(method, Method::Get | Method::Head) => {
                return leave(place, response, exchange);
            }
            // Clients send the content again, there (RFC 9110 §15.4.8).
            Destination::Elsewhere(Place { host, .. }) => {
                let method = method.as_str();
                return Err(refuse(
                    exchange,
                    &format!("a {method} to {host}, and what clients write goes nowhere else"),
                ));
            }
            Destination::Unclear => return Err(refuse(exchange, "to what is no address of a host")),
        }
    }
    let Some(followed) = &exchange.followed else { return Ok(()) };
    if !matches!(response.status.as_u16(), 200 | 206 | 416) {
        let host = followed.storage.host().clone();
        return Err(no_content(exchange, &host, response.status.as_u16()));
    }
    let foreign: Vec<HeaderName> = response.headers.keys().filter(|name| !TOLD.contains(name)).cloned().collect();
    for name in &foreign {
        response.remove_header(name);
    }
    for (name, value) in &followed.told {
        response.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

/// A redirect to another host than the registry's own.
fn leave(place: Place, response: &ResponseHeader, exchange: &mut Exchange) -> pingora::Result<()> {
    let Some(upstream) = exchange.upstream.clone() else { return Err(super::internal("no upstream was chosen")) };
    let redirects = &upstream.settings().redirects;
    if !redirects.hosts.contains(&place.host) {
        return Err(refuse(exchange, &format!("to {}, which redirect_hosts does not name", place.host)));
    }
    if redirects.mode == RedirectMode::Pass {
        upstream.metrics().redirect(RedirectResult::Passed);
        let content = exchange.route.as_ref().map(Route::kind);
        if upstream.settings().verify_digests && matches!(content, Some(RouteKind::Blob | RouteKind::Manifest)) {
            upstream.metrics().digest(DigestCheck::Redirect);
        }
        return Ok(());
    }
    let before = exchange.followed.take();
    let hops = before.as_ref().map_or(0, |followed| followed.hops) + 1;
    if hops > MAX_HOPS {
        return Err(refuse(exchange, &format!("more than {MAX_HOPS} times for one request")));
    }
    let storage = upstream.storage(&place.host).ok_or_else(|| super::internal("a redirect host that was not made"))?;
    let told = before.map_or_else(|| told_by_registry(response), |followed| followed.told);
    upstream.metrics().redirect(RedirectResult::Followed);
    exchange.follow(Followed { storage: storage.clone(), target: place.target, hops, told });
    let mut again = Error::explain(FOLLOWED, "the content is at the storage");
    again.set_retry(true);
    Err(again)
}

/// The fields of the registry protocol, which a storage doesn't know.
fn told_by_registry(response: &ResponseHeader) -> Vec<(HeaderName, HeaderValue)> {
    let own = |name: &HeaderName| headers::is_registrys(name);
    response.headers.iter().filter(|(name, _)| own(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn refuse(exchange: &mut Exchange, how: &str) -> Box<Error> {
    exchange.set_outcome(Outcome::RedirectRefused);
    let upstream = exchange.upstream.as_ref();
    if let Some(upstream) = upstream {
        upstream.metrics().redirect(RedirectResult::Refused);
    }
    let name = upstream.map_or("", |upstream| upstream.name());
    let level = exchange.level(Outcome::RedirectRefused);
    log::log!(level, "decision {}: upstream {name} redirects {how}; the client gets 502", exchange.decision_id);
    Error::explain(REFUSED, how.to_owned()).into_up()
}

fn no_content(exchange: &mut Exchange, host: &StorageHost, status: u16) -> Box<Error> {
    exchange.set_outcome(Outcome::UpstreamError);
    if let Some(upstream) = &exchange.upstream {
        upstream.metrics().fault(UpstreamFault::Storage);
    }
    let level = exchange.level(Outcome::UpstreamError);
    log::log!(level, "decision {}: the storage at {host} answers with status {status}", exchange.decision_id);
    Error::explain(NO_CONTENT, format!("status {status}")).into_up()
}

/// Where an answer sends its reader.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
    /// Nowhere, or to the registry itself.
    Here,
    /// To another host.
    Elsewhere(Place),
    /// Readers may differ.
    Unclear,
}

/// An address on a host.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: StorageHost,
    /// Path and query.
    target: String,
}

fn destination(response: &ResponseHeader, exchange: &Exchange) -> Destination {
    let mut locations = response.headers.get_all(header::LOCATION).iter();
    let location = match (locations.next(), locations.next()) {
        (None, _) => return Destination::Here,
        (Some(only), None) => only.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    let Some(location) = location else { return Destination::Unclear };
    match (read(location), &exchange.followed) {
        (Reading::Relative, None) => Destination::Here,
        (Reading::Relative, Some(followed)) if location.starts_with('/') => Destination::Elsewhere(Place {
            host: followed.storage.host().clone(),
            target: location.split('#').next().unwrap_or_default().to_owned(),
        }),
        (Reading::Absolute(place, uri), None) if is_ours(&place.host, &uri, exchange) => Destination::Here,
        (Reading::Absolute(place, _), _) => Destination::Elsewhere(place),
        (Reading::Relative | Reading::Ambiguous, _) => Destination::Unclear,
    }
}

/// The `Location` of a redirect without the host, if it leads to the registry itself.
pub(super) fn make_relative(location: &str, exchange: &Exchange) -> Option<String> {
    match read(location) {
        Reading::Absolute(place, uri) if is_ours(&place.host, &uri, exchange) => location::relative(&uri),
        _ => None,
    }
}

/// Whether a redirect to `host`, which `uri` names, leads to the registry itself: by a name that the configuration gives
/// it, or by one of the listener's. What is listed as a storage is one.
fn is_ours(host: &StorageHost, uri: &Uri, exchange: &Exchange) -> bool {
    let Some(upstream) = &exchange.upstream else { return false };
    !upstream.settings().redirects.hosts.contains(host)
        && (location::is_one_of(uri, &upstream.own_hosts()) || is_the_listeners(host, exchange))
}

/// Whether `host` is a name of the certificates, or an address, of the client's listener, with its port or without.
fn is_the_listeners(host: &StorageHost, exchange: &Exchange) -> bool {
    let Some(listener) = exchange.snapshot.listeners.get(exchange.connection.listener) else { return false };
    let configured = exchange.snapshot.settings.listeners.iter().find(|configured| *configured.name == *listener.name);
    let addresses = configured.map(|configured| configured.addresses.as_slice()).unwrap_or_default();
    let port =
        host.port == StorageHost::default_port(host.tls) || addresses.iter().any(|address| address.port() == host.port);
    let address = |ip: IpAddr| addresses.iter().any(|address| address.ip() == ip);
    port && (listener.acceptor.has_name(&host.host) || host.host.parse().is_ok_and(address))
}

/// What a `Location` is (RFC 9110 §10.2.2, RFC 3986 §4.2).
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    /// On the host that answered.
    Relative,
    Absolute(Place, Uri),
    /// Neither, or not to everybody.
    Ambiguous,
}

fn read(location: &str) -> Reading {
    // Some readers take `\` for `/`, and `//host` and `/\host` are other hosts to them.
    let plain = location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !plain || location.starts_with("//") {
        return Reading::Ambiguous;
    }
    if !location.split(['/', '?', '#']).next().unwrap_or_default().contains(':') {
        return Reading::Relative;
    }
    let Ok(uri) = location.parse::<Uri>() else { return Reading::Ambiguous };
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Reading::Ambiguous,
    };
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else { return Reading::Ambiguous };
    if authority.as_str().contains('@') || host.is_empty() {
        return Reading::Ambiguous;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(StorageHost::default_port(tls));
    let target = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
        Some(target) if target.starts_with('/') => target.to_owned(),
        Some(query) => format!("/{query}"),
        None => "/".to_owned(),
    };
    Reading::Absolute(Place { host: StorageHost { tls, host, port }, target }, uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_on_other_hosts_are_told_from_paths() {
        let shown = |location: &str| match read(location) {
            Reading::Absolute(place, _) => format!("{}{}", place.host, place.target),
            Reading::Relative => "relative".to_owned(),
            Reading::Ambiguous => "ambiguous".to_owned(),
        };
        for (location, wanted) in [
            ("/v2/a/blobs/x?y=1", "relative"),
            ("?page=2", "relative"),
            ("blobs/x", "relative"),
            ("../x:y", "relative"),
            ("https://Storage.example/b%2Fc?X-Sig=a%2Bb", "https://storage.example/b%2Fc?X-Sig=a%2Bb"),
            ("HTTPS://storage.example:443/b#part", "https://storage.example/b"),
            ("https://storage.example", "https://storage.example/"),
            ("https://storage.example?x=1", "https://storage.example/?x=1"),
            ("http://storage.example/b", "http://storage.example/b"),
            ("http://storage.example:443/b", "http://storage.example:443/b"),
            ("https://[::1]:9000/b", "https://[::1]:9000/b"),
            ("//storage.example/b", "ambiguous"),
            ("/\\storage.example/b", "ambiguous"),
            ("https:\\\\storage.example/b", "ambiguous"),
            ("https:/storage.example/b", "ambiguous"),
            ("https:storage.example/b", "ambiguous"),
            ("https:///storage.example/b", "ambiguous"),
            ("https://registry.example@storage.example/b", "ambiguous"),
            ("storage.example:443/b", "ambiguous"),
            ("ftp://storage.example/b", "ambiguous"),
            ("javascript:alert(1)", "ambiguous"),
            ("https://storage.example/a b", "ambiguous"),
        ] {
            assert_eq!(shown(location), wanted, "{location}");
        }
    }
}
