//! The audit log, as its author writes it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A record of every refusal, push, deletion and order to the gateway.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditLog {
    /// The file, appended to and reopened on SIGHUP; null is none. Changes need an upgrade or a restart.
    #[schemars(example = &"/var/log/portcullis/audit.log")]
    pub path: Option<PathBuf>,

    /// What becomes of requests while the file can't be written, for instance because the disk is full.
    pub on_failure: OnAuditFailure,

    /// Let a request that changes something go on only when the disk has its record, not just the system. Such a request
    /// then waits for the disk; a record can't be lost by a loss of power.
    pub sync: bool,

    /// How many refusals of one client are recorded in a minute. The others are counted, and the number is recorded: a
    /// client that is refused all the time can't fill the disk. 0 records every one.
    #[schemars(range(max = 1_000_000))]
    pub refusals_per_minute: u32,

    /// Records that may wait to be written, of pushes and deletions and of refusals each. Requests wait for room.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: u32,
}

impl Default for AuditLog {
    fn default() -> Self {
        Self { path: None, on_failure: OnAuditFailure::RefuseWrites, sync: false, refusals_per_minute: 60, queue: 4096 }
    }
}

/// What becomes of requests while the audit log can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnAuditFailure {
    /// Pushes and deletions are refused (503); pulls go on. Refusals that find no room are counted.
    RefuseWrites,
    /// Everything is refused (503).
    RefuseAll,
    /// Everything goes on. What isn't recorded is counted, and the log tells the number when it is written again.
    Allow,
}
