//! A Redis that replicas share: connections to it, deadlines, and what is done while it is away.
//!
//! Each serving thread has a connection of its own, made when it is first needed and made anew after a fault; requests of
//! the thread share it, each with one round trip, one behind the other. A deadline bounds the whole, connecting included.
//!
//! When Redis can't be reached, or doesn't answer several times in a row, it counts as away: nobody waits for it then, and
//! one request in a while finds out whether it is back. That it went and came back is said once each. One late answer, or
//! an error about one key, concerns the request that asked and no other.

mod lateness;
mod lease;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo,
    ScriptInvocation,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::config::{Endpoint, OnFailure, SharedRedis};
use crate::telemetry::{Metrics, SharedFault, SharedMetrics, Unanswered};
use lateness::Lateness;
pub(crate) use lease::Lease;

/// How often a Redis that is away is tried.
const RETRY: Duration = Duration::from_millis(500);

/// Most that is said to Redis at a time with nobody waiting for it.
const ERRANDS: usize = 4096;

/// How often the log tells of errors that don't take Redis away, in milliseconds.
const TELL: u64 = 60_000;

thread_local! {
    /// This thread's connection. A connection belongs to the runtime that it was made on.
    static LINK: Arc<Mutex<Link>> = Arc::default();
}

/// A connection, to which Redis, and how many there were before it.
#[derive(Default)]
struct Link {
    redis: u64,
    number: u64,
    connection: Option<MultiplexedConnection>,
}

/// A Redis that replicas share.
pub(crate) struct Shared {
    /// Different for each of the process.
    id: u64,
    settings: SharedRedis,
    client: Client,
    start: Instant,
    away: AtomicBool,
    /// When a Redis that is away may be tried again, in milliseconds since the start.
    retry_at: AtomicU64,
    lateness: Lateness,
    /// When the log may tell of an error again, in milliseconds since the start.
    tell_at: AtomicU64,
    errands: Arc<Semaphore>,
    metrics: SharedMetrics,
}

/// Redis gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAnswer;

impl Shared {
    /// Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// A text for the operator, when the address can't be used.
    pub(crate) fn new(settings: &SharedRedis, metrics: &Metrics) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let metrics = metrics.shared(&settings.to_string());
        metrics.set_available(true);
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            client: client(settings).map_err(|e| e.to_string())?,
            settings: settings.clone(),
            start: Instant::now(),
            away: AtomicBool::new(false),
            retry_at: AtomicU64::new(0),
            lateness: Lateness::default(),
            tell_at: AtomicU64::new(0),
            errands: Arc::new(Semaphore::new(ERRANDS)),
            metrics,
        })
    }

    /// What it was made from.
    pub(crate) fn settings(&self) -> &SharedRedis {
        &self.settings
    }

    /// A key of this gateway's.
    pub(crate) fn key(&self, parts: fmt::Arguments<'_>) -> String {
        format!("{}{parts}", self.settings.key_prefix)
    }

    /// Leave to say something to Redis that nobody waits for, until it is dropped; none if too much is being said.
    pub(crate) fn errand(&self) -> Option<OwnedSemaphorePermit> {
        self.errands.clone().try_acquire_owned().ok()
    }

    /// Whether a request goes on although Redis gave no answer about it; counts what becomes of it.
    pub(crate) fn allows_unanswered(&self) -> bool {
        let allowed = self.settings.on_failure == OnFailure::Allow;
        self.metrics.unanswered(if allowed { Unanswered::Allowed } else { Unanswered::Refused });
        allowed
    }

    /// Runs a script and waits for its answer, but not longer than is configured, and not at all while Redis is away.
    pub(crate) async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, NoAnswer> {
        if !self.may_try() {
            return Err(NoAnswer);
        }
        let link = LINK.with(Arc::clone);
        let began = Instant::now();
        let mut used = 0;
        match tokio::time::timeout(self.settings.timeout, self.try_twice(&link, script, &mut used)).await {
            Ok(Ok(answer)) => {
                self.metrics.answered(began.elapsed());
                self.note_answer();
                Ok(answer)
            }
            Ok(Err(e)) => {
                let lost = e.is_io_error() || e.is_connection_dropped();
                let fault = if lost { SharedFault::Connect } else { SharedFault::Answer };
                // Without a connection nobody can ask anything; an error on one is the answer to this question alone.
                if lost || used == 0 {
                    self.disconnect(&link, used);
                    self.note_away(fault, &e.to_string());
                } else {
                    self.note_error(fault, &e.to_string());
                }
                Err(NoAnswer)
            }
            Err(_) => {
                self.disconnect(&link, used);
                let now = self.now();
                let asked = now.saturating_sub(milliseconds(began.elapsed()));
                if self.lateness.is_too_often(asked, now) {
                    self.note_away(SharedFault::Timeout, "no answer in time");
                } else {
                    self.note_error(SharedFault::Timeout, "no answer in time");
                }
                Err(NoAnswer)
            }
        }
    }

    /// Runs a script, and again on a new connection if the one that is at hand was closed while nobody used it.
    async fn try_twice<T: FromRedisValue>(
        &self,
        link: &Mutex<Link>,
        script: &ScriptInvocation<'_>,
        used: &mut u64,
    ) -> redis::RedisResult<T> {
        let (number, mut connection, fresh) = self.connection(link).await?;
        *used = number;
        match script.invoke_async(&mut connection).await {
            Err(e) if !fresh && (e.is_io_error() || e.is_connection_dropped()) => {
                self.disconnect(link, number);
                *used = 0;
                let (number, mut connection, _) = self.connection(link).await?;
                *used = number;
                script.invoke_async(&mut connection).await
            }
            answer => answer,
        }
    }

    /// The thread's connection, its number, and whether it was made just now. Who comes while it is being made waits for it.
    async fn connection(&self, link: &Mutex<Link>) -> redis::RedisResult<(u64, MultiplexedConnection, bool)> {
        let mut link = link.lock().await;
        if link.redis != self.id {
            *link = Link { redis: self.id, number: link.number, connection: None };
        }
        if let Some(connection) = &link.connection {
            return Ok((link.number, connection.clone(), false));
        }
        // The deadline is that of the whole question.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        link.number += 1;
        link.connection = Some(connection.clone());
        Ok((link.number, connection, true))
    }

    /// Gives up a connection that failed, unless there is another by now.
    fn disconnect(&self, link: &Mutex<Link>, number: u64) {
        if let Ok(mut link) = link.try_lock()
            && link.redis == self.id
            && link.number == number
        {
            link.connection = None;
        }
    }

    /// Whether it is worth asking: Redis isn't away, or it is this one's turn to find out.
    fn may_try(&self) -> bool {
        if !self.away.load(Ordering::Acquire) {
            return true;
        }
        let now = self.now();
        let retry_at = self.retry_at.load(Ordering::Acquire);
        let next = now.saturating_add(milliseconds(RETRY.max(self.settings.timeout)));
        now >= retry_at && self.retry_at.compare_exchange(retry_at, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn note_answer(&self) {
        self.lateness.clear();
        if self.away.swap(false, Ordering::AcqRel) {
            self.metrics.set_available(true);
            log::info!("shared limits: Redis at {} answers again", self.settings);
        }
    }

    /// One request got no answer, which says nothing about others.
    fn note_error(&self, fault: SharedFault, cause: &str) {
        self.metrics.fault(fault);
        let (now, tell_at) = (self.now(), self.tell_at.load(Ordering::Relaxed));
        let next = now.saturating_add(TELL);
        if now >= tell_at && self.tell_at.compare_exchange(tell_at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            log::warn!("shared limits: Redis at {} did not answer one request: {cause}", self.settings);
        }
    }

    /// Nobody gets an answer.
    fn note_away(&self, fault: SharedFault, cause: &str) {
        self.metrics.fault(fault);
        self.retry_at.store(self.now().saturating_add(milliseconds(RETRY)), Ordering::Release);
        if !self.away.swap(true, Ordering::AcqRel) {
            self.metrics.set_available(false);
            let becomes = match self.settings.on_failure {
                OnFailure::Allow => "counted by each gateway alone",
                OnFailure::Refuse => "refused",
            };
            log::warn!(
                "shared limits: Redis at {} gives no answer ({cause}); requests that limits apply to are {becomes} until it does",
                self.settings
            );
        }
    }

    fn now(&self) -> u64 {
        milliseconds(self.start.elapsed())
    }
}

fn client(settings: &SharedRedis) -> redis::RedisResult<Client> {
    let address = match &settings.endpoint {
        Endpoint::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
        Endpoint::Unix(path) => ConnectionAddr::Unix(path.clone()),
    };
    let mut login = RedisConnectionInfo::default().set_db(settings.database.into());
    if let Some(username) = &settings.username {
        login = login.set_username(username);
    }
    if let Some(password) = &settings.password {
        login = login.set_password(password.expose());
    }
    Client::open(address.into_connection_info()?.set_redis_settings(login))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}
