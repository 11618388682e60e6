//! The control plane's side: takes in sources, keeps the last good lists, says what is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::crl::Crl;
use super::index::List;
use super::pem::for_each_list;
use super::serials::SerialSet;
use super::{CrlFault, CrlNumber, Index, Issuer, Settings, Verify};
use crate::identity::{IssuerId, canonical_name, display_name};

/// Most bytes of one source; whoever reads sources should not read more. A list of a million entries has about 40 MB,
/// and a third more as PEM.
pub const MAX_SOURCE: usize = 160 * 1024 * 1024;

/// What was read from one source.
#[derive(Debug)]
pub struct SourceInput {
    /// What the source is called in messages and reports: its path.
    pub key: String,
    /// Its bytes (one DER list, or PEM blocks), or why there are none.
    pub bytes: Result<Vec<u8>, String>,
}

/// How one source stands after an update.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceReport {
    /// The source's key.
    pub key: String,
    /// Its lists, one for each issuer: the last good ones, whatever the last reading gave.
    pub lists: Vec<ListReport>,
    /// When it was last read without fault, in unix seconds.
    pub last_success: Option<i64>,
    /// What was wrong this time.
    pub faults: Vec<CrlFault>,
}

/// An accepted list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListReport {
    /// Name and key of the issuer.
    pub issuer: IssuerId,
    /// The issuer's subject in one printable line.
    pub issuer_name: String,
    /// The CRL number.
    pub number: Option<CrlNumber>,
    /// Start of validity, in unix seconds.
    pub this_update: i64,
    /// When the next list is due, in unix seconds.
    pub next_update: i64,
    /// How many serial numbers are revoked.
    pub entries: usize,
    /// Whether the list counts, or a newer one of another source goes before it.
    pub in_force: bool,
}

/// Every source and its last good lists.
///
/// A source that can't be read, or is gone, keeps its lists until another source has a list of the same issuer that is
/// at least as new; only [`Sources::retain`] forgets at once. Cloning is cheap, so a build of a snapshot that may fail
/// can work on a copy.
#[derive(Debug, Clone)]
pub struct Sources {
    settings: Settings,
    by_key: BTreeMap<String, Source>,
    issuers: Vec<IssuerId>,
}

#[derive(Debug, Clone, Default)]
struct Source {
    /// SHA-256 of the bytes, if they were taken without fault: the same bytes needn't be read again.
    clean: Option<[u8; 32]>,
    held: BTreeMap<IssuerId, Held>,
    last_success: Option<i64>,
}

#[derive(Debug, Clone)]
struct Held {
    list: Arc<List>,
    /// Whether the source still holds it, as far as it could be read.
    present: bool,
}

impl Sources {
    /// No sources yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, by_key: BTreeMap::new(), issuers: Vec::new() }
    }

    /// Changes how revocation is judged, from the next update on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Forgets the sources that are no longer configured, and what they revoked.
    ///
    /// For files that have vanished from a configured directory this must not be called.
    pub fn retain(&mut self, mut is_configured: impl FnMut(&str) -> bool) {
        self.by_key.retain(|key, _| is_configured(key));
    }

    /// Takes in what all sources hold now, and gives the index of what is in force.
    ///
    /// Expensive for large lists (a million entries: about half a second), so it belongs off the serving threads.
    /// Sources that are known but not in `inputs` count as missing. Lists of authorities that are not in `issuers`
    /// (all CA certificates of the trust bundles) are refused, and forgotten if they had been accepted.
    pub fn update(
        &mut self,
        inputs: Vec<SourceInput>,
        issuers: &[Issuer],
        now: i64,
        verify: &Verify<'_>,
    ) -> (Index, Vec<SourceReport>) {
        self.follow_trust(issuers);
        let mut faults: BTreeMap<String, Vec<CrlFault>> =
            self.by_key.keys().map(|key| (key.clone(), vec![CrlFault::Missing])).collect();
        let reading = Reading { settings: &self.settings, issuers, now, verify };
        for SourceInput { key, bytes } in inputs {
            let source = self.by_key.entry(key.clone()).or_default();
            let found = match bytes {
                Ok(bytes) => source.take(bytes, &reading),
                Err(cause) => vec![CrlFault::Unreadable(cause)],
            };
            faults.insert(key, found);
        }
        self.mark_absent(&faults);
        self.drop_superseded();
        let in_force = self.in_force();
        let reports = self.reports(faults, &in_force);
        (Index::new(self.settings.clone(), in_force), reports)
    }

    /// Another set of authorities: lists of those who left count no more, and refused lists deserve another look.
    fn follow_trust(&mut self, issuers: &[Issuer]) {
        let mut ids: Vec<_> = issuers.iter().filter(|issuer| issuer.may_sign_crls).map(|issuer| issuer.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids == self.issuers {
            return;
        }
        for source in self.by_key.values_mut() {
            source.clean = None;
            source.held.retain(|id, _| ids.binary_search(id).is_ok());
        }
        self.issuers = ids;
    }

    fn mark_absent(&mut self, faults: &BTreeMap<String, Vec<CrlFault>>) {
        for (key, source) in &mut self.by_key {
            let unread = |fault: &CrlFault| matches!(fault, CrlFault::Missing | CrlFault::Unreadable(_));
            if faults.get(key).is_some_and(|faults| faults.iter().any(unread)) {
                source.clean = None;
                source.held.values_mut().for_each(|held| held.present = false);
            }
        }
    }

    /// Lets go of lists that their source no longer holds, once another source has one that is at least as new, and of
    /// sources that are gone and hold nothing any more.
    fn drop_superseded(&mut self) {
        let mut newest: BTreeMap<IssuerId, Arc<List>> = BTreeMap::new();
        for held in self.by_key.values().flat_map(|source| source.held.values()).filter(|held| held.present) {
            let list = newest.entry(held.list.issuer).or_insert_with(|| Arc::clone(&held.list));
            if held.list.precedes(list) {
                *list = Arc::clone(&held.list);
            }
        }
        for source in self.by_key.values_mut() {
            source
                .held
                .retain(|id, held| held.present || newest.get(id).is_none_or(|newest| held.list.precedes(newest)));
        }
    }

    /// Each issuer's newest lists: one, or several of the same age with different content, which are united.
    fn in_force(&self) -> Vec<(IssuerId, Vec<Arc<List>>)> {
        let mut by_issuer: BTreeMap<IssuerId, Vec<Arc<List>>> = BTreeMap::new();
        for held in self.by_key.values().flat_map(|source| source.held.values()) {
            let lists = by_issuer.entry(held.list.issuer).or_default();
            lists.retain(|other| !held.list.precedes(other));
            let known = lists.iter().any(|other| other.precedes(&held.list) || other.is_same_as(&held.list));
            if !known {
                lists.push(Arc::clone(&held.list));
            }
        }
        by_issuer.into_iter().collect()
    }

    fn reports(
        &mut self,
        mut faults: BTreeMap<String, Vec<CrlFault>>,
        in_force: &[(IssuerId, Vec<Arc<List>>)],
    ) -> Vec<SourceReport> {
        let counts = |list: &List| in_force.iter().flat_map(|(_, lists)| lists).any(|other| other.is_same_as(list));
        let reports: Vec<_> = self
            .by_key
            .iter()
            .map(|(key, source)| SourceReport {
                key: key.clone(),
                lists: source.held.values().map(|held| held.list.report(counts(&held.list))).collect(),
                last_success: source.last_success,
                faults: faults.remove(key).unwrap_or_default(),
            })
            .collect();
        // A source that is gone and has nothing left to say is reported once more and then forgotten.
        let gone = |report: &SourceReport| report.lists.is_empty() && report.faults.contains(&CrlFault::Missing);
        for report in reports.iter().filter(|report| gone(report)) {
            self.by_key.remove(&report.key);
        }
        reports
    }
}

/// What every list of an update is judged by.
struct Reading<'a> {
    settings: &'a Settings,
    issuers: &'a [Issuer],
    now: i64,
    verify: &'a Verify<'a>,
}

impl Source {
    /// Takes the lists of `bytes` that are good; each of the others leaves its issuer's last good list in force.
    fn take(&mut self, mut bytes: Vec<u8>, reading: &Reading<'_>) -> Vec<CrlFault> {
        if bytes.len() > MAX_SOURCE {
            return vec![CrlFault::TooLarge(bytes.len())];
        }
        let digest = <[u8; 32]>::from(Sha256::digest(&bytes));
        if self.clean == Some(digest) {
            self.last_success = Some(reading.now);
            return Vec::new();
        }
        let mut faults = Vec::new();
        let mut read: BTreeMap<IssuerId, List> = BTreeMap::new();
        for_each_list(&mut bytes, |der| match der.and_then(|der| reading.list(der)) {
            Ok(list) if read.get(&list.issuer).is_some_and(|other| other.precedes(&list)) => {}
            Ok(list) => drop(read.insert(list.issuer, list)),
            Err(fault) => faults.push(fault),
        });
        self.held.values_mut().for_each(|held| held.present = false);
        for (issuer, list) in read {
            match self.held.get(&issuer).map_or(Ok(()), |held| reading.may_replace(&held.list, &list)) {
                Ok(()) => drop(self.held.insert(issuer, Held { list: Arc::new(list), present: true })),
                Err(fault) => faults.push(fault),
            }
        }
        self.clean = faults.is_empty().then_some(digest);
        if faults.is_empty() {
            self.last_success = Some(reading.now);
        }
        faults
    }
}

impl Reading<'_> {
    /// Reads and verifies one list (DER).
    fn list(&self, der: &[u8]) -> Result<List, CrlFault> {
        let crl = Crl::parse(der)?;
        let issuer = self.issuer(&crl)?;
        let ahead = crl.this_update.saturating_sub(self.now);
        if ahead > self.settings.skew() {
            return Err(CrlFault::NotYetValid(ahead));
        }
        let serials = SerialSet::collect(&crl.entries())?;
        Ok(List {
            issuer: issuer.id,
            issuer_name: issuer.subject.clone(),
            this_update: crl.this_update,
            next_update: crl.next_update,
            number: crl.number,
            came_expired: self.has_run_out(crl.next_update),
            content: serials.content_hash(),
            serials,
        })
    }

    /// Whose key signed the list. A name alone says little: authorities renew their keys and keep their names.
    fn issuer(&self, crl: &Crl<'_>) -> Result<&Issuer, CrlFault> {
        let name = canonical_name(crl.issuer_der)?;
        let mut fault = None;
        for issuer in self.issuers.iter().filter(|issuer| issuer.is_named(&name)) {
            if !issuer.may_sign_crls {
                fault.get_or_insert_with(|| CrlFault::NotCrlSigner(issuer.subject.clone()));
                continue;
            }
            match (self.verify)(&crl.signed, &issuer.spki_der) {
                Ok(()) => return Ok(issuer),
                Err(cause) => fault = Some(CrlFault::BadSignature { issuer: issuer.subject.clone(), cause }),
            }
        }
        Err(fault.unwrap_or_else(|| CrlFault::UnknownIssuer(display_name(crl.issuer_der))))
    }

    fn may_replace(&self, held: &List, list: &List) -> Result<(), CrlFault> {
        if held.is_newer_than(list) {
            return Err(CrlFault::Older { found: list.number, held: held.number });
        }
        if list.came_expired && !self.has_run_out(held.next_update) {
            return Err(CrlFault::Expired(self.now.saturating_sub(list.next_update)));
        }
        Ok(())
    }

    fn has_run_out(&self, next_update: i64) -> bool {
        self.now > self.settings.counts_until(next_update)
    }
}

impl List {
    /// Whether this list is newer: by number, and by thisUpdate where numbers are equal or missing.
    fn is_newer_than(&self, other: &Self) -> bool {
        match (self.number, other.number) {
            (Some(own), Some(others)) if own != others => own > others,
            _ => self.this_update > other.this_update,
        }
    }

    /// Whether this list goes before another of the same issuer.
    fn precedes(&self, other: &Self) -> bool {
        match (self.came_expired, other.came_expired) {
            (false, true) => true,
            (true, false) => false,
            _ => self.is_newer_than(other),
        }
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.number == other.number
            && self.this_update == other.this_update
            && self.next_update == other.next_update
            && self.content == other.content
    }

    fn report(&self, in_force: bool) -> ListReport {
        ListReport {
            issuer: self.issuer,
            issuer_name: self.issuer_name.clone(),
            number: self.number,
            this_update: self.this_update,
            next_update: self.next_update,
            entries: self.serials.len(),
            in_force,
        }
    }
}
