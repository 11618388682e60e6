//! A PKI on disk, opened to work with.

use std::path::{Path, PathBuf};

use super::files::{self, Access};
use super::index::{Entry, Index};
use super::journal::{Event, Journal, Kind, Placement, Signer};
use super::layout::{self, Leaf};
use super::x509::{Facts, certificates, is_signed_by};
use super::{DAY, PkiError};
use crate::config::Secret;
use crate::identity::{LeafRules, PeerIdentity, Serial};
use crate::revocation::Reason;
use crate::tls::issue::{Authority, KeyKind, LeafRequest, PrivateKey, PublicKey, Purpose, Validity};

/// Certificates begin a little in the past, for machines whose clock is behind.
pub(super) const BACKDATED: i64 = 3_600;

/// A PKI, locked: no other command can change it until this value is gone.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    journal: Journal,
    index: Index,
}

/// Where the key of a new certificate comes from.
pub(crate) enum KeySource {
    /// It is made here, and written beside the certificate.
    New(KeyKind),
    /// It was made here before, and is kept.
    Kept(PrivateKey),
    /// Somebody has it.
    Theirs(PublicKey),
}

/// A certificate to be issued.
pub(crate) struct Order {
    pub(crate) name: String,
    pub(crate) request: LeafRequest,
    pub(crate) key: KeySource,
    /// How long it is to be valid; never longer than the CA.
    pub(crate) seconds: i64,
    pub(crate) placement: Placement,
    /// Whether it may be issued while another of the name is valid.
    pub(crate) replace: bool,
}

/// A certificate that was issued.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) serial: Serial,
    /// Unix seconds.
    pub(crate) not_after: i64,
    /// How the gateway will call it; for servers, the first name.
    pub(crate) label: String,
    /// The files.
    pub(crate) written: Vec<PathBuf>,
    /// Whether the CA ends sooner than was asked for.
    pub(crate) shortened: bool,
}

/// The passphrases of a command.
#[derive(Debug, Default, Clone)]
pub(crate) struct Passphrases {
    /// Opens the CA's keys.
    pub(crate) keys: Option<Secret<String>>,
    /// Closes a PKCS #12.
    pub(crate) pkcs12: Option<Secret<String>>,
}

/// Which certificates a command is about.
#[derive(Debug, Clone)]
pub(crate) enum Selection {
    /// All valid ones of a name.
    Name(String),
    /// The one of this number.
    Serial(Serial),
    /// The one in this file, which need not be known.
    File(PathBuf),
}

impl Store {
    /// Takes up a PKI.
    pub(crate) fn open(directory: &Path) -> Result<Self, PkiError> {
        let (journal, events) = Journal::open(directory)?;
        let index = Index::replay(&directory.join("index.jsonl"), events)?;
        Ok(Self { directory: directory.to_owned(), journal, index })
    }

    /// Looks at a PKI without locking it.
    pub(crate) fn peek(directory: &Path) -> Result<Index, PkiError> {
        Index::replay(&directory.join("index.jsonl"), Journal::peek(directory)?)
    }

    /// An empty PKI, to be filled.
    pub(super) fn empty(directory: &Path) -> Result<Self, PkiError> {
        Ok(Self { directory: directory.to_owned(), journal: Journal::create(directory)?, index: Index::default() })
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// Keys that others than their owner can read.
    pub(crate) fn exposed_keys(&self) -> Vec<PathBuf> {
        ["ca.key", "root.key"].map(|file| self.path(file)).into_iter().filter(|path| files::is_exposed(path)).collect()
    }

    /// Writes events to the journal. After an error this value is of no use any more.
    pub(super) fn record(&mut self, events: Vec<Event>) -> Result<(), PkiError> {
        // What can't be understood must not get into the journal; what can't be written must not be acted upon.
        for event in &events {
            self.index.apply(event.clone()).map_err(|cause| PkiError::unusable(self.path("index.jsonl"), cause))?;
        }
        self.journal.append(&events)
    }

    /// One of the CAs, with its key.
    pub(crate) fn authority(&self, signer: Signer, passphrase: Option<&Secret<String>>) -> Result<Authority, PkiError> {
        let name = if signer == Signer::Root && self.has_own_root() { "root" } else { "ca" };
        let (certificate, path) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let key = match files::read_if_there(&path)? {
            Some(key) => key,
            None if name == "root" => return Err(PkiError::RootAway(path)),
            None => files::read_file(&path)?,
        };
        let key = PrivateKey::from_pem(&key, passphrase).map_err(|fault| PkiError::Key { path, fault })?;
        Ok(Authority::from_parts(&files::read_file(&certificate)?, key)?)
    }

    /// Whether a root of our own stands above the CA: one that was made here and signs a list for it.
    pub(super) fn has_own_root(&self) -> bool {
        self.index.entries().iter().any(|entry| entry.kind == Kind::Authority && entry.signer == Signer::Root)
    }

    /// The certificates above the leaves: those to be sent along (PEM), and the root (PEM).
    fn above(&self) -> Result<(Vec<u8>, Vec<u8>), PkiError> {
        let ca = files::read_file(&self.path("ca.crt"))?;
        Ok(match files::read_if_there(&self.path("root.crt"))? {
            Some(root) => (ca, root),
            None => (Vec::new(), ca),
        })
    }

    /// Where a leaf's files are if nobody says otherwise.
    pub(super) fn home(&self, kind: Kind, name: &str) -> PathBuf {
        let group = if kind == Kind::Client { "clients" } else { "servers" };
        // No name of the kinds we accept has a slash; `*` would be expanded by shells.
        self.directory.join(group).join(name.replace('*', "_wildcard"))
    }

    /// Issues a certificate: signs it, checks that the gateway will take it for what was asked for, writes it into
    /// the journal, and only then to its files.
    pub(crate) fn issue(&mut self, order: &Order, passphrases: &Passphrases, now: i64) -> Result<Made, PkiError> {
        let Order { name, request, placement, .. } = order;
        let kind = if request.purpose == Purpose::Client { Kind::Client } else { Kind::Server };
        if let Some(entry) = self.index.current(kind, name, now).filter(|_| !order.replace) {
            return Err(PkiError::Taken { name: name.clone(), serial: entry.serial.to_string() });
        }
        if placement.pkcs12.is_some() && passphrases.pkcs12.is_none() {
            return Err(PkiError::NoPassphrase);
        }
        let ca = self.authority(Signer::Ca, passphrases.keys.as_ref())?;
        let (validity, shortened) = validity(&ca, order.seconds, now)?;
        let made;
        let (key, public) = match &order.key {
            KeySource::New(kind) => {
                made = PrivateKey::generate(*kind)?;
                (Some(&made), made.public()?)
            }
            KeySource::Kept(key) => (Some(key), key.public()?),
            KeySource::Theirs(public) => (None, public.clone()),
        };
        let der = ca.sign_leaf(request, &public, validity)?;
        let (intermediates, root) = self.above()?;
        let label = match kind {
            Kind::Client => check_client(&der, &[ca.certificate_der()?], &self.path("root.crt"), &root, request)?,
            _ => name.clone(),
        };
        let facts = Facts::of(&der).ok_or_else(|| PkiError::unusable("the new certificate", "it can't be read"))?;
        self.record(vec![Event::Issued {
            at: now,
            by: Signer::Ca,
            kind,
            name: name.clone(),
            certificate: data_encoding::BASE64.encode(&der),
            foreign_key: key.is_none(),
            placement: placement.clone(),
        }])?;
        let home = placement.out.clone().unwrap_or_else(|| self.home(kind, name));
        let leaf = Leaf { kind, name, der: &der, key, intermediates: &intermediates, root: &root };
        let written = layout::write(&leaf, &home, placement, passphrases.pkcs12.as_ref())?;
        Ok(Made { serial: facts.serial, not_after: facts.not_after, label, written, shortened })
    }

    /// Revokes certificates and gives what was revoked; those that were already are left as they are.
    ///
    /// The list is not signed yet: see [`Store::write_lists`].
    pub(crate) fn revoke(&mut self, what: &Selection, reason: Reason, now: i64) -> Result<Vec<Entry>, PkiError> {
        let chosen: Vec<(Signer, Serial)> = match what {
            Selection::Name(name) => {
                let found = self.valid_of_name(name, now)?;
                found.into_iter().map(|entry| (entry.signer, entry.serial)).collect()
            }
            Selection::Serial(serial) => {
                let found = self.index.of_serial(serial);
                if found.is_empty() {
                    return Err(PkiError::Unknown(format!("certificate with serial {serial}")));
                }
                found.into_iter().map(|entry| (entry.signer, entry.serial)).collect()
            }
            Selection::File(path) => vec![self.adopt(path, now)?],
        };
        let open = |(signer, serial): &(Signer, Serial)| {
            self.index.find(*signer, serial).is_none_or(|entry| entry.revoked.is_none())
        };
        let chosen: Vec<_> = chosen.into_iter().filter(open).collect();
        let event = |(by, serial): &(Signer, Serial)| Event::Revoked {
            at: now,
            by: *by,
            serial: serial.to_string(),
            reason: reason.as_str().to_owned(),
        };
        self.record(chosen.iter().map(event).collect())?;
        Ok(chosen.iter().filter_map(|(signer, serial)| self.index.find(*signer, serial)).cloned().collect())
    }

    fn valid_of_name(&self, name: &str, now: i64) -> Result<Vec<&Entry>, PkiError> {
        let valid = |entry: &&Entry| entry.name == name && entry.is_valid(now) && entry.kind != Kind::Authority;
        let found: Vec<_> = self.index.entries().iter().filter(valid).collect();
        match found.split_first() {
            None => Err(PkiError::Unknown(format!("valid certificate of {name}"))),
            Some((first, rest)) if rest.iter().any(|entry| entry.kind != first.kind) => {
                Err(PkiError::Ambiguous(name.to_owned()))
            }
            Some(_) => Ok(found),
        }
    }

    /// Makes a certificate known that one of our CAs signed elsewhere.
    fn adopt(&mut self, path: &Path, now: i64) -> Result<(Signer, Serial), PkiError> {
        let ders = certificates(path, &files::read_file(path)?)?;
        let unreadable = || PkiError::unusable(path, "it holds no readable certificate");
        let der = ders.first().ok_or_else(unreadable)?;
        let facts = Facts::of(der).ok_or_else(unreadable)?;
        for (signer, file) in [(Signer::Ca, "ca.crt"), (Signer::Root, "root.crt")] {
            let Some(pem) = files::read_if_there(&self.path(file))? else { continue };
            let cas = certificates(&self.path(file), &pem)?;
            let ca = cas.first().and_then(|ca| Facts::of(ca)).filter(|ca| ca.subject_der == facts.issuer_der);
            let signed = ca.is_some_and(|ca| is_signed_by(der, &ca.spki_der));
            if signed && (signer == Signer::Ca || self.has_own_root()) {
                if self.index.find(signer, &facts.serial).is_none() {
                    let (serial, not_after) = (facts.serial.to_string(), Some(facts.not_after));
                    self.record(vec![Event::Known { at: now, by: signer, name: facts.subject, serial, not_after }])?;
                }
                return Ok((signer, facts.serial));
            }
        }
        Err(PkiError::unusable(path, "it was not signed by this PKI"))
    }

    /// Writes the first files of a PKI.
    pub(super) fn install(&self, files: &[(&str, &[u8])]) -> Result<(), PkiError> {
        for (name, content) in files {
            let access = if name.ends_with(".key") { Access::Private } else { Access::Public };
            files::write(&self.path(name), content, access)?;
        }
        Ok(())
    }
}

/// The dates of a new certificate, and whether the CA ends sooner than was asked for.
pub(super) fn validity(ca: &Authority, seconds: i64, now: i64) -> Result<(Validity, bool), PkiError> {
    let facts = Facts::of(&ca.certificate_der()?).ok_or(PkiError::CaExpired)?;
    if facts.not_after <= now {
        return Err(PkiError::CaExpired);
    }
    let wanted = now.saturating_add(seconds);
    let validity = Validity { from: (now - BACKDATED).max(facts.not_before), until: wanted.min(facts.not_after) };
    Ok((validity, wanted > facts.not_after))
}

/// Reads a new client certificate as the gateway will, and gives the label under which it will appear.
fn check_client(
    leaf: &[u8],
    ca: &[Vec<u8>],
    root_path: &Path,
    root: &[u8],
    request: &LeafRequest,
) -> Result<String, PkiError> {
    let mut path: Vec<Vec<u8>> = vec![leaf.to_vec()];
    path.extend(ca.iter().cloned());
    for above in certificates(root_path, root)? {
        if !path.contains(&above) {
            path.push(above);
        }
    }
    let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
    let identity = PeerIdentity::from_path(&path, &LeafRules { require_eku: true, ..LeafRules::default() })?;
    if identity.common_name() != Some(request.common_name.as_str()) {
        return Err(PkiError::Unseen("name"));
    }
    if !request.organizational_unit.iter().map(String::as_str).eq(identity.attributes("OU")) {
        return Err(PkiError::Unseen("OU"));
    }
    if identity.uris != request.uris {
        return Err(PkiError::Unseen("SPIFFE ID"));
    }
    Ok(identity.label().to_owned())
}

/// Days as seconds.
pub(crate) fn days(days: u32) -> i64 {
    i64::from(days) * DAY
}
