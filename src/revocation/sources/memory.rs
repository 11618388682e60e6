//! The newest lists that were in force, so that an older one can't pass for news after a restart.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

use super::super::stack::{Age, Layer, List, Series, Stack};
use super::super::{CrlNumber, ScopeId};
use crate::identity::IssuerId;

/// The newest list of an issuer and scope that was in force: what should outlive the process.
///
/// As text it is one line of plain words; [`FromStr`] reads it back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// Name and key of the issuer.
    pub issuer: IssuerId,
    /// What the list is about.
    pub scope: ScopeId,
    /// Whether it is a delta. Deltas and full lists share their numbers, but one doesn't replace the other.
    pub is_delta: bool,
    /// The CRL number.
    pub number: Option<CrlNumber>,
    /// Start of validity, in unix seconds.
    pub this_update: i64,
}

/// The newest lists in force so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(BTreeMap<(Series, bool), Age>);

impl Memory {
    pub(super) fn all(&self) -> Vec<Seen> {
        let seen = |(&(series, is_delta), age): (&(Series, bool), &Age)| Seen {
            issuer: series.issuer,
            scope: series.scope,
            is_delta,
            number: age.number,
            this_update: age.this_update,
        };
        self.0.iter().map(seen).collect()
    }

    pub(super) fn add(&mut self, seen: &Seen) {
        let series = Series { issuer: seen.issuer, scope: seen.scope };
        self.raise((series, seen.is_delta), Age { number: seen.number, this_update: seen.this_update });
    }

    /// Marks what is older than what was in force before, and remembers the others.
    pub(super) fn judge(&mut self, stack: &mut Stack) {
        let Some((base, deltas)) = stack.layers_mut().split_last_mut() else { return };
        // An older delta that leads to the newest is no rollback, so all of them are judged by that one.
        for layers in [std::slice::from_mut(base), deltas] {
            let newest = layers.first().and_then(|layer| layer.lists().first()).map(|list| of(list));
            let Some((key, age, came_expired)) = newest else { continue };
            let is_older = self.0.get(&key).is_some_and(|seen| seen.is_newer_than(age));
            layers.iter_mut().for_each(|layer| layer.is_rolled_back = is_older);
            // A list that was over when it came may have been replaced by one with a lower number.
            if !is_older && !came_expired {
                self.raise(key, age);
            }
        }
    }

    /// The age that a list would need.
    pub(super) fn of(&self, layer: &Layer) -> Option<Age> {
        layer.lists().first().and_then(|list| self.0.get(&of(list).0)).copied()
    }

    fn raise(&mut self, key: (Series, bool), age: Age) {
        let known = self.0.entry(key).or_insert(age);
        if age.is_newer_than(*known) {
            *known = age;
        }
    }
}

fn of(list: &List) -> ((Series, bool), Age, bool) {
    ((list.series, list.base.is_some()), list.age, list.came_expired)
}

/// Such as `<issuer> <scope> full <number, or -> <thisUpdate>`, hashes and number in hexadecimal.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_delta { "delta" } else { "full" };
        let number = self.number.map_or_else(|| "-".to_owned(), |number| HEXLOWER.encode(number.as_bytes()));
        let (issuer, scope) = (HEXLOWER.encode(self.issuer.as_bytes()), HEXLOWER.encode(self.scope.as_bytes()));
        write!(f, "{issuer} {scope} {kind} {number} {}", self.this_update)
    }
}

impl FromStr for Seen {
    type Err = &'static str;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        const MALFORMED: &str = "not a line that tells of a revocation list";
        let words: Vec<&str> = line.split(' ').collect();
        let &[issuer, scope, kind, number, this_update] = words.as_slice() else { return Err(MALFORMED) };
        Ok(Self {
            issuer: IssuerId::from_bytes(octets(issuer).ok_or(MALFORMED)?),
            scope: ScopeId::from_bytes(octets(scope).ok_or(MALFORMED)?),
            is_delta: match kind {
                "full" => false,
                "delta" => true,
                _ => return Err(MALFORMED),
            },
            number: match number {
                "-" => None,
                number => Some(CrlNumber::from_bytes(octets(number).ok_or(MALFORMED)?)),
            },
            this_update: this_update.parse().map_err(|_| MALFORMED)?,
        })
    }
}

fn octets<const N: usize>(hexadecimal: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(hexadecimal.as_bytes()).ok()?.try_into().ok()
}
