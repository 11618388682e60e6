//! Which rules a request can concern: found by what their patterns begin with.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::config::policy::Effect;
use crate::oci::Action;

use super::rule::Rule;

/// A list longer than this is gone through once for each client, for the rules that concern it, instead of at every
/// decision.
const LONG: usize = 8;

/// Positions of rules, by the whole segments that all names matching them begin with.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The keys are the policy's; nobody who asks can make them collide.
    by_prefix: HashMap<Box<str>, usize, FxBuildHasher>,
    lists: Vec<List>,
    /// Bit `n` is set if a prefix has `n` segments. The last bit stands for all that are longer.
    depths: u64,
    catalog: List,
}

/// The rules of one prefix.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) allowing: Positions,
    pub(super) denying: Positions,
}

/// Rules of one effect.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// In ascending order.
    pub(super) rules: Vec<u32>,
    /// Position among the long ones of this effect, if it is one.
    pub(super) long: Option<usize>,
}

impl Index {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (position, rule) in (0..).zip(rules) {
            if rule.actions.contains(Action::Catalog) {
                index.catalog.add(position, rule.effect);
            }
            for pattern in &rule.repositories {
                index.add(pattern.prefix(), position, rule.effect);
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

    fn add(&mut self, prefix: &str, position: u32, effect: Effect) {
        let place = self.by_prefix.entry(prefix.into()).or_insert(self.lists.len());
        if *place == self.lists.len() {
            self.lists.push(List::default());
        }
        self.depths |= bit(segments(prefix));
        if let Some(list) = self.lists.get_mut(*place) {
            list.add(position, effect);
        }
    }

    /// The rules that are about the catalog.
    pub(super) fn catalog(&self) -> &List {
        &self.catalog
    }

    /// The lists whose rules a repository of this name can match.
    pub(super) fn of_repository(&self, name: &str) -> impl Iterator<Item = &List> {
        let ends = name.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(end, _)| end);
        let prefixes = std::iter::once(0).chain(ends).chain([name.len()]).enumerate();
        prefixes
            .filter(|(depth, _)| self.depths & bit(*depth) != 0)
            .filter_map(|(_, end)| self.by_prefix.get(name.get(..end)?))
            .filter_map(|place| self.lists.get(*place))
    }

    /// The long ones among the lists of an effect, in the order of their positions.
    pub(super) fn long_lists(&self, effect: Effect) -> impl Iterator<Item = &Positions> {
        self.lists.iter().map(move |list| list.of(effect)).filter(|positions| positions.long.is_some())
    }
}

impl List {
    fn add(&mut self, position: u32, effect: Effect) {
        let positions = self.of_mut(effect);
        if positions.rules.last() != Some(&position) {
            positions.rules.push(position);
        }
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

fn segments(prefix: &str) -> usize {
    if prefix.is_empty() { 0 } else { prefix.split('/').count() }
}

fn bit(depth: usize) -> u64 {
    1 << depth.min(63)
}
