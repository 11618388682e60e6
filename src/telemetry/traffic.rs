//! The last minutes, for charts: what the counters of the metrics gained, step by step.
//!
//! Nothing is counted twice for it. A task reads the counters that there are every few seconds, and what is kept is the
//! difference to the time before.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::label::{StatusClass, labels};
use super::metrics::SECONDS;
use super::outcome::Outcome;

/// How long a step is.
pub const STEP: Duration = Duration::from_secs(5);

/// How many steps are kept: the last 15 minutes, in 40 KiB.
pub const KEPT: usize = 180;

/// The counts of a histogram, bucket by bucket; the last has no bound.
const BUCKETS: usize = SECONDS.len() + 1;

labels! {
    /// How a request went, in four words.
    pub enum Fate {
        /// It was answered, by the registry or by the gateway.
        Served = "served",
        /// The gateway turned it away.
        Refused = "refused",
        /// It was cut off before its end, by the client or because of it.
        Broken = "broken off",
        /// The registry, or the gateway, could not do its part.
        Failed = "failed",
    }
}

impl Fate {
    /// What becomes of a request with this end and status.
    pub(super) const fn of(outcome: Outcome, status: StatusClass) -> Self {
        match outcome {
            Outcome::Proxied if matches!(status, StatusClass::ServerError) => Self::Failed,
            Outcome::Proxied | Outcome::Answered => Self::Served,
            Outcome::Denied
            | Outcome::ReadOnly
            | Outcome::TagBusy
            | Outcome::Malformed
            | Outcome::Unsupported
            | Outcome::Misdirected
            | Outcome::TooLarge
            | Outcome::Limited
            | Outcome::Revoked
            | Outcome::RevocationUnknown
            | Outcome::Expired
            | Outcome::Untrusted
            | Outcome::RedirectRefused
            | Outcome::DigestMismatch => Self::Refused,
            Outcome::LifetimeExceeded
            | Outcome::ClientAborted
            | Outcome::ClientTimeout
            | Outcome::ClientTooSlow
            | Outcome::ClientFlood
            | Outcome::ConnectionRevoked
            | Outcome::ConnectionExpired
            | Outcome::ConnectionUntrusted
            | Outcome::Shutdown => Self::Broken,
            Outcome::LimitsUnavailable
            | Outcome::UpstreamUnavailable
            | Outcome::UpstreamBusy
            | Outcome::UpstreamConnect
            | Outcome::UpstreamTimeout
            | Outcome::UpstreamError
            | Outcome::AuditUnavailable
            | Outcome::Internal => Self::Failed,
        }
    }
}

/// Counts since the start of the process, or over a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub(super) requests: [u64; Fate::ALL.len()],
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) buckets: [u64; BUCKETS],
}

impl Counts {
    pub(super) fn add(&mut self, fate: Fate, requests: u64) {
        if let Some(count) = self.requests.get_mut(fate as usize) {
            *count += requests;
        }
    }

    /// So many requests of each kind, as if they had taken some milliseconds, with 100 kB for each.
    #[cfg(test)]
    pub(crate) fn made(requests: &[(Fate, u64)]) -> Self {
        let mut counts = Self::default();
        for (fate, number) in requests {
            counts.add(*fate, *number);
            counts.sent += number * 100_000;
            counts.received += (number % 11) * 1_000_000;
        }
        let total = counts.all_requests();
        (counts.buckets[1], counts.buckets[3], counts.buckets[7]) = (total / 2, total / 2, total / 40 + total % 2);
        counts
    }

    /// Requests that ended so.
    #[must_use]
    pub fn requests(&self, fate: Fate) -> u64 {
        self.requests.get(fate as usize).copied().unwrap_or_default()
    }

    /// Requests that ended, in whatever way.
    #[must_use]
    pub fn all_requests(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// Bytes of request bodies.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of response bodies.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How long `share` (0 to 1) of the requests took at most, in seconds, as far as the buckets of the histogram tell.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate between two bounds doesn't need the last of 2^53")]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = share * total as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in self.buckets.iter().zip(SECONDS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return Some(lower + (upper - lower) * ((wanted - below) / count));
            }
            (below, lower) = (below + count, *upper);
        }
        Some(lower)
    }

    fn since(&self, before: &Self) -> Self {
        let mut gained = self.clone();
        let pairs = gained.requests.iter_mut().zip(&before.requests);
        pairs.chain(gained.buckets.iter_mut().zip(&before.buckets)).for_each(|(now, then)| {
            *now = now.saturating_sub(*then);
        });
        gained.received = gained.received.saturating_sub(before.received);
        gained.sent = gained.sent.saturating_sub(before.sent);
        gained
    }

    /// Both together.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        let pairs = self.requests.iter_mut().zip(&other.requests);
        pairs.chain(self.buckets.iter_mut().zip(&other.buckets)).for_each(|(sum, more)| *sum += more);
        self.received += other.received;
        self.sent += other.sent;
        self
    }
}

/// What was gained in a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// How long it was.
    pub time: Duration,
    /// What was counted in it.
    pub counts: Counts,
}

impl Step {
    /// So much of something in this time, for each second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate doesn't need the last of 2^53")]
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.time.as_secs_f64().max(0.001)
    }

    /// Steps as one.
    #[must_use]
    pub fn sum<'a>(steps: impl IntoIterator<Item = &'a Self>) -> Self {
        steps.into_iter().fold(Self::default(), |sum, step| Self {
            time: sum.time + step.time,
            counts: sum.counts.with(&step.counts),
        })
    }
}

/// The last [`KEPT`] steps.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Counts)>,
    steps: VecDeque<Step>,
}

impl Traffic {
    /// Ends a step: the counters stand so `now`.
    pub fn sample(&self, now: Instant, totals: Counts) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(step) = state.gained(now, &totals) {
            if state.steps.len() >= KEPT {
                state.steps.pop_front();
            }
            state.steps.push_back(step);
        }
        state.last = Some((now, totals));
    }

    /// The steps so far, the oldest first, the last of which has only begun.
    #[must_use]
    pub fn steps(&self, now: Instant, totals: &Counts) -> Vec<Step> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = state.gained(now, totals);
        let skipped = (state.steps.len() + 1).saturating_sub(KEPT);
        state.steps.iter().skip(skipped).cloned().chain(begun).collect()
    }
}

impl State {
    fn gained(&self, now: Instant, totals: &Counts) -> Option<Step> {
        let (then, before) = self.last.as_ref()?;
        Some(Step { time: now.duration_since(*then), counts: totals.since(before) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many requests that took between 1 and 2.5 ms.
    fn counts(served: u64, refused: u64) -> Counts {
        let mut counts = Counts { received: served * 10, sent: served * 100, ..Counts::default() };
        counts.add(Fate::Served, served);
        counts.add(Fate::Refused, refused);
        counts.buckets[1] = served + refused;
        counts
    }

    #[test]
    fn a_step_is_what_was_gained_in_it() {
        let (traffic, start) = (Traffic::default(), Instant::now());
        assert_eq!(traffic.steps(start, &counts(0, 0)), [], "nothing to compare with");
        traffic.sample(start, counts(100, 0));
        traffic.sample(start + STEP, counts(150, 5));
        let steps = traffic.steps(start + STEP + STEP / 5, &counts(151, 5));
        let [done, begun] = &*steps else { panic!("{steps:?}") };
        assert_eq!((done.time, done.counts.requests(Fate::Served), done.counts.requests(Fate::Refused)), (STEP, 50, 5));
        assert!((done.per_second(done.counts.sent()) - 1000.0).abs() < 0.001, "{done:?}");
        assert_eq!((begun.time, begun.counts.all_requests()), (STEP / 5, 1));
        let sum = Step::sum(&steps);
        assert_eq!((sum.time, sum.counts.all_requests(), sum.counts.received()), (STEP + STEP / 5, 56, 510));
    }

    #[test]
    fn memory_is_bounded() {
        let (traffic, start) = (Traffic::default(), Instant::now());
        for step in 0..3 * u32::try_from(KEPT).expect("few") {
            traffic.sample(start + STEP * step, counts(u64::from(step), 0));
        }
        assert_eq!(traffic.steps(start + STEP * 1000, &counts(0, 0)).len(), KEPT);
    }

    #[test]
    fn quantiles_lie_between_the_bounds_of_their_bucket() {
        let near = |found: Option<f64>, expected: f64| {
            let found = found.expect("there are requests");
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        };
        assert_eq!(Counts::default().quantile(0.5), None);
        near(counts(100, 0).quantile(0.5), 0.00175);
        let mut slow = counts(98, 0);
        slow.buckets[BUCKETS - 1] = 2;
        near(slow.quantile(0.99), 600.0);
        near(slow.quantile(0.98), 0.0025);
    }

    #[test]
    fn a_failing_registry_is_not_counted_as_service() {
        assert_eq!(Fate::of(Outcome::Proxied, StatusClass::Success), Fate::Served);
        assert_eq!(Fate::of(Outcome::Proxied, StatusClass::ServerError), Fate::Failed);
        assert_eq!(Fate::of(Outcome::Denied, StatusClass::ClientError), Fate::Refused);
    }
}
