//! Wiring: from a configuration file to a running gateway, its reloads, and its end.
//!
//! Serving threads run one single-threaded runtime each and share nothing that is locked on the way of a request. The
//! control plane has a thread of its own; building a snapshot happens on yet another one, so that a large revocation list
//! delays neither requests nor signals. [`Gateway`] is all of that as a value; [`serve`] puts a process around it, with
//! signals, the service manager, and successors that take over its sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Diagnostics;
use crate::snapshot::{Builder, Failed};
use crate::telemetry::Metrics;
use crate::tls;

mod control;
mod gateway;
mod handover;
mod host;
mod internal;
mod manager;
mod pulse;
mod serve;
mod sockets;
mod successor;
mod threads;

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
    let built = Builder::new(&PathBuf::from(file), metrics).build()?;
    Ok(built.findings)
}
