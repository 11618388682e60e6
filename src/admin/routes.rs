//! What there is on each listener.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::http::{Request, Response, Status};
use super::{Control, Format, Health};
use crate::config::AdminAddress;
use crate::inquiry::Unanswered;

/// The content type of Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

const JSON: &str = "application/json";

/// One listener's content.
pub(super) enum Site {
    Health(Health),
    Control { control: Control, reach: Reach },
}

/// Who can reach a listener of the control site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Every program on this machine, browsers included.
    Loopback,
    /// Whoever may open the socket's file; browsers can't speak to it.
    Owner,
}

impl Reach {
    pub(super) fn of(address: &AdminAddress) -> Self {
        match address {
            AdminAddress::Tcp(_) => Self::Loopback,
            AdminAddress::Unix(_) => Self::Owner,
        }
    }
}

impl Site {
    pub(super) async fn answer(&self, request: Request) -> Response {
        match self {
            Self::Health(health) => health.answer(&request),
            Self::Control { control, reach } => match refuse_foreign(&request, *reach) {
                Some(refusal) => refusal,
                None => control.answer(&request).await,
            },
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Health(_) => "the health listener",
            Self::Control { .. } => "the admin listener",
        })
    }
}

impl Health {
    fn answer(&self, request: &Request) -> Response {
        match request.path.as_str() {
            "/livez" => read_only(request, || Response::text(Status::Ok, "ok")),
            "/readyz" => read_only(request, || match (self.ready)() {
                Ok(()) => Response::text(Status::Ok, "ready"),
                Err(reason) => Response::text(Status::Unavailable, reason),
            }),
            "/metrics" => read_only(request, || match self.metrics.render() {
                Ok(body) => Response { status: Status::Ok, content_type: EXPOSITION, body },
                Err(error) => Response::text(Status::InternalError, error.to_string()),
            }),
            _ => not_found(),
        }
    }
}

impl Control {
    async fn answer(&self, request: &Request) -> Response {
        match request.path.as_str() {
            "/config" => read_only(request, || Response::text(Status::Ok, (self.config)())),
            "/revocation" => read_only(request, || match request.wants_json {
                true => Response { status: Status::Ok, content_type: JSON, body: (self.revocation)(Format::Json) },
                false => Response::text(Status::Ok, (self.revocation)(Format::Text)),
            }),
            "/explain" if !matches!(request.method.as_str(), "GET" | "HEAD") => not_allowed("GET, HEAD"),
            "/explain" => {
                let format = if request.wants_json { Format::Json } else { Format::Text };
                explained((self.explain)(request.query.clone(), format).await, format)
            }
            "/-/reload" | "/-/upgrade" if request.method != "POST" => not_allowed("POST"),
            "/-/reload" => carried_out((self.reload)().await),
            "/-/upgrade" => carried_out((self.upgrade)().await),
            _ => not_found(),
        }
    }
}

fn explained(answer: Result<String, Unanswered>, format: Format) -> Response {
    match (answer, format) {
        (Ok(body), Format::Json) => Response { status: Status::Ok, content_type: JSON, body },
        (Ok(body), Format::Text) => Response::text(Status::Ok, body),
        (Err(why @ Unanswered::Senseless(_)), _) => Response::text(Status::BadRequest, why.to_string()),
        (Err(why @ Unanswered::NotKnown(_)), _) => Response::text(Status::NotFound, why.to_string()),
    }
}

fn carried_out(outcome: Result<String, String>) -> Response {
    match outcome {
        Ok(done) => Response::text(Status::Ok, done),
        Err(why) => Response::text(Status::InternalError, why),
    }
}

fn read_only(request: &Request, answer: impl FnOnce() -> Response) -> Response {
    match request.method.as_str() {
        "GET" | "HEAD" => answer(),
        _ => not_allowed("GET, HEAD"),
    }
}

fn not_found() -> Response {
    Response::text(Status::NotFound, "not found")
}

fn not_allowed(allow: &'static str) -> Response {
    Response::text(Status::MethodNotAllowed(allow), format!("only {allow}"))
}

/// Refuses what a web page could make a browser on this machine send.
///
/// A page may post to any address (CSRF); browsers then add `Origin`, and programs don't. It may also show an image from
/// any address, without `Origin`; browsers then say `Sec-Fetch-Site: cross-site`. By a name that it lets resolve
/// to 127.0.0.1 (DNS rebinding) a page may even read answers; the browser then sends that name as `Host`.
fn refuse_foreign(request: &Request, reach: Reach) -> Option<Response> {
    if request.for_page {
        return Some(Response::text(Status::Forbidden, "requests on behalf of web pages are refused"));
    }
    if reach == Reach::Loopback && !request.host.as_deref().is_some_and(is_loopback) {
        return Some(Response::text(Status::Forbidden, "the Host must be localhost or a loopback address"));
    }
    None
}

/// Whether the value of a `Host` field names this machine by an address or by `localhost`, which browsers don't look up.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_mean_this_machine() {
        for host in ["localhost", "LOCALHOST:9091", "127.0.0.1", "127.0.0.1:9091", "127.1.2.3:1", "[::1]", "[::1]:9091"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            ":9091",
            "evil.example",
            "evil.example:9091",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:evil",
            "localhost:",
            "localhost.",
            "user@localhost",
            "10.0.0.1:9091",
            "0.0.0.0:9091",
            "2130706433",
            "127.1",
            "0177.0.0.1",
            "::1",
            "[::1",
            "[::ffff:127.0.0.1]:9091",
            "[fe80::1]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
