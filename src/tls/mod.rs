//! The room of the TLS library.
//!
//! Everything that names a type of BoringSSL or OpenSSL, every `cfg` of a backend and every `unsafe` block of the
//! project lives here. What leaves the room are plain values: an [`Accepted`] connection with its
//! [`PeerIdentity`](crate::identity::PeerIdentity), faults with a likely cause, bytes.
//!
//! The two backends expose nearly the same API, so there is one module written against `lib` and one small file per
//! backend for what differs (`backend`): choosing a server certificate, the ticket callback, limits without a safe
//! setter.

use std::time::{SystemTime, UNIX_EPOCH};

mod acceptor;
mod front;
mod handshake;
pub(crate) mod issue;
mod known;
mod material;
pub(crate) mod probe;
mod signature;
mod tickets;
mod trust;
mod verify;

#[cfg(feature = "boringssl")]
#[path = "boring.rs"]
mod backend;
#[cfg(feature = "openssl")]
#[path = "openssl.rs"]
mod backend;

#[cfg(feature = "boringssl")]
use boring as lib;
#[cfg(feature = "openssl")]
use openssl as lib;

#[cfg(not(any(feature = "boringssl", feature = "openssl")))]
compile_error!("choose a TLS backend: feature \"boringssl\" (default) or \"openssl\"");
#[cfg(all(feature = "boringssl", feature = "openssl"))]
compile_error!("features \"boringssl\" and \"openssl\" exclude each other: build with --no-default-features");

pub use acceptor::{Acceptor, AcceptorSettings, ProtocolFloor};
pub use front::Front;
pub use handshake::{Accepted, HandshakeFailure, Stream, accept, is_protocol_fault};
pub(crate) use material::CREDENTIALS;
pub use material::{CertificateInfo, MaterialError, ServerCertificate, UpstreamMaterial};
pub use signature::verify_signed_data;
pub use tickets::TicketKeys;
pub use trust::TrustBundle;
pub use verify::ClientCertificates;

/// The name of the TLS backend this binary was built with, for `build_info` and `--version`.
pub const BACKEND: &str = backend::NAME;

/// Seconds since the Unix epoch, as the certificate checks want them; a clock before 1970 reads as 0.
fn unix_now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

/// 32 octets that nobody can guess.
///
/// # Errors
///
/// When the random generator fails.
pub(crate) fn random_key() -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    random(&mut key).map_err(|e| format!("cannot make a key: {e}"))?;
    Ok(key)
}

/// Fills `buffer` from the TLS library's random generator.
///
/// # Errors
///
/// When the generator has no entropy, which a caller must treat as fatal: nothing may go on with guessable keys.
fn random(buffer: &mut [u8]) -> Result<(), lib::error::ErrorStack> {
    lib::rand::rand_bytes(buffer)
}
