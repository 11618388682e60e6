//! The policy as a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::account::AccountIs;
use super::entry::{Accounts, Actions, Entry};
use crate::config::policy::Effect;

/// Longest name of a rule: what is left of a comment.
const MAX_NAME: usize = 100;

/// Writes the accepted entries, and denials where entries behind one would give what it doesn't.
pub(super) fn policy(entries: &[Entry], accepted: &[bool], limits: &[Actions], account_is: &AccountIs) -> String {
    let mut groups = Groups { account_is, selectors: BTreeMap::new() };
    let mut rules = String::new();
    for (position, entry) in entries.iter().enumerate() {
        if entry.accounts == Accounts::Nobody {
            continue;
        }
        let granted = if accepted.get(position) == Some(&true) { entry.actions } else { Actions::default() };
        let limit = limits.get(position).copied().unwrap_or_default();
        let name = entry.name(position);
        for (name, actions, effect) in
            [(name.clone(), granted, Effect::Allow), (format!("{name}: no more"), limit, Effect::Deny)]
        {
            rule(&mut rules, entry, &name, actions, effect, &mut groups);
        }
    }
    let mut file = String::from(
        "# From a docker_auth ACL. What could not be carried over was reported when this was made.\n#\n# Where the CA bundle \
         holds several authorities, add issuer: { CN: … } to the groups.\n#\n# A client without the name that \
         stands for the account is granted nothing.\n",
    );
    // Writing to a String can't fail.
    if !groups.selectors.is_empty() {
        file.push_str("\ngroups:\n");
        for (name, selectors) in &groups.selectors {
            _ = writeln!(file, "  {name}:");
            selectors.iter().for_each(|selector| _ = writeln!(file, "    - {selector}"));
        }
    }
    if rules.is_empty() {
        file.push_str("\nrules: []\n");
    } else {
        _ = write!(file, "\nrules:\n{rules}");
    }
    file
}

impl Entry {
    /// Unique, and telling what the entry was called.
    fn name(&self, position: usize) -> String {
        let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
        let comment: String =
            self.comment.iter().flat_map(|text| text.chars()).filter(printable).take(MAX_NAME).collect();
        format!("acl {position} {comment}").trim().to_owned()
    }
}

fn rule(rules: &mut String, entry: &Entry, name: &str, actions: Actions, effect: Effect, groups: &mut Groups<'_>) {
    let mut words = Vec::new();
    if !entry.repositories.is_empty() {
        // There, who may push may push again.
        let in_repositories =
            [(Actions::PULL, "pull"), (Actions::PUSH, "push, overwrite"), (Actions::DELETE, "delete")];
        words.extend(in_repositories.into_iter().filter(|(action, _)| actions.contains(*action)).map(|(_, word)| word));
    }
    let repositories = !words.is_empty();
    if entry.catalog && actions.contains(Actions::CATALOG) {
        words.push("catalog");
    }
    if words.is_empty() {
        return;
    }
    let (subject, effect) = match effect {
        Effect::Allow => (groups.granted(&entry.accounts), "allow"),
        Effect::Deny => (groups.of(&entry.accounts), "deny"),
    };
    _ = writeln!(rules, "  - name: {}\n    subjects: [{subject}]", quoted(name));
    if repositories {
        let patterns: Vec<_> = entry.repositories.iter().map(|pattern| quoted(pattern)).collect();
        _ = writeln!(rules, "    repositories: [{}]", patterns.join(", "));
    }
    _ = writeln!(rules, "    actions: [{}]\n    effect: {effect}", words.join(", "));
}

/// The groups that rules name, with the lines of their selectors.
struct Groups<'a> {
    account_is: &'a AccountIs,
    selectors: BTreeMap<String, Vec<String>>,
}

impl Groups<'_> {
    /// The group of these accounts, as far as they are accounts: everyone is all who have the name.
    fn granted(&mut self, accounts: &Accounts) -> String {
        match (accounts, self.account_is.anybody()) {
            (Accounts::Everyone, Some(text)) => self.of(&Accounts::Like(vec![text.to_owned()])),
            // Without such a pattern a placeholder in the repositories sees to it.
            _ => self.of(accounts),
        }
    }

    /// The group of these accounts.
    fn of(&mut self, accounts: &Accounts) -> String {
        let Accounts::Like(texts) = accounts else { return "any".to_owned() };
        let selectors: Vec<_> = texts.iter().map(|text| self.selector(text)).collect();
        let known = self.selectors.iter().find(|(_, known)| **known == selectors).map(|(name, _)| name.clone());
        known.unwrap_or_else(|| {
            let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
            let text: String = texts.join("-").chars().map(plain).take(MAX_NAME).collect();
            let text = text.trim_matches('-');
            let base = if text.is_empty() { "accounts".to_owned() } else { format!("account-{text}") };
            let others = 1 + self.selectors.keys().filter(|name| name.starts_with(&base)).count();
            let name = if others == 1 { base } else { format!("{base}-{others}") };
            self.selectors.insert(name.clone(), selectors);
            name
        })
    }

    fn selector(&self, text: &str) -> String {
        match self.account_is {
            AccountIs::CommonName => format!("subject: {{ CN: {} }}", quoted(text)),
            AccountIs::Dns => format!("dns: {}", quoted(text)),
            AccountIs::Email => format!("email: {}", quoted(text)),
            AccountIs::Uri(template) => format!("uri: {}", quoted(&template.replace("${account}", text))),
        }
    }
}

/// A text in double quotes, which YAML reads as JSON does.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
