//! All keys of the configuration as a page of tables, written from the docs of the file model.
//!
//! `docs/configuration.md` is this text; a test keeps the two equal.

use std::fmt::Write as _;

use serde_json::Value as Schema;

use super::model::Config;
use super::reference::{choices, description, flow, object, properties, resolve, schema};

/// The keys, besides the names and addresses of listeners, whose changes wait for the next start.
pub(crate) const FIXED: [&str; 8] =
    ["threads", "health", "admin.address", "access_log", "audit_log", "log", "limits", "state_directory"];

const INTRODUCTION: &str = "\
# Every key of the configuration

Written from the program's own model of the file; [conf/portcullis.yaml](../conf/portcullis.yaml) is the same as a file to start
from, and `portcullis schema config` is for editors. The policy has a page of its own: [policy.md](policy.md).

*time* is written `500ms`, `30s`, `5m`, `12h`; *size* `64KiB`, `4MiB`, `1GiB`. Relative paths start at the directory of the file. What
changes at the *start* waits for `portcullis upgrade` or a restart, and a reload warns of it; all else is in force as soon as the file has
changed. A key that isn't here is an error.
";

/// The page.
#[must_use]
pub fn table() -> String {
    let root = schema::<Config>();
    let mut page = INTRODUCTION.to_owned();
    let (sections, plain): (Vec<_>, Vec<_>) =
        properties(&root).partition(|(_, property)| nested(&root, property).is_some());
    heading(&mut page, "Keys without a section", "");
    for (key, property) in plain {
        row(&mut page, &root, &Key { path: key.clone(), property, required: required(&root, key) });
    }
    for (key, property) in sections {
        let mark = if required(&root, key) { " Required." } else { "" };
        heading(&mut page, &format!("`{key}`"), &format!("{}{mark}", description(property)));
        // Writing to a String can't fail.
        _ = rows(&mut page, &root, key, property);
    }
    page
}

struct Key<'s> {
    path: String,
    property: &'s Schema,
    required: bool,
}

fn heading(page: &mut String, name: &str, text: &str) {
    let text = if text.is_empty() { String::new() } else { format!("{}\n\n", cell(text)) };
    _ = write!(page, "\n## {name}\n\n{text}| key | what it may be | default | changes at | |\n|---|---|---|---|---|\n");
}

/// The keys of a property that is a mapping, or a list of them, and their keys in turn.
fn rows<'s>(page: &mut String, root: &'s Schema, path: &str, property: &'s Schema) -> Option<()> {
    let (object, list) = nested(root, property)?;
    let path = if list { format!("{path}[]") } else { path.to_owned() };
    for (key, property) in properties(object) {
        let key = Key { path: format!("{path}.{key}"), property, required: required(object, key) };
        let is_section = nested(root, property).is_some();
        // A section that is always there is told by its keys.
        if !is_section
            || property.get("default").is_some_and(|default| !default.is_object())
            || !description(property).is_empty()
        {
            row(page, root, &key);
        }
        if is_section {
            rows(page, root, &key.path, property);
        }
    }
    Some(())
}

fn row(page: &mut String, root: &Schema, key: &Key<'_>) {
    let default = match key.property.get("default") {
        _ if key.required => "required".to_owned(),
        None | Some(Schema::Object(_)) => String::new(),
        Some(value) => format!("`{}`", cell(&flow(value))),
    };
    let mut text = cell(description(key.property));
    for choice in choices(root, key.property) {
        let word = choice["const"].as_str().unwrap_or_default();
        _ = write!(text, " `{word}`: {}", cell(description(choice)));
    }
    let when = if is_fixed(&key.path) { "start" } else { "reload" };
    let kind = cell(&kind(root, key.property));
    _ = writeln!(page, "| `{}` | {kind} | {default} | {when} | {text} |", key.path);
}

/// What a value may be, in a word or two.
fn kind(root: &Schema, property: &Schema) -> String {
    if let Some((_, list)) = nested(root, property) {
        return if list { "list" } else { "mapping" }.to_owned();
    }
    let words: Vec<_> = choices(root, property).filter_map(|choice| choice["const"].as_str()).collect();
    if !words.is_empty() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    let resolved = resolve(root, property);
    let types = &resolved["type"];
    let is = |name: &str| types == name || types.as_array().is_some_and(|all| all.iter().any(|one| one == name));
    if is("array") {
        return format!("list of {}", kind(root, &resolved["items"]));
    }
    match resolved["format"].as_str() {
        Some("duration") => "time".to_owned(),
        Some("size" | "bytes" | "byte-size") => "size".to_owned(),
        _ if is("boolean") => "`true`, `false`".to_owned(),
        _ if is("integer") => {
            let from = resolved["minimum"].as_u64().unwrap_or(0);
            resolved["maximum"]
                .as_u64()
                .map_or_else(|| format!("number from {from}"), |to| format!("number, {from} to {to}"))
        }
        _ => "text".to_owned(),
    }
}

/// The mapping that a property is, or is a list of (`true`).
fn nested<'s>(root: &'s Schema, property: &'s Schema) -> Option<(&'s Schema, bool)> {
    let items = || property.get("items").and_then(|items| object(root, items));
    object(root, property).map(|object| (object, false)).or_else(|| items().map(|object| (object, true)))
}

fn required(schema: &Schema, key: &str) -> bool {
    schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == key))
}

fn is_fixed(path: &str) -> bool {
    let within = |key: &str| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    FIXED.into_iter().any(within) || matches!(path, "listeners[].name" | "listeners[].addresses")
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_page_of_all_keys_is_what_the_docs_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, table()).expect("docs/configuration.md is written");
        }
        let shipped = std::fs::read_to_string(&path).expect("docs/configuration.md");
        assert!(shipped == table(), "the docs have changed: run UPDATE_REFERENCE=1 cargo test --lib table");
    }

    #[test]
    fn keys_are_told_with_kind_default_and_time_of_change() {
        let page = table();
        for row in [
            "| `threads` | number, 0 to 1024 | `0` | start |",
            "| `policy` | text | required | reload |",
            "| `listeners[].addresses` | list of text | required | start |",
            "| `listeners[].tls.client_ca` | text | required | reload |",
            "| `limits.handshake_timeout` | time | `10s` | start |",
            "| `limits.max_head` | size | `32KiB` | start |",
            "| `revocation.freshness` | `required`, `optional` | `required` | reload |",
            "| `shared_limits.redis.timeout` | time | `250ms` | reload |",
        ] {
            assert!(page.contains(row), "{row}\n{page}");
        }
    }

    #[test]
    fn what_is_said_to_change_at_the_start_is_what_the_docs_say() {
        for (key, property) in properties(&schema::<Config>()) {
            let said = description(property).contains("restart");
            assert!(!said || is_fixed(key), "{key}");
        }
    }
}
