//! The stream that pingora's HTTP layers own while they work: TLS on our socket, with the connection attached.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::coop;
use tokio::time::Sleep;

use super::connection::Connection;
use super::frames::{Frames, Received};
use super::socket::Socket;
use crate::config::Limits;
use crate::telemetry::EndReason;
use crate::tls;

/// A decrypted connection as pingora's HTTP servers take it.
pub(super) struct EdgeStream {
    tls: tls::Stream<Socket>,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    /// Bytes read while waiting for the next request.
    ahead: Bytes,
    /// Until when the head of the current request must be complete.
    head_deadline: Option<Instant>,
    /// Wakes at that time. Made when a head has to be waited for, which is rare.
    head_clock: Option<Pin<Box<Sleep>>>,
    /// How long the head of an HTTP/2 request may take.
    head_timeout: Duration,
    /// Of an HTTP/2 connection.
    frames: Option<Box<Frames>>,
    /// The last byte that the HTTP/2 library got was the last of a head.
    behind_head: bool,
    /// Something was written since the last flush.
    written: bool,
    id: UniqueIDType,
}

impl std::fmt::Debug for EdgeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeStream").field("connection", &self.connection.id()).finish_non_exhaustive()
    }
}

impl EdgeStream {
    /// A stream that counts frames against `limits` if the client speaks HTTP/2.
    pub(super) fn new(tls: tls::Stream<Socket>, connection: Arc<Connection>, limits: &Limits) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let id = tls.get_ref().tcp().as_raw_fd();
        // pingora passes this digest on to every request; the header is a place it demands and nobody reads.
        let header = ResponseHeader::build_no_case(200, Some(0)).map_err(io::Error::other)?;
        let digest = Arc::new(ProxyDigest::new(Box::new(header), Some(Box::new(connection.clone()))));
        tls.get_ref().bore_fruit();
        let frames = connection.flow.is_http2().then(|| Box::new(Frames::new(limits.h2_frames)));
        Ok(EdgeStream {
            tls,
            connection,
            digest,
            ahead: Bytes::new(),
            head_deadline: None,
            head_clock: None,
            head_timeout: limits.request_head_timeout,
            frames,
            behind_head: false,
            written: false,
            id,
        })
    }

    /// Starts the clock for the next request head: it covers the whole head, not a single read.
    pub(super) fn expect_head_by(&mut self, deadline: Instant) {
        self.head_deadline = Some(deadline);
        self.head_clock = None;
    }

    fn head_has_come(&mut self) {
        self.head_deadline = None;
        self.head_clock = None;
    }

    /// Waits until at least `least` bytes have come, and keeps them for whoever reads next.
    ///
    /// # Errors
    ///
    /// What the transport reports, and `UnexpectedEof` when the client closed before.
    pub(super) async fn read_ahead(&mut self, least: usize) -> io::Result<()> {
        while self.ahead.len() < least {
            let more = std::future::poll_fn(|cx| self.poll_some(cx)).await?;
            if more.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.ahead = if self.ahead.is_empty() { more } else { [&self.ahead[..], &more[..]].concat().into() };
        }
        Ok(())
    }

    /// Starts the clock of an HTTP/2 head that has begun and not ended, and stops it when it has. Most come whole.
    fn watch_http2_head(&mut self) {
        let Some(frames) = &self.frames else { return };
        if !frames.in_head() {
            self.head_has_come();
        } else if self.head_deadline.is_none() {
            self.expect_head_by(Instant::now() + self.head_timeout);
        }
    }

    /// Fails when the head is late. Once the request has begun, the clock is off.
    fn check_head_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(deadline) = self.head_deadline else { return Ok(()) };
        if self.frames.is_none() && self.connection.head_complete() {
            self.head_has_come();
            return Ok(());
        }
        let clock = self.head_clock.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        match clock.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.connection.note_late_head();
                Err(io::Error::new(io::ErrorKind::TimedOut, "the request head was not complete in time"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl EdgeStream {
    /// Reads from TLS, the records of a transfer several at a time: what is passed on in larger pieces costs less each.
    fn poll_tls(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        /// A record of this size is followed by others, if it isn't the last of many.
        const OF_A_TRANSFER: usize = 4 * 1024;
        /// Three full records: what is passed on, with its framing, fits into one packet of the kernel (64 KiB).
        const PIECE: usize = 3 * 16 * 1024;
        let before = buffer.filled().len();
        let outcome = self.poll_record(cx, buffer);
        self.connection.flow.note_read(outcome.is_pending());
        ready!(outcome)?;
        if buffer.filled().len() - before >= OF_A_TRANSFER {
            let end = (before + PIECE).min(buffer.capacity());
            loop {
                let before = buffer.filled().len();
                // What ends the connection shows with the next read as well, which has nothing else to tell.
                let more = before < end && matches!(self.poll_record(cx, buffer), Poll::Ready(Ok(())));
                if !more || buffer.filled().len() == before {
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a record, or what is left of one.
    fn poll_record(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.tls.get_ref().poll_worth_reading(cx));
        // A client that sends without pause must not keep its thread from the others.
        let turn = ready!(coop::poll_proceed(cx));
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.tls).poll_read(cx, buffer);
        match &outcome {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => {
                if e.kind() == io::ErrorKind::QuotaExceeded || tls::is_protocol_fault(e) {
                    self.connection.end(EndReason::TlsFault);
                }
                return outcome;
            }
        }
        turn.made_progress();
        if buffer.filled().len() > before {
            self.tls.get_ref().bore_fruit();
        }
        outcome
    }

    /// Hands what the client sent to the HTTP/2 library, and keeps the books. Behind a head it waits until the library
    /// has been asked once for a new request, so that each request is known to be of the head before (see
    /// [`Flow::begin`](super::flow::Flow::begin)).
    fn poll_frames(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.connection.end_reason().is_some() {
            // What was dropped when it was dismissed leaves a hole, behind which nothing has a meaning.
            return Poll::Pending;
        }
        if std::mem::take(&mut self.behind_head) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.ahead.is_empty() {
            let before = buffer.filled().len();
            ready!(self.poll_tls(cx, buffer))?;
            let bytes = buffer.filled().get(before..).unwrap_or_default();
            let Some(taken) = self.count(bytes) else {
                // Nothing more is read; who waits for the dismissal says goodbye.
                buffer.set_filled(before);
                return Poll::Pending;
            };
            if let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
                self.ahead = Bytes::copy_from_slice(rest);
                buffer.set_filled(before + taken);
            }
        } else {
            let bytes = self.ahead.slice(..self.ahead.len().min(buffer.remaining()));
            let Some(taken) = self.count(&bytes) else { return Poll::Pending };
            buffer.put_slice(&self.ahead.split_to(taken));
        }
        Poll::Ready(Ok(()))
    }

    /// How many of these bytes of HTTP/2 may pass now; `None` when the connection has to end.
    fn count(&mut self, bytes: &[u8]) -> Option<usize> {
        let Some(frames) = &mut self.frames else { return Some(bytes.len()) };
        let flow = &self.connection.flow;
        match frames.received(bytes, |stream, bytes| flow.arrived(stream, bytes)) {
            Ok(Received { taken, head }) => {
                if let Some(stream) = head {
                    flow.headed(stream);
                    self.behind_head = true;
                }
                Some(taken)
            }
            Err(reason) => {
                self.connection.dismiss(reason);
                None
            }
        }
    }

    /// Reads into a buffer that lives only for the call, so that an idle connection owns none.
    fn poll_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut scratch = [0_u8; 2048];
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(self.poll_tls(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    }

    /// Notes how far the client has taken what was written.
    fn note_write<T>(&self, outcome: &Poll<T>) {
        self.connection.flow.note_write(outcome.is_pending(), self.tls.get_ref().taken());
    }
}

impl AsyncRead for EdgeStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.frames.is_some() {
            let outcome = self.poll_frames(cx, buffer);
            self.watch_http2_head();
            if outcome.is_pending() {
                self.check_head_deadline(cx)?;
            }
            return outcome;
        }
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let outcome = self.poll_tls(cx, buffer);
        if outcome.is_pending() {
            self.check_head_deadline(cx)?;
        }
        outcome
    }
}

impl AsyncWrite for EdgeStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.tls).poll_write(cx, data);
        this.note_write(&outcome);
        this.written = true;
        if let (Poll::Ready(Ok(n)), Some(frames)) = (&outcome, &mut this.frames) {
            let flow = &this.connection.flow;
            let sent = data.get(..*n).unwrap_or_default();
            if let Err(reason) = frames.sent(sent, |stream, bytes| flow.written(stream, bytes)) {
                this.connection.dismiss(reason);
            }
        }
        outcome
    }

    /// Small frames and their heads go into one record.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        const SMALL: usize = 4 * 1024;
        let mut gathered = [0; SMALL];
        let mut free = &mut gathered[..];
        for piece in pieces {
            if free.write_all(piece).is_err() {
                // Copying more costs as much as another record.
                let first = pieces.iter().find(|piece| !piece.is_empty());
                return self.poll_write(cx, first.map_or(&[], |piece| piece));
            }
        }
        let length = SMALL - free.len();
        self.poll_write(cx, gathered.get(..length).unwrap_or_default())
    }

    fn is_write_vectored(&self) -> bool {
        self.frames.is_some()
    }

    /// The HTTP/2 library flushes behind each frame of a body, and again when it has no more to write: only that sends what
    /// the answers of a turn have in common.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.written) && self.connection.flow.put_off() {
            return Poll::Ready(Ok(()));
        }
        self.connection.flow.take_unsent();
        let outcome = Pin::new(&mut self.tls).poll_flush(cx);
        self.note_write(&outcome);
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for EdgeStream {
    async fn shutdown(&mut self) {
        // The client may be gone already, which is what a shutdown is for.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

#[async_trait]
impl Peek for EdgeStream {
    /// Waits for the first bytes of the next request and keeps them; `buffer` is filled with a copy as far as it goes.
    /// `Ok(false)` means that the client closed the connection.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match self.read_ahead(1).await {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
        for (into, from) in buffer.iter_mut().zip(self.ahead.iter()) {
            *into = *from;
        }
        Ok(true)
    }
}

impl Ssl for EdgeStream {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.frames.is_some() { ALPN::H2 } else { ALPN::H1 })
    }
}

impl UniqueID for EdgeStream {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl GetTimingDigest for EdgeStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for EdgeStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for EdgeStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
