//! The lines of the audit log, and how one leads to the next.

use std::time::SystemTime;

use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::telemetry::escape::json_line;
use crate::telemetry::label::labels;
use crate::telemetry::record::Text;

labels! {
    /// What a record of the audit log is about.
    pub enum Event {
        /// The process opened its log: the first record of its chain.
        Started = "started",
        /// A request that changes something was allowed and is about to go to the registry.
        Begun = "begun",
        /// A request that was begun has ended; its status and outcome tell how.
        Done = "done",
        /// A request was refused.
        Refused = "refused",
        /// More requests of one client were refused within a minute than get a record each.
        Repeated = "repeated",
        /// Somebody did something to the gateway.
        Admin = "admin",
        /// Records are missing here: there was no room for them while the file could not be written.
        Missed = "missed",
        /// The process left: the last record of its chain.
        Stopped = "stopped",
    }
}

labels! {
    /// What can be done to a gateway.
    pub enum AdminAction {
        /// Everything was loaded anew, by order or because a file has changed.
        Reload = "reload",
        /// A successor was ordered.
        Upgrade = "upgrade",
        /// The gateway was told to leave.
        Stop = "stop",
        /// Somebody who may not asked the admin listener for something.
        Access = "access",
    }
}

/// The first record's content.
#[derive(Debug, Serialize)]
pub(super) struct Started {
    version: &'static str,
    pid: u32,
}

impl Started {
    pub(super) fn now() -> Self {
        Self { version: env!("CARGO_PKG_VERSION"), pid: std::process::id() }
    }
}

/// Content of [`Event::Admin`].
#[derive(Debug, Serialize)]
pub(super) struct Admin {
    action: AdminAction,
    origin: Text,
    ok: bool,
    result: Text,
}

impl Admin {
    pub(super) fn new(action: AdminAction, origin: &str, outcome: Result<&str, &str>) -> Self {
        let (Ok(result) | Err(result)) = outcome;
        Self { action, origin: origin.into(), ok: outcome.is_ok(), result: result.trim_end().into() }
    }
}

/// Content of [`Event::Missed`].
#[derive(Debug, Serialize)]
pub(super) struct Missed {
    pub(super) count: u64,
}

/// Content of [`Event::Repeated`].
#[derive(Debug, Serialize)]
pub(super) struct Repeated<'a> {
    pub(super) identity: &'a str,
    pub(super) count: u64,
}

/// Content of [`Event::Stopped`].
#[derive(Debug, Serialize)]
pub(super) struct Nothing {}

/// SHA-256 of a line without its end.
pub(super) fn hash(line: &[u8]) -> [u8; 32] {
    Sha256::digest(line).into()
}

/// The records of one process, so far.
#[derive(Debug)]
pub(super) struct Links {
    chain: String,
    next: u64,
    last: [u8; 32],
}

/// A line as it is written: its place in the chain before its content.
#[derive(Serialize)]
struct Line<'a, T> {
    chain: &'a str,
    seq: u64,
    prev: &'a str,
    event: Event,
    /// When it was recorded; a request's own time is that of its head.
    recorded: &'a str,
    #[serde(flatten)]
    content: &'a T,
}

impl Links {
    /// Begins a chain.
    pub(super) fn new(now: SystemTime) -> Self {
        let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let chain = Ulid::from_parts(u64::try_from(millis).unwrap_or(u64::MAX), fastrand::u128(..)).to_string();
        Self { chain, next: 0, last: [0; 32] }
    }

    /// Appends the next record as one whole line. `false`, and nothing appended, if there is no text for it.
    pub(super) fn append<T: Serialize>(
        &mut self,
        lines: &mut Vec<u8>,
        event: Event,
        recorded: SystemTime,
        content: &T,
    ) -> bool {
        let start = lines.len();
        let recorded = humantime::format_rfc3339_millis(recorded).to_string();
        let prev = HEXLOWER.encode(&self.last);
        let line = Line { chain: &self.chain, seq: self.next, prev: &prev, event, recorded: &recorded, content };
        if json_line(lines, &line).is_err() {
            return false;
        }
        let written = lines.get(start..).unwrap_or_default();
        self.last = hash(written.strip_suffix(b"\n").unwrap_or(written));
        self.next += 1;
        true
    }
}
