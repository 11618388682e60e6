//! Taking the lists of one source: which are good, and which of them may replace what is held.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::super::crl::Crl;
use super::super::pem::for_each_list;
use super::super::serials::SerialSet;
use super::super::stack::{Age, List, Series};
use super::super::{CrlFault, CrlNumber, Issuer, Settings, Verify};
use super::MAX_SOURCE;
use crate::identity::{canonical_name, display_name};

/// What every list of an update is judged by.
pub(super) struct Reading<'a> {
    pub(super) settings: &'a Settings,
    pub(super) issuers: &'a [Issuer],
    pub(super) now: i64,
    pub(super) verify: &'a Verify<'a>,
}

/// One source and its last good lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    /// SHA-256 of the bytes, if they were taken without fault: the same bytes needn't be read again.
    pub(super) clean: Option<[u8; 32]>,
    pub(super) held: BTreeMap<Key, Held>,
    pub(super) last_success: Option<i64>,
}

/// A source holds one full list of a series, and of deltas one for each span: a newer one that starts at a later list
/// can't stand for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) series: Series,
    /// Of a delta: from which number to which.
    pub(super) span: Option<(CrlNumber, CrlNumber)>,
}

#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) list: Arc<List>,
    /// Whether the source still holds it, as far as it could be read.
    pub(super) present: bool,
}

impl Key {
    pub(super) fn of(list: &List) -> Self {
        Self { series: list.series, span: list.base.zip(list.age.number) }
    }
}

impl Source {
    /// Takes the lists of `bytes` that are good; each of the others leaves the last good list of its kind in force.
    pub(super) fn take(&mut self, mut bytes: Vec<u8>, issuer: Option<&str>, reading: &Reading<'_>) -> Vec<CrlFault> {
        if bytes.len() > MAX_SOURCE {
            return vec![CrlFault::TooLarge(bytes.len())];
        }
        let digest = Sha256::new().chain_update(issuer.unwrap_or_default()).chain_update([0]).chain_update(&bytes);
        let digest = digest.finalize().into();
        if self.clean == Some(digest) {
            return Vec::new();
        }
        let mut faults = Vec::new();
        let mut read: BTreeMap<Key, List> = BTreeMap::new();
        for_each_list(&mut bytes, |der| match der.and_then(|der| reading.list(der, issuer)) {
            Ok(list) if read.get(&Key::of(&list)).is_some_and(|other| other.precedes(&list)) => {}
            Ok(list) => drop(read.insert(Key::of(&list), list)),
            Err(fault) => faults.push(fault),
        });
        self.held.values_mut().for_each(|held| held.present = false);
        let refused: Vec<_> = read.iter().filter_map(|(key, list)| self.refuse(*key, list, &read, reading)).collect();
        for (key, fault) in refused {
            read.remove(&key);
            faults.push(fault);
        }
        self.held.extend(read.into_iter().map(|(key, list)| (key, Held { list: Arc::new(list), present: true })));
        self.clean = faults.is_empty().then_some(digest);
        faults
    }

    /// Why a list that is good by itself may not be taken, if it is so.
    fn refuse(
        &self,
        key: Key,
        list: &List,
        read: &BTreeMap<Key, List>,
        reading: &Reading<'_>,
    ) -> Option<(Key, CrlFault)> {
        let same_kind = |other: &Key| other.series == key.series && other.span.is_some() == key.span.is_some();
        let held = self.held.iter().filter(|(other, _)| same_kind(other)).map(|(_, held)| &*held.list);
        let held = held.reduce(|a, b| if b.age.is_newer_than(a.age) { b } else { a })?;
        // An older delta is no rollback beside a newer one.
        let newest = read.iter().filter(|(other, _)| same_kind(other)).map(|(_, list)| list.age);
        let newest = newest.reduce(|a, b| if b.is_newer_than(a) { b } else { a }).unwrap_or(list.age);
        reading.may_replace(held, list, newest).err().map(|fault| (key, fault))
    }
}

impl Reading<'_> {
    /// Reads and verifies one list (DER). `expected` is the subject of the only issuer that may have signed it.
    fn list(&self, der: &[u8], expected: Option<&str>) -> Result<List, CrlFault> {
        let crl = Crl::parse(der)?;
        if let Some(expected) = expected {
            let found = display_name(crl.issuer_der);
            if plain(&found) != plain(expected) {
                return Err(CrlFault::OtherIssuer { found, expected: expected.to_owned() });
            }
        }
        let issuer = self.issuer(&crl)?;
        let ahead = crl.this_update.saturating_sub(self.now);
        if ahead > self.settings.skew() {
            return Err(CrlFault::NotYetValid(ahead));
        }
        let serials = SerialSet::collect(&crl.entries())?;
        Ok(List {
            series: Series { issuer: issuer.id, scope: crl.scope.id() },
            issuer_name: issuer.subject.clone(),
            scope: crl.scope,
            base: crl.base,
            age: Age { number: crl.number, this_update: crl.this_update },
            next_update: crl.next_update,
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

    /// Whether `list` may take the place of `held`, when the newest list of its kind that was read is of age `newest`.
    fn may_replace(&self, held: &List, list: &List, newest: Age) -> Result<(), CrlFault> {
        if held.age.is_newer_than(newest) {
            return Err(CrlFault::Older { found: list.age.number, held: held.age.number });
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

/// A subject without what differs between the tools that print it.
fn plain(subject: &str) -> String {
    subject.split_whitespace().flat_map(str::chars).map(|c| c.to_ascii_lowercase()).collect()
}
