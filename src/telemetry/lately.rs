//! What happened lately, for people who look: reloads, handshakes that were refused, and the traffic.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::escape::cut;
use super::outcome::HandshakeResult;
use super::traffic::Traffic;

/// Reloads that are kept.
const RELOADS: usize = 8;

/// The longest report of a reload that is kept, in bytes.
const MAX_REPORT: usize = 16 * 1024;

/// Refused handshakes that are kept.
const HANDSHAKES: usize = 64;

/// The longest account of a refused handshake that is kept, in bytes.
const MAX_DETAIL: usize = 512;

/// What happened lately. Bounded, and lost with the process.
#[derive(Debug, Default)]
pub struct Lately {
    /// The last minutes, step by step.
    pub traffic: Traffic,
    reloads: Mutex<VecDeque<Reloaded>>,
    handshakes: Mutex<VecDeque<RefusedHandshake>>,
}

/// An attempt to load everything anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// When it ended.
    pub time: SystemTime,
    /// Who or what asked for it.
    pub origin: String,
    /// How long it took.
    pub took: Duration,
    /// The generation in force since.
    pub generation: u64,
    /// Whether everything is in force as configured.
    pub ok: bool,
    /// What was found in the files.
    pub report: String,
}

/// A client that didn't get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedHandshake {
    /// When.
    pub time: SystemTime,
    /// The name of the listener.
    pub listener: Arc<str>,
    /// The client's address.
    pub client: SocketAddr,
    /// How it ended.
    pub result: HandshakeResult,
    /// The cause, with what the certificate says of itself.
    pub detail: String,
}

impl Lately {
    /// Files were loaded, or could not be.
    pub fn reloaded(&self, reloaded: Reloaded) {
        let report = cut(&reloaded.report, MAX_REPORT).to_string();
        keep(&self.reloads, RELOADS, Reloaded { report, ..reloaded });
    }

    /// A handshake was refused because of the client's certificate.
    pub fn handshake_refused(&self, refused: RefusedHandshake) {
        let detail = cut(&refused.detail, MAX_DETAIL).to_string();
        keep(&self.handshakes, HANDSHAKES, RefusedHandshake { detail, ..refused });
    }

    /// The last reloads, the newest first.
    #[must_use]
    pub fn reloads(&self) -> Vec<Reloaded> {
        newest_first(&self.reloads)
    }

    /// The last refused handshakes, the newest first.
    #[must_use]
    pub fn refused_handshakes(&self) -> Vec<RefusedHandshake> {
        newest_first(&self.handshakes)
    }
}

fn keep<T>(kept: &Mutex<VecDeque<T>>, most: usize, one: T) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= most {
        kept.pop_front();
    }
    kept.push_back(one);
}

fn newest_first<T: Clone>(kept: &Mutex<VecDeque<T>>) -> Vec<T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_and_bounded() {
        let events = Lately::default();
        for number in 0..1000_u64 {
            events.reloaded(Reloaded {
                time: SystemTime::UNIX_EPOCH,
                origin: "test".to_owned(),
                took: Duration::ZERO,
                generation: number,
                ok: true,
                report: "é".repeat(MAX_REPORT),
            });
            events.handshake_refused(RefusedHandshake {
                time: SystemTime::UNIX_EPOCH,
                listener: "main".into(),
                client: SocketAddr::from(([192, 0, 2, 1], 1)),
                result: HandshakeResult::Revoked,
                detail: format!("{number} {}", "x".repeat(10_000)),
            });
        }
        let reloads = events.reloads();
        assert_eq!((reloads.len(), reloads[0].generation), (RELOADS, 999));
        assert!(reloads.iter().all(|reload| reload.report.len() <= MAX_REPORT));
        let handshakes = events.refused_handshakes();
        assert!(handshakes[0].detail.starts_with("999 ") && handshakes[0].detail.len() <= MAX_DETAIL);
        assert_eq!(handshakes.len(), HANDSHAKES);
    }
}
