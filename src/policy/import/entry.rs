//! One entry of the list.

use serde_json::Value;

use super::account::AccountIs;
use super::pattern::{self, Tokens};
use crate::config::Fault;
use crate::policy::pattern::{meet, texts_meet};

/// What an entry gives, as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Actions(u8);

impl Actions {
    pub(super) const PULL: Self = Self(1);
    pub(super) const PUSH: Self = Self(2);
    pub(super) const DELETE: Self = Self(4);
    pub(super) const CATALOG: Self = Self(8);
    pub(super) const REPOSITORY: Self = Self(1 | 2 | 4);

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.both(other) == other
    }

    fn of_word(word: &str) -> Option<Self> {
        match word {
            "pull" => Some(Self::PULL),
            "push" => Some(Self::PUSH),
            "delete" => Some(Self::DELETE),
            "*" => Some(Self::CATALOG),
            _ => None,
        }
    }
}

/// Whom an entry is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Accounts {
    /// Whoever asks, with an account or without.
    Everyone,
    /// Who has no account: nobody here, since nothing is granted to those.
    Nobody,
    /// Accounts like these, in which `*` is any run of characters.
    Like(Vec<String>),
    /// It can't be said.
    Unknown,
}

impl Accounts {
    fn may_meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nobody, _) | (_, Self::Nobody) => false,
            (Self::Like(one), Self::Like(other)) => {
                one.iter().any(|one| other.iter().any(|other| texts_meet(one, other)))
            }
            _ => true,
        }
    }
}

/// An entry, as docker_auth reads it. Where it can't be carried over, what it matches is rather too much than too little.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it stands.
    pub(super) path: String,
    pub(super) comment: Option<String>,
    pub(super) accounts: Accounts,
    /// Patterns as a policy has them; none if it is about no repository.
    pub(super) repositories: Vec<String>,
    /// Whether it may be about the catalog.
    pub(super) catalog: bool,
    pub(super) actions: Actions,
    /// Whether rules would be about fewer clients than the entry is.
    pub(super) is_narrow: bool,
    /// Why it can't be carried over.
    pub(super) fault: Option<Fault>,
    /// Why what it gives can't be granted, while what it denies can be denied.
    pub(super) ungranted: Option<Fault>,
    pub(super) remarks: Vec<Fault>,
}

impl Entry {
    pub(super) fn read(value: &Value, path: String, account_is: &AccountIs) -> Self {
        let mut entry = Self {
            comment: value.get("comment").and_then(Value::as_str).map(str::to_owned),
            accounts: Accounts::Everyone,
            repositories: vec!["**".to_owned()],
            catalog: true,
            actions: Actions::default(),
            is_narrow: false,
            fault: None,
            ungranted: None,
            remarks: Vec::new(),
            path,
        };
        let Some(keys) = value.as_object() else {
            entry.actions = Actions::REPOSITORY.with(Actions::CATALOG);
            entry.lose("", "this is no entry with match and actions");
            return entry;
        };
        for key in keys.keys().filter(|key| !["match", "actions", "comment"].contains(&key.as_str())) {
            entry.lose(&format!(".{key}"), "unknown key: docker_auth ignores it; see what it was to be");
        }
        entry.read_actions(keys.get("actions"));
        match keys.get("match") {
            None | Some(Value::Null) => entry.read_match(&serde_json::Map::new(), account_is),
            Some(Value::Object(conditions)) => entry.read_match(conditions, account_is),
            Some(_) => entry.lose(".match", "this is no list of conditions"),
        }
        entry.ungranted = entry.to_nameless(account_is).then(|| {
            let why = "not carried over: there is no pattern for any name of this kind, so it would be for clients \
                       without one, too";
            Fault::new(&*entry.path, why)
        });
        entry
    }

    /// Whether a rule that grants what this does would be for clients without an account as well.
    fn to_nameless(&self, account_is: &AccountIs) -> bool {
        // A placeholder takes only those who have the name.
        let open = self.repositories.iter().any(|pattern| !pattern.contains("${"));
        let gives = (open && !self.actions.both(Actions::REPOSITORY).is_empty())
            || (self.catalog && self.actions.contains(Actions::CATALOG));
        self.accounts == Accounts::Everyone && gives && account_is.anybody().is_none()
    }

    /// What both this entry and the other one may decide.
    pub(super) fn common(&self, other: &Self) -> Actions {
        let plain = |pattern: &String| without_placeholders(pattern);
        if !self.accounts.may_meet(&other.accounts) {
            return Actions::default();
        }
        let others: Vec<_> = other.repositories.iter().map(plain).collect();
        let meet = self.repositories.iter().map(plain).any(|one| others.iter().any(|other| meet(&one, other)));
        let repository = if meet { Actions::REPOSITORY } else { Actions::default() };
        repository.with(if self.catalog && other.catalog { Actions::CATALOG } else { Actions::default() })
    }

    /// The first reason stays.
    fn lose(&mut self, key: &str, why: impl Into<String>) {
        let path = format!("{}{key}", self.path);
        self.fault.get_or_insert_with(|| Fault::new(path, format!("not carried over: {}", why.into())));
    }

    fn remark(&mut self, key: &str, what: impl Into<String>) {
        self.remarks.push(Fault::new(format!("{}{key}", self.path), what));
    }

    fn read_actions(&mut self, value: Option<&Value>) {
        let words: Option<Vec<&str>> = match value {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(words)) => words.iter().map(Value::as_str).collect(),
            Some(_) => None,
        };
        let Some(words) = words else {
            self.actions = Actions::REPOSITORY.with(Actions::CATALOG);
            return self.lose(".actions", "this is no list of actions");
        };
        if words == ["*"] {
            self.actions = Actions::REPOSITORY.with(Actions::CATALOG);
            return;
        }
        for word in words {
            match Actions::of_word(word) {
                Some(action) => self.actions = self.actions.with(action),
                None => self.remark(".actions", format!("\"{word}\" is no action of a registry, and is left out")),
            }
        }
    }

    fn read_match(&mut self, conditions: &serde_json::Map<String, Value>, account_is: &AccountIs) {
        for (key, value) in conditions {
            match key.as_str() {
                "account" | "type" | "name" => {}
                "service" if value.is_null() || matches_all(value) => {}
                "service" => self.lose(".match.service", "a policy knows no service: it is for all of the gateway"),
                "ip" if value.is_null() => {}
                "ip" => self.lose(".match.ip", "write a rule for this address range by hand"),
                "labels" if value.as_object().is_none_or(serde_json::Map::is_empty) => {}
                "labels" => self.lose(
                    ".match.labels",
                    "labels come from docker_auth's users; describe these clients by a group instead",
                ),
                unknown => self.lose(
                    &format!(".match.{unknown}"),
                    "unknown key: docker_auth ignores it, and the entry matches everyone whom its other keys match; this may \
                     be granting more than was meant, so see what it was to be",
                ),
            }
        }
        if conditions.is_empty() {
            self.remark(".match", "this entry is about everyone and everything");
        }
        self.read_type(conditions.get("type"));
        self.read_name(conditions.get("name"), account_is);
        self.read_account(conditions.get("account"), account_is);
    }

    fn read_type(&mut self, value: Option<&Value>) {
        let Some(tokens) = self.tokens(".match.type", value) else { return };
        let is = |word: &str| tokens.iter().any(|tokens| pattern::matches(tokens, word) != Some(false));
        self.catalog = is("registry");
        if !is("repository") {
            self.repositories.clear();
        }
        if !self.catalog && self.repositories.is_empty() {
            self.remark(".match.type", "there is nothing of this type in a registry; the entry decides nothing");
        }
    }

    fn read_name(&mut self, value: Option<&Value>, account_is: &AccountIs) {
        let Some(tokens) = self.tokens(".match.name", value) else { return };
        let is_catalog: Vec<_> = tokens.iter().map(|tokens| pattern::matches(tokens, "catalog")).collect();
        self.catalog &= is_catalog.iter().any(|is| *is != Some(false));
        if self.catalog && is_catalog.iter().all(|is| *is != Some(true)) {
            self.lose(".match.name", "it would be about the catalog for an account of that name; give it a type");
        }
        if self.repositories.is_empty() {
            return;
        }
        let placeholder = account_is.placeholder();
        let mut patterns = Vec::new();
        for tokens in &tokens {
            match pattern::repositories(tokens, placeholder.as_deref()) {
                Ok(more) => patterns.extend(more),
                Err(why) => return self.lose(".match.name", why),
            }
        }
        if patterns.is_empty() {
            self.remark(".match.name", "no repository has such a name");
        }
        self.repositories = patterns;
    }

    fn read_account(&mut self, value: Option<&Value>, account_is: &AccountIs) {
        let Some(tokens) = self.tokens(".match.account", value) else {
            if value.is_some_and(|value| !value.is_null()) {
                self.accounts = Accounts::Unknown;
            }
            return;
        };
        if tokens.iter().all(Vec::is_empty) {
            self.accounts = Accounts::Nobody;
            let what = "nothing is granted to clients without an account; the entry decides nothing";
            return self.remark(".match.account", what);
        }
        let mut like = Vec::new();
        for tokens in tokens.iter().filter(|tokens| !tokens.is_empty()) {
            match pattern::text(tokens) {
                Ok(text) => like.push(text),
                Err(why) => {
                    self.accounts = Accounts::Unknown;
                    return self.lose(".match.account", why);
                }
            }
        }
        if like.iter().any(|text| text == "*") && account_is.anybody().is_none() {
            self.accounts = Accounts::Everyone;
            return;
        }
        self.accounts = Accounts::Like(like.clone());
        for text in &like {
            match account_is.check(text) {
                Ok(narrow) => self.is_narrow |= narrow,
                Err(why) => return self.lose(".match.account", why),
            }
        }
    }

    /// The tokens of a value; none if it is absent, or can't be read, which is noted.
    fn tokens(&mut self, key: &str, value: Option<&Value>) -> Option<Vec<Tokens>> {
        let text = match value? {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            // docker_auth keeps it as it is written: 0755, 1e3, 1.0. Here that is gone.
            Value::Number(_) | Value::Bool(_) => {
                self.lose(key, "this is no text as it stands: put it in quotes");
                return None;
            }
            _ => {
                self.lose(key, "this is no text");
                return None;
            }
        };
        match pattern::read(&text) {
            Ok(tokens) => Some(tokens),
            Err(why) => {
                self.lose(key, why);
                None
            }
        }
    }
}

fn matches_all(value: &Value) -> bool {
    value.as_str().is_some_and(|text| matches!(text, "*" | "/.*/" | "/.+/" | "/^.*$/" | "/^.+$/"))
}

/// A pattern with stars in place of the values that its placeholders could have.
fn without_placeholders(pattern: &str) -> String {
    let segment = |segment: &str| match segment.split_once("${") {
        Some((before, rest)) => format!("{before}*{}", rest.split_once('}').map_or("", |(_, after)| after)),
        None => segment.to_owned(),
    };
    pattern.split('/').map(segment).collect::<Vec<_>>().join("/")
}
