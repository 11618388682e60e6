//! The control plane's side: takes in sources, keeps the last good lists, says what is in force.

mod memory;
mod reading;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::memory::Memory;
pub use self::memory::Seen;
use self::reading::{Held, Reading, Source};
pub use self::report::{ListReport, SourceInput, SourceReport, Standing};
use super::stack::{Layer, List, Series, Stack};
use super::{CrlFault, CrlNumber, Index, Issuer, Scope, Settings, Verify};
use crate::identity::IssuerId;

/// Most bytes of one source; whoever reads sources should not read more. A list of a million entries has about 40 MB,
/// and a third more as PEM.
pub const MAX_SOURCE: usize = 160 * 1024 * 1024;

/// Most deltas of one source that wait for their base after the source has replaced them by others.
const MAX_WAITING: usize = 8;

/// Every source and its last good lists.
///
/// A source that can't be read, or is gone, keeps its lists until another source has a list of the same issuer and scope
/// that is at least as new; only [`Sources::retain`] forgets at once. Cloning is cheap, so a build of a snapshot that may
/// fail can work on a copy.
#[derive(Debug, Clone)]
pub struct Sources {
    settings: Settings,
    by_key: BTreeMap<String, Source>,
    issuers: Vec<IssuerId>,
    memory: Memory,
}

impl Sources {
    /// No sources yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, by_key: BTreeMap::new(), issuers: Vec::new(), memory: Memory::default() }
    }

    /// Changes how revocation is judged, from the next update on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Forgets the sources that are no longer configured, and what they revoked.
    ///
    /// For files that have vanished from a configured directory this must not be called.
    pub fn retain(&mut self, mut is_configured: impl FnMut(&str) -> bool) {
        self.by_key.retain(|key, _| is_configured(key));
    }

    /// The newest lists that were in force, for [`Sources::remember`] of another process: after a restart, an older list
    /// must not pass for news.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.memory.all()
    }

    /// Takes over what [`Sources::seen`] gave before a restart. The newer of two memories counts.
    pub fn remember(&mut self, seen: impl IntoIterator<Item = Seen>) {
        seen.into_iter().for_each(|seen| self.memory.add(&seen));
    }

    /// Takes in what all sources hold now, and gives the index of what is in force.
    ///
    /// Expensive for large lists (a million entries: a quarter of a second of CPU), so it belongs off the serving threads. The
    /// bytes of a source are let go before the next input is asked for, so an iterator that reads them one by one needs
    /// the memory of one.
    ///
    /// Sources that are known but not in `inputs` count as missing. Lists of authorities that are not in `issuers`
    /// (all CA certificates of the trust bundles) are refused, and forgotten if they had been accepted.
    pub fn update(
        &mut self,
        inputs: impl IntoIterator<Item = SourceInput>,
        issuers: &[Issuer],
        now: i64,
        verify: &Verify<'_>,
    ) -> (Index, Vec<SourceReport>) {
        self.follow_trust(issuers);
        let mut faults: Faults = self.by_key.keys().map(|key| (key.clone(), vec![CrlFault::Missing])).collect();
        let reading = Reading { settings: &self.settings, issuers, now, verify };
        for SourceInput { key, bytes, issuer } in inputs {
            let source = self.by_key.entry(key.clone()).or_default();
            let found = match bytes {
                Ok(bytes) => source.take(bytes, issuer.as_deref(), &reading),
                Err(cause) => vec![CrlFault::Unreadable(cause)],
            };
            faults.insert(key, found);
        }
        self.mark_absent(&faults);
        self.drop_superseded();
        let mut stacks = self.in_force();
        stacks.values_mut().for_each(|stack| self.memory.judge(stack));
        self.drop_spent_deltas(&stacks);
        self.find_rollbacks(&stacks, &mut faults);
        let reports = self.reports(faults, &stacks, now);
        let mut by_issuer: Vec<(IssuerId, Vec<Stack>)> = Vec::new();
        for (series, stack) in stacks {
            match by_issuer.last_mut() {
                Some((issuer, stacks)) if *issuer == series.issuer => stacks.push(stack),
                _ => by_issuer.push((series.issuer, vec![stack])),
            }
        }
        (Index::new(self.settings.clone(), by_issuer), reports)
    }

    /// Another set of authorities: lists of those who left count no more, and refused lists deserve another look.
    fn follow_trust(&mut self, issuers: &[Issuer]) {
        let mut ids: Vec<_> = issuers.iter().filter(|issuer| issuer.may_sign_crls).map(|issuer| issuer.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids == self.issuers {
            return;
        }
        for source in self.by_key.values_mut() {
            source.clean = None;
            source.held.retain(|key, _| ids.binary_search(&key.series.issuer).is_ok());
        }
        self.issuers = ids;
    }

    fn mark_absent(&mut self, faults: &Faults) {
        for (key, source) in &mut self.by_key {
            let unread = |fault: &CrlFault| matches!(fault, CrlFault::Missing | CrlFault::Unreadable(_));
            if faults.get(key).is_some_and(|faults| faults.iter().any(unread)) {
                source.clean = None;
                source.held.values_mut().for_each(|held| held.present = false);
            }
        }
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.by_key.values().flat_map(|source| source.held.values())
    }

    /// Lets go of full lists that their source no longer holds, once another list says all they say: one of the same
    /// scope that is at least as new, or a later one about everything. Numbers of different scopes can't be compared.
    fn drop_superseded(&mut self) {
        let full = Scope::full().id();
        let mut newest: BTreeMap<Series, Arc<List>> = BTreeMap::new();
        for held in self.held().filter(|held| held.present && held.list.base.is_none()) {
            let list = newest.entry(held.list.series).or_insert_with(|| Arc::clone(&held.list));
            if held.list.precedes(list) {
                *list = Arc::clone(&held.list);
            }
        }
        let is_spent = |list: &List| {
            let successor = newest.get(&list.series);
            let of_all = newest.get(&Series { scope: full, ..list.series }).filter(|of_all| !of_all.came_expired);
            successor.is_some_and(|successor| !list.precedes(successor))
                || of_all.is_some_and(|of_all| of_all.age.this_update >= list.age.this_update)
        };
        for source in self.by_key.values_mut() {
            source.held.retain(|_, held| held.present || held.list.base.is_some() || !is_spent(&held.list));
        }
    }

    /// Of each issuer and scope the newest list (or several of the same age with different content, which are united),
    /// and the deltas that lead on from it.
    fn in_force(&self) -> BTreeMap<Series, Stack> {
        let mut bases: BTreeMap<Series, Vec<Arc<List>>> = BTreeMap::new();
        let mut deltas: BTreeMap<Series, Vec<&Arc<List>>> = BTreeMap::new();
        for list in self.held().map(|held| &held.list) {
            if list.base.is_some() {
                deltas.entry(list.series).or_default().push(list);
                continue;
            }
            let lists = bases.entry(list.series).or_default();
            lists.retain(|other| !list.precedes(other));
            if !lists.iter().any(|other| other.precedes(list) || other.is_same_as(list)) {
                lists.push(Arc::clone(list));
            }
        }
        let stack = |(series, base): (Series, Vec<Arc<List>>)| {
            let base = Layer::new(base);
            let deltas = chain(base.number(), deltas.get(&series).map(Vec::as_slice).unwrap_or_default());
            Stack::new(base, deltas).map(|stack| (series, stack))
        };
        bases.into_iter().filter_map(stack).collect()
    }

    /// Lets go of deltas that their source no longer holds, once what is in force says all they say.
    fn drop_spent_deltas(&mut self, stacks: &BTreeMap<Series, Stack>) {
        for source in self.by_key.values_mut() {
            let mut waiting = 0;
            let standings: Vec<_> =
                source.held.iter().map(|(key, held)| (*key, standing(&held.list, stacks))).collect();
            // The newest come last.
            for (key, standing) in standings.into_iter().rev().filter(|(key, _)| key.span.is_some()) {
                let is_absent = source.held.get(&key).is_some_and(|held| !held.present);
                waiting += usize::from(standing == Standing::Waiting);
                let is_spent =
                    standing == Standing::Superseded || standing == Standing::Waiting && waiting > MAX_WAITING;
                if is_absent && is_spent {
                    source.held.remove(&key);
                }
            }
        }
    }

    /// Says of each source which of its lists are older than what was in force before.
    fn find_rollbacks(&self, stacks: &BTreeMap<Series, Stack>, faults: &mut Faults) {
        for layer in stacks.values().flat_map(Stack::layers).filter(|layer| layer.is_rolled_back) {
            let seen = self.memory.of(layer).and_then(|age| age.number);
            for (key, source) in &self.by_key {
                let is_in = |list: &List| layer.lists().iter().any(|other| other.is_same_as(list));
                for held in source.held.values().filter(|held| held.present && is_in(&held.list)) {
                    let fault = CrlFault::RolledBack { found: held.list.age.number, seen };
                    faults.entry(key.clone()).or_default().push(fault);
                }
            }
        }
    }

    fn reports(&mut self, mut faults: Faults, stacks: &BTreeMap<Series, Stack>, now: i64) -> Vec<SourceReport> {
        let mut reports = Vec::new();
        for (key, source) in &mut self.by_key {
            let faults = faults.remove(key).unwrap_or_default();
            if faults.is_empty() {
                source.last_success = Some(now);
            }
            let lists = source.held.values().map(|held| ListReport::new(&held.list, standing(&held.list, stacks)));
            let (key, lists) = (key.clone(), lists.collect());
            reports.push(SourceReport { key, lists, last_success: source.last_success, faults });
        }
        // A source that is gone and has nothing left to say is reported once more and then forgotten.
        let gone = |report: &SourceReport| report.lists.is_empty() && report.faults.contains(&CrlFault::Missing);
        for report in reports.iter().filter(|report| gone(report)) {
            self.by_key.remove(&report.key);
        }
        reports
    }
}

/// What is wrong with each source.
type Faults = BTreeMap<String, Vec<CrlFault>>;

/// The deltas that lead on from a list with this number, in the order in which they apply.
///
/// Mostly there is one: the newest holds everything since its base. Where the newest starts at a list that isn't there,
/// an older one may lead to it, for a list with a delta applied is as good as the list of the delta's number.
fn chain(base: Option<CrlNumber>, deltas: &[&Arc<List>]) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut reached = base;
    while let Some(number) = reached {
        let applicable = || deltas.iter().filter(|delta| delta.applies_to(number));
        reached = applicable().filter_map(|delta| delta.age.number).max();
        let mut newest: Vec<Arc<List>> = Vec::new();
        for delta in applicable().filter(|delta| delta.age.number == reached) {
            if !newest.iter().any(|other| other.is_same_as(delta)) {
                newest.push(Arc::clone(delta));
            }
        }
        layers.extend((!newest.is_empty()).then(|| Layer::new(newest)));
    }
    layers
}

fn standing(list: &List, stacks: &BTreeMap<Series, Stack>) -> Standing {
    let stack = stacks.get(&list.series);
    let layers = stack.map(Stack::layers).unwrap_or_default();
    match layers.iter().find(|layer| layer.lists().iter().any(|other| other.is_same_as(list))) {
        Some(layer) if layer.is_rolled_back => Standing::RolledBack,
        Some(_) => Standing::InForce,
        None if list.base.is_some() && list.is_ahead_of(stack.and_then(Stack::number)) => Standing::Waiting,
        None => Standing::Superseded,
    }
}
