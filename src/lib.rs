//! Portcullis: an mTLS edge gateway for container registries.
//!
//! # A gateway in a program of your own
//!
//! ```no_run
//! use portcullis::Gateway;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Everything that is wrong with the files is reported at once, with file and line.
//!     let gateway = Gateway::load("/etc/portcullis/portcullis.yaml")?;
//!     let running = gateway.start()?;
//!     for listener in running.listeners() {
//!         println!("{} listens on {}", listener.name, listener.address);
//!     }
//!     // Changed files are watched; this is for those who don't want to wait. What can't be used changes nothing.
//!     match running.reload() {
//!         Ok(generation) => println!("generation {generation} is in force"),
//!         Err(error) => eprintln!("{error}"),
//!     }
//!     // Transfers end first, for at most `drain.grace`.
//!     running.stop();
//!     Ok(())
//! }
//! ```
//!
//! The items at the root of this crate are its public interface; they change as semantic versioning permits. It blocks and
//! needs no runtime; asynchronous programs call it from a thread of theirs. What is public below them, and not in this
//! documentation, is so for the tests of this project, and may change at any time.
//!
//! # The life of a request
//!
//! A TCP connection is accepted by `edge`, on a loop of its own. The handshake happens in `tls`: the library builds
//! and verifies the client's path, `identity` reads names out of it, and `revocation` is asked about every
//! certificate of it, before the handshake ends, so that a refused client gets an alert. The connection enters a register
//! from which it can be ended, and its decrypted stream goes to pingora's HTTP.
//!
//! Each request meets `proxy`. It loads the `snapshot` in force once, asks again whether the client may still be
//! here, reads the head strictly, and gives method, path and query to `oci`, which answers with a route and the
//! accesses it implies. `policy` decides over identity and accesses; only its permit opens the way to an `upstream`.
//! `quotas` holds it to the policy's limits, here or in a Redis that replicas share (`shared`). The request that goes
//! there is built anew from the route; sessions of uploads belong to their client (`uploads`), and a tag whose push
//! depends on whether it exists belongs to one request at a time (`tag_locks`). What changes the registry stands in the
//! audit log before it goes there. How a request ended is recorded once, in `telemetry`, as metrics and as a line of the
//! access log.
//!
//! Beside that runs the control plane in `server`: `config` reads and resolves files, `snapshot` builds the next
//! generation whole and publishes it, and connections that it wouldn't let in are ended. `admin` answers probes,
//! Prometheus and the operator on listeners of their own, and `status` is the page that people look at there.

#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod identity;
#[doc(hidden)]
pub mod oci;
#[doc(hidden)]
pub mod policy;
#[doc(hidden)]
pub mod revocation;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod tls;

mod admin;
mod edge;
mod files;
mod inquiry;
mod pki;
mod proxy;
mod quotas;
mod server;
mod shared;
mod snapshot;
mod state;
mod status;
mod tag_locks;
mod tally;
mod tcp;
mod uploads;
mod upstream;

pub use config::Diagnostics;
pub use server::{Gateway, ListenerAddress, ReloadError, Running, ServeError};
