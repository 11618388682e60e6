//! The TCP side of a connection, below TLS.
//!
//! Writes gather in a buffer that is taken from the thread's pool only while there is something to send: a download then
//! costs one system call for three records, and an idle connection holds no buffer at all. Reads go through one as well: a
//! TLS library asks for the five bytes of a record's header, and then for the record. It is small until more comes than fits.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::LocalKey;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tcp::read_some;

/// Bytes that move at once in a transfer: three full TLS records. The kernel takes 64 KiB through its layers as one packet,
/// and a fourth record would begin another one; more than that leaves the processor's cache before it is used.
const TRANSFER: usize = 3 * (16 * 1024 + 256);

/// Bytes read at once before it is known that more comes: a request without a body, with its record's header.
const SMALL: usize = 4 * 1024;

/// Buffers of a kind that a thread keeps for reuse.
const POOLED: usize = 8;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SMALL_READS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static LARGE_READS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> Vec<u8> {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(TRANSFER))
}

fn give_back(mut buffer: Vec<u8>) {
    buffer.clear();
    keep(&POOL, buffer);
}

fn keep<T>(pool: &'static LocalKey<RefCell<Vec<T>>>, buffer: T) {
    pool.with_borrow_mut(|pool| {
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    });
}

/// What was read and not yet asked for.
#[derive(Debug, Default)]
struct Inbox {
    /// None while there is nothing.
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    /// The last read brought as much as a small buffer holds, so that the next one takes a large one.
    transfer: bool,
}

impl Inbox {
    /// Lets `read` fill a buffer, and keeps it if it did.
    fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        let (pool, size) = if self.transfer { (&LARGE_READS, TRANSFER) } else { (&SMALL_READS, SMALL) };
        let pooled = pool.with_borrow_mut(Vec::pop);
        let mut buffer = pooled.unwrap_or_else(|| vec![0; size].into());
        let outcome = read(&mut buffer);
        self.buffer = Some(buffer);
        (self.start, self.end) = (0, outcome.as_ref().copied().unwrap_or(0));
        self.transfer = self.end >= SMALL;
        self.tidy();
        outcome.map(drop)
    }

    /// Moves as much as fits; how much.
    fn take(&mut self, into: &mut ReadBuf<'_>) -> usize {
        let held = self.buffer.as_ref().and_then(|buffer| buffer.get(self.start..self.end)).unwrap_or_default();
        let taken = held.get(..into.remaining()).unwrap_or(held);
        into.put_slice(taken);
        let taken = taken.len();
        self.start += taken;
        self.tidy();
        taken
    }

    fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// Gives an empty buffer back.
    fn tidy(&mut self) {
        if self.start < self.end {
            return;
        }
        if let Some(buffer) = self.buffer.take() {
            keep(if buffer.len() > SMALL { &LARGE_READS } else { &SMALL_READS }, buffer);
        }
    }
}

/// A TCP stream whose writes are gathered, and whose reads are of more than is asked for.
///
/// The stream itself is shared with the connection's task, which can abort it while TLS and HTTP layers still own the
/// socket.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: Arc<TcpStream>,
    inbox: Inbox,
    /// Empty without capacity while nothing waits to be sent.
    pending: Vec<u8>,
    /// How much of `pending` has been sent.
    sent: usize,
    /// Bytes that the kernel has taken.
    taken: u64,
    /// Bytes that may still be read before TLS has something to show for them.
    allowance: AtomicUsize,
    /// The last that was asked of the socket was a read, for which nothing had come.
    dry: bool,
}

/// What may be read after a handshake without a byte of HTTP in it: some of the largest records. Records that are empty,
/// or carry warnings or key updates, are small; the libraries end most floods of them before that.
const FRUITLESS: usize = 64 * 1024;

impl Socket {
    /// A socket in its handshake, in which the client may send so many bytes.
    pub(super) fn new(tcp: Arc<TcpStream>, handshake_bytes: usize) -> Self {
        Socket {
            tcp,
            inbox: Inbox::default(),
            pending: Vec::new(),
            sent: 0,
            taken: 0,
            allowance: AtomicUsize::new(handshake_bytes),
            dry: false,
        }
    }

    /// Notes that what was read so far was good for something: the handshake is done, or HTTP got bytes.
    pub(super) fn bore_fruit(&self) {
        self.allowance.store(FRUITLESS, Ordering::Relaxed);
    }

    /// Bytes that the kernel has taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Pending if TLS has asked for more than had come, and still nothing has: then there is no use in asking TLS.
    pub(super) fn poll_worth_reading(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.dry && self.inbox.is_empty() {
            // An error is TLS's to report.
            self.tcp.poll_read_ready(cx).map(drop)
        } else {
            Poll::Ready(())
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.inbox.is_empty() {
                let n = self.inbox.take(buffer);
                return Poll::Ready(self.charge(n));
            }
            let outcome = if buffer.remaining() < SMALL || self.inbox.transfer {
                self.inbox.fill(|room| read_some(&self.tcp, room)).map(|()| self.inbox.is_empty())
            } else {
                read_some(&self.tcp, buffer.initialize_unfilled()).and_then(|n| {
                    buffer.advance(n);
                    self.charge(n).map(|()| true)
                })
            };
            match outcome {
                // Read into the buffer directly, or there is nothing more to come.
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.tcp.poll_read_ready(cx))?,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn charge(&self, read: usize) -> io::Result<()> {
        let left = self.allowance.load(Ordering::Relaxed).checked_sub(read);
        self.allowance.store(left.unwrap_or(0), Ordering::Relaxed);
        match left {
            Some(_) => Ok(()),
            None => Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many bytes of TLS that carry nothing")),
        }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn send_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.pending.len() {
            let rest = self.pending.get(self.sent..).unwrap_or_default();
            match self.tcp.try_write(rest) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.sent += n;
                    self.taken += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.tcp.poll_write_ready(cx))?,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        self.sent = 0;
        if self.pending.capacity() > 0 {
            give_back(std::mem::take(&mut self.pending));
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.inbox.end = 0;
        self.inbox.tidy();
        if self.pending.capacity() > 0 {
            give_back(std::mem::take(&mut self.pending));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = self.poll_take(cx, buffer);
        self.dry = outcome.is_pending();
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // Where TLS has to write before it reads on, reading waits for this.
        self.dry = false;
        if self.pending.len() + data.len() > TRANSFER && !self.pending.is_empty() {
            ready!(self.send_pending(cx))?;
        }
        if self.pending.capacity() == 0 {
            self.pending = take_buffer();
        }
        let taken = data.get(..TRANSFER).unwrap_or(data);
        self.pending.extend_from_slice(taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send_pending(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_pending(cx))?;
        Poll::Ready(shut_down_writing(&self.tcp))
    }
}

fn shut_down_writing(tcp: &TcpStream) -> io::Result<()> {
    match socket2::SockRef::from(tcp).shutdown(std::net::Shutdown::Write) {
        // The client was faster.
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        outcome => outcome,
    }
}

/// Bounds what the kernel keeps for a client beyond what is on its way to it. Without a bound that may be megabytes, and
/// a slow client is seen to move only whenever a third of them has gone.
pub(super) fn bound_backlog(tcp: &TcpStream) {
    // The kernel calls when half of it has gone: room for several buffers of ours.
    const UNSENT: u32 = 512 * 1024;
    // Only the memory and the view of slow clients depend on it.
    let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT);
}

/// Makes the coming close a reset: without it the kernel goes on delivering what is queued, megabytes of it.
pub(super) fn abort(tcp: &TcpStream) {
    // A socket that can't be configured is closed the ordinary way by the drop that follows.
    let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

/// Reads into nowhere; how much. Apart from where it is waited, or the buffer would be part of every connection's task.
fn discard(tcp: &TcpStream) -> io::Result<usize> {
    tcp.try_read(&mut [0; 4096])
}

/// Closes so that the client can read what was last sent: stop writing, then discard what it still sends until it
/// closes too. A close with unread bytes would be a reset, which makes the client's kernel throw the last answer (or
/// the alert) away.
pub(super) async fn close_gently(tcp: &TcpStream) {
    /// What a client may still have under way, and how long it may take to notice.
    const MOST_BYTES: usize = 4 * 1024 * 1024;
    const MOST_TIME: Duration = Duration::from_secs(2);
    if shut_down_writing(tcp).is_err() {
        return;
    }
    let mut discarded = 0;
    let drain = async {
        while discarded < MOST_BYTES {
            match discard(tcp) {
                Ok(0) => return,
                Ok(n) => discarded += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if tcp.readable().await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    };
    // Running out of time is as good an end as any.
    let _ = tokio::time::timeout(MOST_TIME, drain).await;
}
