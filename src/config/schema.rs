//! The JSON Schemas of the files that people write, for their editors.

use serde_json::Value;

use super::model::Config;
use super::policy::{GroupsFile, PolicyFile, cases::CasesFile};
use super::reference::schema;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The configuration, `portcullis.yaml`.
    Configuration,
    /// The policy.
    Policy,
    /// A file of the policy's directory of groups.
    Groups,
    /// Cases for `portcullis policy test`.
    Cases,
}

impl FileKind {
    /// The JSON Schema (draft 2020-12) of such a file: the one that the files are checked against when they are read.
    #[must_use]
    pub fn schema(self) -> Value {
        let (title, mut schema) = match self {
            Self::Configuration => ("Portcullis: configuration", schema::<Config>()),
            Self::Policy => ("Portcullis: policy", schema::<PolicyFile>()),
            Self::Groups => ("Portcullis: groups", schema::<GroupsFile>()),
            Self::Cases => ("Portcullis: policy test cases", schema::<CasesFile>()),
        };
        if let Some(title_of_type) = schema.get_mut("title") {
            *title_of_type = title.into();
        }
        schema
    }
}
