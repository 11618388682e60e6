//! Holds a value against a JSON Schema and finds every mistake, not only the first.
//!
//! It knows what `schemars` writes for serde types and no more: a keyword that isn't known here is not checked, and
//! serde still refuses what it can't read. The words are for the author of the file.

use serde_json::{Map, Value as Schema};
use serde_yaml::{Mapping, Value};

use super::suggest::suggest;
use crate::config::fault::Fault;
use crate::config::units::{ByteSize, HumanDuration, Shown};

/// What the schema says about a value.
pub struct Checked {
    /// Every mistake, up to the limit.
    pub faults: Vec<Fault>,
    /// The value without its faulty parts where their keys can be left out, so that what else is wrong with it can be
    /// found in the same run. None if a faulty part is needed.
    pub usable: Option<Value>,
}

/// Checks `value`, for `limit` faults at most.
pub fn check(value: &Value, schema: &Schema, limit: usize) -> Checked {
    let mut checker = Checker { root: schema, path: String::new(), faults: Vec::new(), limit };
    let usable = checker.value(value, schema);
    Checked { faults: checker.faults, usable }
}

struct Checker<'s> {
    /// Holds the definitions that references name.
    root: &'s Schema,
    /// Where the walk is.
    path: String,
    faults: Vec<Fault>,
    limit: usize,
}

impl<'s> Checker<'s> {
    /// Recurses as deep as the value, which the event parser has bounded. Returns what of the value can be used.
    fn value(&mut self, value: &Value, schema: &'s Schema) -> Option<Value> {
        if self.faults.len() >= self.limit {
            return None;
        }
        let schema = self.resolve(schema);
        let branches = self.branches(schema);
        if branches.is_empty() {
            return self.typed(value, schema);
        }
        let words = choices(&branches);
        if words.len() == branches.len() {
            return self.choice(value, &words);
        }
        let fits: Vec<_> = branches.iter().copied().filter(|branch| accepts(branch, value)).collect();
        match fits.as_slice() {
            [] => {
                let expected: Vec<_> = branches.iter().flat_map(|branch| types(branch)).collect();
                self.wrong_type(value, &expected, None)
            }
            [only] => self.value(value, only),
            several => self.closest(value, several),
        }
    }

    /// Of several forms that a value could have, the one with the fewest faults is the one its author meant.
    fn closest(&mut self, value: &Value, branches: &[&'s Schema]) -> Option<Value> {
        let attempts = branches.iter().map(|branch| {
            let mut attempt =
                Checker { root: self.root, path: self.path.clone(), faults: Vec::new(), limit: self.limit };
            let usable = attempt.value(value, branch);
            (attempt.faults, usable)
        });
        let (faults, usable) = attempts.min_by_key(|(faults, _)| faults.len())?;
        self.faults.extend(faults);
        usable
    }

    fn typed(&mut self, value: &Value, schema: &'s Schema) -> Option<Value> {
        if !accepts(schema, value) {
            let format = schema.get("format").and_then(Schema::as_str);
            return self.wrong_type(value, &types(schema), format);
        }
        let words = choices(&[schema]);
        if !words.is_empty() && !value.is_null() {
            return self.choice(value, &words);
        }
        match value {
            Value::Mapping(entries) => self.mapping(entries, schema).map(Value::Mapping),
            Value::Sequence(items) => self.sequence(items, schema).map(Value::Sequence),
            Value::String(text) => self.text(text, schema).then(|| value.clone()),
            Value::Number(number) => self.number(number, schema).then(|| value.clone()),
            Value::Null | Value::Bool(_) | Value::Tagged(_) => Some(value.clone()),
        }
    }

    fn mapping(&mut self, entries: &Mapping, schema: &'s Schema) -> Option<Mapping> {
        let mut usable = Some(Mapping::new());
        for (key, value) in entries {
            if self.faults.len() >= self.limit {
                return None;
            }
            let Value::String(name) = key else {
                self.fault(format!("the key {} must be text; put it in quotes", scalar(key)));
                continue;
            };
            let known = property(schema, name);
            let needed = is_required(schema, name) || known.is_none();
            match self.entry(name, value, schema, known) {
                Entry::Unknown => {}
                Entry::Known(Some(value)) => {
                    usable.as_mut().map(|usable| usable.insert(key.clone(), value));
                }
                Entry::Known(None) if needed => usable = None,
                Entry::Known(None) => {}
            }
        }
        for key in required(schema).filter(|key| !entries.contains_key(*key)) {
            self.missing(key, schema, "missing");
            usable = None;
        }
        usable
    }

    fn entry(&mut self, key: &str, value: &Value, schema: &'s Schema, known: Option<&'s Schema>) -> Entry {
        if value.is_null() && is_required(schema, key) && known.is_some_and(|known| !self.accepts_null(known)) {
            self.missing(key, schema, "empty");
            return Entry::Known(None);
        }
        self.below(key, |checker| match (known, schema.get("additionalProperties")) {
            (Some(known), _) => Entry::Known(checker.value(value, known)),
            (None, Some(Schema::Bool(false))) => {
                let hint = suggest(key, properties(schema), |child| checker.resolve(child));
                checker.fault(format!("unknown key; {hint}"));
                Entry::Unknown
            }
            (None, Some(others @ Schema::Object(_))) => Entry::Known(checker.value(value, others)),
            (None, _) => Entry::Known(Some(value.clone())),
        })
    }

    fn missing(&mut self, key: &str, schema: &'s Schema, how: &str) {
        let about = property(schema, key).and_then(summary);
        let about = about.map(|about| format!(": {about}")).unwrap_or_default();
        self.below(key, |checker| checker.fault(format!("this key is required, and {how}{about}")));
    }

    fn sequence(&mut self, items: &[Value], schema: &'s Schema) -> Option<Vec<Value>> {
        if let Some(min) = schema.get("minItems").and_then(Schema::as_u64)
            && (items.len() as u64) < min
        {
            self.fault(format!("this list is too short; give at least {min}"));
            return None;
        }
        let Some(form) = schema.get("items") else { return Some(items.to_vec()) };
        let usable: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let end = self.path.len();
                self.path.push_str(&format!("[{index}]"));
                let usable = self.value(item, form);
                self.path.truncate(end);
                usable
            })
            .collect();
        // An entry can't be left out: the places of the others would change.
        usable.into_iter().collect()
    }

    fn text(&mut self, text: &str, schema: &'s Schema) -> bool {
        let result = match schema.get("format").and_then(Schema::as_str) {
            Some(HumanDuration::FORMAT) => HumanDuration::parse(text).map(drop),
            Some(ByteSize::FORMAT) => ByteSize::parse(text).map(drop),
            _ => Ok(()),
        };
        result.map_err(|message| self.fault(message)).is_ok()
    }

    fn number(&mut self, number: &serde_yaml::Number, schema: &'s Schema) -> bool {
        let bound = |name: &str| schema.get(name).and_then(Schema::as_f64);
        let given = number.as_f64().unwrap_or(f64::NAN);
        if let Some(min) = bound("minimum").filter(|&min| given < min) {
            self.fault(format!("{number} is too small; it must be at least {min}"));
            return false;
        }
        if let Some(max) = bound("maximum").filter(|&max| given > max) {
            self.fault(format!("{number} is too large; it must be at most {max}"));
            return false;
        }
        true
    }

    fn choice(&mut self, value: &Value, words: &[&str]) -> Option<Value> {
        if value.as_str().is_some_and(|text| words.contains(&text)) {
            return Some(value.clone());
        }
        let list = words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let given = scalar(value);
        let hint = if value.is_number() && words.contains(&given.as_str()) {
            "; put it in quotes".to_owned()
        } else {
            let text = value.as_str().unwrap_or_default();
            let near = words.iter().find(|word| strsim::damerau_levenshtein(&text.to_lowercase(), word) <= 2);
            near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
        };
        let shown = value.as_str().map_or(given, |text| Shown(text).to_string());
        self.fault(format!("expected one of {list}, found {shown}{hint}"));
        None
    }

    fn wrong_type(&mut self, value: &Value, expected: &[&str], format: Option<&str>) -> Option<Value> {
        let wanted = expected.iter().filter(|name| **name != "null").map(|name| match (*name, format) {
            ("string", Some(HumanDuration::FORMAT)) => "a time span with a unit, such as 30s",
            ("string", Some(ByteSize::FORMAT)) => "a size with a unit, such as 64KiB",
            ("string", _) => "text",
            ("integer", _) => "a whole number",
            ("number", _) => "a number",
            ("boolean", _) => "true or false",
            ("array", _) => "a list",
            ("object", _) => "a mapping (keys indented below this one)",
            _ => "nothing",
        });
        let mut wanted: Vec<&str> = wanted.collect();
        wanted.dedup();
        let hint = match value {
            Value::Number(_) | Value::Bool(_) if expected.contains(&"string") && format.is_none() => {
                "; put it in quotes"
            }
            Value::Null => "; remove the key to get its default, or set it",
            Value::String(_) | Value::Mapping(_) if expected.contains(&"array") => {
                "; start each entry on a line of its own with a dash"
            }
            _ => "",
        };
        self.fault(format!("expected {}, found {}{hint}", wanted.join(" or "), kind(value)));
        None
    }

    fn fault(&mut self, message: String) {
        if self.faults.len() < self.limit {
            self.faults.push(Fault::new(self.path.clone(), message));
        }
    }

    fn below<R>(&mut self, key: &str, walk: impl FnOnce(&mut Self) -> R) -> R {
        let end = self.path.len();
        if end > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        let result = walk(self);
        self.path.truncate(end);
        result
    }

    fn accepts_null(&self, schema: &'s Schema) -> bool {
        let schema = self.resolve(schema);
        let branches = self.branches(schema);
        accepts(schema, &Value::Null) && (branches.is_empty() || branches.iter().any(|one| accepts(one, &Value::Null)))
    }

    /// Follows a reference to a definition. Ours never lead from one reference to another, so one step is enough.
    fn resolve(&self, schema: &'s Schema) -> &'s Schema {
        let target = schema.get("$ref").and_then(Schema::as_str).and_then(|target| target.strip_prefix('#'));
        target.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }

    /// The alternatives of a schema, references followed; none for a schema without alternatives.
    fn branches(&self, schema: &'s Schema) -> Vec<&'s Schema> {
        let list = ["anyOf", "oneOf"].iter().find_map(|name| schema.get(*name)?.as_array());
        let resolved = list.into_iter().flatten().map(|branch| self.resolve(branch));
        // An optional enum is an alternative of alternatives.
        resolved
            .flat_map(|branch| {
                let inner = self.branches(branch);
                if inner.is_empty() { vec![branch] } else { inner }
            })
            .collect()
    }
}

/// What became of a key and its value.
enum Entry {
    /// The key is none of those allowed.
    Unknown,
    /// What of the value can be used.
    Known(Option<Value>),
}

/// The type names a schema allows; none is every type.
fn types(schema: &Schema) -> Vec<&str> {
    match schema.get("type") {
        Some(Schema::String(name)) => vec![name],
        Some(Schema::Array(names)) => names.iter().filter_map(Schema::as_str).collect(),
        _ if schema.get("const").is_some_and(Schema::is_string) => vec!["string"],
        _ => Vec::new(),
    }
}

fn properties(schema: &Schema) -> Option<&Map<String, Schema>> {
    schema.get("properties").and_then(Schema::as_object)
}

fn property<'s>(schema: &'s Schema, key: &str) -> Option<&'s Schema> {
    properties(schema)?.get(key)
}

fn required(schema: &Schema) -> impl Iterator<Item = &str> {
    let keys = schema.get("required").and_then(Schema::as_array);
    keys.into_iter().flatten().filter_map(Schema::as_str)
}

fn is_required(schema: &Schema, key: &str) -> bool {
    required(schema).any(|required| required == key)
}

fn accepts(schema: &Schema, value: &Value) -> bool {
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|name| match value {
            Value::Null => *name == "null",
            Value::Bool(_) => *name == "boolean",
            // A word that YAML takes for a number (1.2) is answered with the list of words.
            Value::Number(number) => *name == "number" || (*name == "integer" && !number.is_f64()),
            Value::String(_) => *name == "string",
            Value::Sequence(_) => *name == "array",
            Value::Mapping(_) => *name == "object",
            Value::Tagged(_) => false,
        })
}

/// The words that schemas allow in the form of `const` or `enum`.
fn choices<'s>(schemas: &[&'s Schema]) -> Vec<&'s str> {
    let words = |schema: &&'s Schema| {
        let several = schema.get("enum").and_then(Schema::as_array).into_iter().flatten();
        schema.get("const").into_iter().chain(several).filter_map(Schema::as_str).collect::<Vec<_>>()
    };
    schemas.iter().flat_map(words).collect()
}

/// The first sentence of a schema's description.
fn summary(schema: &Schema) -> Option<String> {
    let text = schema.get("description")?.as_str()?;
    let first = text.split("\n\n").next()?.replace('\n', " ");
    Some(first.split(". ").next()?.trim_end_matches('.').to_owned())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}

/// A value in a few words. Numbers and truth values show; they are never secrets.
fn scalar(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        other => kind(other).to_owned(),
    }
}
