//! The verify callback: what is asked of a client's path once the library has built and verified it.
//!
//! The library builds the path, checks signatures, validity, basic constraints, path length and name constraints. Then
//! this callback reads the identity, applies our rules to every certificate and asks the revocation index, all before
//! the handshake ends, so that the client gets an alert that says why.

use std::sync::{Arc, Mutex, OnceLock};

use sha2::{Digest, Sha256};

use super::backend;
use super::known::KnownClients;
use super::lib::ex_data::Index as ExIndex;
use super::lib::ssl::Ssl;
use super::lib::x509::{X509Ref, X509StoreContext, X509StoreContextRef};
use super::{TrustBundle, unix_now};
use crate::identity::{CertificateFault, LeafRules, NameOrder, PeerIdentity};
use crate::revocation;

/// X509_V_ERR codes of both libraries that this room sets itself. They choose the alert.
mod code {
    /// Alert certificate_unknown, which both libraries send for codes their tables don't list: nothing is known of the
    /// certificate. (The code for a missing CRL would say unknown_ca, and send operators to the wrong file.)
    pub(super) const UNLISTED: i32 = 29;
    /// Alert certificate_revoked.
    pub(super) const CERT_REVOKED: i32 = 23;
    /// Alert unsupported_certificate.
    pub(super) const INVALID_PURPOSE: i32 = 26;
    /// Alert bad_certificate.
    pub(super) const CERT_REJECTED: i32 = 28;
}

/// Why the certificate of a client was refused.
#[derive(Debug, Clone)]
pub enum Refused {
    /// The library's own judgement: its X509_V_ERR code, its text, and the depth of the certificate (0 is the leaf).
    Chain {
        /// The X509_V_ERR code.
        code: i32,
        /// The library's text for it.
        text: String,
        /// Position in the path, 0 for the leaf.
        depth: u32,
    },
    /// A rule of ours, on some certificate of the path.
    Certificate(CertificateFault),
    /// Revoked, or nothing recent is known.
    Revocation(revocation::Refusal),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Chain { text, depth, .. } => write!(f, "{text} (at depth {depth})"),
            Refused::Certificate(fault) => fault.fmt(f),
            Refused::Revocation(refusal) => refusal.fmt(f),
        }
    }
}

/// What a full handshake learned of its client.
#[derive(Clone)]
pub(super) struct Verified {
    pub(super) identity: Arc<PeerIdentity>,
    /// Whether every intermediate stands in the bundle. Only then can a resumed session be judged again from its leaf,
    /// and only then does the client get a ticket that opens.
    pub(super) resumable: bool,
    /// What the upstream may be told, if it is to be told.
    pub(super) certificates: Option<Arc<ClientCertificates>>,
}

/// The client's certificates as the header fields of RFC 9440 carry them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The value of `Client-Cert`: the leaf as a structured-field byte sequence.
    pub leaf: String,
    /// The value of `Client-Cert-Chain`: the intermediates, without the anchor; empty if there are none.
    pub chain: String,
}

impl ClientCertificates {
    fn of(path: &[&[u8]]) -> Self {
        let item = |der: &&[u8]| format!(":{}:", data_encoding::BASE64.encode(der));
        let between = path.get(1..path.len().saturating_sub(1)).unwrap_or_default();
        ClientCertificates {
            leaf: path.first().map(item).unwrap_or_default(),
            chain: between.iter().map(item).collect::<Vec<_>>().join(", "),
        }
    }
}

/// The slot a connection carries through its handshake; the callbacks have no other way to hand something in or out.
///
/// The lists in force, and the clients that are known, come by it rather than with the context of the library: that one
/// lives as long as the last connection made with it, and would keep those of every generation of which a connection is
/// still open.
pub(super) struct Slot {
    judging: Mutex<Option<Judging>>,
    outcome: Mutex<Option<Result<Verified, Refused>>>,
}

impl Slot {
    pub(super) fn new(judging: &Judging) -> Self {
        Self { judging: Mutex::new(Some(judging.clone())), outcome: Mutex::default() }
    }

    fn set(&self, outcome: Result<Verified, Refused>) {
        if let Ok(mut slot) = self.outcome.lock() {
            *slot = Some(outcome);
        }
    }

    /// What to judge with; `None` when the handshake is over.
    fn judging(&self) -> Option<Judging> {
        self.judging.lock().ok()?.clone()
    }

    /// Ends the handshake: nobody is judged by this slot any more.
    pub(super) fn take(&self) -> Option<Result<Verified, Refused>> {
        if let Ok(mut judging) = self.judging.lock() {
            *judging = None;
        }
        self.outcome.lock().ok().and_then(|mut slot| slot.take())
    }

    /// Whether the path seen so far may be resumed. Unknown means no.
    pub(super) fn resumable(&self) -> bool {
        self.outcome.lock().is_ok_and(|slot| matches!(&*slot, Some(Ok(verified)) if verified.resumable))
    }
}

/// The index of the slot among the extra data of a connection. `None` only when the library has no memory left.
pub(super) fn slot_index() -> Option<ExIndex<Ssl, Arc<Slot>>> {
    static INDEX: OnceLock<Option<ExIndex<Ssl, Arc<Slot>>>> = OnceLock::new();
    *INDEX.get_or_init(|| Ssl::new_ex_index().ok())
}

/// The judgement over a verified path, shared by full and resumed handshakes of one acceptor.
pub(super) struct Verifier {
    pub(super) trust: Arc<TrustBundle>,
    pub(super) rules: LeafRules,
    pub(super) names: NameOrder,
    pub(super) keep_certificates: bool,
}

/// What a client is judged with beside the verifier's rules.
#[derive(Clone)]
pub(super) struct Judging {
    /// The lists in force.
    pub(super) revocation: revocation::Index,
    /// Clients that were read before under the same rules.
    pub(super) known: Arc<KnownClients>,
}

impl Verifier {
    /// The verify callback of the library. Called for each certificate from the anchor down, at last for the leaf, and
    /// for every error. Whatever is unexpected refuses.
    pub(super) fn callback(&self, ok: bool, context: &mut X509StoreContextRef) -> bool {
        let Some(slot) = slot_of(context) else { return false };
        if !ok {
            let (code, text) = backend::verify_outcome(context);
            slot.set(Err(Refused::Chain { code, text, depth: context.error_depth() }));
            return false;
        }
        if context.error_depth() != 0 {
            return true;
        }
        let outcome = match slot.judging() {
            Some(judging) => self.judge(context, &judging),
            None => Err(Refused::malformed("a certificate after the handshake")),
        };
        let accepted = outcome.is_ok();
        if let Err(refused) = &outcome {
            context.set_error(backend::verify_error(refused.code()));
        }
        slot.set(outcome);
        accepted
    }

    /// Reads the verified path out of `context` and judges it.
    pub(super) fn judge(&self, context: &X509StoreContextRef, judging: &Judging) -> Result<Verified, Refused> {
        let chain = context.chain().into_iter().flatten();
        let path: Result<Vec<Vec<u8>>, _> = chain.map(X509Ref::to_der).collect();
        let path = path.map_err(|e| Refused::malformed(&e.to_string()))?;
        let ders: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let fingerprints: Vec<[u8; 32]> = ders.iter().map(|der| Sha256::digest(der).into()).collect();
        let verified = match judging.known.by_path(&fingerprints) {
            Some(verified) => verified,
            None => self.read(&ders)?,
        };
        judging.revocation.check(&verified.identity.path, unix_now()).map_err(Refused::Revocation)?;
        Ok(verified)
    }

    /// What follows from the certificates alone, whenever they are shown.
    fn read(&self, ders: &[&[u8]]) -> Result<Verified, Refused> {
        let identity = PeerIdentity::from_path(ders, &self.rules).map_err(Refused::Certificate)?;
        let identity = identity.named_by(&self.names);
        let resumable = identity.path.iter().skip(1).all(|certificate| self.trust.contains(&certificate.fingerprint));
        let certificates = self.keep_certificates.then(|| Arc::new(ClientCertificates::of(ders)));
        Ok(Verified { identity: Arc::new(identity), resumable, certificates })
    }
}

impl Refused {
    pub(super) fn malformed(what: &str) -> Self {
        Refused::Certificate(CertificateFault::Malformed(what.to_owned()))
    }

    /// The X509_V_ERR code under which the library picks the alert.
    fn code(&self) -> i32 {
        match self {
            Refused::Chain { code, .. } => *code,
            Refused::Certificate(CertificateFault::WrongUsage { .. }) => code::INVALID_PURPOSE,
            Refused::Certificate(_) => code::CERT_REJECTED,
            Refused::Revocation(revocation::Refusal::Revoked { .. }) => code::CERT_REVOKED,
            Refused::Revocation(_) => code::UNLISTED,
        }
    }
}

fn slot_of(context: &X509StoreContextRef) -> Option<Arc<Slot>> {
    let ssl = context.ex_data(X509StoreContext::ssl_idx().ok()?)?;
    ssl.ex_data(slot_index()?).cloned()
}
