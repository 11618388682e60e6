//! The edge: sockets, handshakes, live connections.
//!
//! The accept loop is our own, since only so can handshakes be bounded and counted, alerts be delivered, an acceptor be
//! replaced between two connections, and a live connection be ended. pingora's `HttpProxy` gets the decrypted stream
//! and does the HTTP.

mod accept;
mod arrival;
mod connection;
mod flow;
mod frames;
mod holder;
mod limits;
pub(crate) mod progress;
mod proxy_protocol;
mod serve;
mod socket;
mod stream;

pub use accept::{Bound, Edge, Worker, bind};
pub use connection::{Connection, Register};
pub(crate) use holder::held_by;
pub use limits::Counters;
pub use serve::WindowBudget;

/// The HTTP application a worker serves its connections with.
pub type App = pingora::proxy::HttpProxy<crate::proxy::Gateway>;
