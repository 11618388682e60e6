//! The compiled policy: groups, rules, and which rules a request can concern.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::policy::Effect;
use crate::identity::PeerIdentity;
use crate::oci::{Access, Action, Tag};

use super::glob::Wildcard;
use super::index::Index;
use super::limit::Limit;
use super::selector::Selector;
use super::standing::Standing;
use super::template::RepositoryPattern;

/// A policy that was checked as a whole. Immutable; share it behind an `Arc`.
#[derive(Debug)]
pub struct Policy {
    /// Different for each policy of the process.
    pub(super) id: u64,
    pub(super) rules: Vec<Rule>,
    pub(super) groups: Vec<Group>,
    pub(super) limits: Vec<Limit>,
    allowing: Index,
    denying: Index,
    pub(super) ping: Arc<str>,
}

impl Policy {
    pub(super) fn new(rules: Vec<Rule>, groups: Vec<Group>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let allowing = Index::of(&rules, Effect::Allow);
        let denying = Index::of(&rules, Effect::Deny);
        Self { id, rules, groups, limits: Vec::new(), allowing, denying, ping: super::decide::PING_RULE.into() }
    }

    pub(super) fn with_limits(self, limits: Vec<Limit>) -> Self {
        Self { limits, ..self }
    }

    /// The rules, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    pub(super) fn rule(&self, position: u32) -> Option<&Rule> {
        usize::try_from(position).ok().and_then(|position| self.rules.get(position))
    }

    pub(super) fn index(&self, effect: Effect) -> &Index {
        match effect {
            Effect::Allow => &self.allowing,
            Effect::Deny => &self.denying,
        }
    }

    /// The first rule with this effect that matches.
    pub(super) fn first_match(&self, effect: Effect, question: &Question<'_>) -> Option<&Rule> {
        let index = self.index(effect);
        let Some(name) = question.access.repository else {
            return index.catalog().iter().find_map(|position| self.matching(*position, question));
        };
        let mut first = None;
        for list in index.of_repository(name.as_str()) {
            // Ascending: after a rule that matched in another list none of this one matters.
            let before = |position: &u32| first.is_none_or(|(found, _)| *position < found);
            let rules = question.standing.narrow(effect, list).iter().copied().take_while(before);
            let found = rules.into_iter().find_map(|position| Some((position, self.matching(position, question)?)));
            first = found.or(first);
        }
        first.map(|(_, rule)| rule)
    }

    fn matching(&self, position: u32, question: &Question<'_>) -> Option<&Rule> {
        self.rule(position).filter(|rule| Aspect::ALL.into_iter().all(|aspect| self.holds(rule, aspect, question)))
    }

    /// Whether one aspect of a rule fits; the rule matches when all of them do.
    pub(super) fn holds(&self, rule: &Rule, aspect: Aspect, question: &Question<'_>) -> bool {
        let Question { identity, standing, access, tag } = question;
        match aspect {
            Aspect::Action => rule.actions.contains(&access.action),
            Aspect::Tag => rule.covers_tag(access.action, *tag),
            Aspect::Repository => access.repository.is_none_or(|name| {
                rule.repositories.iter().any(|pattern| pattern.matches(name, identity, rule.effect))
            }),
            Aspect::Client => standing.includes(rule),
        }
    }

    pub(super) fn groups_of(&self, positions: &[usize]) -> impl Iterator<Item = &Group> {
        positions.iter().filter_map(|position| self.groups.get(*position))
    }
}

/// What a rule is asked: may this client have this access, as far as this one of its tags is concerned?
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) identity: &'a PeerIdentity,
    /// The identity's, with the policy that is asked.
    pub(super) standing: &'a Standing,
    pub(super) access: &'a Access<'a>,
    /// None for an access without tags.
    pub(super) tag: Option<&'a Tag>,
}

/// What must fit for a rule to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// What is to be done.
    Action,
    /// By whom.
    Client,
    /// The tag that is written or removed.
    Tag,
    /// Where.
    Repository,
}

impl Aspect {
    /// All aspects, the one that is compared most quickly first.
    pub const ALL: [Self; 4] = [Self::Action, Self::Client, Self::Tag, Self::Repository];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Tag => "tag",
            Self::Repository => "repository",
            Self::Client => "client",
        }
    }
}

/// A named set of clients.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) selectors: Box<[Selector]>,
}

impl Group {
    pub(super) fn holds(&self, identity: &PeerIdentity, effect: Effect) -> bool {
        self.selectors.iter().any(|selector| selector.matches(identity, effect))
    }
}

/// One compiled rule.
#[derive(Debug)]
pub struct Rule {
    pub(super) name: Arc<str>,
    pub(super) effect: Effect,
    pub(super) subjects: Subjects,
    pub(super) actions: Box<[Action]>,
    pub(super) repositories: Box<[RepositoryPattern]>,
    pub(super) tags: Box<[Wildcard]>,
}

/// Whom a rule concerns.
#[derive(Debug)]
pub(super) enum Subjects {
    /// Every verified client.
    Any,
    /// Members of these groups, by position.
    Groups(Box<[usize]>),
}

impl Rule {
    /// The name, by which decisions call the rule.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it allows or denies.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    fn covers_tag(&self, action: Action, tag: Option<&Tag>) -> bool {
        match tag {
            _ if self.tags.is_empty() => true,
            Some(tag) => self.tags.iter().any(|pattern| pattern.matches(tag.as_str())),
            // Blobs and manifests without a tag harm no tag. A delete by digest removes all of them, so the
            // right to delete some does not suffice, and a denial for some does.
            None => match action {
                Action::Delete => self.effect == Effect::Deny,
                _ => self.effect == Effect::Allow,
            },
        }
    }
}
