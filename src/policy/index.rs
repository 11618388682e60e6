//! Which rules a request can concern: found by what their patterns begin with.

use std::collections::HashMap;
use std::hash::BuildHasher;

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
    /// Positions of lists, by the hash of their prefix. The prefixes are the policy's; nobody who asks can make them
    /// collide.
    by_prefix: HashMap<u64, Vec<usize>, FxBuildHasher>,
    lists: Vec<List>,
    /// Bit `n` is set if a prefix has `n` segments. The last bit stands for all that are longer.
    depths: u64,
    catalog: List,
}

/// The rules of one prefix.
#[derive(Debug, Default)]
pub(super) struct List {
    prefix: Box<str>,
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
        let place = self.place_of(prefix).unwrap_or_else(|| {
            self.lists.push(List { prefix: prefix.into(), ..List::default() });
            let place = self.lists.len() - 1;
            self.by_prefix.entry(FxBuildHasher.hash_one(prefix)).or_default().push(place);
            place
        });
        self.depths |= bit(segments(prefix));
        if let Some(list) = self.lists.get_mut(place) {
            list.add(position, effect);
        }
    }

    fn place_of(&self, prefix: &str) -> Option<usize> {
        let places = self.by_prefix.get(&FxBuildHasher.hash_one(prefix))?;
        places.iter().copied().find(|place| {
            self.lists
                .get(*place)
                .is_some_and(|list| list.prefix.len() == prefix.len() && begins_with(prefix, &list.prefix))
        })
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
            .filter_map(|(_, end)| self.place_of(name.get(..end)?))
            .filter_map(|place| self.lists.get(place))
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

/// `starts_with`, for short prefixes: the C library's comparison takes longer to be called than these take to be compared.
#[inline]
pub(super) fn begins_with(text: &str, prefix: &str) -> bool {
    text.len() >= prefix.len() && prefix.bytes().zip(text.bytes()).all(|(expected, found)| expected == found)
}

fn segments(prefix: &str) -> usize {
    if prefix.is_empty() { 0 } else { prefix.split('/').count() }
}

fn bit(depth: usize) -> u64 {
    1 << depth.min(63)
}
