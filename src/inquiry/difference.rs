//! Which requests of the past would come out otherwise under another policy.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use crate::identity::PeerIdentity;
use crate::oci::Action;
use crate::policy::{Facts, Judged, Judgement, Policy, Standing};
use crate::telemetry::{Past, Unreadable};

/// Groups that are kept apart. What exceeds that is counted as a whole.
const MAX_GROUPS: usize = 10_000;

/// Clients whose standing is remembered. They cost some kilobytes each, and to work it out again a comparison with each
/// selector of the policies.
const MAX_CLIENTS: usize = 4096;

/// Requests of the past, each decided by two policies, and counted. Takes memory for the groups, not for the requests.
#[derive(Debug)]
pub struct Comparison<'p> {
    old: &'p Policy,
    new: &'p Policy,
    clients: HashMap<String, Client>,
    groups: BTreeMap<Key, Group>,
    totals: Totals,
}

/// How many requests there were, and how many of which kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Those that both policies decided.
    pub requests: u64,
    /// Of these: those that come out otherwise.
    pub differing: u64,
    /// Of these: those that stand in no group, since there are too many groups.
    pub ungrouped: u64,
    /// Those about which at least one of the policies needs to know what no record tells.
    pub unknown: u64,
    /// Those that were recorded with another outcome than the old policy has for them, but for those with a cut record.
    pub drifted: u64,
    /// Those whose record was cut: names of the client are missing in it, so that neither outcome is certain, also where
    /// both are alike.
    pub cut: u64,
    /// Those that were refused before a policy was asked.
    pub undecided: u64,
}

/// What the requests of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What records call the client.
    pub client: String,
    /// What was to be done; `ping` is none.
    pub action: &'static str,
    /// Where; empty for the catalog.
    pub repository: String,
    /// How it comes out by the old policy, and by which rule.
    pub old: (Judged, String),
    /// The same by the new policy.
    pub new: (Judged, String),
}

/// Requests that come out otherwise in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// Of how many the record was cut, so that the difference is not certain.
    pub uncertain: u64,
    /// The decision id of the first one.
    pub example: String,
}

/// A client's standing with both policies, which depends on its names alone.
#[derive(Debug)]
struct Client {
    seen_in: Past,
    old: Standing,
    new: Standing,
}

impl<'p> Comparison<'p> {
    /// Nothing compared yet.
    #[must_use]
    pub fn new(old: &'p Policy, new: &'p Policy) -> Self {
        Self { old, new, clients: HashMap::new(), groups: BTreeMap::new(), totals: Totals::default() }
    }

    /// Takes a request into account.
    ///
    /// # Errors
    /// What its record does not tell; it then doesn't count.
    pub fn take(&mut self, past: &Past) -> Result<(), Unreadable> {
        let Some(recorded) = past.judged() else {
            self.totals.undecided += 1;
            return Ok(());
        };
        let route = past.route()?;
        let policies = (self.old, self.new);
        let identity = past.client()?;
        let facts = past.facts(&identity)?;
        let client = self.client(past, &identity)?;
        let old = policies.0.judge_route(&route, &Facts { standing: Some(&client.old), ..facts });
        let new = policies.1.judge_route(&route, &Facts { standing: Some(&client.new), ..facts });
        self.totals.requests += 1;
        self.totals.cut += u64::from(past.is_cut());
        if old.judged != recorded && old.judged != Judged::Unknown && !past.is_cut() {
            self.totals.drifted += 1;
        }
        if [old.judged, new.judged].contains(&Judged::Unknown) {
            self.totals.unknown += 1;
        } else if old.judged != new.judged {
            self.totals.differing += 1;
            let named = |judgement: &Judgement| (judgement.judged, judgement.rule().to_owned());
            let key = Key {
                client: past.identity.clone(),
                action: route.action().map_or("ping", Action::as_str),
                repository: route.repository().map(ToString::to_string).unwrap_or_default(),
                old: named(&old),
                new: named(&new),
            };
            self.add(key, past);
        }
        Ok(())
    }

    fn client(&mut self, past: &Past, identity: &PeerIdentity) -> Result<&Client, Unreadable> {
        let known = self.clients.get(past.fingerprint()).is_some_and(|client| client.seen_in.has_client_of(past));
        if !known {
            let (old, new) = (self.old.standing(identity), self.new.standing(identity));
            if self.clients.len() >= MAX_CLIENTS {
                self.clients.clear();
            }
            let client = Client { seen_in: past.clone(), old, new };
            self.clients.insert(past.fingerprint().to_owned(), client);
        }
        self.clients.get(past.fingerprint()).ok_or(Unreadable::Untold("the client"))
    }

    fn add(&mut self, key: Key, past: &Past) {
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.totals.ungrouped += 1;
            return;
        }
        let first = || Group { count: 0, uncertain: 0, example: past.decision_id.clone() };
        let group = self.groups.entry(key).or_insert_with(first);
        group.count += 1;
        group.uncertain += u64::from(past.is_cut());
    }

    /// The numbers so far.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The requests that come out otherwise, the largest group first.
    #[must_use]
    pub fn groups(&self) -> Vec<(&Key, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, group)| Reverse(group.count));
        groups
    }
}
