//! HTTP on an accepted connection, request by request, until a reason comes to end it.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pingora::apps::{HttpPersistentSettings, HttpServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self as h2_server, H2Accept, HttpSession as H2Session};
use pingora::protocols::{Digest, GetProxyDigest, Peek};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::App;
use super::connection::Connection;
use super::flow::{Flow, SMALL_WINDOW};
use super::frames::PREFACE;
use super::progress::{Stall, watched};
use super::stream::EdgeStream;
use crate::config::{Limits, RateLimits};
use crate::telemetry::EndReason;

/// How long a client may take to acknowledge that its idle connection ends.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long an HTTP/1.1 connection between two requests is kept when the gateway is to leave.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// How long one is kept that has not had a request: its client has just come, and takes its end for a failure.
const FIRST_REQUEST: Duration = Duration::from_secs(5);

/// Requests that never became one, before the connection is given up (pingora's own figure).
const MAX_MALFORMED_STREAMS: usize = 32;

/// What every connection of a worker is served with.
pub(super) struct Serving {
    pub(super) app: Arc<App>,
    pub(super) limits: Limits,
    pub(super) windows: Arc<WindowBudget>,
    pub(super) draining: watch::Receiver<bool>,
}

/// Resolves once the gateway is to leave.
pub(super) async fn drain_order(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        // The sender is gone without an order, which happens only in the middle of the process's end.
        std::future::pending::<()>().await;
    }
}

/// Serves HTTP/1.1 until the connection ends, and says why it did.
pub(super) async fn http1(serving: &Serving, mut stream: Box<EdgeStream>, connection: &Arc<Connection>) -> EndReason {
    let limits = &serving.limits;
    let mut draining = serving.draining.clone();
    let mut settings: Option<HttpPersistentSettings> = None;
    loop {
        let (wait, last) = match &settings {
            None => (limits.request_head_timeout, FIRST_REQUEST),
            Some(_) => (limits.keep_alive_timeout, LAST_REQUEST),
        };
        let first = tokio::select! {
            biased;
            first = timeout(wait, stream.try_peek(&mut [])) => first,
            // Between requests is the moment to leave, and the client isn't told before: one that is busy gets the time
            // to send its next request, whose answer tells it. The others retry (RFC 9112 §9.3.1), but not a POST.
            () = async { drain_order(&mut draining).await; sleep(last).await } => return EndReason::Shutdown,
        };
        match first {
            Err(_) => return EndReason::IdleTimeout,
            Ok(Ok(true)) => {}
            Ok(Ok(false) | Err(_)) => return EndReason::ClientClosed,
        }
        connection.expect_head();
        stream.expect_head_by(Instant::now() + limits.request_head_timeout);
        let mut session = ServerSession::new_http1(stream);
        match settings.take() {
            Some(settings) => settings.apply_to_session(&mut session),
            // The value only says that the connection may stay; how long is decided above.
            None => session.set_keepalive(Some(limits.keep_alive_timeout.as_secs().max(1))),
        }
        // Writes have no timeout here: one may wait for hundreds of KiB to go. The request's clock sees every byte of them.
        session.set_read_timeout(Some(limits.body_idle_timeout));
        let before = connection.requests();
        if connection.requests() + 1 >= limits.requests.per_connection {
            // Not `set_keepalive`, which the client's own `Connection: keep-alive` would turn on again.
            session.set_keepalive_reuses_remaining(Some(0));
        }
        let exchange =
            watched(connection.flow.begin(), limits, serving.app.process_new_http(session, &serving.draining));
        let reused = match exchange.await {
            Ok(reused) => reused,
            Err(Stall::ClientSlow) => return EndReason::TooSlow,
            Err(_) => return EndReason::IdleTimeout,
        };
        if connection.requests() == before {
            // The framework answered 400, or the client left in the middle of its head.
            return EndReason::ProtocolError;
        }
        let Some((back, persistent)) = reused.map(pingora::apps::ReusedHttpStream::consume) else {
            return if *draining.borrow() { EndReason::Shutdown } else { EndReason::Complete };
        };
        let Ok(back) = back.into_any().downcast::<EdgeStream>() else { return EndReason::Internal };
        stream = back;
        settings = persistent;
        if settings.is_none() {
            return EndReason::Internal;
        }
    }
}

/// Serves HTTP/2 until the connection ends, and says why it did.
pub(super) async fn http2(serving: &Serving, stream: Box<EdgeStream>, connection: &Arc<Connection>) -> EndReason {
    let digest = Arc::new(Digest { proxy_digest: stream.get_proxy_digest(), ..Digest::default() });
    let begun = tokio::select! {
        biased;
        reason = connection.wait_for_dismissal() => return reason,
        begun = timeout(serving.limits.request_head_timeout, http2_handshake(&serving.limits, stream)) => begun,
    };
    match begun {
        Ok(Some(h2)) => Http2::new(serving, connection, h2, digest).run().await,
        Ok(None) => EndReason::ProtocolError,
        Err(_) => EndReason::HeadTimeout,
    }
}

async fn http2_handshake(limits: &Limits, mut stream: Box<EdgeStream>) -> Option<H2> {
    stream.read_ahead(PREFACE).await.ok()?;
    let mut options = h2_server::default_h2_options();
    options.max_concurrent_streams(limits.h2_max_streams);
    // The connection's window bounds what all streams may send. A stream's own can be raised later only once the client has
    // acknowledged the settings, which is too late for an upload that is the first request.
    options.initial_window_size(STREAM_WINDOW).initial_connection_window_size(SMALL_WINDOW);
    options.max_frame_size(FRAME);
    // The library counts those that were reset before it could hand them on; the frames' budget comes first.
    options.max_pending_accept_reset_streams(usize::try_from(limits.h2_frames.resets).unwrap_or(usize::MAX));
    h2_server::handshake(stream, Some(options)).await.ok()
}

/// An HTTP/2 connection and the requests on it.
struct Http2<'a> {
    serving: &'a Serving,
    connection: &'a Arc<Connection>,
    h2: H2,
    digest: Arc<Digest>,
    /// Dropping the set with the connection ends every request on it.
    requests: JoinSet<()>,
    /// Kept to the end of the connection: credit that was given can't be taken back (RFC 9113 §6.9.2).
    windows: Option<WindowShare>,
    malformed: usize,
    begun: u64,
    idle_since: Instant,
}

impl<'a> Http2<'a> {
    fn new(serving: &'a Serving, connection: &'a Arc<Connection>, h2: H2, digest: Arc<Digest>) -> Self {
        Http2 {
            serving,
            connection,
            h2,
            digest,
            requests: JoinSet::new(),
            windows: None,
            malformed: 0,
            begun: 0,
            idle_since: Instant::now(),
        }
    }

    async fn run(mut self) -> EndReason {
        let mut draining = self.serving.draining.clone();
        let mut leaving = false;
        self.connection.flow.gather();
        loop {
            let idle_until = self.idle_since + self.patience(leaving);
            tokio::select! {
                biased;
                reason = self.connection.wait_for_dismissal() => {
                    // Now, and not with the connection: their ends are of this reason.
                    self.requests.shutdown().await;
                    self.h2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                    self.flush().await;
                    return reason;
                }
                Some(_) = self.requests.join_next(), if !self.requests.is_empty() => self.one_done(),
                () = drain_order(&mut draining), if !leaving => {
                    leaving = true;
                    self.idle_since = Instant::now();
                    self.h2.graceful_shutdown();
                }
                accepted = accept(&mut self.h2, &self.digest, &self.connection.flow) => match accepted {
                    Ok(Some(H2Accept::Session(session))) => self.begin(session),
                    Ok(Some(H2Accept::Rejected)) => {
                        self.malformed += 1;
                        if self.malformed >= MAX_MALFORMED_STREAMS {
                            return EndReason::ProtocolError;
                        }
                    }
                    Ok(None) if leaving => return EndReason::Shutdown,
                    Ok(None) => return EndReason::ClientClosed,
                    Err(e) => return end_of(&e),
                },
                () = tokio::time::sleep_until(idle_until.into()), if self.requests.is_empty() => {
                    if leaving {
                        // The client has had its chance to acknowledge.
                        return EndReason::Shutdown;
                    }
                    self.say_goodbye().await;
                    return EndReason::IdleTimeout;
                }
            }
        }
    }

    fn begin(&mut self, mut session: H2Session) {
        if self.windows.is_none() && sends_body(&session) {
            self.windows = WindowBudget::share(&self.serving.windows);
            if self.windows.is_some() {
                self.h2.set_target_window_size(LARGE_WINDOW);
                self.connection.flow.note_window(LARGE_WINDOW);
            }
        }
        session.write_timeout = Some(piece_timeout(&self.serving.limits));
        self.begun += 1;
        let most = self.serving.limits.requests.per_connection;
        if self.begun == most {
            self.h2.graceful_shutdown();
        }
        // What was under way when it learned of that may come. More comes from one that doesn't want to know.
        if self.begun > most.saturating_add(u64::from(self.serving.limits.h2_max_streams)) {
            self.connection.dismiss(EndReason::Http2Excess);
        }
        let limits = self.serving.limits;
        let turn = self.connection.flow.begin();
        let app = self.serving.app.clone();
        let draining = self.serving.draining.clone();
        self.requests.spawn(async move {
            // A stalled request is dropped, which resets its stream.
            let request = app.process_new_http(ServerSession::new_http2(session), &draining);
            let _ = watched(turn, &limits, request).await;
        });
    }

    fn one_done(&mut self) {
        if self.requests.is_empty() {
            self.idle_since = Instant::now();
        }
    }

    /// How long nothing may happen between requests.
    fn patience(&self, leaving: bool) -> Duration {
        let limits = &self.serving.limits;
        if leaving {
            GOODBYE
        } else if self.connection.flow.is_blocked() {
            // The client doesn't read what it has asked for.
            limits.h2_idle_timeout.min(limits.body_idle_timeout)
        } else {
            limits.h2_idle_timeout
        }
    }

    /// Tells an idle client that the connection ends, so that it opens another one instead of seeing a broken pipe.
    async fn say_goodbye(&mut self) {
        self.h2.graceful_shutdown();
        self.flush().await;
    }

    /// Drives the connection to its end. A client that doesn't answer is left to itself.
    async fn flush(&mut self) {
        let flush =
            async { while let Ok(Some(_)) = accept(&mut self.h2, &self.digest, &self.connection.flow).await {} };
        let _ = timeout(GOODBYE, flush).await;
    }
}

/// Drives an HTTP/2 connection until it has a request, and sends what was put off in each turn.
async fn accept(h2: &mut H2, digest: &Arc<Digest>, flow: &Flow) -> pingora::Result<Option<H2Accept>> {
    let mut accepting = pin!(H2Session::from_h2_conn(h2, digest.clone()));
    poll_fn(|cx| {
        loop {
            let outcome = accepting.as_mut().poll(cx);
            // A second look has nothing more to write, most often, and flushes once more.
            if outcome.is_ready() || !flow.take_unsent() {
                return outcome;
            }
        }
    })
    .await
}

/// What it means when the library gives a connection up.
fn end_of(error: &pingora::Error) -> EndReason {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    match cause.filter(|e| e.is_go_away() && e.is_library()).and_then(h2::Error::reason) {
        Some(h2::Reason::ENHANCE_YOUR_CALM) => EndReason::Http2Excess,
        Some(h2::Reason::NO_ERROR) | None => EndReason::ClientClosed,
        Some(_) => EndReason::ProtocolError,
    }
}

/// The largest piece of an answer that is written at a time.
const PIECE: u64 = 64 * 1024;

/// For how long a piece of an answer may wait for the client. No rate asks for more than that it moves at all.
fn piece_timeout(limits: &Limits) -> Duration {
    let RateLimits { download, window, .. } = limits.rates;
    match PIECE.checked_div(download) {
        Some(seconds) => limits.body_idle_timeout.min(window.max(Duration::from_secs(seconds))),
        None => limits.body_idle_timeout,
    }
}

type H2 = h2::server::Connection<pingora::protocols::Stream, bytes::Bytes>;

fn sends_body(session: &H2Session) -> bool {
    matches!(session.req_header().method.as_str(), "PUT" | "PATCH" | "POST")
}

/// What a connection with an upload gets, for all its streams together.
const LARGE_WINDOW: u32 = 4 * 1024 * 1024;

/// What each stream may send, as far as its connection may: with less, an upload stops and goes.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// What a client may put into one frame. Go's clients fill it, and each frame costs its way to the registry: with the 16 KiB
/// that HTTP/2 begins with, an upload costs a third more. With twice as much it would cost a fifth less, but a frame moves an
/// upload only once it is whole: one that is no slower than it may be must bring several within a window of the rates.
const FRAME: u32 = 32 * 1024;

/// Bytes that clients may send ahead on all HTTP/2 connections together.
#[derive(Debug)]
pub struct WindowBudget {
    free: AtomicU64,
}

impl WindowBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        WindowBudget { free: AtomicU64::new(bytes) }
    }

    /// Takes a large window out of the budget, if there is one left.
    fn share(budget: &Arc<Self>) -> Option<WindowShare> {
        let take = |free: u64| free.checked_sub(u64::from(LARGE_WINDOW));
        budget.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(WindowShare(budget.clone()))
    }
}

/// A large window, given back on drop.
struct WindowShare(Arc<WindowBudget>);

impl Drop for WindowShare {
    fn drop(&mut self) {
        self.0.free.fetch_add(u64::from(LARGE_WINDOW), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_never_overdrawn_and_comes_back() {
        let budget = Arc::new(WindowBudget::new(u64::from(LARGE_WINDOW) * 2 + 1));
        let first = WindowBudget::share(&budget);
        let second = WindowBudget::share(&budget);
        assert!(first.is_some() && second.is_some());
        assert!(WindowBudget::share(&budget).is_none());
        drop(first);
        assert!(WindowBudget::share(&budget).is_some());
    }
}
