//! The arithmetic of a limit: what is used up of an amount that comes back evenly within a window.
//!
//! It is the generic cell rate algorithm (GCRA), also known as a leaky bucket that is a meter. All that is kept of a client
//! is one moment: when it would have paid for everything it took, at the even rate. Before that moment lies what is used
//! up. It is pure: the time is an argument, in nanoseconds since some beginning.

use std::time::Duration;

use crate::policy::Quota;

/// An amount and its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    amount: u64,
    nanos: u64,
}

/// What a look at a counter shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// How much could be taken now.
    pub(super) remaining: u64,
    /// Until one more can be taken; zero if it can now.
    pub(super) wait: Duration,
}

impl Window {
    pub(super) fn new(quota: Quota) -> Self {
        Self { amount: quota.amount.max(1), nanos: u64::try_from(quota.window.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// The amount, and the window in microseconds.
    pub(super) fn in_micros(self) -> (u64, u64) {
        (self.amount, self.nanos / 1000)
    }

    /// The time in which `n` come back, in nanoseconds. Rounded down, so that the whole amount always fits into its
    /// window.
    pub(super) fn time_of(self, n: u64) -> u64 {
        let time = u128::from(n) * u128::from(self.nanos) / u128::from(self.amount);
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    /// Takes `n`: the new moment, or how long until there is room.
    pub(super) fn take(self, moment: u64, now: u64, n: u64) -> Result<u64, Duration> {
        let taken = moment.max(now).saturating_add(self.time_of(n));
        let over = taken.saturating_sub(now.saturating_add(self.nanos));
        if over > 0 { Err(Duration::from_nanos(over)) } else { Ok(taken) }
    }

    /// Takes `n` whether there is room or not: what was used can't be undone.
    pub(super) fn charge(self, moment: u64, now: u64, n: u64) -> u64 {
        moment.max(now).saturating_add(self.time_of(n))
    }

    pub(super) fn look(self, moment: u64, now: u64) -> Look {
        self.look_at(moment.saturating_sub(now))
    }

    /// A look at a counter of which so much time is used up.
    pub(super) fn look_at(self, used: u64) -> Look {
        let free = u128::from(self.nanos.saturating_sub(used));
        let remaining = u64::try_from(free * u128::from(self.amount) / u128::from(self.nanos)).unwrap_or(u64::MAX);
        let wait =
            if remaining > 0 { 0 } else { used.saturating_add(self.time_of(1).max(1)).saturating_sub(self.nanos) };
        Look { remaining, wait: Duration::from_nanos(wait) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn window(amount: u64, seconds: u64) -> Window {
        Window::new(Quota { amount, window: Duration::from_secs(seconds) })
    }

    #[test]
    fn the_whole_amount_fits_at_once_and_nothing_more() {
        for (amount, seconds) in [(1, 1), (3, 10), (7, 1), (100, 21_600), (1_000_000, 1), (999_999, 7)] {
            let window = window(amount, seconds);
            let now = 5 * SECOND;
            let mut moment = 0;
            for taken in 0..amount.min(2000) {
                assert_eq!(window.look(moment, now).remaining, amount - taken, "{amount} in {seconds} s");
                moment = window.take(moment, now, 1).expect("room");
            }
            if amount <= 2000 {
                assert_eq!(window.look(moment, now).remaining, 0);
                assert!(window.take(moment, now, 1).is_err());
            }
        }
    }

    #[test]
    fn it_comes_back_evenly() {
        let window = window(100, 21_600);
        let mut moment = 0;
        for _ in 0..100 {
            moment = window.take(moment, 0, 1).expect("room");
        }
        assert_eq!(window.take(moment, 0, 1), Err(Duration::from_secs(216)));
        assert_eq!(window.look(moment, 0).wait, Duration::from_secs(216));
        assert_eq!(window.look(moment, 215 * SECOND).remaining, 0);
        assert_eq!(window.look(moment, 216 * SECOND), Look { remaining: 1, wait: Duration::ZERO });
        moment = window.take(moment, 216 * SECOND, 1).expect("one is back");
        assert!(window.take(moment, 217 * SECOND, 1).is_err());
        assert_eq!(window.look(moment, 21_600 * SECOND * 2).remaining, 100, "and never more than all");
    }

    #[test]
    fn what_was_used_beyond_the_amount_is_paid_off_first() {
        let window = window(1000, 10);
        let moment = window.charge(0, 0, 2500);
        assert_eq!(window.look(moment, 0).remaining, 0);
        assert!(window.look(moment, 0).wait > Duration::from_secs(15));
        assert_eq!(window.look(moment, 20 * SECOND).remaining, 500);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let window = window(2, 3600);
        let one = window.take(0, SECOND, 1).expect("room");
        let two = window.take(one, SECOND, 1).expect("room");
        assert_eq!(window.take(two - window.time_of(1), SECOND, 1), Ok(two));
    }

    #[test]
    fn no_number_is_too_large() {
        let window = window(u64::MAX, 31 * 24 * 3600);
        assert_eq!(window.look(u64::MAX, 0).remaining, 0);
        assert!(window.charge(u64::MAX, 1, u64::MAX) == u64::MAX);
        let small = Window::new(Quota { amount: 1, window: Duration::from_secs(3600) });
        assert_eq!(small.charge(0, 0, u64::MAX), u64::MAX);
    }
}
