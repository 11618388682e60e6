//! The compiled policy: groups, rules, and which rules a request can concern.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::policy::Effect;
use crate::identity::PeerIdentity;
use crate::oci::{Access, Action, Tag};

use super::actions::{Actions, Wanted};
use super::decide::{Facts, IMMUTABLE_RULE, PING_RULE};
use super::glob::Wildcard;
use super::immutable::ImmutableTags;
use super::index::{Index, Positions};
use super::limit::Limit;
use super::selector::Selector;
use super::standing::Standing;
use super::template::{RepositoryPattern, Source};
use super::when::When;

/// A policy that was checked as a whole. Immutable; share it behind an `Arc`.
#[derive(Debug)]
pub struct Policy {
    /// Different for each policy of the process.
    pub(super) id: u64,
    pub(super) rules: Vec<Rule>,
    pub(super) groups: Vec<Group>,
    pub(super) limits: Vec<Limit>,
    /// Where the values of the rules' placeholders come from.
    pub(super) sources: Vec<Source>,
    pub(super) immutable: ImmutableTags,
    pub(super) index: Index,
    looks_at_tags: bool,
    /// Names of what decides beside the rules.
    pub(super) ping: Arc<str>,
    pub(super) immutable_rule: Arc<str>,
}

impl Policy {
    pub(super) fn new(rules: Vec<Rule>, groups: Vec<Group>, sources: Vec<Source>, immutable: ImmutableTags) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            index: Index::of(&rules),
            looks_at_tags: !immutable.is_empty() || rules.iter().any(Rule::tells_overwrite_from_push),
            rules,
            groups,
            limits: Vec::new(),
            sources,
            immutable,
            ping: PING_RULE.into(),
            immutable_rule: IMMUTABLE_RULE.into(),
        }
    }

    pub(super) fn with_limits(self, limits: Vec<Limit>) -> Self {
        Self { limits, ..self }
    }

    /// The rules, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Whether the answer to any push of a tag can depend on whether the tag exists. If not, none need be looked up, and
    /// pushes of one tag need not wait for each other.
    #[must_use]
    pub fn looks_at_tags(&self) -> bool {
        self.looks_at_tags
    }

    pub(super) fn rule(&self, position: u32) -> Option<&Rule> {
        usize::try_from(position).ok().and_then(|position| self.rules.get(position))
    }

    /// The first rule of the file that denies, and the first that allows.
    pub(super) fn first_matches(&self, question: &Question<'_>) -> (Option<&Rule>, Option<&Rule>) {
        let (mut denies, mut allows) = (None, None);
        match question.access.repository {
            Some(name) => self.index.of_repository(name.as_str(), |list, below| {
                let matches = |rule: &Rule, pattern: usize| {
                    let values = question.standing.values(rule.effect);
                    let pattern = rule.repositories.get(pattern);
                    pattern.is_some_and(|pattern| pattern.matches_below(below, values, rule.effect))
                };
                denies = self.earlier(denies, &list.denying, question, Effect::Deny, matches);
                allows = self.earlier(allows, &list.allowing, question, Effect::Allow, matches);
            }),
            None => {
                let catalog = self.index.catalog();
                denies = self.earlier(denies, &catalog.denying, question, Effect::Deny, |_, _| true);
                allows = self.earlier(allows, &catalog.allowing, question, Effect::Allow, |_, _| true);
            }
        }
        (denies.map(|(_, rule)| rule), allows.map(|(_, rule)| rule))
    }

    /// The first rule of a list that matches, if it stands before one that was found in another list. `matches` tells
    /// whether a pattern of a rule, by its position, does.
    fn earlier<'p>(
        &'p self,
        found: Option<(u32, &'p Rule)>,
        list: &Positions,
        question: &Question<'_>,
        effect: Effect,
        matches: impl Fn(&Rule, usize) -> bool,
    ) -> Option<(u32, &'p Rule)> {
        for candidate in question.standing.narrow(effect, list) {
            // Ascending: after a rule that matched in another list none of this one matters.
            if found.is_some_and(|(before, _)| before < candidate.rule) {
                break;
            }
            let met = |rule: &&Rule| question.is_met_by(rule, |rule| matches(rule, candidate.pattern));
            if let Some(rule) = self.rule(candidate.rule).filter(met) {
                return Some((candidate.rule, rule));
            }
        }
        found
    }

    pub(super) fn groups_of(&self, positions: &[usize]) -> impl Iterator<Item = &Group> {
        positions.iter().filter_map(|position| self.groups.get(*position))
    }
}

/// What a rule is asked: may this client have this access, as far as this one of its tags is concerned?
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) facts: &'a Facts<'a>,
    /// The identity's, with the policy that is asked.
    pub(super) standing: &'a Standing,
    pub(super) access: &'a Access<'a>,
    /// None for an access without tags.
    pub(super) tag: Option<&'a Tag>,
    /// Whether the tag exists.
    pub(super) exists: bool,
    wanted: Wanted,
}

impl<'a> Question<'a> {
    pub(super) fn new(
        facts: &'a Facts<'a>,
        standing: &'a Standing,
        access: &'a Access<'a>,
        tag: Option<&'a Tag>,
        exists: bool,
    ) -> Self {
        Self { facts, standing, access, tag, exists, wanted: Wanted::by(access.action, exists) }
    }

    /// What is to be done, in the policy's terms.
    pub(super) fn action(&self) -> Action {
        if self.exists && self.access.action == Action::Push { Action::Overwrite } else { self.access.action }
    }

    /// The actions of which a rule must have one.
    pub(super) fn wanted(&self, effect: Effect) -> Actions {
        match effect {
            Effect::Allow => self.wanted.allow,
            Effect::Deny => self.wanted.deny,
        }
    }

    /// Whether a rule matches: all its aspects fit, the repository as `is_there` finds. What is compared most quickly comes
    /// first.
    #[inline]
    fn is_met_by(&self, rule: &Rule, is_there: impl Fn(&Rule) -> bool) -> bool {
        self.fits(rule, Aspect::Action)
            && self.fits(rule, Aspect::Client)
            && self.fits(rule, Aspect::Tag)
            && is_there(rule)
            && self.fits(rule, Aspect::When)
    }

    /// Whether one aspect of a rule fits.
    #[inline]
    pub(super) fn fits(&self, rule: &Rule, aspect: Aspect) -> bool {
        match aspect {
            Aspect::Action => rule.actions.meets(self.wanted(rule.effect)),
            Aspect::Client => self.standing.includes(rule),
            Aspect::Tag => rule.covers_tag(self.access.action, self.tag),
            Aspect::Repository => self.access.repository.is_none_or(|name| {
                let values = self.standing.values(rule.effect);
                rule.repositories.iter().any(|pattern| pattern.matches(name, values, rule.effect))
            }),
            Aspect::When => rule.when.as_ref().is_none_or(|when| when.holds(self.facts, rule.effect)),
        }
    }
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
    /// Under which circumstances.
    When,
}

impl Aspect {
    /// All aspects.
    pub const ALL: [Self; 5] = [Self::Action, Self::Client, Self::Tag, Self::Repository, Self::When];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Tag => "tag",
            Self::Repository => "repository",
            Self::Client => "client",
            Self::When => "when",
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
    pub(super) actions: Actions,
    pub(super) subjects: Subjects,
    pub(super) repositories: Box<[RepositoryPattern]>,
    pub(super) tags: Box<[Wildcard]>,
    pub(super) when: Option<Box<When>>,
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

    /// Whether the rule says something else to a push of a tag that exists than to one of a new tag.
    fn tells_overwrite_from_push(&self) -> bool {
        let (push, overwrite) = (self.actions.contains(Action::Push), self.actions.contains(Action::Overwrite));
        match self.effect {
            Effect::Allow => push != overwrite,
            Effect::Deny => overwrite && !push,
        }
    }
}
