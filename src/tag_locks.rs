//! Locks on tags: between the look whether a tag exists and the registry's answer to its push, nobody else pushes it.
//!
//! A registry has no "push unless it exists". Without a lock, two clients who may create a tag and not overwrite it would
//! both be told that it is free, and the second would overwrite what the first has pushed.
//!
//! The locks hold for one process, over all its serving threads, and behind them for all replicas that share a Redis: when
//! a place is taken, only one request of this process is left to ask Redis for each tag, in the order in which every replica
//! asks. Where Redis can't be asked, the answer is a [`LockFault`], never a lock.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex as Place, OwnedMutexGuard};

use crate::oci::{RepoName, Tag};
use crate::shared::{Lease, Shared};

/// The tags that are being pushed.
#[derive(Debug, Default)]
pub(crate) struct TagLocks {
    places: Mutex<HashMap<Key, Arc<Place<()>>>>,
}

/// A tag of a repository of an upstream, by its name in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    upstream: Box<str>,
    repository: Box<str>,
    tag: Box<str>,
}

/// Why there is no lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockFault {
    /// Somebody else holds it and didn't let go in time.
    Busy,
    /// Nobody can say whether somebody else holds it.
    Unknown,
}

/// As keys of Redis have it. No part has a space in it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.upstream, self.repository, self.tag)
    }
}

impl TagLocks {
    /// Waits for tags of a repository until nobody else pushes one of them, for `patience` at most.
    ///
    /// # Errors
    ///
    /// [`LockFault`], and then no tag is held.
    pub(crate) async fn take(
        self: &Arc<Self>,
        (upstream, repository): (&str, &RepoName),
        tags: &[Tag],
        shared: Option<&Arc<Shared>>,
        patience: Duration,
    ) -> Result<Held, LockFault> {
        let key = |tag: &Tag| Key {
            upstream: upstream.into(),
            repository: repository.as_str().into(),
            tag: tag.as_str().into(),
        };
        let mut keys: Vec<_> = tags.iter().map(key).collect();
        // In one order for all, so that no two wait for each other.
        keys.sort_unstable();
        keys.dedup();
        let all = async {
            let mut held = Held { leases: Vec::new(), turns: Vec::with_capacity(keys.len()) };
            for key in keys {
                let name = shared.map(|shared| shared.key(format_args!("push:{key}")));
                held.turns.push(Turn::wait(self.clone(), key).await);
                if let (Some(shared), Some(name)) = (shared, name) {
                    held.leases.push(Lease::wait(shared, name).await.map_err(|_| LockFault::Unknown)?);
                }
            }
            Ok(held)
        };
        tokio::time::timeout(patience, all).await.map_err(|_| LockFault::Busy)?
    }

    fn place(&self, key: &Key) -> Arc<Place<()>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(key.clone()).or_default().clone()
    }

    /// Forgets a place that nobody holds or waits for.
    fn tidy(&self, key: &Key) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.get(key).is_some_and(|place| Arc::strong_count(place) == 1) {
            places.remove(key);
        }
    }
}

/// Tags that nobody else pushes as long as this exists.
#[derive(Debug)]
pub(crate) struct Held {
    /// Given back first: whoever gets a turn next asks for them.
    leases: Vec<Lease>,
    turns: Vec<Turn>,
}

impl Held {
    /// Holds them for some time more: for a push of which nobody knows whether the registry still carries it out.
    pub(crate) fn linger(self, time: Duration) {
        // Without a runtime there is nobody left to push.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(time).await;
                drop(self);
            });
        }
    }
}

/// One who waits for a tag, or has it.
#[derive(Debug)]
struct Turn {
    locks: Arc<TagLocks>,
    key: Key,
    place: Option<Arc<Place<()>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turn {
    async fn wait(locks: Arc<TagLocks>, key: Key) -> Self {
        let place = locks.place(&key);
        // Made before the wait, so that who gives up waiting leaves nothing behind.
        let mut turn = Turn { locks, key, place: Some(place.clone()), guard: None };
        turn.guard = Some(place.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        self.place = None;
        self.locks.tidy(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn names(tags: &[&str]) -> Vec<Tag> {
        tags.iter().map(|tag| Tag::parse(tag).expect("a tag")).collect()
    }

    fn repository(name: &str) -> RepoName {
        RepoName::parse(name).expect("a name")
    }

    async fn take(locks: &Arc<TagLocks>, tags: &[&str]) -> Held {
        locks.take(("registry", &repository("a")), &names(tags), None, LONG).await.expect("free at last")
    }

    fn places(locks: &TagLocks) -> usize {
        locks.places.lock().expect("no panic").len()
    }

    /// Whether it would wait.
    fn waits(future: std::pin::Pin<&mut impl Future>) -> bool {
        matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
    }

    #[tokio::test]
    async fn a_tag_is_held_by_one_at_a_time_and_others_are_free() {
        let locks = Arc::new(TagLocks::default());
        let first = take(&locks, &["v1", "v2"]).await;
        let (repository, other) = (repository("a"), repository("b"));
        let tags = names(&["v2"]);
        let second = locks.take(("registry", &repository), &tags, None, LONG);
        let mut second = pin!(second);
        assert!(waits(second.as_mut()));
        for (upstream, repository, tags) in [
            ("registry", &repository, names(&["v3"])),
            ("registry", &other, names(&["v2"])),
            ("two", &repository, tags.clone()),
        ] {
            assert!(
                locks.take((upstream, repository), &tags, None, LONG).await.is_ok(),
                "{upstream} {repository} {tags:?}"
            );
        }
        drop(first);
        drop(second.await.expect("free"));
        assert_eq!(places(&locks), 0, "nothing is remembered of tags that nobody pushes");
    }

    #[tokio::test]
    async fn waiting_ends_and_leaves_nothing_behind() {
        let locks = Arc::new(TagLocks::default());
        let held = take(&locks, &["v1"]).await;
        let busy =
            locks.take(("registry", &repository("a")), &names(&["v0", "v1"]), None, Duration::from_millis(10)).await;
        assert_eq!(busy.err(), Some(LockFault::Busy));
        assert_eq!(places(&locks), 1, "v0 was given back");
        let (repository, tags) = (repository("a"), names(&["v1"]));
        {
            let mut given_up = Box::pin(locks.take(("registry", &repository), &tags, None, LONG));
            assert!(waits(given_up.as_mut()));
        }
        drop(held);
        assert_eq!(places(&locks), 0);
    }

    #[tokio::test]
    async fn tags_named_twice_or_in_another_order_stop_nobody() {
        let locks = Arc::new(TagLocks::default());
        drop(take(&locks, &["v1", "v1"]).await);
        let holding = Arc::new(AtomicUsize::new(0));
        let pushes = (0..100).map(|i| {
            let (locks, holding) = (locks.clone(), holding.clone());
            tokio::spawn(async move {
                let held = take(&locks, if i % 2 == 0 { &["a", "b", "c"] } else { &["c", "b"] }).await;
                assert_eq!(holding.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                tokio::task::yield_now().await;
                holding.fetch_sub(1, Ordering::SeqCst);
                drop(held);
            })
        });
        for push in pushes.collect::<Vec<_>>() {
            push.await.expect("no panic");
        }
        assert_eq!(places(&locks), 0);
    }

    #[tokio::test]
    async fn what_lingers_is_held_for_its_time() {
        let locks = Arc::new(TagLocks::default());
        take(&locks, &["v1"]).await.linger(Duration::from_millis(50));
        let begun = std::time::Instant::now();
        drop(take(&locks, &["v1"]).await);
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
}
