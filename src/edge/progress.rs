//! How a request's bodies move, and the end of those that don't, or move too slowly.
//!
//! The framework has a clock for reads of an HTTP/1.1 body, none for HTTP/2, and one for the upstream that can't tell the
//! wait for an answer from a silence within it. This one belongs to the task of the request, so the hooks of the proxy
//! reach it without passing it through. It charges time to the one whose turn it is.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::flow::Turn;
use crate::config::{Limits, RateLimits};

/// What a request is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nothing that this clock bounds: the framework's own deadlines hold.
    Elsewhere = 0,
    /// The next bytes of the client's body.
    RequestBody = 1,
    /// The next bytes of the upstream's answer.
    ResponseBody = 2,
}

/// Why a request was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stall {
    /// It has had its time.
    Lifetime = 1,
    /// The client sent nothing for too long.
    ClientSilent = 2,
    /// The client sent or took too little for too long.
    ClientSlow = 3,
    /// The upstream sent nothing for too long.
    Upstream = 4,
}

/// The clock of one request.
#[derive(Debug)]
struct Progress {
    turn: Turn,
    began: Instant,
    phase: AtomicU8,
    /// Milliseconds after `began` at which bytes last moved.
    moved: AtomicU64,
    /// Milliseconds that bytes may stand still in the current phase.
    limit: AtomicU64,
    /// Bytes of the request's body so far.
    received: AtomicU64,
    /// 0, or a [`Stall`].
    stalled: AtomicU8,
}

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// Notes that bytes moved and what is waited for next, for `limit` at most. Outside of [`watched`] it does nothing.
pub(crate) fn moved(phase: Phase, limit: Duration) {
    // Without a clock there is nothing to note.
    let _ = PROGRESS.try_with(|progress| {
        progress.phase.store(phase as u8, Ordering::Relaxed);
        progress.limit.store(millis(limit), Ordering::Relaxed);
        progress.moved.store(millis(progress.began.elapsed()), Ordering::Relaxed);
    });
}

/// Notes that bytes of the client's body were taken.
pub(crate) fn received(bytes: usize) {
    let _ = PROGRESS.try_with(|progress| {
        progress.received.fetch_add(bytes as u64, Ordering::Relaxed);
        progress.turn.consumed(bytes as u64);
    });
}

/// Notes that bytes of an answer are on their way to the client.
pub(crate) fn sent(bytes: usize) {
    let _ = PROGRESS.try_with(|progress| progress.turn.produced(bytes as u64));
}

/// Why this task's request was dropped, if its clock did it.
pub(crate) fn stalled() -> Option<Stall> {
    PROGRESS.try_with(|progress| progress.stalled()).ok().flatten()
}

/// What this task's request waits for.
pub(crate) fn phase() -> Phase {
    PROGRESS.try_with(|progress| progress.phase()).unwrap_or(Phase::Elsewhere)
}

/// Runs a request under a clock.
///
/// # Errors
///
/// Why the clock ended it. The request has been dropped then, and the drop could see the same by [`stalled`].
pub(super) async fn watched<T>(turn: Turn, limits: &Limits, request: impl Future<Output = T>) -> Result<T, Stall> {
    let progress = Arc::new(Progress {
        turn,
        began: Instant::now(),
        phase: AtomicU8::new(Phase::Elsewhere as u8),
        moved: AtomicU64::new(0),
        limit: AtomicU64::new(0),
        received: AtomicU64::new(0),
        stalled: AtomicU8::new(0),
    });
    let race = async {
        let request = Box::pin(request);
        tokio::select! {
            biased;
            outcome = request => Ok(outcome),
            stall = Clock::new(&progress, limits).run() => Err(stall),
        }
    };
    PROGRESS.scope(progress.clone(), race).await
}

impl Progress {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            1 => Phase::RequestBody,
            2 => Phase::ResponseBody,
            _ => Phase::Elsewhere,
        }
    }

    fn stalled(&self) -> Option<Stall> {
        [Stall::Lifetime, Stall::ClientSilent, Stall::ClientSlow, Stall::Upstream]
            .into_iter()
            .find(|stall| *stall as u8 == self.stalled.load(Ordering::Relaxed))
    }
}

/// Looks at a request now and then, and judges what it sees.
struct Clock<'a> {
    progress: &'a Progress,
    rates: RateLimits,
    lifetime: Duration,
    body_idle: Duration,
    looked: Instant,
    /// When bytes last moved, at the last look.
    moved: u64,
    /// Time since then in which it was another one's turn.
    excused: Duration,
    upload: Pace,
    download: Pace,
    /// Time for which the client has taken nothing.
    untaken: Duration,
}

impl<'a> Clock<'a> {
    fn new(progress: &'a Progress, limits: &Limits) -> Self {
        Clock {
            rates: limits.rates,
            lifetime: limits.request_lifetime,
            body_idle: limits.body_idle_timeout,
            looked: progress.began,
            moved: 0,
            excused: Duration::ZERO,
            upload: Pace::from(0),
            download: Pace::from(progress.turn.flow().taken()),
            untaken: Duration::ZERO,
            progress,
        }
    }

    /// Wakes rarely: a limit may be overrun by as much as [`LOOK`], or a quarter of itself if that is less.
    async fn run(mut self) -> Stall {
        loop {
            let limit = Duration::from_millis(self.progress.limit.load(Ordering::Relaxed));
            let shortest =
                [limit, self.rates.window, self.body_idle].into_iter().filter(|limit| !limit.is_zero()).min();
            let look = shortest.map_or(LOOK, |limit| LOOK.min(limit / 4).max(Duration::from_millis(10)));
            tokio::time::sleep(look.min(self.lifetime)).await;
            let now = Instant::now();
            let passed = now.duration_since(self.looked);
            self.looked = now;
            let stall = if now.duration_since(self.progress.began) > self.lifetime {
                Some(Stall::Lifetime)
            } else {
                self.judge(passed)
            };
            if let Some(stall) = stall {
                self.progress.stalled.store(stall as u8, Ordering::Relaxed);
                return stall;
            }
        }
    }

    /// What is to be said about the time that has `passed` since the last look.
    fn judge(&mut self, passed: Duration) -> Option<Stall> {
        let turn = &self.progress.turn;
        let flow = turn.flow();
        let phase = self.progress.phase();
        let taken = self.download.step(flow.taken());
        // Of an HTTP/2 answer nobody here knows to which request the unread bytes belong. The framework has a clock for
        // each of its pieces.
        if flow.is_blocked() && !flow.is_http2() {
            self.untaken = if taken == 0 { self.untaken + passed } else { Duration::ZERO };
            let slow = self.download.falls_behind(self.rates.download, passed, taken, self.rates.window);
            if slow || self.untaken > self.body_idle {
                return Some(Stall::ClientSlow);
            }
        } else {
            self.untaken = Duration::ZERO;
        }
        let moved = self.progress.moved.load(Ordering::Relaxed);
        if moved != self.moved {
            self.moved = moved;
            self.excused = Duration::ZERO;
        }
        let received = self.upload.step(self.progress.received.load(Ordering::Relaxed));
        let (in_turn, stall) = match phase {
            Phase::Elsewhere => return None,
            Phase::RequestBody => (turn.awaits_sending(), Stall::ClientSilent),
            Phase::ResponseBody => (!turn.awaits_taking(), Stall::Upstream),
        };
        if !in_turn {
            self.excused += passed;
        } else if phase == Phase::RequestBody
            && self.upload.falls_behind(self.rates.upload, passed, received, self.rates.window)
        {
            return Some(Stall::ClientSlow);
        }
        let began = self.progress.began + Duration::from_millis(moved);
        let still = self.looked.saturating_duration_since(began).saturating_sub(self.excused);
        let limit = Duration::from_millis(self.progress.limit.load(Ordering::Relaxed));
        (still > limit).then_some(stall)
    }
}

/// How far a client is behind the rate that it owes.
struct Pace {
    /// The count at the last look.
    seen: u64,
    /// Bytes.
    debt: f64,
}

impl From<u64> for Pace {
    fn from(seen: u64) -> Self {
        Pace { seen, debt: 0.0 }
    }
}

impl Pace {
    /// How many there are more than at the last look.
    fn step(&mut self, count: u64) -> u64 {
        let step = count.saturating_sub(self.seen);
        self.seen = count;
        step
    }

    /// Whether the debt has grown to what is owed for the whole of `window`. Being ahead is not saved up.
    fn falls_behind(&mut self, rate: u64, passed: Duration, bytes: u64, window: Duration) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "no transfer is long enough for it to matter")]
        let (rate, bytes) = (rate as f64, bytes as f64);
        self.debt = (self.debt + rate * passed.as_secs_f64() - bytes).max(0.0);
        self.debt > rate * window.as_secs_f64()
    }
}

/// How often a request is looked at.
const LOOK: Duration = Duration::from_secs(1);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
