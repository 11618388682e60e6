//! Counters in the memory of this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::Key;
use super::window::{Look, Window};

/// Counters that have nothing to say any more are forgotten this often.
const SWEEP: u64 = 60 * 1_000_000_000;

/// Most clients that are counted under a limit at a time: about 100 MB. Whoever comes then is refused, for a limit that
/// no longer counts is none.
const MOST: usize = 1_000_000;

/// What each client has used of one quota.
#[derive(Debug)]
pub(super) struct Counts {
    /// Moments are counted from here.
    start: Instant,
    swept: AtomicU64,
    moments: DashMap<Key, u64>,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), swept: AtomicU64::new(0), moments: DashMap::new() }
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes `n` and shows what is left, or how long until there is room.
    pub(super) fn take(&self, key: &Key, window: Window, n: u64, now: Instant) -> Result<Look, Duration> {
        let now = self.since_start(now);
        self.sweep_if_due(now);
        if let Some(mut moment) = self.moments.get_mut(key) {
            *moment = window.take(*moment, now, n)?;
            return Ok(window.look(*moment, now));
        }
        if self.is_full(now) {
            return Err(Duration::from_nanos(SWEEP));
        }
        let mut moment = self.moments.entry(key.clone()).or_insert(0);
        *moment = window.take(*moment, now, n)?;
        Ok(window.look(*moment, now))
    }

    /// Gives `n` back that were taken just now.
    pub(super) fn give_back(&self, key: &Key, window: Window, n: u64) {
        if let Some(mut moment) = self.moments.get_mut(key) {
            *moment = window.give_back(*moment, n);
        }
    }

    /// Takes `n` whether there is room or not.
    pub(super) fn charge(&self, key: &Key, window: Window, n: u64, now: Instant) {
        let now = self.since_start(now);
        if let Some(mut moment) = self.moments.get_mut(key) {
            *moment = window.charge(*moment, now, n);
        } else if !self.is_full(now) {
            let mut moment = self.moments.entry(key.clone()).or_insert(0);
            *moment = window.charge(*moment, now, n);
        }
    }

    pub(super) fn look(&self, key: &Key, window: Window, now: Instant) -> Look {
        let moment = self.moments.get(key).map_or(0, |moment| *moment);
        window.look(moment, self.since_start(now))
    }

    fn sweep_if_due(&self, now: u64) {
        let swept = self.swept.load(Ordering::Relaxed);
        let due = now >= swept.saturating_add(SWEEP);
        // One thread does it.
        if due && self.swept.compare_exchange(swept, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.sweep(now);
        }
    }

    /// Forgets whoever has paid for everything.
    fn sweep(&self, now: u64) {
        self.moments.retain(|_, moment| *moment > now);
    }

    fn is_full(&self, now: u64) -> bool {
        if self.moments.len() < MOST {
            return false;
        }
        self.sweep(now);
        self.moments.len() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Quota;

    fn window() -> Window {
        Window::new(Quota { amount: 2, window: Duration::from_secs(60) })
    }

    fn key(name: &str) -> Key {
        Key::Group(name.into())
    }

    #[test]
    fn clients_do_not_take_from_each_other() {
        let counts = Counts::new();
        let now = Instant::now();
        assert_eq!(counts.take(&key("a"), window(), 1, now).map(|look| look.remaining), Ok(1));
        assert_eq!(counts.take(&key("a"), window(), 1, now).map(|look| look.remaining), Ok(0));
        assert!(counts.take(&key("a"), window(), 1, now).is_err());
        assert_eq!(counts.take(&key("b"), window(), 1, now).map(|look| look.remaining), Ok(1));
        counts.give_back(&key("a"), window(), 1);
        assert_eq!(counts.look(&key("a"), window(), now).remaining, 1);
        assert_eq!(counts.look(&key("c"), window(), now).remaining, 2);
    }

    #[test]
    fn whoever_has_nothing_used_up_is_forgotten() {
        let counts = Counts::new();
        let now = Instant::now();
        for n in 0..1000 {
            assert!(counts.take(&key(&n.to_string()), window(), 1, now).is_ok());
        }
        assert_eq!(counts.moments.len(), 1000);
        let later = now + Duration::from_secs(61);
        assert!(counts.take(&key("x"), window(), 1, later).is_ok());
        assert_eq!(counts.moments.len(), 1, "only who came just now");
    }

    #[test]
    fn threads_take_no_more_than_there_is() {
        let counts = Counts::new();
        let window = Window::new(Quota { amount: 100, window: Duration::from_secs(24 * 3600) });
        let taken: usize = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    scope
                        .spawn(|| (0..50).filter(|_| counts.take(&key("a"), window, 1, Instant::now()).is_ok()).count())
                })
                .collect();
            takers.into_iter().map(|taker| taker.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 100);
    }
}
