//! How much one client can make the log grow by being refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Over what refusals are summed up.
const PERIOD: Duration = Duration::from_secs(60);

/// Clients whose refusals are counted at a time; more get their records until the period is over.
const MOST: usize = 65_536;

/// The refusals of the current period, by client. A refusal that repeats tells little; a disk that they fill stops pushes.
#[derive(Debug)]
pub(super) struct Repetitions {
    /// Records that a client gets in a period; 0 is as many as it likes.
    each: u32,
    counts: HashMap<Arc<str>, u64>,
    since: Option<Instant>,
}

impl Repetitions {
    pub(super) fn new(each: u32) -> Self {
        Self { each, counts: HashMap::new(), since: None }
    }

    /// Whether another refusal of this client is only counted.
    pub(super) fn is_one(&mut self, identity: &Arc<str>, now: Instant) -> bool {
        if self.each == 0 || (self.counts.len() >= MOST && !self.counts.contains_key(identity)) {
            return false;
        }
        self.since.get_or_insert(now);
        let count = self.counts.entry(Arc::clone(identity)).or_default();
        *count += 1;
        *count > u64::from(self.each)
    }

    /// What was only counted, by client, if the period is over or `at_once`; then a new one begins.
    pub(super) fn due(&mut self, now: Instant, at_once: bool) -> Vec<(Arc<str>, u64)> {
        let is_over = self.since.is_some_and(|since| at_once || now.duration_since(since) >= PERIOD);
        if !is_over {
            return Vec::new();
        }
        self.since = None;
        let each = u64::from(self.each);
        self.counts.drain().filter(|(_, count)| *count > each).map(|(name, count)| (name, count - each)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_its_records_and_then_a_number() {
        let now = Instant::now();
        let mut repetitions = Repetitions::new(2);
        let [loud, quiet]: [Arc<str>; 2] = ["loud".into(), "quiet".into()];
        let counted: Vec<bool> = (0..5).map(|_| repetitions.is_one(&loud, now)).collect();
        assert_eq!(counted, [false, false, true, true, true]);
        assert!(!repetitions.is_one(&quiet, now), "another's refusals don't count against it");
        assert!(repetitions.due(now + PERIOD / 2, false).is_empty());
        assert_eq!(repetitions.due(now + PERIOD, false), [(loud.clone(), 3)]);
        assert!(!repetitions.is_one(&loud, now + PERIOD), "another minute");
        assert!(repetitions.due(now + PERIOD, true).is_empty(), "nothing was left out");
        let mut all = Repetitions::new(0);
        assert!((0..1000).all(|_| !all.is_one(&loud, now)));
    }
}
