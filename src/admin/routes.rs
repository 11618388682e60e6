//! What there is on each listener.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::guard::TurnedAway;
use super::http::{Request, Response, Status};
use super::{Control, Format, Health, Visit};
use crate::config::AdminAddress;
use crate::inquiry::Unanswered;
use crate::status;
use crate::telemetry::AdminRefusal;

/// The content type of Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

const JSON: &str = "application/json";

/// One listener's content.
pub(super) enum Site {
    Health(Health),
    Control { control: Control, address: AdminAddress },
}

/// How long an answer to a wrong token takes: guesses are made one after the other by each connection.
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(500);

impl Site {
    /// The answer to a request that came over a connection that was let in by `guard`.
    pub(super) async fn answer(&self, request: Request, visit: &Visit) -> Response {
        let (control, address) = match self {
            Self::Health(health) => return health.answer(&request),
            Self::Control { control, address } => (control, address),
        };
        let refuse = |why, detail: &str| (control.refused)(why, visit.from, detail);
        // A page that lets its name resolve to this machine has no certificate for that name.
        let checks_host = matches!(address, AdminAddress::Tcp(_)) && !visit.guard.is_tls();
        if let Some(refusal) = refuse_foreign(&request, checks_host) {
            refuse(AdminRefusal::Foreign, "a browser, on behalf of a page or by a foreign name");
            return refusal;
        }
        if let Err(TurnedAway { why, detail }) = visit.guard.admit(request.authorization.as_ref()) {
            refuse(why, &detail);
            if why == AdminRefusal::WrongToken {
                tokio::time::sleep(WRONG_TOKEN_DELAY).await;
            }
            return Response::text(
                Status::Unauthorized,
                "a token is needed: see admin.token_file in the configuration",
            );
        }
        control.answer(&request).await
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
                Ok(body) => Response::of(EXPOSITION, Status::Ok, body),
                Err(error) => Response::text(Status::InternalError, error.to_string()),
            }),
            _ => not_found(),
        }
    }
}

impl Control {
    async fn answer(&self, request: &Request) -> Response {
        match request.path.as_str() {
            "/" | "/status" if !is_reading(request) => not_allowed(READING),
            "/" | "/status" => match (self.status)(request.query.clone()).await {
                Ok(page) => Response::page(page, status::policy()),
                Err(why) => Response::text(Status::InternalError, why.to_string()),
            },
            "/config" => read_only(request, || Response::text(Status::Ok, (self.config)())),
            "/revocation" => read_only(request, || match request.wants_json {
                true => Response::of(JSON, Status::Ok, (self.revocation)(Format::Json)),
                false => Response::text(Status::Ok, (self.revocation)(Format::Text)),
            }),
            "/explain" if !is_reading(request) => not_allowed(READING),
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
        (Ok(body), Format::Json) => Response::of(JSON, Status::Ok, body),
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
    if is_reading(request) { answer() } else { not_allowed(READING) }
}

const READING: &str = "GET, HEAD";

fn is_reading(request: &Request) -> bool {
    matches!(request.method.as_str(), "GET" | "HEAD")
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
fn refuse_foreign(request: &Request, checks_host: bool) -> Option<Response> {
    if request.for_page {
        return Some(Response::text(Status::Forbidden, "requests on behalf of web pages are refused"));
    }
    if checks_host && !request.host.as_deref().is_some_and(is_loopback) {
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
