//! The HTTP side: pingora's hooks, each a few lines that delegate.
//!
//! `request_filter` reads the request strictly, routes it, decides, and picks the upstream; a refusal is answered there.
//! What goes upstream is built anew from the route. Without a [`Permit`](crate::policy::Permit) in the context there is
//! no upstream: `upstream_peer` refuses.

mod audit;
mod catalog;
mod context;
mod decide;
mod headers;
mod integrity;
mod location;
mod quotas;
mod redirect;
mod refusal;
mod respond;
mod shadow;
mod strict;
mod tags;
mod uploads;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::HttpPeer;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::{Error, ErrorType};
use tokio::sync::watch;

use crate::edge::Connection;
use crate::snapshot::Reader;
use crate::tag_locks::TagLocks;
use crate::telemetry::Telemetry;
use crate::upstream::{self, Kept};
use context::{Context, Exchange};
use refusal::Refusal;

/// The application behind every connection of a worker.
#[derive(Debug)]
pub struct Gateway {
    snapshots: Reader,
    telemetry: Telemetry,
    draining: watch::Receiver<bool>,
    tags: Arc<TagLocks>,
    /// Idle connections for blobs.
    kept: Arc<Kept>,
}

impl Gateway {
    /// The application over the configuration in force. All applications of a process share the locks on tags.
    #[must_use]
    pub(crate) fn new(
        snapshots: Reader,
        telemetry: Telemetry,
        draining: watch::Receiver<bool>,
        tags: Arc<TagLocks>,
    ) -> Self {
        Gateway { snapshots, telemetry, draining, tags, kept: Arc::default() }
    }

    /// Everything that is decided before a byte goes upstream.
    async fn admit(&self, session: &Session, exchange: &mut Exchange) -> Result<(), Refusal> {
        decide::check_connection(exchange)?;
        let head = strict::read(session, exchange)?;
        decide::authorize(session.req_header(), exchange, head, &self.tags).await?;
        uploads::check(exchange)?;
        quotas::check(session.req_header(), exchange).await?;
        audit::begin(exchange).await?;
        decide::enter_upstream(exchange).await
    }
}

/// The connection that a request came on.
fn connection(session: &Session) -> Option<&Arc<Connection>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref()
}

fn internal(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InternalError, what)
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::default()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // No compression: blobs are compressed already, and digests are over what is sent.
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        let connection = connection(session).ok_or_else(|| internal("a request without a connection"))?.clone();
        connection.begin_request();
        let snapshot = self.snapshots.load();
        let mut exchange = Exchange::begin(session.req_header(), connection, snapshot, self.telemetry.clone());
        let outcome = self.admit(session, &mut exchange).await;
        let exchange = ctx.enter(exchange);
        let outcome = match outcome {
            Ok(()) => catalog::collect(session, exchange).await?,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(None) => Ok(false),
            Ok(Some(names)) => {
                respond::names(session, exchange, &names).await?;
                Ok(true)
            }
            Err(refusal) => {
                audit::refused(exchange, refusal.status, refusal.outcome).await;
                respond::refuse(session, exchange, &refusal).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        let exchange = ctx.exchange()?;
        if !exchange.is_permitted() {
            return Err(internal("no permit"));
        }
        exchange.next_peer(!session.is_body_empty(), &self.kept)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        let exchange = ctx.exchange()?;
        exchange.connected(reused);
        upstream::client::check_tls(digest)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        let exchange = ctx.exchange()?;
        *upstream_request = match &exchange.followed {
            Some(followed) => followed.request(session.req_header())?,
            None => headers::upstream_request(session.req_header(), exchange)?,
        };
        exchange.expect_request_body(!session.is_body_empty());
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        let exchange = ctx.exchange()?;
        exchange.received(body.as_ref().map_or(0, Bytes::len));
        exchange.check_body_size()?;
        exchange.expect_request_body(!end_of_stream);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        let exchange = ctx.exchange()?;
        let bodiless = headers::is_bodiless(response);
        redirect::answer(response, exchange)?;
        integrity::begin(session.req_header(), response, exchange)?;
        headers::client_response(response, exchange)?;
        quotas::show(response, exchange)?;
        if *self.draining.borrow() {
            // `Connection: close`, also when the request came before the order to leave.
            session.set_keepalive(None);
        }
        exchange.answered(response.status.as_u16(), Instant::now());
        if bodiless {
            exchange.answer_ended();
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> pingora::Result<Option<std::time::Duration>> {
        let exchange = ctx.exchange()?;
        integrity::pass(body, end_of_stream, exchange)?;
        exchange.sent(body.as_ref().map_or(0, Bytes::len));
        exchange.expect_response_body(!end_of_stream);
        if end_of_stream {
            exchange.answer_ended();
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut e: Box<Error>,
    ) -> Box<Error> {
        // Nothing was sent, so the next address may be tried.
        let again = ctx.exchange().is_ok_and(Exchange::connect_failed);
        e.set_retry(again);
        e
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        ctx: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        let mut e = e.more_context(format!("upstream {peer}"));
        // A redirect that is followed, or a pooled connection that the upstream had closed. Only what may be asked twice
        // without harm is.
        let harmless = matches!(session.req_header().method.as_str(), "GET" | "HEAD");
        if harmless && session.response_written().is_none() {
            let reused = ctx.exchange().map_or(client_reused, |exchange| exchange.is_reused(client_reused));
            e.retry.decide_reuse(reused);
        } else {
            e.set_retry(false);
        }
        if let Ok(exchange) = ctx.exchange() {
            exchange.give_up_connection();
        }
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Context) -> FailToProxy {
        if let Ok(exchange) = ctx.exchange() {
            audit::answer_refused(exchange, session.response_written().map(|head| head.status.as_u16())).await;
        }
        let code = respond::failed(session, ctx, e).await;
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Context) {
        ctx.finish(session, e);
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        // The access record and the metrics say it, once and with its cause.
        true
    }

    fn suppress_proxy_warn_log(&self, _session: &Session, _ctx: &Context, _e: &Error, _c: ProxyWarnLogContext) -> bool {
        true
    }
}

/// Seconds since the Unix epoch of a wall-clock time.
fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
