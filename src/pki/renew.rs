//! Renewing leaves: the same names for the same places, a new key (or the same, if asked for) and new dates.

use super::files;
use super::index::Entry;
use super::journal::Kind;
use super::store::{KeySource, Made, Order, Passphrases, Store};
use super::x509::Facts;
use super::{PkiError, Selection};
use crate::revocation::Reason;
use crate::tls::issue::{KeyKind, LeafRequest, PrivateKey, PublicKey, Purpose};

/// How to renew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Renewal {
    /// Seconds of validity; as long as before if absent.
    pub(crate) seconds: Option<i64>,
    /// Whether the certificate before is revoked at once, as superseded.
    pub(crate) revoke: bool,
    /// Whether the key stays. One that was made elsewhere always does.
    pub(crate) same_key: bool,
}

impl Store {
    /// The leaves whose newest certificate ends within `seconds` and isn't revoked, each once. Expired ones are among
    /// them: somebody may still want them.
    pub(crate) fn due(&self, seconds: i64, now: i64) -> Vec<Entry> {
        let mut newest: Vec<&Entry> = Vec::new();
        for entry in self.index().entries().iter().filter(|entry| entry.der.is_some() && entry.kind != Kind::Authority)
        {
            newest.retain(|other| (other.kind, &other.name) != (entry.kind, &entry.name));
            newest.push(entry);
        }
        let is_due =
            |entry: &&Entry| entry.revoked.is_none() && entry.not_after.is_some_and(|end| end <= now + seconds);
        newest.into_iter().filter(is_due).cloned().collect()
    }

    /// The newest certificate that `what` names, valid or expired, but not revoked.
    pub(crate) fn renewable(&self, what: &Selection, now: i64) -> Result<Entry, PkiError> {
        let (found, called): (Vec<&Entry>, String) = match what {
            Selection::Name(name) => {
                let same =
                    |entry: &&Entry| entry.name == *name && entry.revoked.is_none() && entry.kind != Kind::Authority;
                (self.index().entries().iter().filter(same).collect(), name.clone())
            }
            Selection::Serial(serial) => (self.index().of_serial(serial), serial.to_string()),
            Selection::File(path) => (Vec::new(), path.display().to_string()),
        };
        let newest = found.last().ok_or_else(|| PkiError::Unknown(format!("certificate of {called} to renew")))?;
        if found.iter().any(|entry| entry.kind != newest.kind && entry.is_valid(now)) {
            return Err(PkiError::Ambiguous(called));
        }
        if newest.der.is_none() || newest.kind == Kind::Authority {
            return Err(PkiError::NotOurs(called));
        }
        Ok((*newest).clone())
    }

    /// Issues the successor of a certificate.
    pub(crate) fn renew(
        &mut self,
        old: &Entry,
        how: Renewal,
        passphrases: &Passphrases,
        now: i64,
    ) -> Result<Made, PkiError> {
        let not_ours = || PkiError::NotOurs(old.name.clone());
        let der = old.der.as_deref().ok_or_else(not_ours)?;
        let facts = Facts::of(der).ok_or_else(not_ours)?;
        let key = if old.foreign_key {
            KeySource::Theirs(PublicKey::of_certificate(der)?)
        } else if how.same_key {
            KeySource::Kept(self.key_of(old, &PublicKey::of_certificate(der)?)?)
        } else if PublicKey::of_certificate(der)?.describe().starts_with("RSA") {
            KeySource::New(KeyKind::Rsa3072)
        } else {
            KeySource::New(KeyKind::EcdsaP256)
        };
        let lifetime = facts.not_after - facts.not_before - super::store::BACKDATED;
        let order = Order {
            name: old.name.clone(),
            request: LeafRequest {
                purpose: if old.kind == Kind::Client { Purpose::Client } else { Purpose::Server },
                common_name: facts.common_name.ok_or_else(not_ours)?,
                organizational_unit: facts.organizational_unit,
                dns: facts.dns,
                ips: facts.ips,
                uris: facts.uris,
            },
            key,
            seconds: how.seconds.unwrap_or(lifetime),
            placement: old.placement.clone(),
            replace: true,
        };
        let made = self.issue(&order, passphrases, now)?;
        if how.revoke {
            self.revoke(&Selection::Serial(old.serial), Reason::Superseded, now)?;
        }
        Ok(made)
    }

    /// The key of a certificate that was issued here, from beside it.
    fn key_of(&self, entry: &Entry, public: &PublicKey) -> Result<PrivateKey, PkiError> {
        let home = entry.placement.out.clone().unwrap_or_else(|| self.home(entry.kind, &entry.name));
        let path = home.join(format!("{}.key", entry.kind.as_str()));
        let key = PrivateKey::from_pem(&files::read_file(&path)?, None);
        let key = key.map_err(|fault| PkiError::Key { path: path.clone(), fault })?;
        if !public.belongs_to(&key) {
            return Err(PkiError::unusable(path, format!("it isn't the key of the certificate of {}", entry.name)));
        }
        Ok(key)
    }
}
