//! Things that are under way, counted by whose they are.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard};

/// Counts by key. Sharded, so that the workers don't wait for each other; a key that counts nothing is not kept.
#[derive(Debug)]
pub(crate) struct Tally<K> {
    hasher: RandomState,
    shards: [Mutex<HashMap<K, usize>>; SHARDS],
}

const SHARDS: usize = 16;

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Tally { hasher: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<K: Hash + Eq> Tally<K> {
    /// Counts one more of `key`, unless there are `most` already.
    pub(crate) fn enter(&self, key: K, most: usize) -> bool {
        let Some(mut shard) = self.shard(&key) else { return false };
        let count = shard.get(&key).copied().unwrap_or(0);
        let room = count < most;
        if room {
            shard.insert(key, count + 1);
        }
        room
    }

    /// Counts one less.
    pub(crate) fn leave(&self, key: &K) {
        let Some(mut shard) = self.shard(key) else { return };
        if let Some(count) = shard.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                shard.remove(key);
            }
        }
    }

    /// How many keys count something.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().expect("unpoisoned").len()).sum()
    }

    fn shard(&self, key: &K) -> Option<MutexGuard<'_, HashMap<K, usize>>> {
        let position = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        // A panic elsewhere leaves the counts as they are, which is right.
        self.shards.get(position).map(|shard| shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_nothing_is_not_kept() {
        let tally = Tally::default();
        assert!(tally.enter("a", 2) && tally.enter("a", 2) && !tally.enter("a", 2) && tally.enter("b", 1));
        assert!(!tally.enter("c", 0));
        assert_eq!(tally.keys(), 2, "a refused one leaves nothing behind");
        tally.leave(&"a");
        assert!(tally.enter("a", 2));
        tally.leave(&"a");
        tally.leave(&"a");
        tally.leave(&"b");
        assert_eq!(tally.keys(), 0);
    }
}
