//! Revocation lists from files and URLs: each source by itself, each with its own last good state.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::keep::{Kept, ToKeep};
use super::parts::Report;
use super::shelf::Shelf;
use super::status::{SourceKind, SourceStatus};
use super::unix_now;
use crate::config::{self, ByteSize, CrlPlace, Settings, list_directory, read_bounded};
use crate::revocation::{self, Index, Issuer, SourceInput, SourceReport, Sources};
use crate::state::{StateDirectory, hex};
use crate::tls::{self, UpstreamMaterial};

/// Files a directory of revocation lists may hold.
const MAX_CRL_FILES: usize = 1024;

/// Takes in lists.
#[derive(Debug)]
pub(super) struct Lists {
    sources: Sources,
    shelf: Arc<Shelf>,
    state: Option<StateDirectory>,
    /// Whether the state directory was looked for, and its copies were taken in.
    opened: bool,
    unusable: bool,
    restored: bool,
    /// Whether the state directory is only looked at.
    read_only: bool,
    /// What the state directory has.
    kept: Arc<Mutex<Kept>>,
    /// When each source was last good, in unix seconds.
    last_good: HashMap<String, i64>,
    /// Sources that were good in the last build, with the SHA-256 of what they held.
    good: Vec<(String, String)>,
    /// All sources that have something to say.
    known: Vec<String>,
}

/// What a build took in. It counts once [`Lists::commit`] has it.
pub(super) struct Taken {
    sources: Sources,
    /// What is in force.
    pub(super) index: Index,
    /// How each source stands.
    pub(super) statuses: Vec<SourceStatus>,
    /// Sources that were read without fault, with the SHA-256 of what they held.
    good: Vec<(String, String)>,
}

impl Taken {
    fn nothing(sources: Sources) -> Self {
        Self { sources, index: Index::disabled(), statuses: Vec::new(), good: Vec::new() }
    }
}

/// The bytes of a source, or why there are none.
type Content = Result<Vec<u8>, String>;

/// A source, or a file of one.
struct Place {
    name: String,
    kind: SourceKind,
    /// The configuration key, for messages.
    key: String,
    /// The subject of the only authority whose lists it may hold.
    issuer: Option<String>,
}

impl Lists {
    pub(super) fn new(read_only: bool) -> Self {
        Self {
            sources: Sources::new(default_revocation()),
            shelf: Arc::default(),
            state: None,
            opened: false,
            unusable: false,
            restored: false,
            read_only,
            kept: Arc::default(),
            last_good: HashMap::new(),
            good: Vec::new(),
            known: Vec::new(),
        }
    }

    /// Where fetched documents go.
    pub(super) fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// Whether there is a state directory that can't be used.
    pub(super) fn is_forgetful(&self) -> bool {
        self.unusable
    }

    /// Reads every source. What is wrong with one is reported and keeps nothing else from being published.
    pub(super) fn load(&mut self, settings: &Settings, issuers: &[Issuer], report: &mut Report<'_>) -> Taken {
        self.open(settings, report);
        let mut sources = self.sources.clone();
        sources.set_settings(revocation_settings(&settings.revocation));
        sources.retain(|name| is_configured(&settings.revocation, name));
        if settings.revocation.sources.is_empty() {
            return Taken::nothing(sources);
        }
        if !self.restored {
            self.restore(&mut sources, settings, issuers, report);
        }
        let places = self.places(settings, report);
        let mut hashes: HashMap<String, String> = HashMap::new();
        // Read one after the other: of large lists only one is in memory at a time.
        let inputs = places.iter().filter_map(|place| {
            let (bytes, sha256) = self.read(place)?;
            hashes.extend(sha256.map(|sha256| (place.name.clone(), sha256)));
            Some(SourceInput { key: place.name.clone(), bytes, issuer: place.issuer.clone() })
        });
        let (index, reports) = sources.update(inputs, issuers, unix_now(), &verify);
        let statuses = self.statuses(reports, &places);
        for status in &statuses {
            status.tell(report);
        }
        let is_good = |name: &String| statuses.iter().any(|status| status.name == *name && status.is_good());
        let good = hashes.into_iter().filter(|(name, _)| is_good(name)).collect();
        Taken { sources, index, statuses, good }
    }

    /// Makes what was taken in the state to go on from.
    pub(super) fn commit(&mut self, taken: Taken, settings: &Settings) -> Vec<SourceStatus> {
        let Taken { sources, statuses, good, .. } = taken;
        self.sources = sources;
        self.restored = true;
        self.shelf.retain(|url| settings.revocation.urls().any(|configured| configured.url == url));
        self.known = statuses.iter().map(|status| status.name.clone()).collect();
        self.good = good;
        for status in &statuses {
            if let Some(last_success) = status.last_success {
                self.last_good.insert(status.name.clone(), last_success);
            }
            if status.kind == SourceKind::Url {
                let next_update = status.lists.iter().map(|list| list.next_update).min();
                self.shelf.judged(&status.name, !status.faults.is_empty(), next_update);
            }
        }
        self.last_good.retain(|name, _| self.known.contains(name));
        statuses
    }

    /// What there is to keep for the next start; `None` without a state directory that may be written.
    pub(super) fn what_to_keep(&mut self) -> Option<ToKeep> {
        let state = self.state.clone().filter(|_| !self.read_only)?;
        Some(ToKeep {
            state,
            shelf: self.shelf.clone(),
            kept: self.kept.clone(),
            good: std::mem::take(&mut self.good),
            known: self.known.clone(),
            seen: self.sources.seen(),
        })
    }

    fn open(&mut self, settings: &Settings, report: &mut Report<'_>) {
        let Some(path) = settings.state_directory.as_deref().filter(|_| !self.opened) else { return };
        self.opened = true;
        let opened = if self.read_only { StateDirectory::examine(path) } else { StateDirectory::open(path) };
        match opened {
            Ok(state) => {
                self.kept = Arc::new(Mutex::new(Kept::in_directory(&state)));
                self.state = Some(state);
            }
            Err(e) => {
                self.unusable = true;
                report.error(
                    "state_directory",
                    format!(
                        "\"{}\" can't be used: {e} (what is in force is not kept, so a restart forgets it)",
                        path.display()
                    ),
                );
            }
        }
    }

    /// Takes in what an earlier process kept: the numbers of the newest lists, and the copies of files as if they had just
    /// been read, so that a file which is broken or gone by now has a last good list. The copies of URLs are what they
    /// hold until they are fetched.
    fn restore(&mut self, sources: &mut Sources, settings: &Settings, issuers: &[Issuer], report: &mut Report<'_>) {
        let Some(state) = &self.state else { return };
        match state.numbers() {
            Ok(seen) => sources.remember(seen),
            // The copies have numbers, too, and are asked next: only that of a list without a good copy is lost.
            Err(e) => {
                let message = "they are taken from the copies of the lists instead, and the file is written anew";
                report.error("state_directory", format!("the highest CRL numbers can't be used: {e} ({message})"));
            }
        }
        let is_file = |name: &str| settings.revocation.urls().all(|url| url.url != name);
        let mut inputs = Vec::new();
        for note in state.notes() {
            if is_file(&note.source) && is_configured(&settings.revocation, &note.source) {
                self.last_good.insert(note.source.clone(), note.taken);
                let bytes = state.copy(&note.source);
                inputs.push(SourceInput { key: note.source, bytes, issuer: None });
            }
        }
        if inputs.is_empty() {
            return;
        }
        let (_, reports) = sources.update(inputs, issuers, unix_now(), &verify);
        for SourceReport { key, faults, .. } in &reports {
            for fault in faults {
                report.warn("state_directory", format!("the copy of \"{key}\" is not used: {fault}"));
            }
        }
    }

    /// Where every source is now.
    fn places(&self, settings: &Settings, report: &mut Report<'_>) -> Vec<Place> {
        let mut places = Vec::new();
        for (index, source) in settings.revocation.sources.iter().enumerate() {
            let at = format!("revocation.crls[{index}]");
            let mut add = |name: String, kind, key: &str| {
                places.push(Place { name, kind, key: format!("{at}.{key}"), issuer: source.issuer.clone() });
            };
            match &source.place {
                CrlPlace::File(path) => add(path.display().to_string(), SourceKind::File, "file"),
                CrlPlace::Directory(path) => match list_directory(path, MAX_CRL_FILES) {
                    Ok(files) => files
                        .iter()
                        .for_each(|file| add(file.display().to_string(), SourceKind::Directory, "directory")),
                    Err(e) => report.error(
                        &format!("{at}.directory"),
                        format!("\"{}\": {e} (the last good lists stay in force)", path.display()),
                    ),
                },
                CrlPlace::Url(url) => {
                    match UpstreamMaterial::load(url.ca.as_deref(), None) {
                        Ok(material) => self.shelf.prepare(url, material, self.state.as_ref()),
                        Err(errors) => report.material(&at, errors),
                    }
                    add(url.url.clone(), SourceKind::Url, "url");
                }
            }
        }
        places
    }

    /// What is there now, with its SHA-256 if copies are kept; `None` for a URL that never answered.
    fn read(&self, place: &Place) -> Option<(Content, Option<String>)> {
        if place.kind == SourceKind::Url {
            return self.shelf.document(&place.name, self.state.as_ref()).map(|document| match document {
                Ok((bytes, sha256)) => (Ok(bytes), Some(sha256)),
                Err(e) => (Err(e), None),
            });
        }
        let bytes = read_bounded(Path::new(&place.name), max_source()).map_err(|e| e.to_string());
        let hashed = bytes.as_ref().ok().filter(|_| self.state.is_some());
        let sha256 = hashed.map(|bytes| hex(&Sha256::digest(bytes)));
        Some((bytes, sha256))
    }

    /// How each source stands: those that are there, those that were, and URLs of which nothing is known yet.
    fn statuses(&self, reports: Vec<SourceReport>, places: &[Place]) -> Vec<SourceStatus> {
        let mut all: Vec<(String, Option<SourceReport>)> =
            reports.into_iter().map(|report| (report.key.clone(), Some(report))).collect();
        let unknown = places.iter().filter(|place| all.iter().all(|(name, _)| *name != place.name));
        let unknown: Vec<_> = unknown.map(|place| (place.name.clone(), None)).collect();
        all.extend(unknown);
        let status = |(name, report): (String, Option<SourceReport>)| {
            let place = places.iter().find(|place| place.name == name);
            // What isn't anywhere any more was in a directory.
            let (kind, key) = place.map_or((SourceKind::Directory, "revocation.crls"), |p| (p.kind, p.key.as_str()));
            let last_good = self.last_good.get(&name).copied();
            SourceStatus::new(name, kind, key.to_owned(), report, last_good, &self.shelf)
        };
        all.into_iter().map(status).collect()
    }
}

/// Whether a source of this name is configured, or a file of a directory that is.
fn is_configured(configured: &config::Revocation, name: &str) -> bool {
    let path = Path::new(name);
    configured.sources.iter().any(|source| match &source.place {
        CrlPlace::File(file) => path == file,
        CrlPlace::Directory(directory) => path.parent() == Some(directory),
        CrlPlace::Url(url) => name == url.url,
    })
}

fn verify(data: &revocation::SignedData<'_>, spki: &[u8]) -> Result<(), String> {
    tls::verify_signed_data(data, spki)
}

pub(super) fn max_source() -> ByteSize {
    ByteSize(revocation::MAX_SOURCE as u64)
}

/// How revocation is judged before the first configuration says it.
pub(super) fn default_revocation() -> revocation::Settings {
    revocation::Settings {
        freshness: revocation::Freshness::Required,
        check: revocation::Check::Chain,
        grace: Duration::ZERO,
        clock_skew: Duration::ZERO,
    }
}

fn revocation_settings(configured: &config::Revocation) -> revocation::Settings {
    revocation::Settings {
        freshness: match configured.freshness {
            config::Freshness::Required => revocation::Freshness::Required,
            config::Freshness::Optional => revocation::Freshness::Optional,
        },
        check: match configured.check {
            config::ChainCheck::Chain => revocation::Check::Chain,
            config::ChainCheck::Leaf => revocation::Check::Leaf,
        },
        grace: configured.grace,
        clock_skew: configured.clock_skew,
    }
}
