//! Signing revocation lists.

use super::files::{self, Access};
use super::journal::{Event, Signer};
use super::{DAY, PkiError, Store};
use crate::config::Secret;
use crate::tls::issue::{self, Authority, CrlRequest, Revoked, Validity};

/// What is wanted of the next lists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListOrder {
    /// Days until the CA's next list is due.
    pub(crate) days: u32,
    /// Days until the root's next list is due.
    pub(crate) root_days: u32,
    /// Whether the root signs, too, without need.
    pub(crate) root: bool,
}

impl Default for ListOrder {
    fn default() -> Self {
        Self { days: 7, root_days: 180, root: false }
    }
}

/// What was signed.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// Signer, number, nextUpdate in unix seconds, entries.
    pub(crate) signed: Vec<(Signer, u64, i64, usize)>,
    /// What the operator has to know: a root that should sign and isn't there.
    pub(crate) warnings: Vec<String>,
}

impl Store {
    /// Signs the CA's list anew, and the root's if it is due and the root's key is here. Writes `ca.crl` and `root.crl`.
    pub(crate) fn write_lists(
        &mut self,
        order: ListOrder,
        passphrase: Option<&Secret<String>>,
        now: i64,
    ) -> Result<Lists, PkiError> {
        let mut lists = Lists::default();
        if self.has_own_root() {
            self.write_root_list(order, passphrase, now, &mut lists)?;
        }
        let ca = self.authority(Signer::Ca, passphrase)?;
        let list = self.sign_list(&ca, Signer::Ca, order.days, now, &mut lists)?;
        let root = files::read_if_there(&self.path("root.crl"))?.unwrap_or_default();
        files::write(&self.path("ca.crl"), &[list, root].concat(), Access::Public)?;
        Ok(lists)
    }

    /// The root's list covers the CA's own certificate. It changes rarely, and so does not ask for the root's key
    /// before half its time is over.
    fn write_root_list(
        &mut self,
        order: ListOrder,
        passphrase: Option<&Secret<String>>,
        now: i64,
        lists: &mut Lists,
    ) -> Result<(), PkiError> {
        let entries = self.index().listed(Signer::Root, now).count();
        let last = self.index().last_list(Signer::Root);
        let changed = last.is_none_or(|last| last.entries != entries);
        let half = i64::from(order.root_days) * DAY / 2;
        let due = last.is_none_or(|last| last.next_update - now < half);
        if !(order.root || changed || due) {
            return Ok(());
        }
        match self.authority(Signer::Root, passphrase) {
            Ok(root) => {
                let list = self.sign_list(&root, Signer::Root, order.root_days, now, lists)?;
                files::write(&self.path("root.crl"), &list, Access::Public)
            }
            Err(PkiError::RootAway(path)) if !order.root => {
                let soon = last.is_none_or(|last| last.next_update - now < 30 * DAY);
                if changed || soon {
                    lists.warnings.push(format!(
                        "the root's list {} and {} is not here: bring it and run `portcullis pki crl` again",
                        if changed { "lacks a revocation" } else { "runs out within 30 days" },
                        path.display()
                    ));
                }
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Signs one list and gives it as PEM.
    ///
    /// The number is in the journal before the list exists, so that no two lists ever have the same. It is the time
    /// where that is larger than the last number plus one, so that a PKI restored from an old backup doesn't sign
    /// lists that the gateway takes for older than the one it has.
    fn sign_list(
        &mut self,
        authority: &Authority,
        signer: Signer,
        days: u32,
        now: i64,
        lists: &mut Lists,
    ) -> Result<Vec<u8>, PkiError> {
        let mut revoked: Vec<Revoked> = Vec::new();
        for entry in self.index().listed(signer, now) {
            if let Some((since, reason)) = entry.revoked {
                revoked.push(Revoked { serial: entry.serial, since: since.min(now), reason });
            }
        }
        let after_last = self.index().last_list(signer).map_or(1, |last| last.number.saturating_add(1));
        let number = after_last.max(u64::try_from(now).unwrap_or_default());
        let next_update = now + i64::from(days) * DAY;
        let entries = revoked.len();
        self.record(vec![Event::Listed { at: now, by: signer, number, next_update, entries }])?;
        let validity = Validity { from: now, until: next_update };
        let der = authority.sign_crl(&CrlRequest { number, validity, revoked: &revoked })?;
        lists.signed.push((signer, number, next_update, entries));
        Ok(issue::crl_pem(&der))
    }
}
