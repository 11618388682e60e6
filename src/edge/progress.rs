//! How a request's bodies move, and the end of those that don't.
//!
//! The framework has a clock for reads of an HTTP/1.1 body, none for HTTP/2, and one for the upstream that can't tell the
//! wait for an answer from a silence within it. This one belongs to the task of the request, so the hooks of the proxy
//! reach it without passing it through.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
    /// Nothing any more: the request has had its time.
    Over = 3,
}

/// The clock of one request.
#[derive(Debug)]
struct Progress {
    began: Instant,
    phase: AtomicU8,
    /// Milliseconds after `began` at which bytes last moved.
    moved: AtomicU64,
    /// Milliseconds that bytes may stand still in the current phase.
    limit: AtomicU64,
    stalled: AtomicBool,
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

/// The phase in which this task's request stood still for too long, if it did.
pub(crate) fn stalled() -> Option<Phase> {
    let stalled = |progress: &Arc<Progress>| progress.stalled.load(Ordering::Relaxed).then(|| progress.phase());
    PROGRESS.try_with(stalled).ok().flatten()
}

/// What this task's request waits for.
pub(crate) fn phase() -> Phase {
    PROGRESS.try_with(|progress| progress.phase()).unwrap_or(Phase::Elsewhere)
}

/// Runs a request under a clock. `None` if it stood still for too long, or took longer than `lifetime`; it has been
/// dropped then, and the drop could still see why.
pub(super) async fn watched<T>(lifetime: Duration, request: impl Future<Output = T>) -> Option<T> {
    let progress = Arc::new(Progress {
        began: Instant::now(),
        phase: AtomicU8::new(Phase::Elsewhere as u8),
        moved: AtomicU64::new(0),
        limit: AtomicU64::new(0),
        stalled: AtomicBool::new(false),
    });
    let race = async {
        let request = Box::pin(request);
        tokio::select! {
            biased;
            outcome = request => Some(outcome),
            () = progress.wait_for_stall(lifetime) => None,
        }
    };
    PROGRESS.scope(progress.clone(), race).await
}

impl Progress {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            1 => Phase::RequestBody,
            2 => Phase::ResponseBody,
            3 => Phase::Over,
            _ => Phase::Elsewhere,
        }
    }

    /// Wakes rarely: a limit may be overrun by as much as [`LOOK`], or a quarter of itself if that is less.
    async fn wait_for_stall(&self, lifetime: Duration) {
        loop {
            let limit = Duration::from_millis(self.limit.load(Ordering::Relaxed));
            let look = if limit.is_zero() { LOOK } else { LOOK.min(limit / 4).max(Duration::from_millis(10)) };
            let look = look.min(lifetime);
            tokio::time::sleep(look).await;
            let still = self.began.elapsed().saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)));
            let limit = Duration::from_millis(self.limit.load(Ordering::Relaxed));
            if self.began.elapsed() > lifetime {
                self.phase.store(Phase::Over as u8, Ordering::Relaxed);
                self.stalled.store(true, Ordering::Relaxed);
                return;
            }
            if self.phase() != Phase::Elsewhere && still > limit {
                self.stalled.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// How often a request is looked at.
const LOOK: Duration = Duration::from_secs(1);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_request_has_its_time_however_fast_it_moves() {
        let request = async {
            loop {
                moved(Phase::RequestBody, LONG);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let outcome: Option<()> = watched(Duration::from_millis(50), request).await;
        assert_eq!(outcome, None);
    }

    #[tokio::test]
    async fn a_request_that_moves_is_left_alone() {
        let request = async {
            for _ in 0..6 {
                moved(Phase::RequestBody, Duration::from_millis(80));
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            moved(Phase::Elsewhere, Duration::ZERO);
            tokio::time::sleep(Duration::from_millis(150)).await;
            7
        };
        assert_eq!(watched(LONG, request).await, Some(7));
    }

    #[tokio::test]
    async fn a_request_that_stands_still_is_dropped_and_knows_why() {
        struct Guard(Arc<std::sync::Mutex<Option<Phase>>>);
        impl Drop for Guard {
            fn drop(&mut self) {
                *self.0.lock().expect("unpoisoned") = stalled();
            }
        }
        let seen = Arc::new(std::sync::Mutex::new(None));
        let guard = Guard(seen.clone());
        let request = async move {
            let _guard = guard;
            moved(Phase::ResponseBody, Duration::from_millis(40));
            std::future::pending::<()>().await;
        };
        assert_eq!(watched(LONG, request).await, None);
        assert_eq!(*seen.lock().expect("unpoisoned"), Some(Phase::ResponseBody));
    }
}
