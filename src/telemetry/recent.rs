//! The last decisions, kept in memory to be explained while they are fresh.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::past::Past;
use super::record::AccessRecord;

/// How many are kept: some hundred kilobytes with certificates as they are, and a few megabytes at most.
const KEPT: usize = 256;

/// The last decisions of this process.
#[derive(Debug)]
pub struct Recent {
    /// A lock for each, held for the exchange of a pointer.
    slots: Box<[Mutex<Option<Arc<AccessRecord>>>]>,
    next: AtomicUsize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { slots: (0..KEPT).map(|_| Mutex::default()).collect(), next: AtomicUsize::new(0) }
    }
}

impl Recent {
    /// Keeps a record in place of the oldest, if a policy was asked.
    pub(super) fn note(&self, record: &Arc<AccessRecord>) {
        if record.decision.is_none() {
            return;
        }
        let position = self.next.fetch_add(1, Ordering::Relaxed) % KEPT;
        if let Some(slot) = self.slots.get(position) {
            let old = slot.lock().unwrap_or_else(PoisonError::into_inner).replace(record.clone());
            // Dropped after the lock.
            drop(old);
        }
    }

    /// The decision with this id, as its line in the access log tells it.
    #[must_use]
    pub fn find(&self, decision_id: &str) -> Option<Past> {
        let records = self.slots.iter().map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let found = records.flatten().find(|record| record.decision_id.to_string() == decision_id)?;
        serde_json::to_string(&*found).ok().and_then(|line| Past::read(&line).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::DecisionId;
    use crate::telemetry::record::samples;

    fn record() -> Arc<AccessRecord> {
        let decision_id = DecisionId::new(std::time::UNIX_EPOCH);
        Arc::new(AccessRecord { decision_id, ..samples::record() })
    }

    #[test]
    fn the_last_decisions_are_found_and_older_ones_are_not() {
        let recent = Recent::default();
        let records: Vec<_> = (0..KEPT + 10).map(|_| record()).collect();
        records.iter().for_each(|record| recent.note(record));
        let found: Vec<_> = records.iter().map(|record| recent.find(&record.decision_id.to_string())).collect();
        assert!(found.iter().take(10).all(Option::is_none));
        assert!(found.iter().skip(10).all(Option::is_some));
        let last = found.last().and_then(Option::as_ref).expect("kept");
        assert_eq!(last.identity, "CN=ci-7");
        assert!(recent.find("nonsense").is_none());
    }

    #[test]
    fn what_no_policy_was_asked_about_takes_no_place() {
        let recent = Recent::default();
        let undecided = Arc::new(AccessRecord { decision: None, ..samples::record() });
        recent.note(&undecided);
        assert!(recent.find(&undecided.decision_id.to_string()).is_none());
    }
}
