//! Counters in the memory of this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::Key;
use super::window::{Look, Window};

/// Counters that have nothing to say any more are forgotten this often.
const SWEEP: u64 = 60 * 1_000_000_000;

/// But not more often than this, however many clients there are.
const PAUSE: u64 = 1_000_000_000;

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
    most: usize,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self::with_room_for(MOST)
    }

    fn with_room_for(most: usize) -> Self {
        Self { start: Instant::now(), swept: AtomicU64::new(0), moments: DashMap::new(), most }
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes `n` and shows what is left, or how long until there is room.
    pub(super) fn take(&self, key: &Key, window: Window, n: u64, now: Instant) -> Result<Look, Duration> {
        let now = self.since_start(now);
        self.update(key, now, |moment| {
            *moment = window.take(*moment, now, n)?;
            Ok(window.look(*moment, now))
        })
    }

    /// Takes `n` if there is any room, also more than there is; says how many nanoseconds are used up then.
    pub(super) fn reserve(&self, key: &Key, window: Window, n: u64, now: Instant) -> Result<u64, Duration> {
        let now = self.since_start(now);
        self.update(key, now, |moment| {
            let look = window.look(*moment, now);
            if look.remaining == 0 {
                return Err(look.wait);
            }
            *moment = window.charge(*moment, now, n);
            Ok(moment.saturating_sub(now))
        })
    }

    /// Changes a counter. Whoever has none is refused when there are too many.
    fn update<T>(
        &self,
        key: &Key,
        now: u64,
        change: impl FnOnce(&mut u64) -> Result<T, Duration>,
    ) -> Result<T, Duration> {
        self.sweep_if_due(now, SWEEP);
        if let Some(mut moment) = self.moments.get_mut(key) {
            return change(&mut moment);
        }
        if self.is_full(now) {
            return Err(Duration::from_nanos(SWEEP));
        }
        change(&mut self.moments.entry(key.clone()).or_insert(0))
    }

    /// Gives nanoseconds back that were taken.
    pub(super) fn give_back(&self, key: &Key, nanos: u64) {
        if let Some(mut moment) = self.moments.get_mut(key) {
            *moment = moment.saturating_sub(nanos);
        }
    }

    /// Takes `n` whether there is room or not, and however many others there are: who is charged was let in.
    pub(super) fn charge(&self, key: &Key, window: Window, n: u64, now: Instant) {
        let now = self.since_start(now);
        self.sweep_if_due(now, SWEEP);
        let mut moment = self.moments.entry(key.clone()).or_insert(0);
        *moment = window.charge(*moment, now, n);
    }

    pub(super) fn look(&self, key: &Key, window: Window, now: Instant) -> Look {
        let moment = self.moments.get(key).map_or(0, |moment| *moment);
        window.look(moment, self.since_start(now))
    }

    fn sweep_if_due(&self, now: u64, interval: u64) {
        let swept = self.swept.load(Ordering::Relaxed);
        let due = now >= swept.saturating_add(interval);
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
        if self.moments.len() < self.most {
            return false;
        }
        self.sweep_if_due(now, PAUSE);
        self.moments.len() >= self.most
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
        counts.give_back(&key("a"), window().time_of(1));
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
    fn a_limit_of_bytes_alone_forgets_too_and_is_closed_when_it_is_full() {
        let counts = Counts::with_room_for(10);
        let now = Instant::now();
        for n in 0..10 {
            assert!(counts.reserve(&key(&n.to_string()), window(), 1, now).is_ok());
        }
        assert!(counts.reserve(&key("x"), window(), 1, now).is_err(), "there are too many");
        assert!(counts.take(&key("x"), window(), 1, now).is_err());
        assert!(counts.reserve(&key("1"), window(), 1, now).is_ok(), "who is known is counted on");
        counts.charge(&key("9"), window(), 3, now);
        assert!(counts.reserve(&key("9"), window(), 1, now).is_err());
        let soon = now + Duration::from_secs(31);
        assert!(counts.reserve(&key("x"), window(), 1, soon).is_ok(), "most have nothing used up");
        assert_eq!(counts.moments.len(), 3);
        counts.charge(&key("y"), window(), 1, soon + Duration::from_secs(121));
        assert_eq!(counts.moments.len(), 1, "only who came just now");
    }

    #[test]
    fn nobody_looks_through_all_again_and_again() {
        let counts = Counts::with_room_for(1);
        let now = Instant::now() + Duration::from_secs(1);
        assert!(counts.take(&key("a"), window(), 2, now).is_ok());
        assert!(counts.take(&key("b"), window(), 1, now).is_err());
        let swept = counts.swept.load(Ordering::Relaxed);
        assert!(swept > 0);
        for n in 1..1000 {
            assert!(counts.take(&key("b"), window(), 1, now + Duration::from_micros(n)).is_err());
        }
        assert_eq!(counts.swept.load(Ordering::Relaxed), swept);
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
