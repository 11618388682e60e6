//! From a policy file to a [`Policy`], or to everything that is wrong with it.

use std::collections::{BTreeMap, HashMap};

use crate::config::Fault;
use crate::config::policy::{ActionName, PolicyFile, RuleFile};
use crate::oci::Action;

use super::decide::{DEFAULT_DENY, PING_RULE};
use super::glob::Wildcard;
use super::limit;
use super::rule::{Group, Policy, Rule, Subjects};
use super::selector::Selector;
use super::suggest::did_you_mean;
use super::template::RepositoryPattern;

/// The subject that means every verified client.
pub(super) const ANY: &str = "any";
/// Longest name of a rule or group, in bytes: names stand in every access record and refusal.
const MAX_NAME: usize = 128;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;

/// Checks a policy file as a whole and compiles it.
///
/// # Errors
/// All faults of the file, each with its key. There is no half policy: one fault and nothing is compiled.
pub fn compile(file: &PolicyFile) -> Result<Policy, Vec<Fault>> {
    let mut faults = Vec::new();
    if file.groups_directory.is_some() {
        // Whoever reads the policy puts them among the others.
        faults.push(Fault::new("groups_directory", "the groups of the directory are not here: they were not read"));
    }
    let mut positions = BTreeMap::new();
    let mut groups = Vec::with_capacity(file.groups.len());
    for (position, (name, selectors)) in file.groups.iter().enumerate() {
        let path = format!("groups.{name}");
        check_group(name, selectors.is_empty(), &path, &mut faults);
        let selectors = selectors.iter().enumerate();
        let selectors = selectors.map(|(i, entry)| Selector::compile(entry, &format!("{path}[{i}]"), &mut faults));
        groups.push(Group { name: name.as_str().into(), selectors: selectors.collect() });
        positions.insert(name.as_str(), position);
    }
    let rules = file.rules.iter().enumerate();
    let rules = rules.map(|(i, rule)| compile_rule(rule, &format!("rules[{i}]"), &positions, &mut faults)).collect();
    check_rule_names(&file.rules, &mut faults);
    let limits = limit::compile(&file.limits, &positions, &mut faults);
    if faults.is_empty() { Ok(Policy::new(rules, groups).with_limits(limits)) } else { Err(faults) }
}

fn check_group(name: &str, empty: bool, path: &str, faults: &mut Vec<Fault>) {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name == ANY {
        faults.push(Fault::new(path, "is a name with a meaning of its own (every verified client): choose another"));
    } else if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
        faults.push(Fault::new(path, format!("group name must be 1 to {MAX_NAME} letters, digits, '_' or '-'")));
    }
    if empty {
        faults.push(Fault::new(path, "group has no selector and so no member: describe one or remove the group"));
    }
}

fn check_rule_names(rules: &[RuleFile], faults: &mut Vec<Fault>) {
    let mut seen = HashMap::new();
    for (position, RuleFile { name, .. }) in rules.iter().enumerate() {
        let path = format!("rules[{position}].name");
        let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if name.trim().is_empty() || name.len() > MAX_NAME || !name.bytes().all(printable) {
            faults.push(Fault::new(path, format!("must be 1 to {MAX_NAME} printable ASCII characters")));
        } else if name == PING_RULE || name == DEFAULT_DENY {
            faults.push(Fault::new(path, "is what decisions without a rule are called: choose another name"));
        } else if let Some(first) = seen.insert(name.as_str(), position) {
            faults
                .push(Fault::new(path, format!("\"{name}\" is also the name of rules[{first}]: names must be unique")));
        }
    }
}

fn compile_rule(rule: &RuleFile, path: &str, groups: &BTreeMap<&str, usize>, faults: &mut Vec<Fault>) -> Rule {
    if rule.actions.is_empty() {
        faults
            .push(Fault::new(format!("{path}.actions"), "is empty: name at least one of pull, push, delete, catalog"));
    }
    Rule {
        name: rule.name.as_str().into(),
        effect: rule.effect,
        subjects: compile_subjects(&rule.subjects, &format!("{path}.subjects"), groups, faults),
        actions: rule.actions.iter().map(|name| action(*name)).collect(),
        repositories: compile_repositories(rule, &format!("{path}.repositories"), faults),
        tags: compile_tags(rule, &format!("{path}.tags"), faults),
    }
}

pub(super) fn compile_subjects(
    subjects: &[String],
    path: &str,
    groups: &BTreeMap<&str, usize>,
    faults: &mut Vec<Fault>,
) -> Subjects {
    if subjects.is_empty() {
        faults.push(Fault::new(path, "is empty: name a group, or any for every verified client"));
    }
    if subjects.iter().any(|name| name == ANY) && subjects.len() > 1 {
        faults.push(Fault::new(path, "any already means every verified client: remove the other subjects, or any"));
    }
    let mut members = Vec::with_capacity(subjects.len());
    for (i, name) in subjects.iter().enumerate().filter(|(_, name)| *name != ANY) {
        if let Some(position) = groups.get(name.as_str()) {
            members.push(*position);
        } else {
            let hint = did_you_mean(name, groups.keys().copied().chain([ANY]));
            faults.push(Fault::new(format!("{path}[{i}]"), format!("unknown group \"{name}\"{hint}")));
        }
    }
    if subjects.iter().any(|name| name == ANY) { Subjects::Any } else { Subjects::Groups(members.into()) }
}

fn compile_repositories(rule: &RuleFile, path: &str, faults: &mut Vec<Fault>) -> Box<[RepositoryPattern]> {
    let only_catalog = !rule.actions.is_empty() && rule.actions.iter().all(|name| *name == ActionName::Catalog);
    let patterns = rule.repositories.as_deref().unwrap_or_default();
    if only_catalog && rule.repositories.is_some() {
        faults.push(Fault::new(path, "the catalog belongs to no repository: remove this key, or add another action"));
    } else if !only_catalog && patterns.is_empty() {
        faults.push(Fault::new(path, "name at least one repository pattern (\"**\" is every repository)"));
    }
    let mut compiled = Vec::with_capacity(patterns.len());
    for (i, pattern) in patterns.iter().enumerate() {
        match RepositoryPattern::parse(pattern) {
            Ok(pattern) => compiled.push(pattern),
            Err(message) => faults.push(Fault::new(format!("{path}[{i}]"), message)),
        }
    }
    compiled.into()
}

fn compile_tags(rule: &RuleFile, path: &str, faults: &mut Vec<Fault>) -> Box<[Wildcard]> {
    let Some(tags) = &rule.tags else { return Box::default() };
    let untagged = |name: &&ActionName| matches!(name, ActionName::Pull | ActionName::Catalog);
    if let Some(name) = rule.actions.iter().find(untagged) {
        let action = action(*name);
        let message = format!(
            "tags can't limit {action}: a pull by digest carries no tag. \
             Put {action} into a rule of its own, without tags"
        );
        faults.push(Fault::new(path, message));
    }
    if tags.is_empty() {
        faults.push(Fault::new(path, "is empty: remove the key for all tags, or name a pattern"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'*');
    for (i, tag) in tags.iter().enumerate() {
        let pattern = Wildcard::new(tag);
        if tag.is_empty() || tag.starts_with(['.', '-']) || pattern.shortest() > MAX_TAG || !tag.bytes().all(allowed) {
            let message = format!(
                "\"{tag}\" can't match any tag: letters, digits, '_', '.', '-' and *, not starting with '.' or '-'"
            );
            faults.push(Fault::new(format!("{path}[{i}]"), message));
        }
    }
    tags.iter().map(|tag| Wildcard::new(tag)).collect()
}

pub(super) fn action(name: ActionName) -> Action {
    match name {
        ActionName::Pull => Action::Pull,
        ActionName::Push => Action::Push,
        ActionName::Delete => Action::Delete,
        ActionName::Catalog => Action::Catalog,
    }
}
