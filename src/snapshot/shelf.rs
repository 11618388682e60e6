//! What was fetched last from each URL, between the tasks that fetch and the builder that reads.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::config::CrlUrl;
use crate::state::{Note, StateDirectory, hex};
use crate::tls::UpstreamMaterial;
use crate::upstream::document::{FetchFault, Fetched, Validators};

/// One slot for each URL that is configured.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<HashMap<String, Slot>>);

#[derive(Debug, Default)]
struct Slot {
    material: UpstreamMaterial,
    body: Body,
    validators: Validators,
    /// When the server last said what the document is, in unix seconds.
    last_success: Option<i64>,
    attempts: u64,
    fault: Option<FetchFault>,
    /// Whether what was fetched was no list that could be taken.
    refused: bool,
    next_update: Option<i64>,
}

/// Where the document is that was fetched last.
#[derive(Debug, Default)]
enum Body {
    /// Nothing was ever fetched.
    #[default]
    None,
    /// Not yet judged, or refused, or there is no state directory.
    Memory { bytes: Bytes, sha256: String },
    /// In the state directory.
    Kept { sha256: String },
}

/// How fetching from a URL goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchState {
    /// When the server last said what the document is, in unix seconds.
    pub last_success: Option<i64>,
    /// What was wrong with the last attempt, as a metric label and for people.
    pub fault: Option<(&'static str, String)>,
    /// Whether there was an attempt since the start.
    pub attempted: bool,
}

/// What an attempt means for the rest of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The document is another one than before.
    pub(super) changed: bool,
    /// The source isn't as it should be: the attempt failed, or what is there is refused.
    pub(super) failed: bool,
}

impl Shelf {
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // Each slot is changed by whole assignments, so a panic leaves none half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a URL, and begins with its copy from the state directory if it has one.
    pub(super) fn prepare(&self, url: &CrlUrl, material: UpstreamMaterial, state: Option<&StateDirectory>) {
        let mut slots = self.slots();
        let slot = slots.entry(url.url.clone()).or_insert_with(|| Slot::restored(&url.url, state));
        slot.material = material;
    }

    /// Forgets the URLs that are no longer configured.
    pub(super) fn retain(&self, is_configured: impl Fn(&str) -> bool) {
        self.slots().retain(|url, _| is_configured(url));
    }

    /// The document that was fetched last and its SHA-256, as far as it can still be had; `None` if there never was one.
    pub(super) fn document(
        &self,
        url: &str,
        state: Option<&StateDirectory>,
    ) -> Option<Result<(Vec<u8>, String), String>> {
        let expected = match &self.slots().get(url)?.body {
            Body::None => return None,
            Body::Memory { bytes, sha256 } => return Some(Ok((bytes.to_vec(), sha256.clone()))),
            Body::Kept { sha256 } => sha256.clone(),
        };
        let copy = state.ok_or_else(|| "there is no state directory any more".to_owned()).and_then(|s| s.copy(url));
        let whole = copy.and_then(|bytes| match hex(&Sha256::digest(&bytes)) {
            found if found == expected => Ok((bytes, found)),
            _ => Err("its copy in the state directory is damaged, and is fetched anew".to_owned()),
        });
        if whole.is_err()
            && let Some(slot) = self.slots().get_mut(url)
        {
            // The next attempt must bring all of it, not only that nothing has changed.
            (slot.body, slot.validators) = (Body::None, Validators::default());
        }
        Some(whole)
    }

    /// Whether what was fetched is in memory alone, with the note that belongs beside its copy.
    pub(super) fn to_keep(&self, url: &str) -> Option<(Bytes, Note)> {
        let slots = self.slots();
        let slot = slots.get(url)?;
        let Body::Memory { bytes, .. } = &slot.body else { return None };
        let note = Note {
            taken: slot.last_success.unwrap_or_default(),
            etag: slot.validators.etag.clone(),
            last_modified: slot.validators.last_modified.clone(),
            ..Note::default()
        };
        Some((bytes.clone(), note))
    }

    /// The copy is in the state directory: these bytes needn't stay in memory.
    pub(super) fn kept(&self, url: &str, copied: &Bytes) {
        if let Some(slot) = self.slots().get_mut(url)
            && let Body::Memory { bytes, sha256 } = &slot.body
            && bytes == copied
        {
            slot.body = Body::Kept { sha256: sha256.clone() };
        }
    }

    /// What became of the document when it was read as lists.
    pub(super) fn judged(&self, url: &str, refused: bool, next_update: Option<i64>) {
        if let Some(slot) = self.slots().get_mut(url) {
            (slot.refused, slot.next_update) = (refused, next_update);
        }
    }

    /// How fetching goes.
    #[must_use]
    pub fn state(&self, url: &str) -> FetchState {
        let slots = self.slots();
        let Some(slot) = slots.get(url) else { return FetchState::default() };
        FetchState {
            last_success: slot.last_success,
            fault: slot.fault.as_ref().map(|fault| (fault.as_str(), fault.to_string())),
            attempted: slot.attempts > 0,
        }
    }

    /// Whether a URL has neither been asked since the start nor a copy of an earlier answer.
    pub(super) fn is_awaited(&self, url: &str) -> bool {
        self.slots().get(url).is_some_and(|slot| slot.attempts == 0 && matches!(slot.body, Body::None))
    }

    /// What to ask with; `None` once the URL isn't configured any more.
    pub(super) fn question(&self, url: &str) -> Option<(UpstreamMaterial, Validators)> {
        self.slots().get(url).map(|slot| (slot.material.clone(), slot.validators.clone()))
    }

    /// When the earliest list of the document runs out, in unix seconds.
    pub(super) fn next_update(&self, url: &str) -> Option<i64> {
        self.slots().get(url).and_then(|slot| slot.next_update)
    }

    /// Takes in the outcome of an attempt. `sha256` is that of a document.
    pub(super) fn record(&self, url: &str, outcome: Result<Fetched, FetchFault>, sha256: &str, now: i64) -> Recorded {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(url) else { return Recorded { changed: false, failed: false } };
        slot.attempts += 1;
        let mut changed = false;
        match outcome {
            Ok(fetched) => {
                slot.fault = None;
                slot.last_success = Some(now);
                if let Fetched::Document { body, validators } = fetched {
                    slot.validators = validators;
                    changed = slot.body.sha256() != Some(sha256);
                    if changed {
                        slot.body = Body::Memory { bytes: body, sha256: sha256.to_owned() };
                    }
                }
            }
            Err(fault) => slot.fault = Some(fault),
        }
        Recorded { changed, failed: slot.fault.is_some() || slot.refused }
    }
}

impl Slot {
    fn restored(url: &str, state: Option<&StateDirectory>) -> Self {
        let Some(note) = state.and_then(|state| state.note(url)) else { return Self::default() };
        Self {
            body: Body::Kept { sha256: note.sha256 },
            validators: Validators { etag: note.etag, last_modified: note.last_modified },
            last_success: (note.taken > 0).then_some(note.taken),
            ..Self::default()
        }
    }
}

impl Body {
    fn sha256(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Memory { sha256, .. } | Self::Kept { sha256 } => Some(sha256),
        }
    }
}
