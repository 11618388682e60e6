//! Keys that protect session tickets: made in memory, rotated, never written anywhere.
//!
//! The keys outlive reloads, for a reload must not send every client through a full handshake. What binds a ticket to
//! the trust in force is the session id context of the acceptor, not the key.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{lib, random};

/// One ticket key: its public name, the AES-256 key and the HMAC-SHA-256 key.
#[derive(Clone)]
pub(super) struct TicketKey {
    pub(super) name: [u8; 16],
    pub(super) aes: [u8; 32],
    pub(super) hmac: [u8; 32],
}

impl TicketKey {
    /// A fresh key. A ticket sealed with one that is then thrown away can never be opened.
    pub(super) fn generate() -> Result<Self, lib::error::ErrorStack> {
        let mut key = TicketKey { name: [0; 16], aes: [0; 32], hmac: [0; 32] };
        random(&mut key.name)?;
        random(&mut key.aes)?;
        random(&mut key.hmac)?;
        Ok(key)
    }
}

impl Drop for TicketKey {
    fn drop(&mut self) {
        // The optimiser may drop plain writes to memory that is about to be freed; `black_box` keeps these.
        self.aes = std::hint::black_box([0; 32]);
        self.hmac = std::hint::black_box([0; 32]);
        std::hint::black_box((&self.aes, &self.hmac));
    }
}

struct Ring {
    current: TicketKey,
    previous: Option<TicketKey>,
    since: Instant,
}

/// The rotating ticket keys of a gateway process.
///
/// New tickets are sealed with the current key; those sealed with the one before are still opened, so that a ticket
/// lives between one and two lifetimes. Whoever holds a key can forge any client, which is why they never leave memory.
pub struct TicketKeys {
    ring: Mutex<Ring>,
    lifetime: Duration,
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKeys").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// Makes the first key; it is replaced after `lifetime`.
    ///
    /// # Errors
    ///
    /// When the random generator fails.
    pub fn new(lifetime: Duration) -> Result<Self, String> {
        let current = TicketKey::generate().map_err(|e| format!("cannot make a session ticket key: {e}"))?;
        Ok(TicketKeys { ring: Mutex::new(Ring { current, previous: None, since: Instant::now() }), lifetime })
    }

    /// The key to seal with, rotated when it is due.
    pub(super) fn sealing_key(&self) -> Option<TicketKey> {
        let mut ring = self.ring.lock().ok()?;
        self.rotate(&mut ring);
        Some(ring.current.clone())
    }

    /// The key called `name`, and whether the ticket should be renewed because a newer key exists.
    pub(super) fn opening_key(&self, name: &[u8]) -> Option<(TicketKey, bool)> {
        let mut ring = self.ring.lock().ok()?;
        self.rotate(&mut ring);
        if ring.current.name == name {
            return Some((ring.current.clone(), false));
        }
        ring.previous.as_ref().filter(|key| key.name == name).map(|key| (key.clone(), true))
    }

    fn rotate(&self, ring: &mut Ring) {
        let age = ring.since.elapsed();
        if age < self.lifetime {
            return;
        }
        // Without entropy the old key stays: tickets go on as they were, and the next handshake tries again.
        let Ok(fresh) = TicketKey::generate() else { return };
        let old = std::mem::replace(&mut ring.current, fresh);
        ring.previous = (age < self.lifetime * 2).then_some(old);
        ring.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_lives_between_one_and_two_lifetimes() {
        let keys = TicketKeys::new(Duration::from_millis(40)).expect("entropy");
        let first = keys.sealing_key().expect("key").name;
        assert!(matches!(keys.opening_key(&first), Some((_, false))));
        std::thread::sleep(Duration::from_millis(50));
        assert_ne!(keys.sealing_key().expect("key").name, first);
        assert!(
            matches!(keys.opening_key(&first), Some((_, true))),
            "the key before still opens, and asks for renewal"
        );
        std::thread::sleep(Duration::from_millis(90));
        assert!(keys.opening_key(&first).is_none());
    }

    #[test]
    fn unknown_names_open_nothing() {
        let keys = TicketKeys::new(Duration::from_secs(60)).expect("entropy");
        assert!(keys.opening_key(&[0; 16]).is_none());
    }
}
