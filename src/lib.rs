//! Portcullis: an mTLS edge gateway for container registries.
//!
//! # The life of a request
//!
//! A TCP connection is accepted by [`edge`], on a loop of its own. The handshake happens in [`tls`]: the library builds
//! and verifies the client's path, [`identity`] reads names out of it, and [`revocation`] is asked about every
//! certificate of it, before the handshake ends, so that a refused client gets an alert. The connection enters a register
//! from which it can be ended, and its decrypted stream goes to pingora's HTTP.
//!
//! Each request meets [`proxy`]. It loads the [`snapshot`] in force once, asks again whether the client may still be
//! here, reads the head strictly, and gives method, path and query to [`oci`], which answers with a route and the
//! accesses it implies. [`policy`] decides over identity and accesses; only its permit opens the way to an [`upstream`].
//! The request that goes there is built anew from the route; sessions of uploads belong to their client ([`uploads`]). How it ended is recorded once, in [`telemetry`], as metrics
//! and as a line of the access log.
//!
//! Beside that runs the control plane in [`server`]: [`config`] reads and resolves files, [`snapshot`] builds the next
//! generation whole and publishes it, and connections that it wouldn't let in are ended. [`admin`] answers probes,
//! Prometheus and the operator on listeners of their own.

pub mod admin;
pub mod cli;
pub mod config;
pub mod edge;
mod files;
pub mod identity;
pub mod oci;
mod pki;
pub mod policy;
pub mod proxy;
pub mod revocation;
pub mod server;
pub mod snapshot;
mod state;
pub mod telemetry;
pub mod tls;
pub mod uploads;
pub mod upstream;
