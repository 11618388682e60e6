//! Wiring: from a configuration file to a running gateway, its reloads, and its end.
//!
//! Serving threads run one single-threaded runtime each and share nothing that is locked on the way of a request. The
//! control plane has a thread of its own; building a snapshot happens on yet another one, so that a large revocation list
//! delays neither requests nor signals. [`Gateway`] is all of that as a value; [`serve()`] puts a process around it, with
//! signals, the service manager, and successors that take over its sockets.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Diagnostics;
use crate::snapshot::{Builder, Failed, Fetcher};
use crate::telemetry::Metrics;
use crate::tls;

mod control;
mod gateway;
mod handover;
mod host;
mod internal;
mod keeping;
mod manager;
mod places;
mod pulse;
mod revocation;
mod serve;
mod sockets;
mod status;
mod successor;
mod threads;
mod turned_away;

pub use gateway::{Gateway, ListenerAddress, ReloadError, Running};
pub(crate) use serve::{Succession, serve};

/// Why the gateway could not start, or ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The files are at fault.
    #[error("{0}")]
    Configuration(Diagnostics),
    /// An address, a socket or a log file of the host.
    #[error("{0}")]
    Host(String),
}

impl From<Box<Failed>> for ServeError {
    fn from(failed: Box<Failed>) -> Self {
        ServeError::Configuration(failed.findings)
    }
}

/// Metrics under the names and version of this build.
fn metrics() -> Result<Arc<Metrics>, String> {
    Metrics::new(env!("CARGO_PKG_VERSION"), tls::BACKEND).map(Arc::new).map_err(|e| format!("metrics: {e}"))
}

/// Builds the configuration once, as `serve` would, and says what there is to say.
///
/// # Errors
///
/// The findings, if the configuration can't be used.
pub(crate) fn check(file: &Path) -> Result<Diagnostics, ServeError> {
    let metrics = metrics().map_err(ServeError::Host)?;
    let mut builder = Builder::read_only(file, metrics.clone());
    let built = match builder.build() {
        Ok(built) => built,
        // It lacks only what the service manager gives a service that runs.
        Err(failed) if !failed.findings.has_errors() => return Ok(failed.findings),
        Err(failed) => return Err(failed.into()),
    };
    let urls = &built.snapshot.settings.revocation;
    let Some(longest) = urls.urls().map(|url| url.timeout).max() else { return Ok(built.findings) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| ServeError::Host(format!("no runtime: {e}")))?;
    runtime.block_on(async {
        let mut fetcher = Fetcher::new(builder.shelf(), metrics);
        fetcher.follow(urls.urls());
        fetcher.first_answers(longest + Duration::from_secs(1), true).await
    });
    Ok(builder.build()?.findings)
}
