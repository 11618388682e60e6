//! A file of a policy's `groups_directory` as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::SelectorFile;

/// Groups for the policy that names this file's directory: one file for each team, for instance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupsFile {
    /// Named sets of clients, as in the policy. A name stands in one place only.
    pub groups: BTreeMap<String, Vec<SelectorFile>>,
}
