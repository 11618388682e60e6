//! The lists in force, as the serving threads ask them.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::serials::SerialSet;
use super::{Check, CrlNumber, Freshness, Refusal, Settings};
use crate::identity::{IssuerId, PathCertificate};

/// One accepted list.
#[derive(Debug)]
pub(super) struct List {
    pub(super) issuer: IssuerId,
    /// The issuer's subject in one printable line.
    pub(super) issuer_name: String,
    pub(super) this_update: i64,
    pub(super) next_update: i64,
    pub(super) number: Option<CrlNumber>,
    /// Whether it had run out when it came: a list that hadn't goes before it, whatever the numbers say.
    pub(super) came_expired: bool,
    pub(super) serials: SerialSet,
    pub(super) content: [u8; 32],
}

/// The revocation lists in force: immutable, shared by cloning, asked without locks or allocation.
#[derive(Debug, Clone)]
pub struct Index(Option<Arc<InForce>>);

#[derive(Debug)]
struct InForce {
    settings: Settings,
    /// By issuer, in order. Several lists of one issuer are united.
    issuers: Vec<(IssuerId, Vec<Arc<List>>)>,
    content_hash: [u8; 32],
}

impl Index {
    /// The index of a gateway without revocation sources: it permits everything.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// `lists` by issuer, in order of the issuers.
    pub(super) fn new(settings: Settings, issuers: Vec<(IssuerId, Vec<Arc<List>>)>) -> Self {
        let content_hash = hash_content(&issuers);
        Self(Some(Arc::new(InForce { settings, issuers, content_hash })))
    }

    /// Whether any revocation source is configured.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Asks about a verified path (leaf first, anchor last) at `now` (unix seconds).
    ///
    /// # Errors
    ///
    /// A revoked certificate anywhere in the path is named before a missing or stale list, since it is the news that
    /// the client and the operator need.
    pub fn check(&self, path: &[PathCertificate], now: i64) -> Result<(), Refusal> {
        let Some(in_force) = &self.0 else { return Ok(()) };
        if path.is_empty() {
            return Err(Refusal::NoPath);
        }
        let mut verdict = Ok(());
        for (certificate, issuer) in in_force.asked(path) {
            let lists = in_force.lists(certificate.issuer);
            if let Some(reason) = lists.iter().find_map(|list| list.serials.find(&certificate.serial)) {
                let (subject, serial) = (certificate.subject.clone(), certificate.serial);
                return Err(Refusal::Revoked { subject, serial, reason });
            }
            if verdict.is_ok() && in_force.settings.freshness == Freshness::Required {
                verdict = match in_force.settings.fresh_until(lists) {
                    Some(until) if now <= until => Ok(()),
                    Some(_) => Err(Refusal::Stale { issuer: issuer_name(issuer) }),
                    None => Err(Refusal::NoList { issuer: issuer_name(issuer) }),
                };
            }
        }
        verdict
    }

    /// Until when (unix seconds, inclusive) a path that [`Index::check`] permits now stays permitted by this index.
    #[must_use]
    pub fn permits_until(&self, path: &[PathCertificate]) -> i64 {
        let Some(in_force) = &self.0 else { return i64::MAX };
        if in_force.settings.freshness == Freshness::Optional {
            return i64::MAX;
        }
        let ends = in_force.asked(path).map(|(certificate, _)| in_force.lists(certificate.issuer));
        ends.map(|lists| in_force.settings.fresh_until(lists).unwrap_or(i64::MIN)).min().unwrap_or(i64::MAX)
    }

    /// SHA-256 over issuers and revoked entries in force: neither dates nor numbers, so that a list that revokes the
    /// same as before changes nothing, and replicas agree. All zero if nothing is revoked.
    #[must_use]
    pub fn content_hash(&self) -> [u8; 32] {
        self.0.as_ref().map(|in_force| in_force.content_hash).unwrap_or_default()
    }

    /// How many entries are in force. An entry of several united lists counts for each.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.all_lists().map(|list| list.serials.len()).sum()
    }

    /// Bytes on the heap, all overhead counted.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        let lists = self.all_lists().map(|list| size_of::<List>() + list.issuer_name.len() + list.serials.heap_size());
        size_of::<InForce>() + lists.sum::<usize>()
    }

    fn all_lists(&self) -> impl Iterator<Item = &List> {
        self.0.iter().flat_map(|in_force| &in_force.issuers).flat_map(|(_, lists)| lists).map(AsRef::as_ref)
    }
}

impl InForce {
    /// The certificates to ask about, each with its issuer's certificate.
    fn asked<'p>(
        &self,
        path: &'p [PathCertificate],
    ) -> impl Iterator<Item = (&'p PathCertificate, Option<&'p PathCertificate>)> + use<'p> {
        let most = match self.settings.check {
            Check::Chain => path.len(),
            Check::Leaf => 1,
        };
        let issuers = path.iter().skip(1).map(Some).chain(std::iter::once(None));
        path.iter().zip(issuers).take(most).filter(|(certificate, _)| !certificate.is_anchor)
    }

    fn lists(&self, issuer: IssuerId) -> &[Arc<List>] {
        let found = self.issuers.binary_search_by(|(id, _)| id.cmp(&issuer)).ok();
        found.and_then(|position| self.issuers.get(position)).map(|(_, lists)| lists.as_slice()).unwrap_or_default()
    }
}

impl Settings {
    /// The last moment (unix seconds) at which any of the lists counts; `None` without lists.
    fn fresh_until(&self, lists: &[Arc<List>]) -> Option<i64> {
        lists.iter().map(|list| self.counts_until(list.next_update)).max()
    }

    /// The last moment at which a list with this nextUpdate counts.
    pub(super) fn counts_until(&self, next_update: i64) -> i64 {
        next_update.saturating_add(seconds(self.grace)).saturating_add(seconds(self.clock_skew))
    }

    /// The clock skew in seconds.
    pub(super) fn skew(&self) -> i64 {
        seconds(self.clock_skew)
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn issuer_name(issuer: Option<&PathCertificate>) -> String {
    issuer.map_or_else(|| "an issuer outside the path".to_owned(), |issuer| issuer.subject.clone())
}

fn hash_content(issuers: &[(IssuerId, Vec<Arc<List>>)]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut nothing = true;
    for (issuer, lists) in issuers {
        // Which source holds which part, or whether two hold the same, doesn't matter.
        let mut contents: Vec<_> =
            lists.iter().filter(|list| list.serials.len() > 0).map(|list| list.content).collect();
        contents.sort_unstable();
        contents.dedup();
        for content in contents {
            hash.update(issuer.as_bytes());
            hash.update(content);
            nothing = false;
        }
    }
    if nothing { [0; 32] } else { hash.finalize().into() }
}
