//! Asks URLs for revocation lists: the counterpart of [`Watcher`](super::Watcher) for what is not on this machine.
//!
//! Each URL has a task on the runtime of the control plane. What it fetches goes to the [`Shelf`], and the control plane
//! is told only if it is something else than before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Shelf, unix_now};
use crate::config::CrlUrl;
use crate::state::hex;
use crate::telemetry::Metrics;
use crate::upstream::document::{self, FetchFault, Fetched};

/// Until the first attempt after one that failed; doubled with each that fails after it, up to the refresh interval.
const RETRY: Duration = Duration::from_secs(5);

/// A list that is about to run out, or has, is asked for this often at most.
const URGENT: Duration = Duration::from_secs(10);

/// The tasks that fetch. They end with this value.
#[derive(Debug)]
pub struct Fetcher {
    common: Common,
    tasks: HashMap<String, (CrlUrl, JoinHandle<()>)>,
    changes: mpsc::Receiver<Instant>,
    attempts: watch::Receiver<u64>,
}

/// What all tasks share.
#[derive(Debug, Clone)]
struct Common {
    shelf: Arc<Shelf>,
    metrics: Arc<Metrics>,
    changed: mpsc::Sender<Instant>,
    attempted: Arc<watch::Sender<u64>>,
    /// Counts the orders to ask at once.
    hurry: Arc<watch::Sender<u64>>,
}

impl Fetcher {
    /// A fetcher without anything to fetch.
    #[must_use]
    pub fn new(shelf: Arc<Shelf>, metrics: Arc<Metrics>) -> Self {
        // One place: a change that finds it taken is seen by the reload that is about to start.
        let (changed, changes) = mpsc::channel(1);
        let (attempted, attempts) = watch::channel(0);
        let common =
            Common { shelf, metrics, changed, attempted: Arc::new(attempted), hurry: Arc::new(watch::Sender::new(0)) };
        Self { common, tasks: HashMap::new(), changes, attempts }
    }

    /// Fetches from these URLs, and from no others any more. Must be called within a runtime.
    pub fn follow<'u>(&mut self, urls: impl Iterator<Item = &'u CrlUrl>) {
        let mut wanted: HashMap<String, CrlUrl> = urls.map(|url| (url.url.clone(), url.clone())).collect();
        self.tasks.retain(|name, (url, task)| {
            let stays = wanted.get(name) == Some(url);
            if stays {
                wanted.remove(name);
            } else {
                task.abort();
            }
            stays
        });
        for (name, url) in wanted {
            let task = tokio::spawn(poll(url.clone(), self.common.clone()));
            self.tasks.insert(name, (url, task));
        }
    }

    /// Has every URL asked at once, or again where an attempt is under way. What that brings comes as a change.
    pub fn hurry(&self) {
        self.common.hurry.send_modify(|orders| *orders += 1);
    }

    /// Resolves when something else was fetched than before, to the moment it was there.
    pub async fn changed(&mut self) -> Instant {
        // The sender lives as long as this value.
        self.changes.recv().await.unwrap_or_else(Instant::now)
    }

    /// Waits, for `patience` at most, until each URL has been asked once of which nothing is known yet, or each at all
    /// if `all` of them are wanted. Says whether there was anything to wait for; then the lists should be read anew.
    pub async fn first_answers(&mut self, patience: Duration, all: bool) -> bool {
        let shelf = self.common.shelf.clone();
        let is_open = |url: &String| if all { !shelf.state(url).attempted } else { shelf.is_awaited(url) };
        let awaited: Vec<String> = self.tasks.keys().filter(|url| is_open(url)).cloned().collect();
        if awaited.is_empty() {
            // Nobody reads anew, so changes stay to be told.
            return false;
        }
        let mut attempts = self.attempts.clone();
        let done = async { while awaited.iter().any(is_open) && attempts.changed().await.is_ok() {} };
        if tokio::time::timeout(patience, done).await.is_err() {
            log::warn!("not every URL of revocation lists has answered within {patience:?}; going on without");
        }
        // Whoever waits reads what has come.
        while self.changes.try_recv().is_ok() {}
        true
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.tasks.values().for_each(|(_, task)| task.abort());
    }
}

/// Asks one URL again and again until it isn't configured any more.
async fn poll(url: CrlUrl, common: Common) {
    let mut hurry = common.hurry.subscribe();
    let mut failures = 0;
    let mut last_fault: Option<FetchFault> = None;
    while let Some((material, known)) = common.shelf.question(&url.url) {
        let outcome = document::fetch(&url, &material, &known).await;
        let at = Instant::now();
        let sha256 = match &outcome {
            Ok(Fetched::Document { body, .. }) => {
                let body = body.clone();
                let digest = tokio::task::spawn_blocking(move || hex(&Sha256::digest(&body)));
                digest.await.unwrap_or_default()
            }
            _ => String::new(),
        };
        let fault = outcome.as_ref().err().cloned();
        failures = if fault.is_some() { failures + 1 } else { 0 };
        say(&url, fault.as_ref(), last_fault.as_ref());
        let recorded = common.shelf.record(&url.url, outcome, &sha256, unix_now());
        let success = fault.is_none().then(unix_now);
        if !recorded.changed {
            // Another document is neither good nor bad until it is read; the publication tells.
            common.metrics.crl_fetched(&url.url, success, recorded.failed);
        }
        if let Some(fault) = &fault {
            common.metrics.crl_error(&url.url, fault.as_str());
        }
        last_fault = fault;
        if recorded.changed {
            // A full queue means that a reload is about to start anyway.
            let _ = common.changed.try_send(at);
        }
        common.attempted.send_modify(|attempts| *attempts += 1);
        tokio::select! {
            () = rest(&url, failures, &common.shelf) => {}
            // The sender is this task's own, too, so it doesn't go.
            _ = hurry.changed() => {}
        }
    }
}

/// Waits until the next attempt is due. When the list runs out may be known only a moment after it was fetched.
async fn rest(url: &CrlUrl, failures: u32, shelf: &Shelf) {
    let (began, now) = (Instant::now(), unix_now());
    // Replicas that were started together shall not ask together.
    let jitter = 0.9 + 0.2 * fastrand::f64();
    loop {
        let pause = pause(url.refresh, failures, shelf.next_update(&url.url), now).mul_f64(jitter);
        let left = pause.saturating_sub(began.elapsed());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(RETRY)).await;
    }
}

/// A fault is said when it begins and when it changes its kind, not at every attempt.
fn say(url: &CrlUrl, fault: Option<&FetchFault>, before: Option<&FetchFault>) {
    match (fault, before) {
        (Some(fault), before) if before.map(FetchFault::as_str) != Some(fault.as_str()) => {
            log::warn!("revocation lists at {}: {fault} (the last good ones stay in force)", url.url);
        }
        (Some(fault), _) => log::debug!("revocation lists at {}: {fault}", url.url),
        (None, Some(_)) => log::info!("revocation lists at {}: fetched again", url.url),
        (None, None) => {}
    }
}

/// How long to wait after an attempt.
fn pause(refresh: Duration, failures: u32, next_update: Option<i64>, now: i64) -> Duration {
    let regular = match failures {
        0 => refresh,
        failures => RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(refresh),
    };
    // Half of what is left, so that a list that is published early enough comes in time.
    let left = next_update.map(|end| Duration::from_secs(u64::try_from(end - now).unwrap_or(0)) / 2);
    left.map_or(regular, |left| regular.min(left.max(URGENT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_as_far_apart_as_they_may_be() {
        let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
        for (refresh, failures, left, expected) in [
            (hour, 0, None, hour),
            (hour, 0, Some(86_400), hour),
            (hour, 0, Some(600), Duration::from_secs(300)),
            (hour, 0, Some(10), URGENT),
            (hour, 0, Some(-5), URGENT),
            (hour, 1, None, RETRY),
            (hour, 2, None, RETRY * 2),
            (hour, 40, None, hour),
            (minute, 40, None, minute),
            (hour, 40, Some(600), Duration::from_secs(300)),
            (Duration::from_secs(1), 3, Some(-5), Duration::from_secs(1)),
        ] {
            let next_update = left.map(|left| 1_000_000 + left);
            assert_eq!(pause(refresh, failures, next_update, 1_000_000), expected, "{refresh:?} {failures} {left:?}");
        }
    }
}
