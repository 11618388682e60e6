//! Revocation lists: where they are, and how they are judged.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::model::{ChainCheck, Freshness};

/// Revocation lists and how they are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Empty: revocation isn't checked.
    pub sources: Vec<CrlSource>,
    /// What an issuer without a valid list means.
    pub freshness: Freshness,
    /// Which certificates are asked about.
    pub check: ChainCheck,
    /// How long a list holds after its nextUpdate.
    pub grace: Duration,
    /// How far thisUpdate may lie in the future.
    pub clock_skew: Duration,
    /// How long before its end a list is spoken of; zero is never.
    pub expiry_warning: Duration,
}

/// A source of revocation lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlSource {
    /// Where it is.
    pub place: CrlPlace,
    /// The subject of the only CA whose lists it may hold.
    pub issuer: Option<String>,
}

/// Where revocation lists are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrlPlace {
    /// One file, PEM (several blocks) or DER.
    File(PathBuf),
    /// Every file of a directory, not of those below it.
    Directory(PathBuf),
    /// What a server answers.
    Url(CrlUrl),
}

/// A URL with revocation lists, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlUrl {
    /// As it was written; unique.
    pub url: String,
    /// Whether it is https.
    pub tls: bool,
    /// A DNS name in lower case, or an IP address without brackets; behind https always a name.
    pub host: String,
    /// The port, also where the URL has none.
    pub port: u16,
    /// Path and query.
    pub target: String,
    /// How often it is asked.
    pub refresh: Duration,
    /// For one attempt.
    pub timeout: Duration,
    /// Bytes of an answer at most.
    pub max_size: usize,
    /// What to verify the server's certificate with; none is the system's store.
    pub ca: Option<PathBuf>,
}

impl CrlSource {
    /// The file or directory whose change calls for a reload.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            CrlPlace::File(path) | CrlPlace::Directory(path) => Some(path),
            CrlPlace::Url(url) => url.ca.as_deref(),
        }
    }

    /// What the source is called in messages: its path, or its URL.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.place {
            CrlPlace::File(path) | CrlPlace::Directory(path) => path.display().to_string(),
            CrlPlace::Url(url) => url.url.clone(),
        }
    }
}

impl Revocation {
    /// The sources that are behind URLs.
    pub fn urls(&self) -> impl Iterator<Item = &CrlUrl> {
        self.sources.iter().filter_map(|source| match &source.place {
            CrlPlace::Url(url) => Some(url),
            CrlPlace::File(_) | CrlPlace::Directory(_) => None,
        })
    }
}
