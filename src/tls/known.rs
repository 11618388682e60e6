//! Clients that have been here before, so that a certificate is read once and its names are held once.
//!
//! A client opens many connections: a pull alone takes several, and each CI job begins anew. What is kept follows from
//! the certificates and the acceptor's settings alone. Whether it is valid and not revoked now is asked each time.

use std::collections::HashMap;
use std::sync::Mutex;

use super::verify::Verified;

/// Clients of one acceptor, by the fingerprint of their leaf.
///
/// Bounded by two generations; the older is forgotten when the newer is full.
#[derive(Default)]
pub(super) struct KnownClients(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<[u8; 32], Verified>,
    old: HashMap<[u8; 32], Verified>,
}

/// Identities are about 2 KiB each; two generations of these stay under 20 MiB.
const GENERATION: usize = 4096;

impl KnownClients {
    pub(super) fn insert(&self, verified: &Verified) {
        let Ok(mut known) = self.0.lock() else { return };
        if known.young.len() >= GENERATION {
            known.old = std::mem::take(&mut known.young);
        }
        known.young.insert(verified.identity.fingerprint, verified.clone());
    }

    /// The client with exactly these certificates, leaf first.
    pub(super) fn by_path(&self, fingerprints: &[[u8; 32]]) -> Option<Verified> {
        let known = self.find(fingerprints.first()?)?;
        let path = known.identity.path.iter().map(|certificate| &certificate.fingerprint);
        path.eq(fingerprints).then_some(known)
    }

    /// The client with this leaf, if the rest of its path follows from the bundle.
    pub(super) fn resumable(&self, leaf: &[u8; 32]) -> Option<Verified> {
        self.find(leaf).filter(|known| known.resumable)
    }

    fn find(&self, leaf: &[u8; 32]) -> Option<Verified> {
        let known = self.0.lock().ok()?;
        known.young.get(leaf).or_else(|| known.old.get(leaf)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::identity::testing::TestCertificate;
    use crate::identity::{LeafRules, PeerIdentity};

    fn fingerprints(path: &[&[u8]]) -> Vec<[u8; 32]> {
        path.iter().map(|der| Sha256::digest(der).into()).collect()
    }

    fn verified(path: &[&[u8]], resumable: bool) -> Verified {
        let identity = PeerIdentity::from_path(path, &LeafRules::default()).expect("a client");
        Verified { identity: Arc::new(identity), resumable, certificates: None }
    }

    #[test]
    fn a_client_is_known_by_its_whole_path() {
        let leaf = TestCertificate::client().der();
        let first = TestCertificate::authority().der();
        let renewed = TestCertificate { serial: vec![2], ..TestCertificate::authority() }.der();
        let [before, after] = [&first, &renewed].map(|authority| [leaf.as_slice(), authority.as_slice()]);
        let known = KnownClients::default();
        known.insert(&verified(&before, true));

        let found = known.by_path(&fingerprints(&before)).expect("known");
        assert_eq!(found.identity.path.last().expect("an anchor").serial.to_string(), "01");
        for other in [&fingerprints(&after)[..], &fingerprints(&before)[..1], &fingerprints(&before)[1..], &[]] {
            assert!(known.by_path(other).is_none());
        }
        assert!(known.resumable(&fingerprints(&before)[0]).is_some());

        // One path is known of each leaf, the last; of one with the client's own certificates no session can begin.
        known.insert(&verified(&after, false));
        assert!(known.by_path(&fingerprints(&before)).is_none());
        assert!(known.by_path(&fingerprints(&after)).is_some());
        assert!(known.resumable(&fingerprints(&after)[0]).is_none());
    }

    #[test]
    fn the_clients_of_two_generations_are_known() {
        let authority = TestCertificate::authority().der();
        let leaf = |number: usize| {
            let serial = [&[1], &u32::try_from(number).expect("small").to_be_bytes()[..]].concat();
            TestCertificate { serial, ..TestCertificate::client() }.der()
        };
        let known = KnownClients::default();
        for number in 0..=2 * GENERATION {
            known.insert(&verified(&[&leaf(number), &authority], true));
        }
        let is_known = |number: usize| known.by_path(&fingerprints(&[&leaf(number), &authority])).is_some();
        assert!(is_known(2 * GENERATION) && is_known(GENERATION));
        assert!(!is_known(0) && !is_known(GENERATION - 1));
    }
}
