//! Connections that blobs are read from, in larger pieces than the framework reads.
//!
//! The framework asks an upstream for 64 KiB at a time. A read has a price beside its copy, and that is half of what a
//! download costs: it acknowledges, which wakes the other side and sends what that had waiting. A [`Socket`] asks for much
//! more as soon as it sees that more waits than the framework has room for, and hands it on piece by piece.
//!
//! The framework can be given a socket for a connection, but its pool tells connections apart by their descriptors, and such
//! a socket has none for it. So the idle ones are [`Kept`] here. Whether a connection may be used again is for the framework
//! to say, which knows how HTTP was spoken on it: it shuts down what must not be, and asks the others whether anything more
//! has come, before it would put them into its pool. See [`Ending`].

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tcp::read_some;

/// Bytes that are handed on at once: three TLS records, which go to the client with one system call.
const PIECE: usize = 48 * 1024;

/// Bytes that are read at once. Half of it costs a tenth more, twice as much gains nothing for a download alone.
const AT_ONCE: usize = 40 * PIECE;

/// Who has less room than this isn't reading a body.
const BODY: usize = 32 * 1024;

/// Buffers that a thread has in use at most. The downloads beyond are read as the framework asks.
const BUFFERS: usize = 8;

/// A download for which a buffer lasted longer than this makes do without one for some reads, or a few slow clients would have
/// them all.
const PROMPT: Duration = Duration::from_millis(100);
const READS_WITHOUT: u8 = 16;

/// Idle connections that a thread keeps at most.
const MOST_IDLE: usize = 64;

/// How often idle connections are looked at, for those that are too old or were closed.
const SWEEP: Duration = Duration::from_secs(1);

/// The idle connections of a serving thread.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Idles>);

#[derive(Debug, Default)]
struct Idles {
    /// Those used last at the end.
    idle: Vec<Idle>,
    /// Somebody looks at them from time to time.
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    tcp: TcpStream,
    to: Destination,
    since: Instant,
}

impl Idle {
    /// Young enough, open, and without a byte that nobody asked for. The kernel is asked: the runtime may not have heard yet.
    fn is_good(&self) -> bool {
        let peek = || rustix::net::recv(&self.tcp, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        self.since.elapsed() < self.to.keep_for && matches!(peek(), Err(Errno::AGAIN))
    }
}

/// What a connection may be used again for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    /// Settings by which it was made; see [`super::way::Way`].
    group: u64,
    address: SocketAddr,
    /// How long it may be idle.
    keep_for: Duration,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Idles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection used last, if one is still open.
    fn take(&self, to: &Destination) -> Option<TcpStream> {
        let mut idles = self.lock();
        while let Some(position) = idles.idle.iter().rposition(|idle| idle.to == *to) {
            let idle = idles.idle.remove(position);
            if idle.is_good() {
                return Some(idle.tcp);
            }
        }
        None
    }

    fn keep(self: &Arc<Self>, tcp: TcpStream, to: Destination) {
        // Nobody would look at it where there is no runtime any more.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut idles = self.lock();
        if idles.idle.len() >= MOST_IDLE {
            idles.idle.remove(0);
        }
        idles.idle.push(Idle { tcp, to, since: Instant::now() });
        if !std::mem::replace(&mut idles.swept, true) {
            runtime.spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what is too old or was closed; whether anything is left.
    fn sweep(&self) -> bool {
        let mut idles = self.lock();
        idles.idle.retain(Idle::is_good);
        idles.swept = !idles.idle.is_empty();
        idles.swept
    }
}

async fn sweep(kept: Weak<Kept>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if !kept.upgrade().is_some_and(|kept| kept.sweep()) {
            return;
        }
    }
}

/// One request's way to a connection.
pub(crate) struct Dial {
    kept: Arc<Kept>,
    group: u64,
    keep_for: Duration,
    lease: OnceLock<Arc<Lease>>,
}

impl Dial {
    /// A way to any address of `group`, on which connections may be idle for `keep_for`.
    pub(super) fn new(kept: &Arc<Kept>, group: u64, keep_for: Duration) -> Arc<Self> {
        Arc::new(Dial { kept: kept.clone(), group, keep_for, lease: OnceLock::new() })
    }

    /// Whether the connection had served another request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.lease.get().is_some_and(|lease| lease.reused)
    }

    /// Notes that something has gone wrong, so that nobody else gets the connection.
    pub(crate) fn give_up(&self) {
        if let Some(lease) = self.lease.get() {
            lease.ending.spoil();
        }
    }

    /// Notes that the request's answer has come to its end.
    pub(crate) fn answered(&self) {
        if let Some(lease) = self.lease.get() {
            // Whatever else happened has spoiled it.
            let _ = lease.ending.advance(Ending::UNDER_WAY, Ending::ANSWERED);
        }
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("group", &self.group).finish_non_exhaustive()
    }
}

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, address: &PeerAddress) -> pingora::Result<Stream> {
        let Some(&address) = address.as_inet() else {
            return Err(Error::explain(ErrorType::InternalError, "not an address of TCP"));
        };
        let to = Destination { group: self.group, address, keep_for: self.keep_for };
        let kept = self.kept.take(&to);
        let reused = kept.is_some();
        let tcp = match kept {
            Some(tcp) => tcp,
            None => ext::connect(&address, None).await?,
        };
        let lease = Lease { tcp: Some(tcp), to, reused, ending: Ending::default(), home: Arc::downgrade(&self.kept) };
        let lease = Arc::new(lease);
        if self.lease.set(lease.clone()).is_err() {
            return Err(Error::explain(ErrorType::InternalError, "a way to one connection was gone twice"));
        }
        Ok(Stream::from(VirtualSocketStream::new(Box::new(Socket {
            lease,
            ahead: Ahead::default(),
            plenty: false,
            handed: false,
        }))))
    }
}

/// A connection while a request has it. It is kept when the last of request and socket is gone, if it may be.
#[derive(Debug)]
struct Lease {
    /// There until the drop.
    tcp: Option<TcpStream>,
    to: Destination,
    reused: bool,
    ending: Ending,
    home: Weak<Kept>,
}

impl Lease {
    fn tcp(&self) -> io::Result<&TcpStream> {
        self.tcp.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Some(tcp), Some(home), true) = (self.tcp.take(), self.home.upgrade(), self.ending.is_clean()) {
            home.keep(tcp, self.to.clone());
        }
    }
}

/// How far the use of a connection has come to an end after which it can be used again. Each step is only made from the one
/// before; whatever else happens on the way spoils it for good.
#[derive(Debug, Default)]
struct Ending(AtomicU8);

impl Ending {
    const UNDER_WAY: u8 = 0;
    /// The proxy has seen the end of the answer.
    const ANSWERED: u8 = 1;
    /// After that, the framework asked whether anything more has come, and nothing had: it holds the connection for
    /// reusable. It asks no connection that it doesn't; that one is shut down or dropped. The socket answers that it was
    /// closed, so that the framework lets go of it.
    const ASKED: u8 = 2;
    const SPOILED: u8 = 3;

    /// Whether it was at `from`.
    fn advance(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn spoil(&self) {
        self.0.store(Self::SPOILED, Ordering::Relaxed);
    }

    fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::UNDER_WAY
    }

    fn is_clean(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::ASKED
    }
}

/// What was read and not yet handed on.
#[derive(Debug, Default)]
struct Ahead {
    /// None while there is nothing.
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    /// When the last buffer was filled.
    filled: Option<Instant>,
    /// Reads that have to do without a buffer.
    without: u8,
}

/// The buffers of a thread.
#[derive(Debug)]
struct Buffers {
    free: Vec<Box<[u8]>>,
    in_use: usize,
}

/// Free buffers that a thread holds on to.
const SPARE: usize = 1;

thread_local! {
    static THREAD: RefCell<Buffers> = const { RefCell::new(Buffers { free: Vec::new(), in_use: 0 }) };
}

impl Buffers {
    fn take(&mut self) -> Option<Box<[u8]>> {
        if self.in_use >= BUFFERS {
            return None;
        }
        self.in_use += 1;
        Some(self.free.pop().unwrap_or_else(|| vec![0; AT_ONCE].into()))
    }

    fn give_back(&mut self, buffer: Box<[u8]>) {
        self.in_use = self.in_use.saturating_sub(1);
        if self.free.len() < SPARE {
            self.free.push(buffer);
        }
    }
}

impl Ahead {
    /// Reads as much as a buffer holds; how much, or none if there is no buffer to be had.
    fn fill(&mut self, tcp: &TcpStream) -> Option<io::Result<usize>> {
        if self.without > 0 {
            self.without -= 1;
            return None;
        }
        let mut buffer = THREAD.with_borrow_mut(Buffers::take)?;
        let outcome = read_some(tcp, &mut buffer);
        self.buffer = Some(buffer);
        self.filled = Some(Instant::now());
        (self.start, self.end) = (0, outcome.as_ref().copied().unwrap_or(0));
        self.tidy();
        Some(outcome)
    }

    /// Moves a piece, or as much as fits.
    fn take(&mut self, into: &mut ReadBuf<'_>) {
        let held = self.buffer.as_ref().and_then(|buffer| buffer.get(self.start..self.end)).unwrap_or_default();
        let taken = held.get(..into.remaining().min(PIECE)).unwrap_or(held);
        into.put_slice(taken);
        self.start += taken.len();
        self.tidy();
    }

    fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// Gives an empty buffer back.
    fn tidy(&mut self) {
        if self.start >= self.end
            && let Some(buffer) = self.buffer.take()
        {
            if self.filled.is_some_and(|filled| filled.elapsed() > PROMPT) {
                self.without = READS_WITHOUT;
            }
            THREAD.with_borrow_mut(|buffers| buffers.give_back(buffer));
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.end = 0;
        self.tidy();
    }
}

/// What the framework reads from and writes to.
struct Socket {
    lease: Arc<Lease>,
    ahead: Ahead,
    /// The last read brought so much that the next one may bring more than the framework has room for.
    plenty: bool,
    /// A piece was handed on, and nobody has had a turn since.
    handed: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("to", &self.lease.to.address).finish_non_exhaustive()
    }
}

impl Socket {
    fn poll_take(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.ahead.is_empty() {
                // The client's side goes first: of several pieces the framework would make one, by copying them. After the
                // answer nobody is kept waiting, who would conclude that nothing more has come.
                if std::mem::take(&mut self.handed) && self.lease.ending.is_under_way() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                self.handed = true;
                self.ahead.take(buffer);
                return Poll::Ready(Ok(()));
            }
            let tcp = self.lease.tcp()?;
            let body = buffer.remaining() >= BODY;
            let ahead = if self.plenty && body { self.ahead.fill(tcp) } else { None };
            let outcome = match ahead {
                Some(outcome) => outcome,
                None if body => tcp.try_read_buf(buffer),
                None => read_some(tcp, buffer.initialize_unfilled()).inspect(|read| buffer.advance(*read)),
            };
            match outcome.inspect(|read| self.plenty = *read >= BODY) {
                // Read into the framework's buffer directly, or the end.
                Ok(_) if self.ahead.is_empty() => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(tcp.poll_read_ready(cx))?,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = self.poll_take(cx, buffer);
        if !self.lease.ending.is_under_way() {
            match outcome {
                Poll::Pending if self.lease.ending.advance(Ending::ANSWERED, Ending::ASKED) => {
                    return Poll::Ready(Ok(()));
                }
                _ => self.lease.ending.spoil(),
            }
        }
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.lease.ending.is_under_way() {
            self.lease.ending.spoil();
        }
        let tcp = self.lease.tcp()?;
        loop {
            match tcp.try_write(data) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(tcp.poll_write_ready(cx))?,
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lease.ending.spoil();
        Poll::Ready(socket2::SockRef::from(self.lease.tcp()?).shutdown(std::net::Shutdown::Write))
    }
}

impl VirtualSocket for Socket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay if self.lease.reused => Ok(()),
            VirtualSockOpt::NoDelay => self.lease.tcp()?.set_nodelay(true),
            // No peer asks for another one.
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn destination(address: SocketAddr) -> Destination {
        Destination { group: 1, address, keep_for: Duration::from_secs(60) }
    }

    /// A socket as the framework gets it, and the registry's end of it.
    async fn pair(kept: &Arc<Kept>) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (tcp, ending) = (Some(ours.unwrap()), Ending::default());
        let lease = Lease { tcp, to: destination(address), reused: false, ending, home: Arc::downgrade(kept) };
        let socket = Socket { lease: Arc::new(lease), ahead: Ahead::default(), plenty: false, handed: false };
        (socket, accepted.unwrap().0)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    /// What the framework does before it keeps a connection; whether it is told that there is an end.
    async fn ask(socket: &mut Socket) -> bool {
        socket.read(&mut [0]).await.unwrap() == 0
    }

    fn answered(socket: &Socket) {
        let _ = socket.lease.ending.advance(Ending::UNDER_WAY, Ending::ANSWERED);
    }

    /// Ends the use of a socket; whether its connection was kept.
    fn is_kept(socket: Socket, kept: &Kept) -> bool {
        let to = socket.lease.to.clone();
        drop(socket);
        kept.take(&to).is_some()
    }

    #[tokio::test]
    async fn all_bytes_arrive_in_order_whatever_is_asked_for() {
        let sent = pattern(5 * AT_ONCE + 17);
        for room in [1000, BODY, 64 * 1024, 2 * AT_ONCE] {
            let (mut socket, mut registry) = pair(&Arc::default()).await;
            let send = async {
                registry.write_all(&sent).await.unwrap();
                drop(registry);
            };
            let receive = async {
                let mut received = Vec::new();
                let mut buffer = vec![0; room];
                loop {
                    match socket.read(&mut buffer).await.unwrap() {
                        0 => return received,
                        n => received.extend_from_slice(&buffer[..n]),
                    }
                }
            };
            let ((), received) = tokio::join!(send, receive);
            assert!(received == sent, "room for {room}: {} of {} bytes", received.len(), sent.len());
        }
    }

    #[tokio::test]
    async fn a_connection_is_kept_once_it_was_answered_and_asked_in_this_order() {
        let kept = Arc::default();
        let steps: [(&[&str], bool); 8] = [
            (&["answered", "asked"], true),
            (&["answered"], false),
            (&["asked"], false),
            (&["asked", "answered"], false),
            (&["answered", "asked", "asked"], false),
            (&["answered", "asked", "written"], false),
            (&["answered", "shut down", "asked"], false),
            (&["answered", "more came", "asked"], false),
        ];
        for (steps, expected) in steps {
            let (mut socket, mut registry) = pair(&kept).await;
            for step in steps {
                match *step {
                    "answered" => answered(&socket),
                    // In vain, if it is asked too early.
                    "asked" => drop(tokio::time::timeout(Duration::from_millis(50), ask(&mut socket)).await),
                    "written" => socket.write_all(b"x").await.unwrap(),
                    "more came" => registry.write_all(b"x").await.unwrap(),
                    _ => socket.shutdown().await.unwrap(),
                }
            }
            assert_eq!(is_kept(socket, &kept), expected, "{steps:?}");
        }
    }

    #[tokio::test]
    async fn what_was_read_beyond_an_answer_spoils_its_connection() {
        let kept = Arc::default();
        let (mut socket, mut registry) = pair(&kept).await;
        let sending = tokio::spawn(async move {
            registry.write_all(&pattern(3 * AT_ONCE)).await.unwrap();
            registry
        });
        let mut buffer = vec![0; 64 * 1024];
        while socket.ahead.is_empty() {
            assert!(socket.read(&mut buffer).await.unwrap() > 0);
        }
        // The answer ends with what was handed on; more is here.
        answered(&socket);
        assert!(!ask(&mut socket).await, "what is here was not told");
        assert!(!is_kept(socket, &kept));
        sending.abort();
    }

    #[tokio::test]
    async fn who_is_slow_makes_do_without_a_buffer_for_a_while() {
        let (mut socket, mut registry) = pair(&Arc::default()).await;
        let sending = tokio::spawn(async move { while registry.write_all(&pattern(AT_ONCE)).await.is_ok() {} });
        let mut buffer = vec![0; 64 * 1024];
        while socket.ahead.is_empty() {
            assert!(socket.read(&mut buffer).await.unwrap() > 0);
        }
        tokio::time::sleep(PROMPT + Duration::from_millis(20)).await;
        while !socket.ahead.is_empty() {
            assert!(socket.read(&mut buffer).await.unwrap() > 0);
        }
        for _ in 0..READS_WITHOUT {
            assert!(socket.read(&mut buffer).await.unwrap() > 0);
            assert_eq!(THREAD.with_borrow(|buffers| buffers.in_use), 0);
        }
        while socket.ahead.is_empty() {
            assert!(socket.read(&mut buffer).await.unwrap() > 0);
        }
        sending.abort();
    }

    #[test]
    fn a_thread_has_so_many_buffers_and_no_more() {
        THREAD.with_borrow_mut(|buffers| {
            let taken: Vec<_> = std::iter::from_fn(|| buffers.take()).collect();
            assert_eq!(taken.len(), BUFFERS);
            taken.into_iter().for_each(|buffer| buffers.give_back(buffer));
            assert_eq!((buffers.in_use, buffers.free.len()), (0, SPARE));
        });
    }

    /// Has one idle connection, which may be kept for so long; the registry's end of it.
    async fn keep_one(kept: &Arc<Kept>, keep_for: Duration) -> (Destination, TcpStream) {
        let (mut socket, registry) = pair(kept).await;
        let to = Destination { keep_for, ..socket.lease.to.clone() };
        Arc::get_mut(&mut socket.lease).unwrap().to = to.clone();
        answered(&socket);
        assert!(ask(&mut socket).await);
        drop(socket);
        (to, registry)
    }

    #[tokio::test]
    async fn a_connection_is_for_its_destination_alone() {
        let kept: Arc<Kept> = Arc::default();
        let (to, _registry) = keep_one(&kept, Duration::from_secs(60)).await;
        assert!(kept.take(&Destination { group: 2, ..to.clone() }).is_none());
        let address = SocketAddr::new(to.address.ip(), to.address.port().wrapping_add(1));
        assert!(kept.take(&Destination { address, ..to.clone() }).is_none());
        assert!(kept.take(&to).is_some());
    }

    #[tokio::test]
    async fn a_connection_that_is_too_old_is_not_taken() {
        let kept: Arc<Kept> = Arc::default();
        let (to, _registry) = keep_one(&kept, Duration::from_millis(30)).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert!(kept.take(&to).is_none());
    }

    #[tokio::test]
    async fn what_came_after_an_answer_is_seen_before_the_runtime_hears_of_it() {
        let kept: Arc<Kept> = Arc::default();
        for registry_does in [|registry: TcpStream| assert_eq!(registry.try_write(b"x").unwrap(), 1), drop] {
            let (to, registry) = keep_one(&kept, Duration::from_secs(60)).await;
            // No await from here on, so that the runtime doesn't look.
            registry_does(registry);
            assert!(kept.take(&to).is_none());
        }
    }

    #[tokio::test]
    async fn who_looks_closes_what_is_too_old_or_was_closed() {
        let kept: Arc<Kept> = Arc::default();
        let (_, registry) = keep_one(&kept, Duration::from_secs(60)).await;
        assert!(kept.sweep());
        drop(registry);
        assert!(!kept.sweep(), "nothing is left");
        let (_, _registry) = keep_one(&kept, Duration::from_millis(30)).await;
        assert!(kept.sweep());
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert!(!kept.sweep(), "nothing is left");
    }
}
