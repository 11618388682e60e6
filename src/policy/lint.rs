//! What is doubtful about a policy that can be used: rules that decide nothing, groups that nobody names, and grants
//! that go further than their author may think.
//!
//! It works on what the file says. Whatever it reports is so: where patterns can't be compared with certainty it says
//! nothing. So a rule that only several others together make superfluous isn't found, nor one about clients that two
//! groups describe in different words.

use std::collections::BTreeSet;

use crate::config::Fault;
use crate::config::policy::{ActionName, Effect, PolicyFile, RuleFile, SelectorFile};

use super::compile::{ANY, action};
use super::pattern;

/// Most names that one finding lists.
const MAX_LISTED: usize = 8;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// What is doubtful.
    pub kind: Kind,
    /// Where, and why.
    pub fault: Fault,
    /// What to do about it.
    pub hint: &'static str,
}

/// What can be doubtful about a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A rule that another one covers, which stands before it and has the same effect.
    Unreachable,
    /// A rule that allows what another one denies altogether.
    Denied,
    /// A group that no rule names.
    UnusedGroup,
    /// Two rules of opposite effect that meet. Policies are made of such pairs; the denial is to be meant.
    Overlap,
    /// Every client may change something, or may do something everywhere.
    GrantToEveryone,
    /// A description that several authorities could issue a certificate for.
    SharedIdentity,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::UnusedGroup => "unused_group",
            Self::Overlap => "overlap",
            Self::GrantToEveryone => "grant_to_everyone",
            Self::SharedIdentity => "shared_identity",
        }
    }

    /// Whether it is likely a mistake, rather than something to have a look at.
    #[must_use]
    pub fn is_warning(self) -> bool {
        self != Self::Overlap
    }
}

/// Looks a policy over that compiles. `authorities` are the names of the independent authorities whose clients are let
/// in, as far as they are known.
#[must_use]
pub fn lint(file: &PolicyFile, authorities: &[String]) -> Vec<Lint> {
    let rules: Vec<_> = file.rules.iter().map(Subject::of).collect();
    let mut lints = Vec::new();
    for (position, rule) in rules.iter().enumerate() {
        let earlier = rules.iter().take(position).enumerate();
        if let Some((other, by)) = earlier.into_iter().find(|(_, other)| other.covers(rule)) {
            lints.push(unreachable(position, rule, other, by));
        } else if let Some((other, by)) = rules.iter().enumerate().find(|(_, other)| other.denies_all_of(rule)) {
            lints.push(denied(position, rule, other, by));
        }
        lints.extend(rule.to_everyone(position));
        lints.extend(overlap(position, rule, &rules));
    }
    lints.extend(unused_groups(file));
    if authorities.len() > 1 {
        lints.extend(shared_identities(file, authorities));
    }
    lints
}

/// A rule, seen as the set of questions that it matches.
struct Subject<'f> {
    file: &'f RuleFile,
    /// None for any.
    groups: Option<BTreeSet<&'f str>>,
}

impl<'f> Subject<'f> {
    fn of(file: &'f RuleFile) -> Self {
        let any = file.subjects.iter().any(|name| name == ANY);
        Self { file, groups: (!any).then(|| file.subjects.iter().map(String::as_str).collect()) }
    }

    /// Whether this rule matches whatever the other one does, and both do the same to it.
    fn covers(&self, other: &Self) -> bool {
        // Every key is named here, so that a new one is thought of.
        let RuleFile { name: _, subjects: _, repositories: _, actions, effect, tags, when } = self.file;
        *effect == other.file.effect
            && other.file.actions.iter().all(|action| actions.contains(action))
            && self.holds_clients_of(other)
            && tags_cover(tags, &other.file.tags)
            && (when.is_none() || *when == other.file.when)
            && self.holds_repositories_of(other)
    }

    /// Whether this rule denies whatever the other one allows.
    fn denies_all_of(&self, other: &Self) -> bool {
        let RuleFile { name: _, subjects: _, repositories: _, actions, effect, tags, when } = self.file;
        // What has no tag is pushed under a rule with tags, too, and no denial of tags concerns it.
        let only_tagged = other.file.actions.iter().all(|action| *action == ActionName::Delete);
        let tags_covered = tags.is_none() || (only_tagged && tags_cover(tags, &other.file.tags));
        *effect == Effect::Deny
            && other.file.effect == Effect::Allow
            && other.file.actions.iter().all(|action| actions.contains(action))
            && self.holds_clients_of(other)
            && tags_covered
            // Where circumstances aren't known, a denial sees no fewer of them given than a grant.
            && (when.is_none() || *when == other.file.when)
            && self.holds_repositories_of(other)
    }

    /// Whoever the other rule is about, this one is. A rule that denies sees no less of a client than one that allows.
    fn holds_clients_of(&self, other: &Self) -> bool {
        match (&self.groups, &other.groups) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(groups), Some(others)) => others.is_subset(groups),
        }
    }

    fn holds_repositories_of(&self, other: &Self) -> bool {
        // What a name in braces captures depends on the groups.
        let same_values = self.groups == other.groups;
        other.repositories().iter().all(|pattern| {
            self.repositories()
                .iter()
                .any(|covering| pattern::covers(covering, pattern) && (same_values || !pattern::has_captures(covering)))
        })
    }

    /// The actions and repositories that both rules are about with certainty, if this one denies and the other allows.
    fn meets(&self, other: &Self) -> bool {
        let (denial, grant) = (self.file, other.file);
        let clients = match (&self.groups, &other.groups) {
            (Some(groups), Some(others)) => !groups.is_disjoint(others),
            _ => true,
        };
        let shared: Vec<_> = grant.actions.iter().filter(|action| denial.actions.contains(action)).collect();
        let tags = match (&denial.tags, &grant.tags) {
            (Some(denied), Some(allowed)) => {
                denied.iter().any(|pattern| allowed.iter().any(|tag| pattern::texts_meet(pattern, tag)))
            }
            _ => true,
        };
        let catalog = shared.contains(&&ActionName::Catalog);
        let in_repositories = shared.iter().any(|action| **action != ActionName::Catalog)
            && self
                .repositories()
                .iter()
                .any(|pattern| other.repositories().iter().any(|allowed| pattern::meet(pattern, allowed)));
        clients && tags && (catalog || in_repositories)
    }

    fn repositories(&self) -> &[String] {
        self.file.repositories.as_deref().unwrap_or_default()
    }

    /// What this rule gives to everyone, if that is much.
    fn to_everyone(&self, position: usize) -> Option<Lint> {
        if self.groups.is_some() || self.file.effect == Effect::Deny {
            return None;
        }
        let changing =
            |name: &&ActionName| !matches!(name, ActionName::Pull | ActionName::MountFrom | ActionName::Catalog);
        let changes: Vec<_> = self.file.actions.iter().filter(changing).map(|name| action(*name).as_str()).collect();
        // A placeholder gives each client what is its own.
        let open: Vec<_> = self.repositories().iter().map(String::as_str).filter(|one| !one.contains("${")).collect();
        let everywhere = open.contains(&"**");
        let what = if !changes.is_empty() && !open.is_empty() {
            format!("{} in {}", changes.join(", "), listed(open.into_iter()))
        } else if everywhere {
            "pull every repository".to_owned()
        } else {
            return None;
        };
        Some(Lint {
            kind: Kind::GrantToEveryone,
            fault: Fault::new(
                format!("rules[{position}].subjects"),
                format!("rule \"{}\" lets every client with a verified certificate {what}", self.file.name),
            ),
            hint: "name the groups that are meant",
        })
    }
}

/// Whether every tag of the second list is one of the first, where no list is all tags.
fn tags_cover(covering: &Option<Vec<String>>, tags: &Option<Vec<String>>) -> bool {
    match (covering, tags) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(covering), Some(tags)) => {
            tags.iter().all(|tag| covering.iter().any(|pattern| pattern::text_covers(pattern, tag)))
        }
    }
}

fn unreachable(position: usize, rule: &Subject<'_>, other: usize, by: &Subject<'_>) -> Lint {
    Lint {
        kind: Kind::Unreachable,
        fault: Fault::new(
            format!("rules[{position}]"),
            format!(
                "rule \"{}\" never decides: \"{}\" (rules[{other}]) stands before it and covers all of it",
                rule.file.name, by.file.name
            ),
        ),
        hint: "remove it, or narrow the other one",
    }
}

fn denied(position: usize, rule: &Subject<'_>, other: usize, by: &Subject<'_>) -> Lint {
    Lint {
        kind: Kind::Denied,
        fault: Fault::new(
            format!("rules[{position}]"),
            format!(
                "rule \"{}\" allows nothing: \"{}\" (rules[{other}]) denies all of it",
                rule.file.name, by.file.name
            ),
        ),
        hint: "remove it, or narrow the other one; a rule that denies wins wherever it stands",
    }
}

/// What a rule that denies takes from rules that allow, but for those that it leaves nothing.
fn overlap(position: usize, rule: &Subject<'_>, rules: &[Subject<'_>]) -> Option<Lint> {
    if rule.file.effect == Effect::Allow {
        return None;
    }
    let grants = rules.iter().filter(|other| other.file.effect == Effect::Allow);
    let met = grants.filter(|other| rule.meets(other) && !rule.denies_all_of(other));
    let names: Vec<_> = met.map(|other| other.file.name.as_str()).collect();
    (!names.is_empty()).then(|| Lint {
        kind: Kind::Overlap,
        fault: Fault::new(
            format!("rules[{position}]"),
            format!("rule \"{}\" denies a part of what is allowed by {}", rule.file.name, listed(names.into_iter())),
        ),
        hint: "see that this is meant; a rule that denies wins wherever it stands",
    })
}

fn unused_groups(file: &PolicyFile) -> impl Iterator<Item = Lint> {
    // Every key is named here, so that a new one that names groups is thought of.
    let PolicyFile { groups, groups_directory: _, rules, limits, immutable_tags: _ } = file;
    let of_limits = limits.iter().flat_map(|limit| limit.subjects.iter().chain(&limit.except));
    let used: BTreeSet<_> = rules.iter().flat_map(|rule| &rule.subjects).chain(of_limits).collect();
    groups.keys().filter(move |name| !used.contains(name)).map(|name| Lint {
        kind: Kind::UnusedGroup,
        fault: Fault::new(format!("groups.{name}"), format!("no rule names the group \"{name}\"")),
        hint: "remove it, or name it in the subjects of a rule",
    })
}

/// Descriptions by which something is granted and that say nothing about who must have issued the certificate.
fn shared_identities(file: &PolicyFile, authorities: &[String]) -> Vec<Lint> {
    let granting = file.rules.iter().filter(|rule| rule.effect == Effect::Allow);
    let granted: BTreeSet<_> = granting.flat_map(|rule| &rule.subjects).collect();
    let mut lints = Vec::new();
    for (name, selectors) in file.groups.iter().filter(|(name, _)| granted.contains(name)) {
        for (i, _) in selectors.iter().enumerate().filter(|(_, selector)| is_open(selector)) {
            let message = format!(
                "{} authorities could issue a certificate that this describes: {}",
                authorities.len(),
                listed(authorities.iter().map(String::as_str))
            );
            lints.push(Lint {
                kind: Kind::SharedIdentity,
                fault: Fault::new(format!("groups.{name}[{i}]"), message),
                hint: "say whose is meant: issuer: { CN: … }",
            });
        }
    }
    lints
}

/// Whether it takes certificates of any issuer.
fn is_open(selector: &SelectorFile) -> bool {
    selector.issuer.is_none() && selector.fingerprint.is_none() && selector.spki.is_none()
}

/// The first few of several names.
fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(MAX_LISTED);
    names.truncate(MAX_LISTED);
    let line = names.join(", ");
    if more > 0 { format!("{line}, {more} more") } else { line }
}

#[cfg(test)]
mod tests;
