//! YAML that is read strictly and whose every mistake has a line.
//!
//! `serde_yaml` makes the value. It stops at the first mistake, so before it makes the typed one the value is held
//! against the type's JSON Schema, which finds all of them; [`locate`] knows their lines.

mod check;
mod locate;
mod suggest;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::fault::{Diagnostic, Diagnostics, Fault, Severity};
use super::reference::schema;
use check::Checked;
use locate::{Located, Node};
pub use suggest::nearest;

/// More findings than this about one file help nobody.
const MAX_FINDINGS: usize = 100;

/// A parsed file: its value, and where in the file each part of it stands.
#[derive(Debug)]
pub struct Document<T> {
    /// What the file says.
    pub value: T,
    /// What is doubtful about the file, though it can be used.
    pub warnings: Vec<Diagnostic>,
    file: PathBuf,
    lines: Node,
}

impl<T> Document<T> {
    /// The file as it was named when it was read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The line, counted from 1, of the key or list item at `path` (`rules[2].subjects`), or of the nearest one above
    /// it that is in the file.
    pub fn line_of(&self, path: &str) -> usize {
        self.lines.line_of(path)
    }

    /// The value, and the document without it.
    pub(super) fn split(self) -> (T, Document<()>) {
        let Self { value, warnings, file, lines } = self;
        (value, Document { value: (), warnings, file, lines })
    }

    /// Gives faults of the value their places in the file, in the file's order.
    pub fn diagnose(&self, faults: Vec<Fault>, severity: Severity) -> Vec<Diagnostic> {
        let findings = faults.into_iter().map(|fault| Finding::at(&self.lines, fault));
        diagnostics(&self.file, findings.collect(), severity).0
    }
}

/// A mistake with its line.
#[derive(Debug)]
struct Finding {
    line: Option<usize>,
    path: String,
    message: String,
}

impl Finding {
    fn new(line: usize, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { line: Some(line), path: path.into(), message: message.into() }
    }

    fn at(lines: &Node, fault: Fault) -> Self {
        Self::new(lines.line_of(&fault.path), fault.path, fault.message)
    }
}

/// Reads `bytes`, the content of `file`, as a `T`, and makes of it what the program works with.
///
/// If some values have a wrong form and the rest can do without them, `make` is asked about the rest, so that faults of
/// both kinds come in one run.
///
/// # Errors
/// Everything that is wrong with the text: its encoding, its syntax, else all duplicate keys, anchors, aliases and tags,
/// else all unknown and missing keys, all values of a wrong type, and all that `make` finds.
pub fn parse<T: DeserializeOwned + JsonSchema, U>(
    file: &Path,
    bytes: &[u8],
    make: impl FnOnce(T) -> Result<U, Vec<Fault>>,
) -> Result<Document<U>, Diagnostics> {
    let all = |findings| diagnostics(file, findings, Severity::Error);
    let (value, lines) = value(bytes).map_err(all)?;
    let (made, faults) = typed(value, &lines, make);
    match made {
        Some(value) if faults.is_empty() => Ok(Document { value, warnings: Vec::new(), file: file.to_owned(), lines }),
        _ => Err(all(faults.into_iter().map(|fault| Finding::at(&lines, fault)).collect())),
    }
}

/// The untyped value of a text and the lines of its parts.
fn value(bytes: &[u8]) -> Result<(serde_yaml::Value, Node), Vec<Finding>> {
    let text = utf8(bytes).map_err(|finding| vec![finding])?;
    let Located::Tree(lines) = locate::locate(text)? else {
        return Err(vec![Finding {
            line: None,
            path: String::new(),
            message: "this file is empty (a half-written file looks like this); write the settings or restore it"
                .to_owned(),
        }]);
    };
    let value = serde_yaml::from_str(text).map_err(|error| {
        let line = error.location().map(|at| at.line());
        vec![Finding { line, path: String::new(), message: format!("this is not YAML: {error}") }]
    })?;
    Ok((value, lines))
}

/// What `make` makes of a value, and all that is wrong with it.
fn typed<T: DeserializeOwned + JsonSchema, U>(
    value: serde_yaml::Value,
    lines: &Node,
    make: impl FnOnce(T) -> Result<U, Vec<Fault>>,
) -> (Option<U>, Vec<Fault>) {
    let Checked { mut faults, usable } = check::check(&value, &schema::<T>(), MAX_FINDINGS + 1);
    let Some(usable) = usable else { return (None, faults) };
    let whole = faults.is_empty();
    match serde_yaml::from_value(usable).map(make) {
        Ok(Ok(made)) => return (Some(made), faults),
        // Without its faulty parts the value may lack what it needs: a fault of a key that isn't in the file may only
        // follow from one already found.
        Ok(Err(more)) => faults.extend(more.into_iter().filter(|fault| whole || lines.contains(&fault.path))),
        Err(error) if whole => faults.push(Fault::new("", error.to_string())),
        Err(_) => {}
    }
    (None, faults)
}

/// The text, without the byte order mark that some editors write.
fn utf8(bytes: &[u8]) -> Result<&str, Finding> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + valid.split(|&byte| byte == b'\n').skip(1).count();
        Finding::new(line, "", "this is not UTF-8 text; save the file in UTF-8 (is it a certificate or an archive?)")
    })
}

/// The findings in the order of the file, and no more than anybody reads.
fn diagnostics(file: &Path, mut findings: Vec<Finding>, severity: Severity) -> Diagnostics {
    findings.sort_by_key(|finding| finding.line);
    let more = findings.len() > MAX_FINDINGS;
    findings.truncate(MAX_FINDINGS);
    if more {
        findings.push(Finding {
            line: None,
            path: String::new(),
            message: "there is more; repair these first".to_owned(),
        });
    }
    let place = |finding: Finding| Diagnostic {
        file: file.to_owned(),
        line: finding.line,
        key: printable(&finding.path, 200),
        message: printable(&finding.message, 2000),
        severity,
    };
    Diagnostics(findings.into_iter().map(place).collect())
}

/// Text as it may stand in a line of a log: without control characters, and not without end.
fn printable(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        if shown.len() >= limit {
            shown.push('…');
            break;
        }
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
