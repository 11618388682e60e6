//! How often the log speaks of what clients can cause again and again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use log::Level;

use crate::telemetry::{Label as _, Outcome};

/// When an upstream's outcomes were last spoken of: minutes since the Unix epoch, one for each outcome.
#[derive(Debug)]
pub(super) struct Sparing([AtomicU64; Outcome::ALL.len()]);

impl Default for Sparing {
    fn default() -> Self {
        Sparing(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Sparing {
    /// The level for one more line about `outcome`: its own once a minute, else debug.
    pub(super) fn level(&self, outcome: Outcome) -> Level {
        self.level_at(outcome, UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() / 60)
    }

    fn level_at(&self, outcome: Outcome, minute: u64) -> Level {
        let spoken = self.0.get(outcome.index()).is_some_and(|last| last.swap(minute, Ordering::Relaxed) == minute);
        if spoken { outcome.level().max(Level::Debug) } else { outcome.level() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_one_line_a_minute() {
        let sparing = Sparing::default();
        assert_eq!(sparing.level_at(Outcome::DigestMismatch, 7), Level::Error);
        assert_eq!(sparing.level_at(Outcome::DigestMismatch, 7), Level::Debug);
        assert_eq!(sparing.level_at(Outcome::RedirectRefused, 7), Level::Warn, "another outcome");
        assert_eq!(sparing.level_at(Outcome::DigestMismatch, 8), Level::Error, "the next minute");
    }
}
