//! Idle connections, until they are used again or too old.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::net::TcpStream;

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
pub(super) struct Destination {
    /// Settings by which it was made; see [`Way`](super::super::way::Way).
    pub(super) group: u64,
    pub(super) address: SocketAddr,
    /// How long it may be idle.
    pub(super) keep_for: Duration,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Idles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection used last, if one is still open.
    pub(super) fn take(&self, to: &Destination) -> Option<TcpStream> {
        let mut idles = self.lock();
        while let Some(position) = idles.idle.iter().rposition(|idle| idle.to == *to) {
            let idle = idles.idle.remove(position);
            if idle.is_good() {
                return Some(idle.tcp);
            }
        }
        None
    }

    pub(super) fn keep(self: &Arc<Self>, tcp: TcpStream, to: Destination) {
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
    pub(super) fn sweep(&self) -> bool {
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
