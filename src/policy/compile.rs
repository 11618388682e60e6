//! From a policy file to a [`Policy`], or to everything that is wrong with it.

use std::collections::{BTreeMap, HashMap};

use crate::config::Fault;
use crate::config::policy::{ActionName, ImmutableTagsFile, PolicyFile, RuleFile};
use crate::oci::Action;

use super::actions::Actions;
use super::decide::RESERVED;
use super::glob::Wildcard;
use super::immutable::{Entry, ImmutableTags};
use super::limit;
use super::rule::{Group, Policy, Rule, Subjects};
use super::selector::Selector;
use super::suggest::did_you_mean;
use super::template::{Placeholder, RepositoryPattern, Source, unknown};

mod when;

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
    let mut compiler = Compiler::default();
    if file.groups_directory.is_some() {
        // Whoever reads the policy puts them among the others.
        compiler.fault("groups_directory", "the groups of the directory are not here: they were not read");
    }
    for (name, selectors) in &file.groups {
        let path = format!("groups.{name}");
        let faults = &mut compiler.faults;
        check_group(name, selectors.is_empty(), &path, faults);
        let selectors = selectors.iter().enumerate();
        let selectors = selectors.map(|(i, entry)| Selector::compile(entry, &format!("{path}[{i}]"), faults)).collect();
        compiler.positions.insert(name.as_str(), compiler.groups.len());
        compiler.groups.push(Group { name: name.as_str().into(), selectors });
    }
    let rules = file.rules.iter().enumerate();
    let rules = rules.map(|(i, rule)| compiler.rule(rule, &format!("rules[{i}]"))).collect();
    check_rule_names(&file.rules, &mut compiler.faults);
    let immutable = file.immutable_tags.iter().enumerate();
    let immutable = immutable.map(|(i, entry)| compiler.immutable(entry, &format!("immutable_tags[{i}]"))).collect();
    let limits = limit::compile(&file.limits, &compiler.positions, &mut compiler.faults);
    let Compiler { groups, sources, faults, .. } = compiler;
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut sources: Vec<_> = sources.into_iter().collect();
    sources.sort_unstable_by_key(|(_, position)| *position);
    let sources = sources.into_iter().map(|(source, _)| source).collect();
    Ok(Policy::new(rules, groups, sources, ImmutableTags::new(immutable)).with_limits(limits))
}

/// What is known of a file so far.
#[derive(Default)]
struct Compiler<'f> {
    groups: Vec<Group>,
    /// The groups' positions.
    positions: BTreeMap<&'f str, usize>,
    /// The placeholders' sources with their positions.
    sources: HashMap<Source, usize>,
    faults: Vec<Fault>,
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
        } else if RESERVED.contains(&name.as_str()) {
            faults.push(Fault::new(path, "is what decisions without a rule are called: choose another name"));
        } else if let Some(first) = seen.insert(name.as_str(), position) {
            faults
                .push(Fault::new(path, format!("\"{name}\" is also the name of rules[{first}]: names must be unique")));
        }
    }
}

impl Compiler<'_> {
    fn fault(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.faults.push(Fault::new(path, message));
    }

    fn rule(&mut self, rule: &RuleFile, path: &str) -> Rule {
        if rule.actions.is_empty() {
            let known = Actions::of(Action::ALL);
            self.fault(format!("{path}.actions"), format!("is empty: name at least one of {known}"));
        }
        let subjects = compile_subjects(&rule.subjects, &format!("{path}.subjects"), &self.positions, &mut self.faults);
        let repositories = self.repositories(rule, &subjects, &format!("{path}.repositories"));
        let tags = self.tags(rule, &format!("{path}.tags"));
        let when = rule.when.as_ref().map(|when| when::compile(when, &format!("{path}.when"), &mut self.faults));
        Rule {
            name: rule.name.as_str().into(),
            effect: rule.effect,
            actions: Actions::of(rule.actions.iter().map(|name| action(*name))),
            subjects,
            repositories,
            tags,
            when: when.map(Box::new),
        }
    }

    fn repositories(&mut self, rule: &RuleFile, subjects: &Subjects, path: &str) -> Box<[RepositoryPattern]> {
        let only_catalog = !rule.actions.is_empty() && rule.actions.iter().all(|name| *name == ActionName::Catalog);
        let patterns = rule.repositories.as_deref().unwrap_or_default();
        if only_catalog && rule.repositories.is_some() {
            self.fault(path, "the catalog belongs to no repository: remove this key, or add another action");
        } else if !only_catalog && patterns.is_empty() {
            self.fault(path, "name at least one repository pattern (\"**\" is every repository)");
        }
        let mut compiled = Vec::with_capacity(patterns.len());
        for (i, pattern) in patterns.iter().enumerate() {
            match RepositoryPattern::parse(pattern, &mut |name| self.source(name, subjects)) {
                Ok(pattern) => compiled.push(pattern),
                Err(message) => self.fault(format!("{path}[{i}]"), message),
            }
        }
        compiled.into()
    }

    /// The source of a placeholder, by what stands in its braces. Names of captures hold no dot, those of the
    /// certificate's values do.
    fn source(&mut self, name: &str, subjects: &Subjects) -> Result<usize, String> {
        let source = if name.contains('.') {
            Source::Certificate(Placeholder::parse(name)?)
        } else {
            Source::Capture { name: name.into(), groups: self.capturing(name, subjects)?.into() }
        };
        let next = self.sources.len();
        Ok(*self.sources.entry(source).or_insert(next))
    }

    /// The groups of a rule, all of whose selectors must capture the name: for a client that one describes without, the
    /// rule would match nothing, or everything, and nobody would have said so.
    fn capturing<'s>(&self, name: &str, subjects: &'s Subjects) -> Result<&'s [usize], String> {
        let Subjects::Groups(positions) = subjects else {
            let message = unknown(name, []);
            return Err(format!("{message}: the rule is for any client, and only selectors of groups capture"));
        };
        let groups = || positions.iter().filter_map(|position| self.groups.get(*position));
        let captures = |selector: &Selector| selector.captures().any(|capture| capture == name);
        let all = groups().flat_map(|group| &group.selectors);
        if !all.clone().any(captures) {
            let message = unknown(name, all.flat_map(Selector::captures));
            return Err(format!("{message}: no selector of the rule's groups captures it"));
        }
        for group in groups() {
            if let Some(i) = group.selectors.iter().position(|selector| !captures(selector)) {
                let group = &group.name;
                return Err(format!(
                    "\"${{{name}}}\" is not captured by groups.{group}[{i}]: every selector of the rule's groups must"
                ));
            }
        }
        Ok(positions)
    }

    fn tags(&mut self, rule: &RuleFile, path: &str) -> Box<[Wildcard]> {
        let Some(tags) = &rule.tags else { return Box::default() };
        let untagged =
            |name: &&ActionName| matches!(name, ActionName::Pull | ActionName::MountFrom | ActionName::Catalog);
        if let Some(name) = rule.actions.iter().find(untagged) {
            let action = action(*name);
            let message = format!(
                "tags can't limit {action}: a pull by digest carries no tag. \
                 Put {action} into a rule of its own, without tags"
            );
            self.fault(path, message);
        }
        self.tag_patterns(tags, path, "remove the key for all tags, or name a pattern")
    }

    fn tag_patterns(&mut self, tags: &[String], path: &str, if_empty: &str) -> Box<[Wildcard]> {
        if tags.is_empty() {
            self.fault(path, format!("is empty: {if_empty}"));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'*');
        for (i, tag) in tags.iter().enumerate() {
            let shortest = Wildcard::new(tag).shortest();
            if tag.is_empty() || tag.starts_with(['.', '-']) || shortest > MAX_TAG || !tag.bytes().all(allowed) {
                let message = format!(
                    "\"{tag}\" can't match any tag: letters, digits, '_', '.', '-' and *, not starting with '.' or '-'"
                );
                self.fault(format!("{path}[{i}]"), message);
            }
        }
        tags.iter().map(|tag| Wildcard::new(tag)).collect()
    }

    fn immutable(&mut self, file: &ImmutableTagsFile, path: &str) -> Entry {
        if file.repositories.is_empty() {
            let message = "is empty: name at least one repository pattern (\"**\" is every repository)";
            self.fault(format!("{path}.repositories"), message);
        }
        let mut repositories = Vec::with_capacity(file.repositories.len());
        let mut valueless = |name: &str| {
            Err(format!("\"${{{name}}}\" has no value here: these tags are immutable for everybody, whoever that is"))
        };
        for (i, pattern) in file.repositories.iter().enumerate() {
            match RepositoryPattern::parse(pattern, &mut valueless) {
                Ok(pattern) => repositories.push(pattern),
                Err(message) => self.fault(format!("{path}.repositories[{i}]"), message),
            }
        }
        let tags = self.tag_patterns(&file.tags, &format!("{path}.tags"), "name a pattern (\"*\" is every tag)");
        let except = match file.except.as_slice() {
            [] => Box::default(),
            except => self.tag_patterns(except, &format!("{path}.except"), ""),
        };
        Entry { repositories: repositories.into(), tags, except }
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

pub(super) fn action(name: ActionName) -> Action {
    match name {
        ActionName::Pull => Action::Pull,
        ActionName::Push => Action::Push,
        ActionName::Overwrite => Action::Overwrite,
        ActionName::MountFrom => Action::MountFrom,
        ActionName::Delete => Action::Delete,
        ActionName::Catalog => Action::Catalog,
    }
}
