//! When answers that don't come in time mean that nobody is there.

use std::sync::atomic::{AtomicU64, Ordering};

/// So many times in a row without an answer in between. One late answer is no more than that.
const TOO_OFTEN: u64 = 3;

/// Counts answers that didn't come. Times are in milliseconds since some beginning.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    times: AtomicU64,
    /// When the last was counted.
    counted: AtomicU64,
}

impl Lateness {
    /// An answer came.
    pub(super) fn clear(&self) {
        if self.times.load(Ordering::Relaxed) > 0 {
            self.times.store(0, Ordering::Relaxed);
        }
    }

    /// What was asked at `asked` isn't answered `now`; whether that is once too often. Whoever waited for the same moment
    /// counts once, however many they are.
    pub(super) fn is_too_often(&self, asked: u64, now: u64) -> bool {
        let counted = self.counted.load(Ordering::Relaxed);
        let anew = asked >= counted;
        if anew && self.counted.compare_exchange(counted, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return self.times.fetch_add(1, Ordering::Relaxed) + 1 >= TOO_OFTEN;
        }
        self.times.load(Ordering::Relaxed) >= TOO_OFTEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_wait_for_the_same_moment_count_once() {
        let lateness = Lateness::default();
        for asked in 10..60 {
            assert!(!lateness.is_too_often(asked, asked + 250), "asked at {asked}");
        }
        for asked in 270..300 {
            assert!(!lateness.is_too_often(asked, asked + 250), "asked at {asked}");
        }
        assert!(lateness.is_too_often(600, 850));
        assert!(lateness.is_too_often(610, 860));
        lateness.clear();
        assert!(!lateness.is_too_often(900, 1150), "an answer came in between");
    }
}
