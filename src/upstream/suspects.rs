//! Digests under which an upstream was seen to answer with other content.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;

/// The newest of them, as many as are worth remembering: a storage that loses more has other worries.
#[derive(Debug, Default)]
pub struct Suspects(Mutex<VecDeque<Digest>>);

const MOST: usize = 1024;

impl Suspects {
    /// The whole content was hashed, and is something else.
    pub fn add(&self, digest: &Digest) {
        let mut digests = self.digests();
        if !digests.contains(digest) {
            digests.truncate(MOST - 1);
            digests.push_front(digest.clone());
        }
    }

    /// The whole content was hashed, and is right.
    pub fn remove(&self, digest: &Digest) {
        self.digests().retain(|suspect| suspect != digest);
    }

    /// Whether what was last seen of this content was wrong.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.digests().contains(digest)
    }

    fn digests(&self) -> MutexGuard<'_, VecDeque<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_until_they_are_right() {
        let digest = |number: usize| Digest::parse(&format!("sha256:{number:064x}")).expect("a digest");
        let suspects = Suspects::default();
        for number in 0..MOST + 2 {
            suspects.add(&digest(number));
            suspects.add(&digest(number));
        }
        assert!(
            !suspects.contains(&digest(1)) && suspects.contains(&digest(2)) && suspects.contains(&digest(MOST + 1))
        );
        suspects.remove(&digest(2));
        assert!(!suspects.contains(&digest(2)) && suspects.contains(&digest(3)));
    }
}
