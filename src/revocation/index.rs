//! The lists in force, as the serving threads ask them.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::stack::Stack;
use super::{Check, Freshness, Reason, Refusal, Settings};
use crate::identity::{IssuerId, PathCertificate, ReasonFlags};

/// The revocation lists in force: immutable, shared by cloning, asked without locks or allocation.
#[derive(Debug, Clone)]
pub struct Index(Option<Arc<InForce>>);

#[derive(Debug)]
struct InForce {
    settings: Settings,
    /// By issuer, in order. Stacks of one issuer are united.
    issuers: Vec<(IssuerId, Vec<Stack>)>,
    content_hash: [u8; 32],
}

/// What is known of a certificate that isn't revoked.
enum Coverage {
    /// The lists that are about it count until then (unix seconds, inclusive).
    Until(i64),
    /// Its issuer has no list.
    NoList,
    /// Its issuer's lists are about other certificates, or not about every reason.
    Uncovered,
    /// A list that is about it is older than one that was in force before.
    RolledBack,
}

impl Index {
    /// The index of a gateway without revocation sources: it permits everything.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Stacks by issuer, in order of the issuers.
    pub(super) fn new(settings: Settings, issuers: Vec<(IssuerId, Vec<Stack>)>) -> Self {
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
            if let Some(reason) = in_force.revoked(certificate) {
                let (subject, serial) = (certificate.subject.clone(), certificate.serial);
                return Err(Refusal::Revoked { subject, serial, reason });
            }
            if verdict.is_ok() && in_force.settings.freshness == Freshness::Required {
                verdict = match in_force.coverage(certificate) {
                    Coverage::Until(until) if now <= until => Ok(()),
                    Coverage::Until(_) => Err(Refusal::Stale { issuer: issuer_name(issuer) }),
                    Coverage::NoList => Err(Refusal::NoList { issuer: issuer_name(issuer) }),
                    Coverage::RolledBack => Err(Refusal::RolledBack { issuer: issuer_name(issuer) }),
                    Coverage::Uncovered => {
                        Err(Refusal::Uncovered { issuer: issuer_name(issuer), subject: certificate.subject.clone() })
                    }
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
        let ends = in_force.asked(path).map(|(certificate, _)| match in_force.coverage(certificate) {
            Coverage::Until(until) => until,
            Coverage::NoList | Coverage::Uncovered | Coverage::RolledBack => i64::MIN,
        });
        ends.min().unwrap_or(i64::MAX)
    }

    /// SHA-256 over issuers and entries in force: neither dates nor numbers, so that a list that revokes the same as
    /// before changes nothing, and replicas agree. All zero if nothing is revoked.
    #[must_use]
    pub fn content_hash(&self) -> [u8; 32] {
        self.0.as_ref().map(|in_force| in_force.content_hash).unwrap_or_default()
    }

    /// How many entries are in force. An entry of several lists, as of a delta and its base, counts for each.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.stacks().map(Stack::entries).sum()
    }

    /// Bytes on the heap, all overhead counted.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        size_of::<InForce>() + self.stacks().map(|stack| size_of::<Stack>() + stack.heap_size()).sum::<usize>()
    }

    fn stacks(&self) -> impl Iterator<Item = &Stack> {
        self.0.iter().flat_map(|in_force| &in_force.issuers).flat_map(|(_, stacks)| stacks)
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

    fn stacks(&self, issuer: IssuerId) -> &[Stack] {
        let found = self.issuers.binary_search_by(|(id, _)| id.cmp(&issuer)).ok();
        found.and_then(|position| self.issuers.get(position)).map(|(_, stacks)| stacks.as_slice()).unwrap_or_default()
    }

    /// Why a certificate is revoked. A list of any scope says it: serial numbers are unique for each issuer, and a list
    /// that names a certificate outside of its scope is still its issuer's word.
    fn revoked(&self, certificate: &PathCertificate) -> Option<Reason> {
        self.stacks(certificate.issuer).iter().find_map(|stack| stack.find(&certificate.serial))
    }

    /// Until when every reason for which the certificate might be revoked is covered by a list that would say so.
    fn coverage(&self, certificate: &PathCertificate) -> Coverage {
        let stacks = self.stacks(certificate.issuer);
        if stacks.is_empty() {
            return Coverage::NoList;
        }
        let mut ends = [None; ReasonFlags::COUNT];
        let mut rolled_back = false;
        for stack in stacks {
            let reasons = stack.scope().covers(certificate);
            if stack.is_rolled_back() {
                rolled_back |= !reasons.is_empty();
                continue;
            }
            let end = stack.next_update().map(|next_update| self.settings.counts_until(next_update));
            ends.iter_mut().zip(reasons.each()).filter(|(_, covered)| *covered).for_each(|(slot, _)| {
                *slot = end.max(*slot);
            });
        }
        match ends.into_iter().min().flatten() {
            Some(until) => Coverage::Until(until),
            None if rolled_back => Coverage::RolledBack,
            None => Coverage::Uncovered,
        }
    }
}

impl Settings {
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

fn hash_content(issuers: &[(IssuerId, Vec<Stack>)]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut nothing = true;
    for (issuer, stacks) in issuers {
        // Which source holds which part, or whether two hold the same, doesn't matter.
        let mut contents: Vec<_> = stacks.iter().flat_map(Stack::contents).collect();
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
