//! Addresses: of listeners, of registries, and the names that select them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::Resolver;
use crate::config::model;
use crate::config::settings::Endpoint;
use crate::config::units::Shown;

impl Resolver<'_> {
    pub(super) fn socket_address(&mut self, at: &str, text: &str) -> Option<SocketAddr> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let message = "is no IP address with a port; write it like 0.0.0.0:443 or \"[::]:443\"";
            self.error(at, format!("{} {message}", Shown(text)));
        }
        parsed
    }

    pub(super) fn health(&mut self, model: &model::Health) -> Option<SocketAddr> {
        self.socket_address("health.address", model.address.as_deref()?)
    }
}

/// How a URL's endpoint is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    Unix,
}

/// Reads `http://host:port`, `https://host[:port]` or `unix:///path`.
///
/// The message never repeats the URL: what is wrong may be the password in it.
pub(super) fn endpoint(url: &str) -> Result<(Scheme, Endpoint), &'static str> {
    const FORMS: &str = "this is no URL of a registry; write http://host:port, https://host[:port] or unix:///path";
    if let Some(path) = url.strip_prefix("unix://") {
        if !path.starts_with('/') || path.contains('\0') || path.ends_with('/') {
            return Err("a unix URL has an absolute path to the socket, as in unix:///run/registry.sock");
        }
        return Ok((Scheme::Unix, Endpoint::Unix(PathBuf::from(path))));
    }
    let (scheme, rest) = url.split_once("://").ok_or(FORMS)?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(FORMS),
    };
    if rest.contains('@') {
        return Err("credentials don't belong in a URL; use credentials with a password_file");
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("this URL has a path or query; a registry is at the root of its host, under /v2/");
    }
    let (host, port) = host_and_port(authority).ok_or(FORMS)?;
    let port = match (port, scheme) {
        (Some(port), _) => port,
        (None, Scheme::Https) => 443,
        (None, _) => return Err("this URL has no port; a registry listens on port 5000 unless told otherwise"),
    };
    Ok((scheme, Endpoint::Tcp { host, port }))
}

/// Splits `host`, `host:port`, `[address]` or `[address]:port`; the host comes in lower case and without brackets.
pub(super) fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        (address, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = match port {
        Some(text) => Some(port_number(text)?),
        None => None,
    };
    if host.parse::<IpAddr>().is_err() && !is_host_name(host) {
        return None;
    }
    Some((host.to_ascii_lowercase(), port))
}

/// A port without sign or leading zeros, and never 0: nothing can be reached there.
fn port_number(text: &str) -> Option<u16> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| canonical)
}

/// Whether `text` is a host name: dot-separated labels of letters, digits, `-` and (seen in container networks) `_`.
///
/// The last label isn't all digits, for then resolvers take the whole for an IPv4 address (`127.1`).
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(label) && !text.rsplit('.').next().is_none_or(numeric)
}

/// Whether `text` is a host name, an address, or one of them with a port: what a `Host` header may hold.
pub(super) fn is_host_header(text: &str) -> bool {
    host_and_port(text).is_some()
}
