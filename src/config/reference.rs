//! The reference configuration, written from the docs of the file model.
//!
//! `conf/portcullis.yaml` is this text; a test keeps the two equal.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value as Schema;

use super::model::Config;

/// Columns of a comment, its indentation included.
const WIDTH: usize = 100;

const PREAMBLE: &str = "Every key stands here with its default. Those without one are marked (required), and their \
                        values are examples.";

/// A configuration file with every key, its documentation and its default.
#[must_use]
pub fn reference() -> String {
    let root = schema::<Config>();
    let mut page = Page { root: &root, text: String::new(), margin: String::new() };
    page.comment(description(&root));
    page.line("#");
    page.comment(PREAMBLE);
    page.mapping(&root);
    page.text
}

/// The JSON Schema of a file type, for editors and for checking.
pub(super) fn schema<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

struct Page<'s> {
    /// Holds the definitions that references name.
    root: &'s Schema,
    text: String,
    /// What each line starts with: indentation, and `# ` within a part that is commented out.
    margin: String,
}

impl<'s> Page<'s> {
    /// Every property of an object's schema.
    fn mapping(&mut self, schema: &'s Schema) {
        let mut plain = true;
        for (index, (key, property)) in properties(schema).enumerate() {
            // Sections are set apart, the keys of a small one are not.
            let after_plain = std::mem::replace(&mut plain, self.is_plain(property));
            if self.margin.is_empty() || (index > 0 && !(plain && after_plain)) {
                self.blank();
            }
            let required = schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == key));
            self.property(key, property, required);
        }
    }

    fn property(&mut self, key: &str, property: &'s Schema, required: bool) {
        let mark = if required { " (required)" } else { "" };
        self.comment(&format!("{}{mark}", description(property)));
        for choice in self.choices(property) {
            let word = choice["const"].as_str().unwrap_or_default();
            self.comment(&format!("- {word}: {}", description(choice)));
        }
        let nested = self.object(property);
        let items = property.get("items").and_then(|items| self.object(items));
        match (property.get("default"), nested, items) {
            (None | Some(Schema::Object(_)), Some(object), _) => self.section(key, object),
            (None, None, Some(object)) => self.list(key, object),
            (Some(default), Some(object), _) => {
                self.line(&format!("{key}: {}", flow(default)));
                self.commented(|page| page.section(key, object));
            }
            (Some(default), None, Some(object)) => {
                self.line(&format!("{key}: {}", flow(default)));
                self.commented(|page| page.list(key, object));
            }
            (default, None, None) => {
                let example = property["examples"].get(0);
                if let (Some(_), Some(example)) = (default, example) {
                    self.comment(&format!("Example: {}", flow(example)));
                }
                let value = default.or(example).map(flow).unwrap_or_default();
                self.line(&format!("{key}: {value}"));
            }
        }
    }

    fn section(&mut self, key: &str, object: &'s Schema) {
        self.line(&format!("{key}:"));
        self.indented("  ", |page| page.mapping(object));
    }

    /// A list with one entry, or with one for each alternative; the last of these shows the other keys.
    fn list(&mut self, key: &str, object: &'s Schema) {
        self.line(&format!("{key}:"));
        if let Some(alternatives) = object["x-alternatives"].as_array() {
            for (key, property) in properties(object) {
                let (margin, dash) =
                    if alternatives.iter().any(|one| one == key) { ("  ", "- ") } else { ("    ", "") };
                self.indented(margin, |page| {
                    page.comment(description(property));
                    let value = property["examples"].get(0).map(flow).unwrap_or_default();
                    page.line(&format!("{dash}{key}: {value}"));
                });
            }
            return;
        }
        let start = self.text.len();
        self.indented("    ", |page| page.mapping(object));
        // The dash goes before the first key's comment, in the two columns that are free there.
        let dash = start + self.margin.len() + "  ".len();
        self.text.replace_range(dash..=dash, "-");
    }

    fn commented(&mut self, write: impl FnOnce(&mut Self)) {
        self.indented("# ", write);
    }

    fn indented(&mut self, by: &str, write: impl FnOnce(&mut Self)) {
        let end = self.margin.len();
        self.margin.push_str(by);
        write(self);
        self.margin.truncate(end);
    }

    fn blank(&mut self) {
        let margin = self.margin.trim_end().to_owned();
        self.text.push_str(if margin.ends_with('#') { &margin } else { "" });
        self.text.push('\n');
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(&self.margin);
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Wraps `text` into comment lines.
    fn comment(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            let mut row = "#".to_owned();
            for word in paragraph.split_whitespace() {
                if self.margin.len() + row.len() + word.len() >= WIDTH {
                    self.line(&row);
                    row = "#".to_owned();
                }
                row.push(' ');
                row.push_str(word);
            }
            self.line(&row);
        }
    }

    /// Whether a property is written on one line.
    fn is_plain(&self, property: &'s Schema) -> bool {
        self.object(property).is_none() && property.get("items").and_then(|items| self.object(items)).is_none()
    }

    fn object(&self, property: &'s Schema) -> Option<&'s Schema> {
        object(self.root, property)
    }

    fn choices(&self, property: &'s Schema) -> impl Iterator<Item = &'s Schema> + use<'s> {
        choices(self.root, property)
    }
}

/// The object that a property is, or is when it isn't null.
pub(super) fn object<'s>(root: &'s Schema, property: &'s Schema) -> Option<&'s Schema> {
    let alternatives = property.get("anyOf").and_then(Schema::as_array).into_iter().flatten();
    let resolved = std::iter::once(property).chain(alternatives).map(|schema| resolve(root, schema));
    resolved.into_iter().find(|schema| schema.get("properties").is_some())
}

/// The documented words that a property may be.
pub(super) fn choices<'s>(root: &'s Schema, property: &'s Schema) -> impl Iterator<Item = &'s Schema> + use<'s> {
    resolve(root, property).get("oneOf").and_then(Schema::as_array).into_iter().flatten()
}

/// What a reference leads to.
pub(super) fn resolve<'s>(root: &'s Schema, schema: &'s Schema) -> &'s Schema {
    let target = schema["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    target.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

pub(super) fn properties(schema: &Schema) -> impl Iterator<Item = (&String, &Schema)> {
    schema["properties"].as_object().into_iter().flatten()
}

pub(super) fn description(schema: &Schema) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

/// A value on one line of YAML. Text is quoted only where YAML would read something else.
pub(super) fn flow(value: &Schema) -> String {
    match value {
        Schema::String(text) if is_plain_text(text) => text.clone(),
        Schema::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Whether YAML reads `text` as the same text, also within brackets.
fn is_plain_text(text: &str) -> bool {
    let start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let unit = text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(|c: char| c.is_ascii_alphabetic());
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    (start || unit) && text.chars().all(inside) && !matches!(text, "null" | "true" | "false")
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::load;

    fn conf() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/portcullis.yaml")
    }

    #[test]
    fn the_shipped_reference_is_what_the_docs_say() {
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(conf(), reference()).expect("conf/portcullis.yaml is written");
        }
        let shipped = std::fs::read_to_string(conf()).expect("conf/portcullis.yaml");
        assert!(shipped == reference(), "the docs have changed: run UPDATE_REFERENCE=1 cargo test reference");
    }

    #[test]
    fn the_reference_is_a_valid_configuration_without_warnings() {
        let document = load(&conf()).expect("valid");
        assert!(document.warnings.is_empty(), "{:?}", document.warnings);
    }

    #[test]
    fn every_key_stands_in_the_reference_with_its_doc() {
        let words = |text: &str| text.replace('#', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        let text = reference();
        let prose = words(&text);
        let root = schema::<Config>();
        let definitions = root["$defs"].as_object().into_iter().flatten().map(|(_, definition)| definition);
        let mut keys = 0;
        for (key, property) in definitions.chain([&root]).flat_map(properties) {
            let doc = description(property);
            assert!(!doc.is_empty(), "{key} has no doc");
            assert!(prose.contains(&words(doc)), "{key}: {doc}");
            let shown =
                text.lines().any(|line| line.trim_start_matches([' ', '#', '-']).starts_with(&format!("{key}:")));
            assert!(shown, "{key}");
            keys += 1;
        }
        assert!(keys > 60, "{keys}");
    }

    #[test]
    fn text_is_quoted_where_yaml_would_read_something_else() {
        let values =
            ["1.2", "true", "null", "-", "[::]:443", "30s", "server.crt", "/v2/", "0.0.0.0:443", "a: b", "1e3s"];
        for value in values {
            let value = Schema::from(value);
            let read: Schema = serde_yaml::from_str(&flow(&value)).expect("yaml");
            assert_eq!(read, value, "{}", flow(&value));
        }
    }
}
