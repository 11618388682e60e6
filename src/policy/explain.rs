//! Why a decision came out as it did.
//!
//! Nothing is evaluated in a second way here. The decision is [`Policy::decide_route`]'s own, the rule that made it
//! comes from what `decide` asks, and whether an aspect of a rule fits is answered by the function that `decide` calls.
//! What is added are the words, and that every rule is asked for every aspect, where a decision stops at the first that
//! settles it.

use std::fmt::Write as _;

use crate::config::policy::Effect;
use crate::identity::PeerIdentity;
use crate::oci::{Action, RepoName, Route, Tag};

use super::decide::{By, Decision, Facts, tags_of};
use super::rule::{Aspect, Policy, Question, Rule, Subjects};
use super::selector::Selector;
use super::standing::Standing;
use super::template::RepositoryPattern;

/// Most descriptions or patterns that one finding lists.
const MAX_LISTED: usize = 8;

/// A decision with everything that led to it.
#[derive(Debug)]
pub struct Explanation<'p> {
    /// The decision, as the gateway makes it.
    pub decision: Decision,
    /// The request that would be sent on: what was asked, without a mount that was refused.
    pub route: Route,
    /// Each right that `route` needs. None for a ping.
    pub steps: Vec<Step<'p>>,
    /// Where a mount was refused and the upload goes on without it: the rights that the mount needed.
    pub dropped_mount: Vec<Step<'p>>,
}

/// One right that the request needs, for one of the tags it concerns, and what each rule says to it.
#[derive(Debug)]
pub struct Step<'p> {
    /// What is to be done: `push` for a tag that doesn't exist, `overwrite` for one that does.
    pub action: Action,
    /// Where; none for the catalog.
    pub repository: Option<String>,
    /// The tag that is written or removed, if any.
    pub tag: Option<String>,
    /// Whether it is needed only if the tag exists, or only if it doesn't; none if that is known or makes no difference.
    pub only_if_exists: Option<bool>,
    /// Whether it is allowed.
    pub allowed: bool,
    /// What settled it.
    pub by: By<'p>,
    /// Every rule, in the order of the file.
    pub rules: Vec<RuleTrace<'p>>,
}

impl Step<'_> {
    /// The name of the rule that settled it, or of what did beside the rules.
    #[must_use]
    pub fn rule(&self) -> &str {
        self.by.name()
    }

    /// Whether it was this rule that settled it.
    #[must_use]
    pub fn is_settled_by(&self, rule: &Rule) -> bool {
        self.by.rule().is_some_and(|by| by.name() == rule.name())
    }
}

/// What one rule says to a step.
#[derive(Debug)]
pub struct RuleTrace<'p> {
    /// The rule.
    pub rule: &'p Rule,
    /// Each aspect, and whether it fits.
    pub findings: [Finding; Aspect::ALL.len()],
}

impl RuleTrace<'_> {
    /// Whether the rule matches: all aspects fit.
    #[must_use]
    pub fn matches(&self) -> bool {
        self.findings.iter().all(|finding| finding.holds)
    }
}

/// Whether one aspect of a rule fits, and why.
#[derive(Debug)]
pub struct Finding {
    /// The aspect.
    pub aspect: Aspect,
    /// Whether it fits.
    pub holds: bool,
    /// What the rule says, and what stands against it. One line.
    pub reason: String,
}

impl Policy {
    /// Decides like [`Policy::decide_route`] and says why. For people and tests: it allocates and asks every rule.
    #[must_use]
    pub fn explain(&self, route: Route, facts: &Facts<'_>) -> Explanation<'_> {
        let asked = route.has_mount().then(|| route.clone());
        let (route, decision) = self.decide_route(route, facts);
        let dropped = asked.filter(|_| !route.has_mount());
        let standing = self.standing(facts.identity);
        let dropped_mount = dropped.map(|asked| self.steps(&asked, facts, &standing)).unwrap_or_default();
        let steps = self.steps(&route, facts, &standing);
        Explanation { decision, route, steps, dropped_mount }
    }

    fn steps(&self, route: &Route, facts: &Facts<'_>, standing: &Standing) -> Vec<Step<'_>> {
        let mut steps = Vec::new();
        for access in route.accesses().as_ref() {
            for tag in tags_of(access) {
                let step = |exists| self.step(&Question::new(facts, standing, access, tag, exists));
                let pushed = tag.filter(|_| access.action == Action::Push);
                match pushed.map(|tag| facts.tags.exists(tag)) {
                    None => steps.push(step(false)),
                    Some(Some(exists)) => steps.push(step(exists)),
                    // As in a decision: where they differ, both count.
                    Some(None) => match [step(false), step(true)] {
                        [new, existing] if new.allowed == existing.allowed => steps.push(new),
                        [new, existing] => {
                            steps.push(Step { only_if_exists: Some(false), ..new });
                            steps.push(Step { only_if_exists: Some(true), ..existing });
                        }
                    },
                }
            }
        }
        steps
    }

    fn step(&self, question: &Question<'_>) -> Step<'_> {
        let answer = self.answer(question);
        Step {
            action: question.action(),
            repository: question.access.repository.map(ToString::to_string),
            tag: question.tag.map(ToString::to_string),
            only_if_exists: None,
            allowed: answer.is_ok(),
            by: answer.map_or_else(|refusing| refusing, By::Rule),
            rules: self.rules().map(|rule| self.trace(rule, question)).collect(),
        }
    }

    fn trace<'p>(&'p self, rule: &'p Rule, question: &Question<'_>) -> RuleTrace<'p> {
        let findings = Aspect::ALL.map(|aspect| {
            let holds = question.fits(rule, aspect);
            let reason = match aspect {
                Aspect::Action => about_action(rule, question, holds),
                Aspect::Tag => about_tag(rule, question.access.action, question.tag, holds),
                Aspect::Repository => match question.access.repository {
                    Some(name) => about_repository(rule, name, question.standing, holds),
                    None => "the catalog belongs to no repository".to_owned(),
                },
                Aspect::Client => self.about_client(rule, question.facts.identity, holds),
                Aspect::When => about_circumstances(rule, question.facts, holds),
            };
            Finding { aspect, holds, reason }
        });
        RuleTrace { rule, findings }
    }

    fn about_client(&self, rule: &Rule, identity: &PeerIdentity, holds: bool) -> String {
        let Subjects::Groups(positions) = &rule.subjects else {
            return "the rule is for any verified client".to_owned();
        };
        if holds {
            let entries = self.groups_of(positions).flat_map(|group| {
                let entries = group.selectors.iter().enumerate();
                entries.map(move |(i, selector)| (format!("{}[{i}]", group.name), selector))
            });
            let found = entries.into_iter().find(|(_, selector)| selector.matches(identity, rule.effect));
            return found.map_or_else(String::new, |(path, _)| format!("described by {path}"));
        }
        let missing = self.groups_of(positions).flat_map(|group| {
            let entries = group.selectors.iter().enumerate();
            entries
                .map(|(i, selector)| format!("{}[{i}] wants {}", group.name, wanted(selector, identity, rule.effect)))
        });
        format!("not described by {}", listed(missing, "; "))
    }
}

fn about_action(rule: &Rule, question: &Question<'_>, holds: bool) -> String {
    let wanted = question.wanted(rule.effect);
    match wanted.iter().find(|action| rule.actions.contains(*action)).filter(|_| holds) {
        Some(action) => format!("{action} is one of: {}", rule.actions),
        None => {
            let wanted: Vec<_> = wanted.iter().map(Action::as_str).collect();
            format!("{} is not one of: {}", wanted.join(" or "), rule.actions)
        }
    }
}

fn about_circumstances(rule: &Rule, facts: &Facts<'_>, holds: bool) -> String {
    match &rule.when {
        None => "the rule is for all circumstances".to_owned(),
        Some(when) if holds => listed(when.reasons(facts, rule.effect, true), ", "),
        Some(when) => format!("not given: {}", listed(when.reasons(facts, rule.effect, false), ", ")),
    }
}

fn about_tag(rule: &Rule, action: Action, tag: Option<&Tag>, holds: bool) -> String {
    let patterns = listed(rule.tags.iter().map(ToString::to_string), ", ");
    match tag {
        _ if rule.tags.is_empty() => "the rule is for all tags".to_owned(),
        Some(tag) if holds => format!("{tag} is one of: {patterns}"),
        Some(tag) => format!("{tag} is not one of: {patterns}"),
        None => match (action, rule.effect) {
            (Action::Delete, Effect::Allow) => {
                format!("a delete by digest removes every tag, and the rule allows only: {patterns}")
            }
            (Action::Delete, Effect::Deny) => format!("a delete by digest removes every tag, also: {patterns}"),
            (_, Effect::Allow) => "content without a tag needs no right to a tag".to_owned(),
            (_, Effect::Deny) => format!("content without a tag is none of: {patterns}"),
        },
    }
}

fn about_repository(rule: &Rule, name: &RepoName, standing: &Standing, holds: bool) -> String {
    let values = standing.values(rule.effect);
    let described = |pattern: &RepositoryPattern| {
        let mut text = pattern.to_string();
        for (placeholder, value) in pattern.values(values) {
            // Writing to a String can't fail.
            let _ = match value {
                Some(value) => write!(text, " ({placeholder} is {value})"),
                None => write!(text, " ({placeholder} has no usable value, or several)"),
            };
        }
        text
    };
    let fits = |pattern: &&RepositoryPattern| pattern.matches(name, values, rule.effect);
    match rule.repositories.iter().find(fits).filter(|_| holds) {
        Some(pattern) => format!("{name} fits {}", described(pattern)),
        None if rule.repositories.is_empty() => "the rule is for the catalog only".to_owned(),
        None => format!("{name} does not fit {}", listed(rule.repositories.iter().map(described), ", ")),
    }
}

fn wanted(selector: &Selector, identity: &PeerIdentity, effect: Effect) -> String {
    listed(selector.failing(identity, effect).map(ToString::to_string), " and ")
}

/// The first few of several texts.
fn listed(texts: impl Iterator<Item = String>, separator: &str) -> String {
    let mut texts: Vec<_> = texts.collect();
    let more = texts.len().saturating_sub(MAX_LISTED);
    texts.truncate(MAX_LISTED);
    let mut line = texts.join(separator);
    if more > 0 {
        let _ = write!(line, "{separator}{more} more");
    }
    line
}
