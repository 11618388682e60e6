//! Uploads.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Uploads that are under way.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Uploads {
    /// Let only the client that started an upload go on with it, look at it or cancel it. A renewed certificate with the
    /// same issuer and names is the same client.
    pub bind: bool,

    /// A file with a key for that, 32 bytes or more in base64 or hexadecimal, as "openssl rand -base64 32" makes them.
    /// Give all replicas the same, else an upload that moves from one to another is not found there. Null makes a key at
    /// the start: a restart ends the uploads that are under way, an upgrade doesn't.
    #[schemars(example = &"uploads.key")]
    pub key_file: Option<PathBuf>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { bind: true, key_file: None }
    }
}
