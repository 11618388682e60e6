//! Making a PKI: from nothing, or from a CA that openssl made.

use std::path::{Path, PathBuf};

use super::PkiError;
use super::files;
use super::foreign;
use super::journal::{Event, Kind, Placement, Signer};
use super::lists::{ListOrder, Lists};
use super::store::{BACKDATED, Store, days};
use super::x509::{Facts, certificates, is_signed_by};
use crate::config::Secret;
use crate::tls::issue::{Authority, Depth, KeyKind, PrivateKey, Validity};

/// A PKI to be made from nothing.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What the CAs are called; `Root CA` and `Issuing CA` are added.
    pub(crate) name: String,
    pub(crate) key: KeyKind,
    /// Whether a CA for everyday use stands below the root.
    pub(crate) intermediate: bool,
    pub(crate) root_days: u32,
    pub(crate) ca_days: u32,
    pub(crate) lists: ListOrder,
    pub(crate) passphrase: Option<Secret<String>>,
}

/// A PKI to be made from an existing CA.
#[derive(Debug, Clone)]
pub(crate) struct Import {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The certificates above, up to the root.
    pub(crate) chain: Option<PathBuf>,
    /// Its last list.
    pub(crate) crl: Option<PathBuf>,
    /// openssl's database, `index.txt`.
    pub(crate) index: Option<PathBuf>,
    pub(crate) nothing_revoked: bool,
    pub(crate) lists: ListOrder,
    pub(crate) passphrase: Option<Secret<String>>,
}

impl Store {
    /// Makes a PKI at `directory`, which must not be there or be empty. It appears there complete, or not at all.
    pub(crate) fn create(directory: &Path, plan: &Plan, now: i64) -> Result<Lists, PkiError> {
        files::make_whole(directory, |hidden| Self::fill(hidden, plan, now))
    }

    fn fill(directory: &Path, plan: &Plan, now: i64) -> Result<Lists, PkiError> {
        let mut store = Self::empty(directory)?;
        let until = |lifetime: u32| Validity { from: now - BACKDATED, until: now + days(lifetime) };
        let passphrase = plan.passphrase.as_ref();
        let depth = if plan.intermediate { Depth::Authorities } else { Depth::Leaves };
        let name = format!("{} Root CA", plan.name);
        let root = Authority::root(&name, PrivateKey::generate(plan.key)?, depth, until(plan.root_days))?;
        let (root_pem, root_key) = (root.certificate_pem()?, root.key().to_pem(passphrase)?);
        if plan.intermediate {
            let name = format!("{} Issuing CA", plan.name);
            let lifetime = plan.ca_days.min(plan.root_days);
            let ca = root.subordinate(&name, PrivateKey::generate(plan.key)?, until(lifetime))?;
            let ca_pem = ca.certificate_pem()?;
            let bundle = [ca_pem.as_slice(), root_pem.as_slice()].concat();
            store.install(&[
                ("root.key", &root_key),
                ("root.crt", &root_pem),
                ("ca.key", &ca.key().to_pem(passphrase)?),
                ("ca.crt", &ca_pem),
                ("client-ca.pem", &bundle),
            ])?;
            store.record(vec![Event::Issued {
                at: now,
                by: Signer::Root,
                kind: Kind::Authority,
                name,
                certificate: data_encoding::BASE64.encode(&ca.certificate_der()?),
                foreign_key: false,
                placement: Placement::default(),
            }])?;
        } else {
            store.install(&[("ca.key", &root_key), ("ca.crt", &root_pem), ("client-ca.pem", &root_pem)])?;
        }
        store.write_lists(plan.lists, passphrase, now)
    }

    /// Makes a PKI at `directory` around an existing CA.
    ///
    /// Its key stays as it is, with its passphrase if it has one. What it has revoked must be known, since the next
    /// list replaces its last one. Only a root, or a CA below a root that is elsewhere, can be taken in.
    pub(crate) fn import(directory: &Path, import: &Import, now: i64) -> Result<(Lists, usize), PkiError> {
        if import.crl.is_none() && import.index.is_none() && !import.nothing_revoked {
            return Err(PkiError::HistoryMissing);
        }
        let certificate = files::read_file(&import.certificate)?;
        let ca = read_ca(&import.certificate, &certificate, now)?;
        let key = files::read_file(&import.key)?;
        let opened = PrivateKey::from_pem(&key, import.passphrase.as_ref())
            .map_err(|fault| PkiError::Key { path: import.key.clone(), fault })?;
        let ca_pem = crate::tls::issue::certificate_pem(&ca.0);
        Authority::from_parts(&ca_pem, opened)?;
        let chain = match &import.chain {
            Some(path) => chain_above(path, &ca.1)?,
            None if ca.1.is_self_issued() => Vec::new(),
            None => {
                let cause = "it is an intermediate: the gateway needs the root above it, too (--chain)";
                return Err(PkiError::unusable(&import.certificate, cause));
            }
        };
        let mut history = Vec::new();
        if let Some(path) = &import.index {
            history.extend(foreign::database(path, &files::read_file(path)?, now)?);
        }
        if let Some(path) = &import.crl {
            history.extend(foreign::list(path, &files::read_file(path)?, &ca.1, now)?);
        }
        files::make_whole(directory, |hidden| {
            let mut store = Self::empty(hidden)?;
            store.install(&[
                ("ca.key", &key),
                ("ca.crt", &ca_pem),
                ("client-ca.pem", &[ca_pem.clone(), chain.clone()].concat()),
            ])?;
            if !chain.is_empty() {
                store.install(&[("root.crt", &chain)])?;
            }
            store.record(history)?;
            let known = store.index().entries().len();
            Ok((store.write_lists(import.lists, import.passphrase.as_ref(), now)?, known))
        })
    }
}

/// The first certificate of a file, if it can sign for us: DER and facts.
fn read_ca(path: &Path, content: &[u8], now: i64) -> Result<(Vec<u8>, Facts), PkiError> {
    let fault = |cause: &str| PkiError::unusable(path, cause);
    let der = certificates(path, content)?.into_iter().next().ok_or_else(|| fault("it holds no certificate"))?;
    let facts = Facts::of(&der).ok_or_else(|| fault("it holds no readable certificate"))?;
    let issuer = crate::revocation::Issuer::from_certificate(&der).map_err(|e| fault(&e.to_string()))?;
    if !facts.is_ca {
        return Err(fault("it is not a CA certificate (basicConstraints lacks CA:TRUE)"));
    }
    if !issuer.may_sign_crls {
        return Err(fault("its key usage lacks cRLSign: nobody would accept its revocation list"));
    }
    if facts.not_after <= now {
        return Err(PkiError::CaExpired);
    }
    Ok((der, facts))
}

/// The certificates above an intermediate, up to the root, as PEM.
fn chain_above(path: &Path, ca: &Facts) -> Result<Vec<u8>, PkiError> {
    let mut rest: Vec<Facts> =
        certificates(path, &files::read_file(path)?)?.iter().filter_map(|der| Facts::of(der)).collect();
    let (mut below, mut pem) = (ca.clone(), Vec::new());
    while !below.is_self_issued() {
        let signed = |above: &Facts| {
            above.is_ca && above.subject_der == below.issuer_der && is_signed_by(&below.der, &above.spki_der)
        };
        let Some(at) = rest.iter().position(signed) else {
            return Err(PkiError::unusable(path, format!("it lacks the certificate that signed {}", below.subject)));
        };
        below = rest.swap_remove(at);
        pem.extend(crate::tls::issue::certificate_pem(&below.der));
    }
    Ok(pem)
}
