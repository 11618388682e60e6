//! Whose turn it is: what the gateway waits for, and what it still holds.
//!
//! A client is slow only while it is the one that is waited for. On HTTP/1.1 the stream below knows: a read finds nothing,
//! or a write can't go on. An HTTP/2 connection is always being read; there each request has counts of its own, of bytes
//! of its body that have come and not been taken, and of bytes of its answer that have not left the library. What comes
//! for a stream without a request counts for nobody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Flushes may wait for what else is written in the same turn (HTTP/2).
    gathers: AtomicBool,
    /// The last flush was put off.
    unsent: AtomicBool,
    /// The HTTP/2 stream whose head came last, until its request begins; 0 for none.
    headed: AtomicU32,
    /// Bytes that the client may send ahead on all HTTP/2 streams together.
    window: AtomicU64,
    /// The HTTP/2 streams that have a request.
    streams: Mutex<HashMap<u32, Arc<Bodies>>>,
}

/// The connection's window that HTTP/2 begins with (RFC 9113 §6.9.2).
pub(super) const SMALL_WINDOW: u32 = 65_535;

/// What moves for one request of an HTTP/2 connection.
#[derive(Debug, Default)]
struct Bodies {
    /// Bytes of the request's body: come, less taken by the request.
    inbound: Balance,
    /// Bytes of the answer's body: produced, less written.
    outbound: Balance,
}

impl Flow {
    pub(super) fn new(http2: bool) -> Self {
        Flow {
            http2,
            read_pending: AtomicBool::new(false),
            write_pending: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            gathers: AtomicBool::new(false),
            unsent: AtomicBool::new(false),
            headed: AtomicU32::new(0),
            window: AtomicU64::new(u64::from(SMALL_WINDOW)),
            streams: Mutex::default(),
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

    /// From here on flushes may be put off: whoever drives the connection asks for what is unsent when it has had its turn.
    pub(super) fn gather(&self) {
        self.gathers.store(true, Ordering::Relaxed);
    }

    /// Whether a flush may wait. If so, it is noted.
    pub(super) fn put_off(&self) -> bool {
        let gathers = self.gathers.load(Ordering::Relaxed);
        self.unsent.store(gathers, Ordering::Relaxed);
        gathers
    }

    /// Whether the last flush was put off, and nobody has asked since.
    pub(super) fn take_unsent(&self) -> bool {
        self.unsent.swap(false, Ordering::Relaxed)
    }

    /// The HTTP/2 connection's window was enlarged.
    pub(super) fn note_window(&self, window: u32) {
        self.window.store(u64::from(window), Ordering::Relaxed);
    }

    /// Whether bodies that requests have not taken yet fill so much of the connection's window that the client may not be
    /// able to send on any stream: the library opens the window again in steps of half of it.
    fn holds_the_window(&self) -> bool {
        let held: u64 = self.streams().values().map(|bodies| bodies.inbound.owed()).sum();
        held >= self.window.load(Ordering::Relaxed) / 2
    }

    /// A head is complete, which may become the request that begins next (HTTP/2).
    pub(super) fn headed(&self, stream: u32) {
        self.headed.store(stream, Ordering::Relaxed);
    }

    /// A whole frame of a body came (HTTP/2).
    pub(super) fn arrived(&self, stream: u32, bytes: u64) {
        if let Some(bodies) = self.streams().get(&stream) {
            bodies.inbound.give(bytes);
        }
    }

    /// A whole frame of a body was written (HTTP/2).
    pub(super) fn written(&self, stream: u32, bytes: u64) {
        if let Some(bodies) = self.streams().get(&stream) {
            bodies.outbound.take(bytes);
        }
    }

    /// A request begins: on HTTP/2 the one of the head that came last. The stream hands the library no byte behind a head
    /// before the library has had the chance to make a request of it, so there is never a choice.
    pub(super) fn begin(self: &Arc<Self>) -> Turn {
        let stream = self.headed.swap(0, Ordering::Relaxed);
        let bodies = (self.http2 && stream != 0).then(Arc::<Bodies>::default);
        if let Some(bodies) = &bodies {
            self.streams().insert(stream, bodies.clone());
        }
        Turn { flow: self.clone(), stream, bodies }
    }

    /// Whether the client takes nothing off the connection.
    pub(super) fn is_blocked(&self) -> bool {
        self.write_pending.load(Ordering::Relaxed)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Arc<Bodies>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's part of a connection. What is left of its bodies when it is dropped is nobody's.
#[derive(Debug)]
pub(super) struct Turn {
    flow: Arc<Flow>,
    stream: u32,
    /// `None` on HTTP/1.1, where the connection's state is the request's.
    bodies: Option<Arc<Bodies>>,
}

impl Turn {
    pub(super) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The request took bytes of its body.
    pub(super) fn consumed(&self, bytes: u64) {
        if let Some(bodies) = &self.bodies {
            bodies.inbound.take(bytes);
        }
    }

    /// The request gave bytes of its answer's body.
    pub(super) fn produced(&self, bytes: u64) {
        if let Some(bodies) = &self.bodies {
            bodies.outbound.give(bytes);
        }
    }

    /// Whether the client could send, and doesn't. The HTTP/2 library leaves bytes unread only while the client takes
    /// nothing, so what a read found says nothing there.
    pub(super) fn awaits_sending(&self) -> bool {
        match &self.bodies {
            Some(bodies) => !bodies.inbound.is_owed() && !self.flow.holds_the_window(),
            None => self.flow.http2 || self.flow.read_pending.load(Ordering::Relaxed),
        }
    }

    /// Whether there is something that the client doesn't take.
    pub(super) fn awaits_taking(&self) -> bool {
        self.flow.is_blocked() || self.bodies.as_ref().is_some_and(|bodies| bodies.outbound.is_owed())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.bodies.is_some() {
            self.flow.streams().remove(&self.stream);
        }
    }
}

/// Two counts that meet when nothing is left in between.
#[derive(Debug, Default)]
struct Balance {
    given: AtomicU64,
    taken: AtomicU64,
}

impl Balance {
    fn give(&self, bytes: u64) {
        self.given.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    fn owed(&self) -> u64 {
        self.given.load(Ordering::Relaxed).saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    fn is_owed(&self) -> bool {
        self.owed() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request on this stream.
    fn request(flow: &Arc<Flow>, stream: u32) -> Turn {
        flow.headed(stream);
        flow.begin()
    }

    #[test]
    fn an_http1_client_is_waited_for_when_a_read_or_write_is() {
        let flow = Arc::new(Flow::new(false));
        let turn = flow.begin();
        assert!(!turn.awaits_sending() && !turn.awaits_taking());
        flow.note_read(true);
        flow.note_write(true, 7);
        assert!(turn.awaits_sending() && turn.awaits_taking());
        assert_eq!(flow.taken(), 7);
        flow.note_read(false);
        flow.note_write(false, 9);
        assert!(!turn.awaits_sending() && !turn.awaits_taking());
    }

    #[test]
    fn an_upload_that_the_gateway_holds_is_not_held_against_the_client() {
        let flow = Arc::new(Flow::new(true));
        let turn = request(&flow, 1);
        assert!(turn.awaits_sending());
        flow.arrived(1, 100);
        assert!(!turn.awaits_sending());
        turn.consumed(100);
        assert!(turn.awaits_sending());
    }

    #[test]
    fn what_comes_on_one_stream_excuses_no_other() {
        let flow = Arc::new(Flow::new(true));
        let turn = request(&flow, 1);
        let other = request(&flow, 3);
        flow.arrived(3, 100);
        flow.arrived(5, 100);
        assert!(turn.awaits_sending() && !other.awaits_sending());
        drop(other);
        flow.arrived(3, 100);
        assert!(turn.awaits_sending(), "bytes for nobody");
    }

    #[test]
    fn bytes_lost_on_one_stream_are_not_charged_to_another() {
        let flow = Arc::new(Flow::new(true));
        let turn = request(&flow, 1);
        flow.arrived(1, 100);
        let cancelled = request(&flow, 3);
        flow.arrived(3, 100);
        drop(cancelled);
        assert!(!turn.awaits_sending(), "the gateway still holds this one's");
    }

    #[test]
    fn who_has_no_window_left_is_not_waited_for() {
        let flow = Arc::new(Flow::new(true));
        let turn = request(&flow, 1);
        let other = request(&flow, 3);
        flow.arrived(3, 40_000);
        assert!(!turn.awaits_sending());
        flow.note_window(4 * SMALL_WINDOW);
        assert!(turn.awaits_sending());
        flow.arrived(3, 200_000);
        assert!(!turn.awaits_sending());
        drop(other);
        assert!(turn.awaits_sending());
    }

    #[test]
    fn only_requests_are_kept() {
        let flow = Arc::new(Flow::new(true));
        for stream in (1..100).step_by(2) {
            let _turn = request(&flow, stream);
            flow.arrived(stream + 2, 1);
            assert_eq!(flow.streams().len(), 1);
        }
        assert!(flow.streams().is_empty());
        let unknown = flow.begin();
        assert!(unknown.awaits_sending() && !unknown.awaits_taking(), "without a stream nobody is excused");
    }

    #[test]
    fn a_flush_waits_only_where_somebody_asks_for_it() {
        let flow = Flow::new(true);
        assert!(!flow.put_off() && !flow.take_unsent());
        flow.gather();
        assert!(flow.put_off());
        assert!(flow.take_unsent() && !flow.take_unsent());
    }

    #[test]
    fn an_answer_that_stays_in_the_library_waits_for_the_client() {
        let flow = Arc::new(Flow::new(true));
        let turn = request(&flow, 1);
        let other = request(&flow, 3);
        turn.produced(10);
        assert!(turn.awaits_taking() && !other.awaits_taking());
        flow.written(1, 10);
        assert!(!turn.awaits_taking());
    }
}
