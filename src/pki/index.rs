//! What the journal amounts to: certificates, and which of them are revoked.

use std::collections::HashMap;
use std::path::Path;

use super::journal::{Event, Kind, Placement, Signer};
use super::names::{parse_reason, parse_serial};
use super::x509::Facts;
use super::{DAY, PkiError};
use crate::identity::Serial;
use crate::revocation::Reason;

/// A certificate that one of the CAs signed.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) signer: Signer,
    pub(crate) kind: Kind,
    /// The client's name, the server's first name, or what another tool's records say.
    pub(crate) name: String,
    pub(crate) serial: Serial,
    /// Unix seconds, where known.
    pub(crate) not_before: Option<i64>,
    /// Unix seconds, where known.
    pub(crate) not_after: Option<i64>,
    /// The certificate, if it was made here.
    pub(crate) der: Option<Vec<u8>>,
    pub(crate) foreign_key: bool,
    pub(crate) placement: Placement,
    /// Since when, in unix seconds, and why.
    pub(crate) revoked: Option<(i64, Reason)>,
}

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Neither of the others.
    Valid,
    /// Its time is over.
    Expired,
    /// It is revoked, in time or not.
    Revoked,
}

impl Entry {
    pub(crate) fn status(&self, now: i64) -> Status {
        match (self.revoked, self.not_after) {
            (Some(_), _) => Status::Revoked,
            (None, Some(end)) if end < now => Status::Expired,
            _ => Status::Valid,
        }
    }

    pub(crate) fn is_valid(&self, now: i64) -> bool {
        self.status(now) == Status::Valid
    }

    /// Whether it still has to stand in its signer's list. One that ran out is refused anyhow; it is kept for another
    /// month, for verifiers whose clocks or lists are behind (RFC 5280 §3.3 asks for one list after the expiry).
    pub(super) fn is_listed(&self, now: i64) -> bool {
        self.revoked.is_some() && self.not_after.is_none_or(|end| end > now - 30 * DAY)
    }
}

/// The last list of a signer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastList {
    pub(crate) number: u64,
    /// Unix seconds.
    pub(crate) next_update: i64,
    pub(crate) entries: usize,
}

/// All certificates and lists.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    by_serial: HashMap<(Signer, Serial), usize>,
    lists: HashMap<Signer, LastList>,
}

impl Index {
    /// Replays a journal.
    pub(super) fn replay(path: &Path, events: Vec<Event>) -> Result<Self, PkiError> {
        let mut index = Self::default();
        for (line, event) in (1..).zip(events) {
            index.apply(event).map_err(|cause| PkiError::Journal { path: path.to_owned(), line, cause })?;
        }
        Ok(index)
    }

    pub(super) fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Issued { by, kind, name, certificate, foreign_key, placement, .. } => {
                let der = data_encoding::BASE64.decode(certificate.as_bytes()).map_err(|e| e.to_string())?;
                let facts = Facts::of(&der).ok_or("this is no certificate")?;
                self.insert(Entry {
                    signer: by,
                    kind,
                    name,
                    serial: facts.serial,
                    not_before: Some(facts.not_before),
                    not_after: Some(facts.not_after),
                    der: Some(der),
                    foreign_key,
                    placement,
                    revoked: None,
                });
            }
            Event::Known { by, name, serial, not_after, .. } => {
                let serial = parse_serial(&serial).map_err(|e| e.to_string())?;
                if self.find(by, &serial).is_none() {
                    self.insert(Entry { name, not_after, ..Entry::foreign(by, serial) });
                }
            }
            Event::Revoked { at, by, serial, reason } => {
                let serial = parse_serial(&serial).map_err(|e| e.to_string())?;
                let reason = parse_reason(&reason).map_err(|e| e.to_string())?;
                if self.find(by, &serial).is_none() {
                    self.insert(Entry::foreign(by, serial));
                }
                if let Some(entry) = self.by_serial.get(&(by, serial)).and_then(|at| self.entries.get_mut(*at)) {
                    // The first word counts: nothing is revoked later than it was.
                    entry.revoked.get_or_insert((at, reason));
                }
            }
            Event::Listed { by, number, next_update, entries, .. } => {
                self.lists.insert(by, LastList { number, next_update, entries });
            }
        }
        Ok(())
    }

    fn insert(&mut self, entry: Entry) {
        self.by_serial.insert((entry.signer, entry.serial), self.entries.len());
        self.entries.push(entry);
    }

    /// All certificates, in the order in which they became known.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn find(&self, signer: Signer, serial: &Serial) -> Option<&Entry> {
        self.by_serial.get(&(signer, *serial)).and_then(|at| self.entries.get(*at))
    }

    /// The certificates of this serial number; two signers could have one each.
    pub(crate) fn of_serial(&self, serial: &Serial) -> Vec<&Entry> {
        [Signer::Ca, Signer::Root].into_iter().filter_map(|signer| self.find(signer, serial)).collect()
    }

    /// The newest certificate of a leaf that is neither revoked nor expired.
    pub(crate) fn current(&self, kind: Kind, name: &str, now: i64) -> Option<&Entry> {
        let same = |entry: &&Entry| entry.kind == kind && entry.name == name && entry.is_valid(now);
        self.entries.iter().rev().find(same)
    }

    pub(crate) fn last_list(&self, signer: Signer) -> Option<LastList> {
        self.lists.get(&signer).copied()
    }

    /// The entries of a signer's next list.
    pub(super) fn listed(&self, signer: Signer, now: i64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.signer == signer && entry.is_listed(now))
    }
}

impl Entry {
    fn foreign(signer: Signer, serial: Serial) -> Self {
        Self {
            signer,
            kind: Kind::Foreign,
            name: "(unknown)".to_owned(),
            serial,
            not_before: None,
            not_after: None,
            der: None,
            foreign_key: true,
            placement: Placement::default(),
            revoked: None,
        }
    }
}
