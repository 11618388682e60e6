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

mod ahead;
mod kept;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::way::Bulk;
use crate::tcp::read_some;
use ahead::Ahead;
use kept::Destination;
pub(crate) use kept::Kept;

/// Who has less room than this isn't reading a body.
const BODY: usize = 32 * 1024;

/// One request's way to a connection.
pub(crate) struct Dial {
    kept: Arc<Kept>,
    bulk: Bulk,
    lease: OnceLock<Arc<Lease>>,
}

impl Dial {
    pub(super) fn new(kept: &Arc<Kept>, bulk: Bulk) -> Arc<Self> {
        Arc::new(Dial { kept: kept.clone(), bulk, lease: OnceLock::new() })
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
        f.debug_struct("Dial").field("bulk", &self.bulk).finish_non_exhaustive()
    }
}

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, address: &PeerAddress) -> pingora::Result<Stream> {
        let Some(&address) = address.as_inet() else {
            return Err(Error::explain(ErrorType::InternalError, "not an address of TCP"));
        };
        let to = Destination { group: self.bulk.group, address, keep_for: self.bulk.keep_for };
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
        Ok(Stream::from(VirtualSocketStream::new(Box::new(Socket { lease, ahead: Ahead::default(), plenty: false }))))
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

/// What the framework reads from and writes to.
struct Socket {
    lease: Arc<Lease>,
    ahead: Ahead,
    /// The last read brought so much that the next one may bring more than the framework has room for.
    plenty: bool,
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
