//! What a request was granted, and what it gives back and is charged when it ends.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ledger::{Charge, Held};
use super::window::Look;
use super::{Key, Left, Rate};
use crate::tally::Tally;

/// Bytes that a transfer may have moved before they are charged, and most that are set aside for it before it begins.
const LUMP: u64 = 1 << 20;

/// Most of a limit that is set aside for one transfer, so that several fit into a small one.
const SHARE: u64 = 8;

/// What a request was granted. Places come back, and what was moved is charged, when it is dropped.
#[derive(Default)]
pub struct Grant {
    pub(super) places: Vec<Place>,
    meters: Vec<Meter>,
    pub(super) held: Option<Held>,
    moved: u64,
    /// When so much has moved, it is charged.
    next: u64,
    left: Option<Left>,
}

/// A limit of bytes that a transfer is charged to.
pub(super) struct Meter {
    rate: Rate,
    owner: Key,
    /// Its key in Redis, if it is counted there.
    key: Option<String>,
    /// Bytes charged so far. At first those that were set aside.
    covered: u64,
    /// When what was set aside has come back by itself.
    until: Instant,
}

/// What is still to be said to a counter.
#[derive(Clone, Copy)]
enum Change {
    /// So many bytes more were moved.
    Add(u64),
    /// So many nanoseconds' worth was set aside and not used.
    Back(u64),
}

impl Rate {
    /// Bytes to set aside for a transfer of `expected`, if that is known.
    pub(super) fn lump(&self, expected: Option<u64>) -> u64 {
        let most = LUMP.min(self.quota.amount / SHARE);
        expected.unwrap_or(most).min(most).max(1)
    }
}

impl Meter {
    /// After `lump` was set aside, and `used` nanoseconds' worth of the whole is used up.
    pub(super) fn new(rate: &Rate, owner: Key, key: Option<String>, lump: u64, used: u64, now: Instant) -> Self {
        let until = now.checked_add(Duration::from_nanos(used)).unwrap_or(now);
        Self { rate: rate.clone(), owner, key, covered: lump, until }
    }

    fn change(&self, moved: u64, last: bool, now: Instant) -> Option<Change> {
        if moved > self.covered {
            return Some(Change::Add(moved - self.covered));
        }
        // What has come back by itself isn't given back again: that would erase what others used.
        let ahead = u64::try_from(self.until.saturating_duration_since(now).as_nanos()).unwrap_or(u64::MAX);
        let back = self.rate.window.time_of(self.covered - moved).min(ahead);
        (last && back > 0).then_some(Change::Back(back))
    }

    fn tell_here(&self, change: Change, now: Instant) {
        match change {
            Change::Add(bytes) => self.rate.counts.charge(&self.owner, self.rate.window, bytes, now),
            Change::Back(nanos) => self.rate.counts.give_back(&self.owner, nanos),
        }
    }
}

impl Grant {
    /// What the client has left of manifests to pull, by the limit that leaves it least; none if no limit bounds them.
    #[must_use]
    pub fn left(&self) -> Option<Left> {
        self.left
    }

    /// Bytes of a body have moved.
    pub fn moved(&mut self, bytes: usize) {
        if self.meters.is_empty() {
            return;
        }
        self.moved = self.moved.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.moved >= self.next {
            self.settle(false);
        }
    }

    pub(super) fn show(&mut self, left: Left) {
        if self.left.is_none_or(|least| left.remaining < least.remaining) {
            self.left = Some(left);
        }
    }

    pub(super) fn meter(&mut self, meter: Meter) {
        let next = meter.covered.saturating_add(LUMP);
        self.next = if self.meters.is_empty() { next } else { self.next.min(next) };
        self.meters.push(meter);
    }

    /// Charges what has moved, and at the end gives back what was set aside in vain.
    fn settle(&mut self, last: bool) {
        let (now, moved) = (Instant::now(), self.moved);
        self.next = moved.saturating_add(LUMP);
        let mut charges = Vec::new();
        for meter in &mut self.meters {
            let Some(change) = meter.change(moved, last, now) else { continue };
            match &meter.key {
                None => {
                    meter.tell_here(change, now);
                    meter.covered = meter.covered.max(moved);
                }
                Some(key) => {
                    let (micros, unsaid) = match change {
                        Change::Add(bytes) => (signed(meter.rate.window.time_of(bytes).div_ceil(1000)), bytes),
                        Change::Back(nanos) => (-signed(nanos / 1000), 0),
                    };
                    let here = (meter.rate.clone(), meter.owner.clone(), unsaid);
                    charges.push(Charge { key: key.clone(), micros, here });
                }
            }
        }
        let Some(held) = self.held.as_ref().filter(|_| !charges.is_empty()) else { return };
        match held.charge(charges) {
            Ok(()) => {
                let theirs = self.meters.iter_mut().filter(|meter| meter.key.is_some());
                theirs.for_each(|meter| meter.covered = meter.covered.max(moved));
            }
            // Too much is under way to Redis. The next lump tells all of it, or else the counters here do.
            Err(charges) if last => charges.iter().for_each(Charge::tell_here),
            Err(_) => {}
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if !self.meters.is_empty() {
            self.settle(true);
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("places", &self.places.len()).field("left", &self.left).finish_non_exhaustive()
    }
}

fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// What a request has taken so far; given back unless it is kept.
#[derive(Default)]
pub(super) struct Taken(Vec<(Rate, Key)>);

impl Taken {
    pub(super) fn take(&mut self, rate: &Rate, key: &Key, now: Instant) -> Result<Look, Duration> {
        let look = rate.counts.take(key, rate.window, 1, now)?;
        self.0.push((rate.clone(), key.clone()));
        Ok(look)
    }

    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for (rate, key) in &self.0 {
            rate.counts.give_back(key, rate.window.time_of(1));
        }
    }
}

/// One upload's place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) taken: Arc<Tally<Key>>,
    pub(super) key: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.leave(&self.key);
    }
}
