//! Times in which nothing may be written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Times in which nothing may be written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOnly {
    /// Refuse everything but pulls, the catalog and the version check, whatever the policy allows. Uploads that are under
    /// way end at their next request.
    pub enabled: bool,

    /// What clients are told then; null is "the registry is read-only at the moment".
    #[schemars(example = &"the registry moves to another place until 14:00; pulls work")]
    pub message: Option<String>,
}
