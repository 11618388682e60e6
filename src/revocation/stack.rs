//! One accepted list, and the lists of one issuer and scope that count together.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::serials::SerialSet;
use super::{CrlNumber, Listed, Reason, Scope, ScopeId};
use crate::identity::{IssuerId, Serial};

/// One accepted list.
#[derive(Debug)]
pub(super) struct List {
    pub(super) series: Series,
    /// The issuer's subject in one printable line.
    pub(super) issuer_name: String,
    pub(super) scope: Scope,
    /// Of a delta: the number of the list that it changes, or of any later one.
    pub(super) base: Option<CrlNumber>,
    pub(super) age: Age,
    pub(super) next_update: i64,
    /// Whether it had run out when it came: a list that hadn't goes before it, whatever the numbers say.
    pub(super) came_expired: bool,
    pub(super) serials: SerialSet,
    pub(super) content: [u8; 32],
}

/// The lists that replace each other: those of one issuer and scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) issuer: IssuerId,
    pub(super) scope: ScopeId,
}

/// What tells which of two lists is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Age {
    pub(super) number: Option<CrlNumber>,
    pub(super) this_update: i64,
}

impl Age {
    /// By number, and by thisUpdate where numbers are equal or missing.
    pub(super) fn is_newer_than(self, other: Self) -> bool {
        match (self.number, other.number) {
            (Some(own), Some(others)) if own != others => own > others,
            _ => self.this_update > other.this_update,
        }
    }
}

impl List {
    /// Whether this list goes before another of the same series.
    pub(super) fn precedes(&self, other: &Self) -> bool {
        match (self.came_expired, other.came_expired) {
            (false, true) => true,
            (true, false) => false,
            _ => self.age.is_newer_than(other.age),
        }
    }

    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.series == other.series
            && self.base == other.base
            && self.age == other.age
            && self.next_update == other.next_update
            && self.content == other.content
    }

    /// Whether this delta can be applied to what has this number (RFC 5280 §5.2.4).
    pub(super) fn applies_to(&self, number: CrlNumber) -> bool {
        self.base.is_some_and(|base| base <= number) && self.is_ahead_of(Some(number))
    }

    /// Whether this delta holds news to what has this number.
    pub(super) fn is_ahead_of(&self, number: Option<CrlNumber>) -> bool {
        self.age.number > number
    }
}

/// The lists of one series in force: a base, and the deltas that were applied to it.
#[derive(Debug)]
pub(super) struct Stack {
    /// Newest first; the last one is the base. What a newer layer says of a serial number goes before the others.
    layers: Vec<Layer>,
    scope: Scope,
}

/// Lists of the same age, united.
#[derive(Debug)]
pub(super) struct Layer {
    lists: Vec<Arc<List>>,
    /// Older than one that was in force before: it revokes, but neither vouches nor takes back.
    pub(super) is_rolled_back: bool,
}

impl Layer {
    pub(super) fn new(lists: Vec<Arc<List>>) -> Self {
        Self { lists, is_rolled_back: false }
    }

    pub(super) fn lists(&self) -> &[Arc<List>] {
        &self.lists
    }

    /// The greatest number, for what can be applied to it.
    pub(super) fn number(&self) -> Option<CrlNumber> {
        self.lists.iter().filter_map(|list| list.age.number).max()
    }

    fn find(&self, serial: &Serial) -> Option<Listed> {
        let mut found = None;
        for list in &self.lists {
            match list.serials.find(serial) {
                Some(Listed::Revoked(reason)) => return Some(Listed::Revoked(reason)),
                Some(Listed::Removed) if !self.is_rolled_back => found = Some(Listed::Removed),
                _ => {}
            }
        }
        found
    }
}

impl Stack {
    /// `base`, and deltas in the order in which they were applied.
    pub(super) fn new(base: Layer, deltas: Vec<Layer>) -> Option<Self> {
        let scope = base.lists.first()?.scope.clone();
        let mut layers = deltas;
        layers.insert(0, base);
        layers.reverse();
        Some(Self { layers, scope })
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// When the next list is due; `None` if all are older than what was in force before.
    ///
    /// A delta on its base is a full list with the delta's dates (RFC 5280 §5.2.4). Should it run out before its base does,
    /// the base counts as if there were no deltas.
    pub(super) fn next_update(&self) -> Option<i64> {
        let layers = self.layers.iter().filter(|layer| !layer.is_rolled_back);
        layers.flat_map(|layer| &layer.lists).map(|list| list.next_update).max()
    }

    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    pub(super) fn layers_mut(&mut self) -> &mut [Layer] {
        &mut self.layers
    }

    /// The number of the newest layer.
    pub(super) fn number(&self) -> Option<CrlNumber> {
        self.layers.first().and_then(Layer::number)
    }

    /// Whether the base is older than one that was in force before.
    pub(super) fn is_rolled_back(&self) -> bool {
        self.layers.last().is_some_and(|base| base.is_rolled_back)
    }

    /// Why this serial number is revoked, if it is.
    pub(super) fn find(&self, serial: &Serial) -> Option<Reason> {
        match self.layers.iter().find_map(|layer| layer.find(serial)) {
            Some(Listed::Revoked(reason)) => Some(reason),
            Some(Listed::Removed) | None => None,
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.lists().map(|list| list.serials.len()).sum()
    }

    /// Bytes on the heap, all overhead counted.
    pub(super) fn heap_size(&self) -> usize {
        let of_list = |list: &Arc<List>| {
            let own = size_of::<List>() + size_of::<Arc<List>>();
            own + list.issuer_name.len() + list.scope.heap_size() + list.serials.heap_size()
        };
        size_of_val(&*self.layers) + self.scope.heap_size() + self.lists().map(of_list).sum::<usize>()
    }

    /// Hashes of what the stack revokes.
    pub(super) fn contents(&self) -> Vec<[u8; 32]> {
        let hashes = |layer: &Layer| {
            let lists = layer.lists.iter().filter(|list| list.serials.len() > 0);
            let mut contents: Vec<_> = lists.map(|list| list.content).collect();
            contents.sort_unstable();
            contents
        };
        let mut layers: Vec<_> = self.layers.iter().map(hashes).filter(|contents| !contents.is_empty()).collect();
        if layers.len() < 2 {
            return layers.pop().unwrap_or_default();
        }
        // The order of layers matters, since one takes back what another says.
        let mut hash = Sha256::new();
        for contents in &layers {
            hash.update((contents.len() as u64).to_be_bytes());
            contents.iter().for_each(|content| hash.update(content));
        }
        vec![hash.finalize().into()]
    }

    fn lists(&self) -> impl Iterator<Item = &Arc<List>> {
        self.layers.iter().flat_map(|layer| &layer.lists)
    }
}
