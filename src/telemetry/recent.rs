//! The last decisions, and the last requests that were turned away, kept in memory to be explained while they are fresh.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::label::StatusClass;
use super::outcome::Outcome;
use super::past::Past;
use super::record::AccessRecord;
use super::traffic::Fate;

/// How many decisions are kept: some hundred kilobytes with certificates as they are, and a few megabytes at most.
const DECISIONS: usize = 256;

/// How many requests that were turned away are kept besides, where those that go on can't push them out.
const REFUSALS: usize = 128;

/// The last decisions of this process.
#[derive(Debug)]
pub struct Recent {
    decisions: Ring,
    refusals: Ring,
}

impl Default for Recent {
    fn default() -> Self {
        Self { decisions: Ring::new(DECISIONS), refusals: Ring::new(REFUSALS) }
    }
}

impl Recent {
    /// Keeps a record in place of the oldest, if a policy was asked or the request was turned away.
    pub(super) fn note(&self, record: &Arc<AccessRecord>) {
        if record.decision.is_some() {
            self.decisions.keep(record);
        }
        if is_turned_away(record.outcome) {
            self.refusals.keep(record);
        }
    }

    /// The decision with this id, as its line in the access log tells it.
    #[must_use]
    pub fn find(&self, decision_id: &str) -> Option<Past> {
        let found =
            self.decisions.records().into_iter().find(|record| record.decision_id.to_string() == decision_id)?;
        serde_json::to_string(&*found).ok().and_then(|line| Past::read(&line).ok())
    }

    /// The last requests that were turned away, the newest first.
    #[must_use]
    pub fn refusals(&self) -> Vec<Arc<AccessRecord>> {
        let mut refusals = self.refusals.records();
        refusals.sort_by_key(|record| std::cmp::Reverse(record.time + record.duration));
        refusals
    }
}

/// Whether somebody was told no: by a rule, a limit, the state of the certificate, or the audit log.
const fn is_turned_away(outcome: Outcome) -> bool {
    match outcome {
        Outcome::ConnectionRevoked
        | Outcome::ConnectionExpired
        | Outcome::ConnectionUntrusted
        | Outcome::AuditUnavailable
        | Outcome::LimitsUnavailable => true,
        outcome => matches!(Fate::of(outcome, StatusClass::None), Fate::Refused),
    }
}

/// The last records of some kind.
#[derive(Debug)]
struct Ring {
    /// A lock for each, held for the exchange of a pointer.
    slots: Box<[Mutex<Option<Arc<AccessRecord>>>]>,
    next: AtomicUsize,
}

impl Ring {
    fn new(size: usize) -> Self {
        Self { slots: (0..size).map(|_| Mutex::default()).collect(), next: AtomicUsize::new(0) }
    }

    fn keep(&self, record: &Arc<AccessRecord>) {
        let position = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        if let Some(slot) = self.slots.get(position) {
            let old = slot.lock().unwrap_or_else(PoisonError::into_inner).replace(record.clone());
            // Dropped after the lock.
            drop(old);
        }
    }

    fn records(&self) -> Vec<Arc<AccessRecord>> {
        self.slots.iter().filter_map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
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
        let records: Vec<_> = (0..DECISIONS + 10).map(|_| record()).collect();
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

    #[test]
    fn who_is_turned_away_is_kept_beside_the_rest() {
        let recent = Recent::default();
        let ended = |outcome| Arc::new(AccessRecord { outcome, decision: None, ..samples::record() });
        recent.note(&ended(Outcome::Malformed));
        recent.note(&ended(Outcome::ClientAborted));
        (0..2 * REFUSALS).for_each(|_| recent.note(&record()));
        assert_eq!(recent.refusals().iter().map(|r| r.outcome).collect::<Vec<_>>(), [Outcome::Malformed]);
        let newest = Arc::new(AccessRecord {
            duration: std::time::Duration::from_secs(60),
            ..(*ended(Outcome::Denied)).clone()
        });
        recent.note(&newest);
        recent.note(&ended(Outcome::Limited));
        assert_eq!(recent.refusals()[0].outcome, Outcome::Denied, "the newest end first");
        (0..2 * REFUSALS).for_each(|_| recent.note(&ended(Outcome::Denied)));
        assert_eq!(recent.refusals().len(), REFUSALS);
    }
}
