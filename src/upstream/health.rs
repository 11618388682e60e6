//! Active checks: a GET to each address at intervals, and the look-up of names at intervals.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;

use super::{Address, Upstream};
use crate::config::HealthCheck;
use crate::telemetry::UpstreamFault;

/// How often names are looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// Checks `upstream` and resolves its names until nobody holds it any more.
///
/// The first look-up is the caller's ([`Upstream::resolve`]), so that a request doesn't come before it.
pub async fn watch(upstream: Weak<Upstream>) {
    // No pool: a check that takes a connection from one would only show that the pool works.
    let connector = Connector::new(None);
    let mut resolved = Instant::now();
    let mut interval = Duration::ZERO;
    loop {
        tokio::time::sleep(interval).await;
        let Some(upstream) = upstream.upgrade() else { return };
        if resolved.elapsed() >= RESOLVE_EVERY {
            upstream.resolve().await;
            resolved = Instant::now();
        }
        interval = match &upstream.settings.health_check {
            Some(check) => {
                for address in upstream.addresses() {
                    examine(&upstream, &address, check, &connector).await;
                }
                let addresses = upstream.addresses();
                upstream.metrics.set_health(addresses.iter().map(|a| (a.label().as_ref(), a.is_healthy())));
                check.interval
            }
            None => RESOLVE_EVERY,
        };
    }
}

async fn examine(upstream: &Upstream, address: &Address, check: &HealthCheck, connector: &Connector) {
    let outcome = match tokio::time::timeout(check.timeout, ask(upstream, address, check, connector)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {:?}", check.timeout)),
    };
    let now_healthy = address.is_healthy();
    if outcome.is_err() {
        upstream.metrics.fault(UpstreamFault::HealthCheck);
    }
    if outcome.is_ok() == now_healthy {
        address.against.store(0, Ordering::Release);
    } else {
        let against = address.against.fetch_add(1, Ordering::AcqRel) + 1;
        let needed = if now_healthy { check.unhealthy_after } else { check.healthy_after };
        if against >= needed {
            address.against.store(0, Ordering::Release);
            address.healthy.store(!now_healthy, Ordering::Release);
            match &outcome {
                Ok(()) => log::info!("upstream {}: {} is healthy again", upstream.name(), address.label()),
                Err(cause) => log::warn!("upstream {}: {} is unhealthy: {cause}", upstream.name(), address.label()),
            }
        }
    }
}

/// A registry that answers anything below 500 is alive; with token authentication `/v2/` is a 401.
async fn ask(upstream: &Upstream, address: &Address, check: &HealthCheck, connector: &Connector) -> Result<(), String> {
    let text = |e: Box<pingora::Error>| e.to_string();
    let (mut session, _) = connector.get_http_session(address.peer()).await.map_err(text)?;
    let version = session.digest().and_then(|digest| digest.ssl_digest.as_ref()).map(|tls| tls.version.as_ref());
    if is_outdated(version) {
        return Err("it speaks a TLS version below 1.2".to_owned());
    }
    let mut request = RequestHeader::build("GET", check.path.as_bytes(), Some(4)).map_err(text)?;
    request.insert_header("Host", upstream.default_host()).map_err(text)?;
    request
        .insert_header("User-Agent", concat!("portcullis/", env!("CARGO_PKG_VERSION"), " (health check)"))
        .map_err(text)?;
    request.insert_header("Connection", "close").map_err(text)?;
    if let Some(credentials) = upstream.credentials() {
        request.insert_header("Authorization", credentials.clone()).map_err(text)?;
    }
    session.write_request_header(Box::new(request)).await.map_err(text)?;
    session.read_response_header().await.map_err(text)?;
    match session.response_header().map(|header| header.status.as_u16()) {
        Some(status) if status < 500 => Ok(()),
        Some(status) => Err(format!("status {status}")),
        None => Err("no response".to_owned()),
    }
}

/// Whether a connection uses a TLS version that isn't safe any more (RFC 8996). The framework's connector accepts what
/// the library accepts, and libraries are patient.
pub(crate) fn is_outdated(version: Option<&str>) -> bool {
    matches!(version, Some("TLSv1" | "TLSv1.1" | "SSLv3"))
}
