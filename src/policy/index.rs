//! Which rules a request can concern: found by what their patterns begin with.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use rustc_hash::FxBuildHasher;

use crate::config::policy::Effect;
use crate::oci::Action;

use super::glob::same;
use super::rule::Rule;

/// A list longer than this is gone through once for each client, for the rules that concern it, instead of at every
/// decision.
const LONG: usize = 8;

/// Positions of rules, by the whole segments that all names matching them begin with.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Position of the first list with a prefix of this hash. The prefixes are the policy's; nobody who asks can make them
    /// collide.
    by_prefix: HashMap<u64, usize, FxBuildHasher>,
    lists: Vec<List>,
    /// The list of the empty prefix, if there is one.
    anywhere: Option<usize>,
    /// Bit `n` is set if a prefix has `n` segments. The last bit stands for all that are longer.
    depths: u64,
    /// Segments of the longest prefix.
    deepest: usize,
    catalog: List,
}

/// The rules of one prefix.
#[derive(Debug, Default)]
pub(super) struct List {
    prefix: Box<str>,
    /// Position of another list whose prefix has the same hash.
    next: Option<usize>,
    pub(super) allowing: Positions,
    pub(super) denying: Positions,
}

/// A rule that can match, by one of its patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Position of the rule.
    pub(super) rule: u32,
    /// Position of the pattern in the rule. Of no meaning for the catalog.
    pub(super) pattern: usize,
}

/// Rules of one effect.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// In the order of the rules.
    pub(super) rules: Vec<Candidate>,
    /// Position among the long ones of this effect, if it is one.
    pub(super) long: Option<usize>,
}

impl Index {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (position, rule) in (0..).zip(rules) {
            if rule.actions.contains(Action::Catalog) {
                index.catalog.add(Candidate { rule: position, pattern: 0 }, rule.effect);
            }
            for (place, pattern) in rule.repositories.iter().enumerate() {
                index.add(pattern.prefix(), Candidate { rule: position, pattern: place }, rule.effect);
            }
        }
        for effect in [Effect::Allow, Effect::Deny] {
            let positions = index.lists.iter_mut().map(|list| list.of_mut(effect));
            for (place, positions) in positions.filter(|positions| positions.rules.len() > LONG).enumerate() {
                positions.long = Some(place);
            }
        }
        index
    }

    fn add(&mut self, prefix: &str, candidate: Candidate, effect: Effect) {
        let place = self.place_of(prefix).unwrap_or_else(|| {
            let place = self.lists.len();
            let next = self.by_prefix.insert(hash(prefix), place);
            self.lists.push(List { prefix: prefix.into(), next, ..List::default() });
            place
        });
        let depth = segments(prefix);
        if depth == 0 {
            self.anywhere = Some(place);
        }
        self.depths |= bit(depth);
        self.deepest = self.deepest.max(depth);
        if let Some(list) = self.lists.get_mut(place) {
            list.add(candidate, effect);
        }
    }

    fn place_of(&self, prefix: &str) -> Option<usize> {
        let mut place = *self.by_prefix.get(&hash(prefix))?;
        loop {
            let list = self.lists.get(place)?;
            if same(&list.prefix, prefix) {
                return Some(place);
            }
            place = list.next?;
        }
    }

    /// The rules that are about the catalog.
    pub(super) fn catalog(&self) -> &List {
        &self.catalog
    }

    /// Shows each list whose rules a repository of this name can match, with what the name has below the list's prefix
    /// (see [`RepositoryPattern::matches_below`](super::template::RepositoryPattern::matches_below)).
    #[inline]
    pub(super) fn of_repository<'s, 'n>(&'s self, name: &'n str, mut look: impl FnMut(&'s List, Option<&'n str>)) {
        if let Some(list) = self.anywhere.and_then(|place| self.lists.get(place)) {
            look(list, Some(name));
        }
        let mut end = 0;
        for depth in 1..=self.deepest {
            let Some(rest) = name.get(end..).filter(|rest| !rest.is_empty()) else { return };
            // Behind the slash that ended the segment before.
            let slash = rest.bytes().skip(1).position(|byte| byte == b'/');
            end += slash.map_or(rest.len(), |slash| slash + 1);
            if self.depths & bit(depth) == 0 {
                continue;
            }
            if let Some(list) = name.get(..end).and_then(|prefix| self.lists.get(self.place_of(prefix)?)) {
                look(list, name.get(end + 1..));
            }
        }
    }

    /// The long ones among the lists of an effect, in the order of their positions.
    pub(super) fn long_lists(&self, effect: Effect) -> impl Iterator<Item = &Positions> {
        self.lists.iter().map(move |list| list.of(effect)).filter(|positions| positions.long.is_some())
    }
}

impl List {
    fn add(&mut self, candidate: Candidate, effect: Effect) {
        self.of_mut(effect).rules.push(candidate);
    }

    fn of(&self, effect: Effect) -> &Positions {
        match effect {
            Effect::Allow => &self.allowing,
            Effect::Deny => &self.denying,
        }
    }

    fn of_mut(&mut self, effect: Effect) -> &mut Positions {
        match effect {
            Effect::Allow => &mut self.allowing,
            Effect::Deny => &mut self.denying,
        }
    }
}

fn hash(prefix: &str) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    hasher.write(prefix.as_bytes());
    hasher.finish()
}

fn segments(prefix: &str) -> usize {
    if prefix.is_empty() { 0 } else { prefix.split('/').count() }
}

fn bit(depth: usize) -> u64 {
    1 << depth.min(63)
}
