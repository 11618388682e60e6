//! An upstream that records what reached it, byte for byte, and answers as the test tells it.

pub use super::answer::Answer;
use super::answer::write_answer;
pub use super::pattern::{hex, pattern, pattern_sha256, sha256};
pub use super::recorded::Recorded;
use super::recorded::{Flow, Reader};
use super::tls::{PATIENCE, Wire};
use pingora::tls::ssl::SslAcceptor;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

type Handler = dyn Fn(&Recorded) -> Answer + Send + Sync;
type EarlyHandler = dyn Fn(&Recorded) -> Option<Answer> + Send + Sync;

struct Shared {
    recorded: Mutex<Vec<Recorded>>,
    handler: Mutex<Arc<Handler>>,
    early: Mutex<Option<Arc<EarlyHandler>>>,
    flow: Flow,
    open: AtomicUsize,
    accepted: AtomicUsize,
    stopped: AtomicBool,
}

/// See the module. Stops listening when dropped.
pub struct Upstream {
    shared: Arc<Shared>,
    url: String,
    address: Option<SocketAddr>,
}

impl Upstream {
    /// On a free loopback port, answering 200 with `{}` to everything.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    /// On a given address, to come back where another one stopped.
    pub fn start_on(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("bind {address}: {e}"));
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Shared::new();
        let inside = Arc::clone(&shared);
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        accept_loop(inside, move || {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE * 3))?;
            Ok(Box::new(move || Some(Box::new(stream) as Box<dyn Wire>)) as Opening)
        });
        Self { shared, url: format!("http://{address}"), address: Some(address) }
    }

    /// The same behind TLS; its URL names `localhost`.
    pub fn start_tls(acceptor: SslAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Shared::new();
        let inside = Arc::clone(&shared);
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let acceptor = Arc::new(acceptor);
        accept_loop(inside, move || {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let acceptor = Arc::clone(&acceptor);
            Ok(Box::new(move || acceptor.accept(stream).ok().map(|s| Box::new(s) as Box<dyn Wire>)) as Opening)
        });
        Self { shared, url: format!("https://localhost:{}", address.port()), address: Some(address) }
    }

    /// On a unix socket.
    pub fn start_unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("the socket's directory is writable");
        let shared = Shared::new();
        let inside = Arc::clone(&shared);
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        accept_loop(inside, move || {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Box::new(move || Some(Box::new(stream) as Box<dyn Wire>)) as Opening)
        });
        Self { shared, url: format!("unix://{}", path.display()), address: None }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The TCP address.
    ///
    /// # Panics
    /// For a unix socket.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("a TCP upstream")
    }

    /// Answers every request from now on by `handler`, asked once the body has been read.
    pub fn answer(&self, handler: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) {
        *lock(&self.shared.handler) = Arc::new(handler);
    }

    /// Asked with the head alone; `Some` is sent at once, and the body is not read.
    pub fn answer_early(&self, handler: impl Fn(&Recorded) -> Option<Answer> + Send + Sync + 'static) {
        *lock(&self.shared.early) = Some(Arc::new(handler));
    }

    /// Pauses after each 64 KiB of a body read.
    pub fn read_slowly(&self, pause: Duration) {
        *lock(&self.shared.flow.pause) = pause;
    }

    /// All requests so far, in the order of their ends.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared.recorded).clone()
    }

    /// Forgets and returns the requests so far.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut *lock(&self.shared.recorded))
    }

    /// The only request so far; it is forgotten.
    #[track_caller]
    pub fn only(&self) -> Recorded {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "exactly one request should have reached the upstream: {all:#?}");
        all.remove(0)
    }

    /// Checks that no byte of a request has come.
    #[track_caller]
    pub fn assert_untouched(&self, why: &str) {
        let all = self.take();
        assert!(all.is_empty(), "{why}: reached the upstream: {all:#?}");
    }

    /// Waits for a request that fulfils `wanted`.
    #[track_caller]
    pub fn wait_for(&self, wanted: impl Fn(&Recorded) -> bool) -> Recorded {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.requests().into_iter().find(|r| wanted(r)) {
                return found;
            }
            assert!(Instant::now() < end, "no such request came: {:#?}", self.requests());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Connections ever accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Bytes of request bodies read so far, also of unfinished ones.
    pub fn body_bytes(&self) -> u64 {
        self.shared.flow.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // The accepting thread looks every few milliseconds and then closes the socket.
        thread::sleep(Duration::from_millis(15));
    }
}

type Opening = Box<dyn FnOnce() -> Option<Box<dyn Wire>> + Send>;

fn accept_loop(shared: Arc<Shared>, accept: impl Fn() -> io::Result<Opening> + Send + 'static) {
    thread::spawn(move || {
        while !shared.stopped.load(Ordering::SeqCst) {
            match accept() {
                Ok(opening) => {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        if let Some(mut wire) = opening() {
                            shared.accepted.fetch_add(1, Ordering::SeqCst);
                            shared.open.fetch_add(1, Ordering::SeqCst);
                            let _ = serve(&shared, wire.as_mut());
                            shared.open.fetch_sub(1, Ordering::SeqCst);
                            wire.abort();
                        }
                    });
                }
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    });
}

impl Shared {
    fn new() -> Arc<Self> {
        let default = |_: &Recorded| Answer::new(200).header("Content-Type", "application/json").body(b"{}");
        Arc::new(Self {
            recorded: Mutex::default(),
            handler: Mutex::new(Arc::new(default)),
            early: Mutex::new(None),
            flow: Flow::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        })
    }
}

fn serve(shared: &Shared, wire: &mut dyn Wire) -> io::Result<()> {
    let mut reader = Reader::default();
    loop {
        let Some(head) = reader.head(wire)? else { return Ok(()) };
        if shared.stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut request = Recorded::parse(head);
        let early = lock(&shared.early).clone();
        if let Some(answer) = early.and_then(|early| early(&request)) {
            lock(&shared.recorded).push(request.clone());
            write_answer(wire, &answer, &request.method)?;
            return Ok(());
        }
        if request.header("expect").is_some() {
            wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let read = reader.request_body(wire, &shared.flow, &mut request);
        lock(&shared.recorded).push(request.clone());
        read?;
        let handler = Arc::clone(&lock(&shared.handler));
        let answer = handler(&request);
        write_answer(wire, &answer, &request.method)?;
        if answer.ends_connection() {
            return Ok(());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
