//! What is wrong with a file, and where.
//!
//! A check that knows only values (the policy compiler, the resolver) says [`Fault`]: the key and the cause. Who read
//! the file turns faults into [`Diagnostic`]s, which name file and line too.

use std::fmt;
use std::path::PathBuf;

/// One mistake in a file's value, named by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key as a dotted path from the root, such as `rules[2].subjects[0]`; empty for the file as a whole.
    pub path: String,
    /// The cause and what to do, as a fragment that starts in lower case.
    pub message: String,
}

impl Fault {
    /// A fault at `path` with the cause `message`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// Whether a finding keeps the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file can be used, but likely not as its author thinks.
    Warning,
    /// The file can't be used; what was in force stays.
    Error,
}

/// One finding with its place, as an operator reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the operator or another file named it.
    pub file: PathBuf,
    /// The line, counted from 1; none where no line is to blame (a missing file).
    pub line: Option<usize>,
    /// The key as a dotted path from the root; empty for the file as a whole.
    pub key: String,
    /// The cause and what to do.
    pub message: String,
    /// Whether it keeps the file from being used.
    pub severity: Severity,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

/// All findings about a set of files. Displays one a line, in the order of the files and their lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether any finding is an error, that is, whether the files can't be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.iter().any(|found| found.severity == Severity::Error)
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The findings, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic() -> Diagnostic {
        Diagnostic {
            file: "portcullis.yaml".into(),
            line: Some(14),
            key: "listeners[0].tls.client_ca".to_owned(),
            message: "\"ca.pem\" holds no certificate".to_owned(),
            severity: Severity::Error,
        }
    }

    #[test]
    fn a_diagnostic_names_file_line_and_key() {
        assert_eq!(
            diagnostic().to_string(),
            "portcullis.yaml:14: listeners[0].tls.client_ca: \"ca.pem\" holds no certificate"
        );
    }

    #[test]
    fn parts_that_are_not_known_are_left_out() {
        let whole_file = Diagnostic { line: None, key: String::new(), ..diagnostic() };
        assert_eq!(whole_file.to_string(), "portcullis.yaml: \"ca.pem\" holds no certificate");
    }

    #[test]
    fn diagnostics_are_one_a_line_and_warnings_are_no_errors() {
        let warning = Diagnostic { severity: Severity::Warning, ..diagnostic() };
        let mut all = Diagnostics::from(warning);
        assert!(!all.has_errors());
        all.extend([diagnostic()]);
        assert!(all.has_errors());
        assert_eq!(all.to_string().lines().count(), 2);
        assert!(all.to_string().starts_with("portcullis.yaml:14: warning: listeners[0].tls.client_ca: "));
    }
}
