//! The journal: one JSON object a line, only ever appended to.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PkiError;
use super::files::{self, Access, Locked};
use super::names::RegistryHost;

/// Which of the two CAs signed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Signer {
    /// The root.
    Root,
    /// The CA for everyday use; the root itself, where there is no other.
    Ca,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// To sign others.
    Authority,
    /// To serve.
    Server,
    /// To be a client of the gateway.
    Client,
    /// Known from another tool's records only.
    Foreign,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "ca",
            Self::Server => "server",
            Self::Client => "client",
            Self::Foreign => "-",
        }
    }
}

/// Where the files of a leaf are written, so that a renewal reaches the same places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Placement {
    /// The directory; below the PKI's own if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) out: Option<PathBuf>,
    /// The registries that clients are to be configured for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) registries: Vec<RegistryHost>,
    /// docker's certs.d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) docker: Option<PathBuf>,
    /// containerd's certs.d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) containerd: Option<PathBuf>,
    /// The PKCS #12.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pkcs12: Option<PathBuf>,
    /// The CA of the gateway's certificate, if it is another than this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_ca: Option<PathBuf>,
}

/// What happened. Times are seconds since the Unix epoch, serial numbers hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// A certificate was signed.
    Issued {
        at: i64,
        by: Signer,
        kind: Kind,
        name: String,
        /// DER in base64.
        certificate: String,
        /// Whether the key was made elsewhere, so that a renewal must keep it.
        #[serde(default)]
        foreign_key: bool,
        #[serde(default)]
        placement: Placement,
    },
    /// A certificate of another tool became known.
    Known { at: i64, by: Signer, name: String, serial: String, not_after: Option<i64> },
    /// A certificate was revoked.
    Revoked { at: i64, by: Signer, serial: String, reason: String },
    /// A list was signed.
    Listed { at: i64, by: Signer, number: u64, next_update: i64, entries: usize },
}

/// The journal, open for appending and locked.
#[derive(Debug)]
pub(super) struct Journal(Locked);

const NAME: &str = "index.jsonl";

/// Events and the length of the part of the file that holds them.
struct Read {
    events: Vec<Event>,
    complete: usize,
}

impl Journal {
    /// Makes an empty journal.
    pub(super) fn create(directory: &Path) -> Result<Self, PkiError> {
        let path = directory.join(NAME);
        files::write(&path, b"", Access::Private)?;
        Locked::open(&path).map(Self)
    }

    /// Opens the journal of a directory and reads what is in it.
    ///
    /// The end of an event that was cut off is removed: whoever wrote it went no further.
    pub(super) fn open(directory: &Path) -> Result<(Self, Vec<Event>), PkiError> {
        let path = directory.join(NAME);
        let file = match Locked::open(&path) {
            Err(PkiError::File { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Err(PkiError::NoPki(directory.to_owned()));
            }
            other => other?,
        };
        let content = files::read_file(&path)?;
        let Read { events, complete } = parse(&path, &content)?;
        if complete < content.len() {
            file.truncate(complete as u64)?;
        }
        Ok((Self(file), events))
    }

    /// Reads the journal of a directory without locking or repairing it.
    pub(super) fn peek(directory: &Path) -> Result<Vec<Event>, PkiError> {
        let path = directory.join(NAME);
        let content = files::read_if_there(&path)?.ok_or_else(|| PkiError::NoPki(directory.to_owned()))?;
        parse(&path, &content).map(|read| read.events)
    }

    /// Appends events. When this returns, they are on the disk.
    pub(super) fn append(&mut self, events: &[Event]) -> Result<(), PkiError> {
        let mut lines = Vec::new();
        for event in events {
            let line = serde_json::to_vec(event).map_err(|e| PkiError::unusable(self.0.path(), e.to_string()))?;
            lines.extend(line);
            lines.push(b'\n');
        }
        self.0.append(&lines)
    }
}

fn parse(path: &Path, content: &[u8]) -> Result<Read, PkiError> {
    let complete = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut events = Vec::new();
    let lines = content.get(..complete).unwrap_or_default().split(|byte| *byte == b'\n');
    for (line, text) in (1..).zip(lines).filter(|(_, text)| !text.is_empty()) {
        let event = serde_json::from_slice(text).map_err(|e| PkiError::Journal {
            path: path.to_owned(),
            line,
            cause: e.to_string(),
        })?;
        events.push(event);
    }
    Ok(Read { events, complete })
}
