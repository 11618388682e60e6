//! Whose turn it is on a connection: what the gateway waits for, and what it still holds.
//!
//! A client is slow only while it is the one that is waited for. The stream below HTTP knows whether a read found
//! nothing and whether a write could not go on. On HTTP/1.1 that is the answer. An HTTP/2 connection is always being
//! read; there it counts whether bytes of bodies have come that no request has taken yet, or have been given to the
//! library and not left it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The state of one connection. Notes are written by the task that owns the stream and read, now and then, by the clocks
/// of its requests; nothing is decided by two of them together, so no order is needed.
#[derive(Debug)]
pub(super) struct Flow {
    http2: bool,
    /// The last read found nothing.
    read_pending: AtomicBool,
    /// The last write could not go on.
    write_pending: AtomicBool,
    /// Bytes that the kernel has taken.
    taken: AtomicU64,
    /// Bytes of requests' bodies: come, less taken by requests. HTTP/2 only.
    inbound: Balance,
    /// Bytes of answers' bodies: produced, less written. HTTP/2 only.
    outbound: Balance,
}

impl Flow {
    pub(super) fn new(http2: bool) -> Self {
        Flow {
            http2,
            read_pending: AtomicBool::new(false),
            write_pending: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            inbound: Balance::default(),
            outbound: Balance::default(),
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }

    pub(super) fn note_read(&self, pending: bool) {
        self.read_pending.store(pending, Ordering::Relaxed);
    }

    pub(super) fn note_write(&self, pending: bool, taken: u64) {
        self.write_pending.store(pending, Ordering::Relaxed);
        self.taken.store(taken, Ordering::Relaxed);
    }

    /// Bytes that the kernel has taken for the client so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Frames of bodies came (HTTP/2).
    pub(super) fn arrived(&self, bytes: u64, padded: bool) {
        self.inbound.give(bytes);
        if padded {
            self.inbound.blur();
        }
    }

    /// Frames of bodies were written (HTTP/2).
    pub(super) fn written(&self, bytes: u64) {
        self.outbound.take(bytes);
    }

    /// A request took bytes of its body.
    pub(super) fn consumed(&self, bytes: u64) {
        self.inbound.take(bytes);
    }

    /// A request gave bytes of its answer's body.
    pub(super) fn produced(&self, bytes: u64) {
        self.outbound.give(bytes);
    }

    /// A request ended in the middle: what was left of its bodies is nobody's.
    pub(super) fn broken_off(&self) {
        self.inbound.blur();
        self.outbound.blur();
    }

    /// No request is under way: what is not balanced never will be.
    pub(super) fn settle(&self) {
        self.inbound.settle();
        self.outbound.settle();
    }

    /// Whether the client could send, and doesn't.
    pub(super) fn awaits_sending(&self) -> bool {
        self.read_pending.load(Ordering::Relaxed) && !(self.http2 && self.inbound.is_owed())
    }

    /// Whether there is something that the client doesn't take.
    pub(super) fn awaits_taking(&self) -> bool {
        self.is_blocked() || (self.http2 && self.outbound.is_owed())
    }

    /// Whether the client takes nothing off the connection.
    pub(super) fn is_blocked(&self) -> bool {
        self.write_pending.load(Ordering::Relaxed)
    }
}

/// Two counts that meet when nothing is left in between.
#[derive(Debug, Default)]
struct Balance {
    given: AtomicU64,
    taken: AtomicU64,
    /// Something was lost in between, so the difference says nothing. Nobody gains by that: without knowing better, it is
    /// the client that is waited for.
    blurred: AtomicBool,
}

impl Balance {
    fn give(&self, bytes: u64) {
        self.given.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    fn blur(&self) {
        self.blurred.store(true, Ordering::Relaxed);
    }

    fn settle(&self) {
        self.taken.store(self.given.load(Ordering::Relaxed), Ordering::Relaxed);
        self.blurred.store(false, Ordering::Relaxed);
    }

    fn is_owed(&self) -> bool {
        let owed = self.given.load(Ordering::Relaxed) > self.taken.load(Ordering::Relaxed);
        owed && !self.blurred.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http1_client_is_waited_for_when_a_read_or_write_is() {
        let flow = Flow::new(false);
        assert!(!flow.awaits_sending() && !flow.awaits_taking());
        flow.note_read(true);
        flow.note_write(true, 7);
        assert!(flow.awaits_sending() && flow.awaits_taking());
        assert_eq!(flow.taken(), 7);
        flow.note_read(false);
        flow.note_write(false, 9);
        assert!(!flow.awaits_sending() && !flow.awaits_taking());
    }

    #[test]
    fn an_upload_that_the_gateway_holds_is_not_held_against_the_client() {
        let flow = Flow::new(true);
        flow.note_read(true);
        assert!(flow.awaits_sending());
        flow.arrived(100, false);
        assert!(!flow.awaits_sending());
        flow.consumed(100);
        assert!(flow.awaits_sending());
    }

    #[test]
    fn bytes_that_were_lost_excuse_nobody() {
        let flow = Flow::new(true);
        flow.note_read(true);
        flow.arrived(100, false);
        flow.broken_off();
        assert!(flow.awaits_sending());
        flow.settle();
        flow.arrived(10, false);
        assert!(!flow.awaits_sending());
        flow.arrived(10, true);
        assert!(flow.awaits_sending(), "padding makes the count unsure");
    }

    #[test]
    fn an_answer_that_stays_in_the_library_waits_for_the_client() {
        let flow = Flow::new(true);
        flow.produced(10);
        assert!(flow.awaits_taking());
        flow.written(10);
        assert!(!flow.awaits_taking());
    }
}
