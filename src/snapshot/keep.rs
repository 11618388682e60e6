//! Keeps what must outlive a restart: behind a publication, and beside the next one, for disks are slow.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::lists::{default_revocation, max_source};
use super::{Shelf, unix_now};
use crate::config::read_bounded;
use crate::revocation::{Seen, Sources};
use crate::state::{Note, StateDirectory, hex};

/// What a build has to keep.
#[derive(Debug)]
pub struct ToKeep {
    pub(super) state: StateDirectory,
    pub(super) shelf: Arc<Shelf>,
    pub(super) kept: Arc<Mutex<Kept>>,
    /// Sources that were good, with the SHA-256 of what they held.
    pub(super) good: Vec<(String, String)>,
    /// Sources whose copies may stay.
    pub(super) known: Vec<String>,
    /// The newest lists in force.
    pub(super) seen: Vec<Seen>,
}

/// What the state directory has.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// SHA-256 of each copy, by its source.
    copies: HashMap<String, String>,
    seen: Option<Vec<Seen>>,
}

impl Kept {
    pub(super) fn in_directory(state: &StateDirectory) -> Self {
        Self { copies: state.notes().into_iter().map(|note| (note.source, note.sha256)).collect(), seen: None }
    }
}

impl ToKeep {
    /// Writes what the state directory doesn't have yet. Blocking; to be called by one thread at a time. What goes wrong
    /// is returned, for the operator.
    #[must_use]
    pub fn write(self) -> Vec<String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = Vec::new();
        if kept.seen.as_ref() != Some(&self.seen) {
            // A successor may have written newer ones while this process drains.
            let mut newest = Sources::new(default_revocation());
            newest.remember(self.state.numbers().unwrap_or_default());
            newest.remember(self.seen.iter().cloned());
            match self.state.keep_numbers(&newest.seen()) {
                Ok(()) => kept.seen = Some(self.seen.clone()),
                Err(e) => faults.push(format!("the highest CRL numbers could not be kept: {e}")),
            }
        }
        kept.copies.retain(|name, _| self.known.contains(name));
        for (name, sha256) in &self.good {
            if kept.copies.get(name) == Some(sha256) {
                continue;
            }
            match self.copy(name, sha256) {
                Ok(true) => drop(kept.copies.insert(name.clone(), sha256.clone())),
                Ok(false) => {}
                Err(e) => {
                    faults.push(format!("no copy of \"{name}\" could be kept: {e} (a restart has to read it anew)"));
                }
            }
        }
        self.state.retain(|name| self.known.iter().any(|known| known == name));
        faults
    }

    /// Copies a source, if it still holds what was good. Else the build to come has another one.
    fn copy(&self, name: &str, sha256: &str) -> Result<bool, String> {
        if let Some((bytes, note)) = self.shelf.to_keep(name) {
            if hex(&Sha256::digest(&bytes)) != sha256 {
                return Ok(false);
            }
            self.state.keep(name, &bytes, note)?;
            self.shelf.kept(name, &bytes);
            return Ok(true);
        }
        // Read again rather than kept in memory: lists are large, and change seldom.
        let Ok(bytes) = read_bounded(Path::new(name), max_source()) else { return Ok(false) };
        if hex(&Sha256::digest(&bytes)) != sha256 {
            return Ok(false);
        }
        self.state.keep(name, &bytes, Note { taken: unix_now(), ..Note::default() })?;
        Ok(true)
    }
}
