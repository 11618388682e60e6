//! Who was turned away from the admin listener: counted, and told in log and audit log as often as that helps anybody.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::audit::AdminAction;
use crate::telemetry::{AdminRefusal, Telemetry};

/// Attempts that are told one by one within a [`PERIOD`]. Of more, the next record tells the number.
const TOLD: u32 = 10;

const PERIOD: Duration = Duration::from_secs(60);

/// Takes note of refusals.
pub(super) struct TurnedAway {
    telemetry: Telemetry,
    period: Mutex<Period>,
}

#[derive(Debug, Default)]
struct Period {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Period {
    /// Whether one more is told, and how many before it were not.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told >= TOLD {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

impl TurnedAway {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, period: Mutex::default() }
    }

    /// Somebody was turned away. `detail` may hold what a certificate says of itself, and nothing of a token.
    pub(super) fn note(&self, why: AdminRefusal, from: Option<SocketAddr>, detail: &str) {
        self.telemetry.metrics.admin_refused(why);
        let from = from.map_or_else(|| "the unix socket".to_owned(), |from| from.to_string());
        if !why.is_attempt() {
            log::debug!("admin listener: {from} turned away ({why}): {detail}");
            return;
        }
        let taken = self.period.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        let Some(untold) = taken else { return };
        let before = if untold == 0 { String::new() } else { format!(" (and {untold} attempts before this one)") };
        log::warn!("admin listener: {from} turned away ({why}): {detail}{before}");
        self.telemetry.audit.admin(AdminAction::Access, &from, Err(&format!("{why}: {detail}{before}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_told_until_they_are_many_and_then_summed_up() {
        let (mut period, start) = (Period::default(), Instant::now());
        let told: Vec<_> = (0..TOLD + 5).map(|_| period.take(start)).collect();
        assert_eq!(told.iter().flatten().count(), 10);
        assert_eq!(period.take(start + PERIOD), Some(5));
        assert_eq!(period.take(start + PERIOD), Some(0));
    }
}
