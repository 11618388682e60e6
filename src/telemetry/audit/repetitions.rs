//! How much one client can make the log grow by being refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::identity::ClientId;

/// Over what refusals are summed up.
const PERIOD: Duration = Duration::from_secs(60);

/// Clients whose refusals are counted at a time; more get their records until the period is over.
const MOST: usize = 65_536;

/// The refusals of the current period, by client. A refusal that repeats tells little; a disk that they fill stops pushes.
#[derive(Debug)]
pub(super) struct Repetitions {
    /// Records that a client gets in a period; 0 is as many as it likes.
    each: u32,
    /// By client rather than by name: two authorities may vouch for one name, and neither client can have the other's
    /// refusals left out. The name is what the log tells.
    counts: HashMap<ClientId, (Arc<str>, u64)>,
    since: Option<Instant>,
}

impl Repetitions {
    pub(super) fn new(each: u32) -> Self {
        Self { each, counts: HashMap::new(), since: None }
    }

    /// Whether another refusal of this client is only counted.
    pub(super) fn is_one(&mut self, client: ClientId, name: &Arc<str>, now: Instant) -> bool {
        if self.each == 0 || (self.counts.len() >= MOST && !self.counts.contains_key(&client)) {
            return false;
        }
        self.since.get_or_insert(now);
        let (_, count) = self.counts.entry(client).or_insert_with(|| (Arc::clone(name), 0));
        *count += 1;
        *count > u64::from(self.each)
    }

    /// What was only counted, by client, if the period is over or `at_once`; then a new one begins.
    pub(super) fn due(&mut self, now: Instant, at_once: bool) -> Vec<(Arc<str>, u64)> {
        let is_over = self.since.is_some_and(|since| at_once || now.duration_since(since) >= PERIOD);
        if !is_over {
            return Vec::new();
        }
        self.since = None;
        let each = u64::from(self.each);
        let clients = self.counts.drain().map(|(_, client)| client);
        clients.filter(|(_, count)| *count > each).map(|(name, count)| (name, count - each)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{TestCertificate, rsa_spki};
    use crate::identity::{LeafRules, PeerIdentity};

    /// The client of one of several authorities that are called the same.
    fn client(authority: u8) -> ClientId {
        let leaf = TestCertificate::client();
        let authority = TestCertificate { spki: rsa_spki(2048, authority), ..TestCertificate::authority() };
        let path = [leaf.der(), authority.der()];
        let identity = PeerIdentity::from_path(&path.each_ref().map(Vec::as_slice), &LeafRules::default());
        identity.expect("a client").client_id()
    }

    #[test]
    fn a_client_gets_its_records_and_then_a_number() {
        let now = Instant::now();
        let mut repetitions = Repetitions::new(2);
        let name: Arc<str> = "CN=ci-7".into();
        let [loud, quiet] = [1, 2].map(client);
        let counted: Vec<bool> = (0..5).map(|_| repetitions.is_one(loud, &name, now)).collect();
        assert_eq!(counted, [false, false, true, true, true]);
        assert!(!repetitions.is_one(quiet, &name, now), "another's refusals don't count against it, whatever its name");
        assert!(repetitions.due(now + PERIOD / 2, false).is_empty());
        assert_eq!(repetitions.due(now + PERIOD, false), [(name.clone(), 3)]);
        assert!(!repetitions.is_one(loud, &name, now + PERIOD), "another minute");
        assert!(repetitions.due(now + PERIOD, true).is_empty(), "nothing was left out");
        let mut all = Repetitions::new(0);
        assert!((0..1000).all(|_| !all.is_one(loud, &name, now)));
    }
}
