//! The compiled policy: groups, rules, and which rules a request can concern.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::policy::Effect;
use crate::identity::PeerIdentity;
use crate::oci::{Access, Action, Tag};

use super::glob::Wildcard;
use super::selector::Selector;
use super::template::RepositoryPattern;

/// A policy that was checked as a whole. Immutable; share it behind an `Arc`.
#[derive(Debug)]
pub struct Policy {
    pub(super) rules: Vec<Rule>,
    pub(super) groups: Vec<Group>,
    allowing: Index,
    denying: Index,
    pub(super) ping: Arc<str>,
}

impl Policy {
    pub(super) fn new(rules: Vec<Rule>, groups: Vec<Group>) -> Self {
        let allowing = Index::of(&rules, Effect::Allow);
        let denying = Index::of(&rules, Effect::Deny);
        Self { rules, groups, allowing, denying, ping: super::decide::PING_RULE.into() }
    }

    /// The rules, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The first rule with this effect that matches.
    pub(super) fn first_match(&self, effect: Effect, question: &Question<'_>) -> Option<&Rule> {
        let index = match effect {
            Effect::Allow => &self.allowing,
            Effect::Deny => &self.denying,
        };
        index
            .candidates(question.access)
            .filter_map(|position| self.rules.get(position))
            .find(|rule| Aspect::ALL.into_iter().all(|aspect| self.holds(rule, aspect, question)))
    }

    /// Whether one aspect of a rule fits; the rule matches when all of them do.
    pub(super) fn holds(&self, rule: &Rule, aspect: Aspect, question: &Question<'_>) -> bool {
        let Question { identity, access, tag } = question;
        match aspect {
            Aspect::Action => rule.actions.contains(&access.action),
            Aspect::Tag => rule.covers_tag(access.action, *tag),
            Aspect::Repository => access.repository.is_none_or(|name| {
                rule.repositories.iter().any(|pattern| pattern.matches(name, identity, rule.effect))
            }),
            Aspect::Client => match &rule.subjects {
                Subjects::Any => true,
                Subjects::Groups(groups) => self.groups_of(groups).any(|group| group.holds(identity, rule.effect)),
            },
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
    pub(super) access: &'a Access<'a>,
    /// None for an access without tags.
    pub(super) tag: Option<&'a Tag>,
}

/// What must fit for a rule to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// What is to be done.
    Action,
    /// The tag that is written or removed.
    Tag,
    /// Where.
    Repository,
    /// By whom.
    Client,
}

impl Aspect {
    /// All aspects, the one that is compared most quickly first.
    pub const ALL: [Self; 4] = [Self::Action, Self::Tag, Self::Repository, Self::Client];

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
    pub(super) name: Box<str>,
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

/// Positions of the rules of one effect, by what their repositories begin with, so that a decision looks at few of
/// them.
#[derive(Debug, Default)]
struct Index {
    by_first_segment: HashMap<Box<str>, Vec<usize>>,
    elsewhere: Vec<usize>,
    catalog: Vec<usize>,
}

impl Index {
    fn of(rules: &[Rule], effect: Effect) -> Self {
        let mut index = Self::default();
        for (position, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.effect == effect) {
            if rule.actions.contains(&Action::Catalog) {
                index.catalog.push(position);
            }
            for pattern in &rule.repositories {
                let positions = match pattern.first_segment() {
                    Some(segment) => index.by_first_segment.entry(segment.into()).or_default(),
                    None => &mut index.elsewhere,
                };
                if positions.last() != Some(&position) {
                    positions.push(position);
                }
            }
        }
        index
    }

    /// Positions in ascending order, so that the first match is the first of the file.
    fn candidates(&self, access: &Access<'_>) -> impl Iterator<Item = usize> {
        let (mut left, mut right) = match access.repository {
            None => (self.catalog.as_slice(), [].as_slice()),
            Some(name) => {
                let first = name.as_str().split('/').next().unwrap_or_default();
                (self.by_first_segment.get(first).map_or([].as_slice(), Vec::as_slice), self.elsewhere.as_slice())
            }
        };
        std::iter::from_fn(move || {
            let from = match (left.first(), right.first()) {
                (Some(one), Some(other)) if one <= other => &mut left,
                (Some(_), None) => &mut left,
                _ => &mut right,
            };
            let (next, rest) = from.split_first()?;
            *from = rest;
            Some(*next)
        })
    }
}
