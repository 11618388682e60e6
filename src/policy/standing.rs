//! What a policy has to do with one client, worked out once and kept beside its connection.

use crate::config::policy::Effect;
use crate::identity::PeerIdentity;

use super::index::{Candidate, Positions};
use super::limit::Applied;
use super::rule::{Policy, Rule, Subjects};
use super::template::Values;

/// To which groups of a policy a client belongs, what placeholders stand for, and which rules of long lists concern it.
///
/// It depends on nothing but the policy and the certificate, so it holds for as long as both do. It is not proof of
/// anything: a decision asks whether it was made by the policy that decides, and makes another one if not.
#[derive(Debug)]
pub struct Standing {
    policy: u64,
    allowing: Share,
    denying: Share,
    limits: Box<[Applied]>,
}

/// The part of one effect: where a certificate is ambiguous, who allows sees less of it than who denies.
#[derive(Debug)]
struct Share {
    /// A bit for each group of the policy.
    groups: Box<[u64]>,
    values: Values,
    /// For each long list its rules that concern the client.
    long: Box<[Box<[Candidate]>]>,
}

impl Policy {
    /// Works out what this policy has to do with a client. Costs a comparison with each selector of the policy, so it
    /// is worth keeping.
    #[must_use]
    pub fn standing(&self, identity: &PeerIdentity) -> Standing {
        let allowing = Share::of(self, Effect::Allow, identity);
        let denying = Share::of(self, Effect::Deny, identity);
        let limits = self.applied(|group| denying.is_in(group), |group| allowing.is_in(group));
        Standing { policy: self.id, allowing, denying, limits }
    }

    /// Whether `standing` is one of this policy.
    #[must_use]
    pub fn knows(&self, standing: &Standing) -> bool {
        standing.policy == self.id
    }
}

impl Standing {
    /// Whether the client is one whom the rule is about.
    pub(super) fn includes(&self, rule: &Rule) -> bool {
        self.share(rule.effect).includes(rule)
    }

    /// What placeholders stand for in rules of this effect.
    pub(super) fn values(&self, effect: Effect) -> &Values {
        &self.share(effect).values
    }

    /// The rules of a list, without most of those that don't concern the client.
    pub(super) fn narrow<'s>(&'s self, effect: Effect, list: &'s Positions) -> &'s [Candidate] {
        list.long.and_then(|position| self.share(effect).long.get(position)).map_or(&list.rules, |rules| rules)
    }

    /// The limits that apply to the client.
    pub(super) fn limits(&self) -> &[Applied] {
        &self.limits
    }

    fn share(&self, effect: Effect) -> &Share {
        match effect {
            Effect::Allow => &self.allowing,
            Effect::Deny => &self.denying,
        }
    }
}

impl Share {
    fn of(policy: &Policy, effect: Effect, identity: &PeerIdentity) -> Self {
        let mut groups = vec![0; policy.groups.len().div_ceil(64)].into_boxed_slice();
        for (position, _) in policy.groups.iter().enumerate().filter(|(_, group)| group.holds(identity, effect)) {
            if let Some(word) = groups.get_mut(position / 64) {
                *word |= 1 << (position % 64);
            }
        }
        let values = policy.sources.iter().map(|source| source.value(&policy.groups, identity, effect)).collect();
        let mut share = Self { groups, values, long: Box::default() };
        let concerns = |candidate: &Candidate| policy.rule(candidate.rule).is_some_and(|rule| share.includes(rule));
        let filtered = |list: &Positions| list.rules.iter().copied().filter(concerns).collect();
        share.long = policy.index.long_lists(effect).map(filtered).collect();
        share
    }

    fn includes(&self, rule: &Rule) -> bool {
        match &rule.subjects {
            Subjects::Any => true,
            Subjects::Groups(positions) => positions.iter().any(|position| self.is_in(*position)),
        }
    }

    /// Whether the client is in the group at this position.
    fn is_in(&self, position: usize) -> bool {
        self.groups.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }
}
