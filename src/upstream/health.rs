//! Active checks: a GET to each address at intervals, and the look-up of names at intervals.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pingora::http::RequestHeader;

use super::client::{self, Wanted};
use super::{Address, Upstream};
use crate::config::HealthCheck;
use crate::telemetry::UpstreamFault;

/// How often names are looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// Checks `upstream` and resolves its names until nobody holds it any more.
///
/// The first look-up is the caller's ([`Upstream::resolve`]), so that a request doesn't come before it.
pub async fn watch(upstream: Weak<Upstream>) {
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
                    examine(&upstream, &address, check).await;
                }
                let addresses = upstream.addresses();
                upstream.metrics.set_health(addresses.iter().map(|a| (a.label().as_ref(), a.is_healthy())));
                check.interval
            }
            None => RESOLVE_EVERY,
        };
    }
}

async fn examine(upstream: &Upstream, address: &Address, check: &HealthCheck) {
    let outcome = ask(upstream, address, check).await;
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
async fn ask(upstream: &Upstream, address: &Address, check: &HealthCheck) -> Result<(), String> {
    let request = request(upstream, check).map_err(|e| e.to_string())?;
    let answer = client::ask(address.peer(), request, Wanted::Head, check.timeout).await.map_err(|e| e.to_string())?;
    match answer.head.status.as_u16() {
        status if status < 500 => Ok(()),
        status => Err(format!("status {status}")),
    }
}

fn request(upstream: &Upstream, check: &HealthCheck) -> pingora::Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", check.path.as_bytes(), Some(4))?;
    request.insert_header("Host", upstream.default_host())?;
    request.insert_header("User-Agent", concat!("portcullis/", env!("CARGO_PKG_VERSION"), " (health check)"))?;
    if let Some(credentials) = upstream.credentials() {
        request.insert_header("Authorization", credentials.clone())?;
    }
    Ok(request)
}
