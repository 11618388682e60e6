//! Which rules a request can concern: found by what their patterns begin with.

use std::collections::HashMap;

use crate::config::policy::Effect;
use crate::oci::Action;

use super::rule::Rule;

/// A list longer than this is gone through once for each client, for the rules that concern it, instead of at every
/// decision.
const LONG: usize = 32;

/// Positions of the rules of one effect, by the whole segments that all names matching them begin with.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_prefix: HashMap<Box<str>, usize>,
    lists: Vec<List>,
    /// How many of the lists are long.
    long: usize,
    /// Bit `n` is set if a prefix has `n` segments. The last bit stands for all that are longer.
    depths: u64,
    catalog: Vec<u32>,
}

/// Positions in ascending order.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) rules: Vec<u32>,
    /// Position among the long lists, if it is one.
    pub(super) long: Option<usize>,
}

impl Index {
    pub(super) fn of(rules: &[Rule], effect: Effect) -> Self {
        let mut index = Self::default();
        for (position, rule) in (0..).zip(rules).filter(|(_, rule)| rule.effect == effect) {
            if rule.actions.contains(&Action::Catalog) {
                index.catalog.push(position);
            }
            for pattern in &rule.repositories {
                index.add(pattern.prefix(), position);
            }
        }
        for list in index.lists.iter_mut().filter(|list| list.rules.len() > LONG) {
            list.long = Some(index.long);
            index.long += 1;
        }
        index
    }

    fn add(&mut self, prefix: &str, position: u32) {
        let place = self.by_prefix.entry(prefix.into()).or_insert(self.lists.len());
        if *place == self.lists.len() {
            self.lists.push(List::default());
        }
        self.depths |= bit(segments(prefix));
        if let Some(list) = self.lists.get_mut(*place)
            && list.rules.last() != Some(&position)
        {
            list.rules.push(position);
        }
    }

    /// The rules that are about the catalog.
    pub(super) fn catalog(&self) -> &[u32] {
        &self.catalog
    }

    /// The lists whose rules a repository of this name can match.
    pub(super) fn of_repository(&self, name: &str) -> impl Iterator<Item = &List> {
        let ends = name.match_indices('/').map(|(end, _)| end).chain([name.len()]);
        let prefixes = std::iter::once(0).chain(ends).enumerate();
        prefixes
            .filter(|(depth, _)| self.depths & bit(*depth) != 0)
            .filter_map(|(_, end)| self.by_prefix.get(name.get(..end)?))
            .filter_map(|place| self.lists.get(*place))
    }

    /// The long lists, in order of their positions among them.
    pub(super) fn long_lists(&self) -> impl Iterator<Item = &List> {
        self.lists.iter().filter(|list| list.long.is_some())
    }
}

fn segments(prefix: &str) -> usize {
    if prefix.is_empty() { 0 } else { prefix.split('/').count() }
}

fn bit(depth: usize) -> u64 {
    1 << depth.min(63)
}
