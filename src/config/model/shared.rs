//! What replicas share.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::HumanDuration;

/// Where replicas count together, and hold the locks of tags that are being pushed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SharedLimits {
    /// A Redis (5 or later), or what speaks its protocol and runs its scripts. Null counts in the memory of each gateway.
    pub redis: Option<Redis>,
}

/// A Redis.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// redis://host:port, with /2 behind it for database 2, or unix:///path/to/socket, with ?db=2. There is no TLS to it:
    /// use a socket, a network of your own, or a tunnel.
    #[schemars(example = &"redis://redis.internal:6379")]
    pub address: String,

    /// The user to log in as; null is Redis' default user.
    #[serde(default)]
    #[schemars(example = &"portcullis")]
    pub username: Option<String>,

    /// A file that holds the password and nothing else; a line ending after it is left out. Null doesn't log in.
    #[serde(default)]
    #[schemars(example = &"redis-password")]
    pub password_file: Option<PathBuf>,

    /// How long one answer may take, a new connection included.
    #[serde(default = "default_timeout")]
    pub timeout: HumanDuration,

    /// What all keys begin with. Gateways that share a Redis and not their limits need different ones.
    #[serde(default = "default_prefix")]
    pub key_prefix: String,

    /// What becomes of requests that a limit applies to while Redis doesn't answer.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What becomes of requests while nobody can count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Each gateway counts them in its own memory.
    #[default]
    Allow,
    /// They are refused, with status 503.
    Refuse,
}

fn default_timeout() -> HumanDuration {
    HumanDuration::from_millis(250)
}

fn default_prefix() -> String {
    "portcullis:".to_owned()
}
