//! A policy with the groups of its directory: several files that are read as one.
//!
//! Whoever may write a file of the directory says who is in a group, and nothing else: rules stand in the policy alone.
//! A group stands in one place, so that no file can add members to the group of another.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::fault::{Diagnostic, Diagnostics, Fault, Severity};
use super::load::{list_directory, read_yaml, read_yaml_with};
use super::policy::{GroupsFile, PolicyFile, SelectorFile};
use super::yaml::Document;

/// More files than this are some other directory.
const MAX_FILES: usize = 1000;

/// What became of a policy file.
#[derive(Debug)]
pub struct PolicyRead<U> {
    /// The policy, or everything that is wrong with it and with the files of its directory.
    pub document: Result<Document<U>, Diagnostics>,
    /// The directory that it names, whether or not it can be used: a change there calls for another look.
    pub groups_directory: Option<PathBuf>,
}

/// Reads a policy file and the groups of the directory that it names, and makes a `U` of the whole.
///
/// Faults that `make` finds in a group of the directory are reported with that file and its lines. While such a file
/// can't be read at all, `make` isn't asked: that a rule names a group that nobody knows would only follow from it.
pub fn read_policy<U>(path: &Path, make: impl FnOnce(PolicyFile) -> Result<U, Vec<Fault>>) -> PolicyRead<U> {
    let mut teams = Teams::default();
    let mut groups_directory = None;
    let document = read_yaml_with(path, |mut file: PolicyFile| {
        if let Some(named) = file.groups_directory.take() {
            let directory = path.parent().unwrap_or(Path::new("")).join(named);
            let read = teams.read(path, &directory, &mut file);
            groups_directory = Some(directory);
            read.map_err(|fault| vec![fault])?;
        }
        if teams.unreadable {
            return Err(Vec::new());
        }
        make(file).map_err(|faults| teams.keep_theirs(faults))
    });
    PolicyRead { document: teams.report_with(document), groups_directory }
}

/// The files of a directory.
#[derive(Default)]
struct Teams {
    documents: Vec<Document<()>>,
    /// Which of them a group stands in.
    origins: HashMap<String, usize>,
    findings: Vec<Diagnostic>,
    /// Whether a file has no groups at all because of what is wrong with it.
    unreadable: bool,
}

impl Teams {
    /// Adds the groups of a directory to those of `policy`.
    fn read(&mut self, path: &Path, directory: &Path, policy: &mut PolicyFile) -> Result<(), Fault> {
        let files = list_directory(directory, MAX_FILES)
            .map_err(|error| Fault::new("groups_directory", format!("\"{}\": {error}", directory.display())))?;
        for file in files.iter().filter(|file| is_yaml(file)) {
            match read_yaml::<GroupsFile>(file) {
                Ok(document) => self.add(path, document, policy),
                Err(findings) => {
                    self.unreadable = true;
                    self.findings.extend(findings);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, document: Document<GroupsFile>, policy: &mut PolicyFile) {
        let (groups, document) = document.split();
        let mut twice = Vec::new();
        for (name, selectors) in groups.groups {
            if let Some(place) = self.place(path, &name, &policy.groups) {
                let message = format!("this group also stands in {place}: a group stands in one place");
                twice.push(Fault::new(format!("groups.{name}"), message));
            } else {
                self.origins.insert(name.clone(), self.documents.len());
                policy.groups.insert(name, selectors);
            }
        }
        self.findings.extend(document.diagnose(twice, Severity::Error));
        self.documents.push(document);
    }

    /// Where a group stands already: the file, and the line if it is one of the directory.
    fn place(&self, path: &Path, name: &str, groups: &BTreeMap<String, Vec<SelectorFile>>) -> Option<String> {
        groups.get(name)?;
        let theirs = self.origins.get(name).and_then(|origin| self.documents.get(*origin));
        Some(match theirs {
            Some(document) => format!("{}:{}", document.file().display(), document.line_of(&format!("groups.{name}"))),
            None => path.display().to_string(),
        })
    }

    /// Notes faults of groups that stand in files of the directory, and gives back the others.
    fn keep_theirs(&mut self, faults: Vec<Fault>) -> Vec<Fault> {
        let mut theirs: Vec<Vec<Fault>> = self.documents.iter().map(|_| Vec::new()).collect();
        let mut others = Vec::new();
        for fault in faults {
            let origin = group_of(&fault.path).and_then(|name| self.origins.get(name)).copied();
            match origin.and_then(|origin| theirs.get_mut(origin)) {
                Some(file) => file.push(fault),
                None => others.push(fault),
            }
        }
        for (document, faults) in self.documents.iter().zip(theirs) {
            self.findings.extend(document.diagnose(faults, Severity::Error));
        }
        others
    }

    /// The policy's own findings first, then those of the directory.
    fn report_with<U>(self, document: Result<Document<U>, Diagnostics>) -> Result<Document<U>, Diagnostics> {
        let findings = Diagnostics(self.findings);
        match document {
            Ok(mut document) if !findings.has_errors() => {
                document.warnings.extend(findings);
                Ok(document)
            }
            Ok(_) => Err(findings),
            Err(mut all) => {
                all.extend(findings);
                Err(all)
            }
        }
    }
}

/// The group that a key belongs to. A name with a dot in it, which no group may have, is at fault itself: the key ends
/// with it.
fn group_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("groups.")?;
    Some(rest.split_once('[').map_or(rest, |(name, _)| name))
}

/// Whether the file is meant: not what an editor leaves beside it.
fn is_yaml(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}
