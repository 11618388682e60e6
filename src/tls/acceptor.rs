//! What a listener offers and demands in a handshake, built whole from settings and material and never changed.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::lib::error::ErrorStack;
use super::lib::pkey::Id;
use super::lib::ssl::{
    AlpnError, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion,
    select_next_proto,
};
use super::verify::{Judging, Verifier};
use super::{ServerCertificate, TicketKeys, TrustBundle, backend};
use crate::identity::{LeafRules, NameOrder};
use crate::revocation;

/// Mozilla's intermediate list for TLS 1.2 (forward secrecy and AEAD only); TLS 1.3 suites are the library's.
pub(super) const INTERMEDIATE_CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// What a client may prove its key with, and the server its own: nothing with SHA-1, which TLS 1.2 would permit.
pub(super) const SIGNATURES: &str = "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:\
RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512";

/// ALPN protocols in wire format, by our preference.
const ALPN: &[u8] = b"\x02h2\x08http/1.1";

/// The same where HTTP/2 is not spoken.
pub(super) const HTTP1: &[u8] = b"\x08http/1.1";

/// The oldest TLS version a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolFloor {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Everything an [`Acceptor`] is built from.
#[derive(Debug, Clone)]
pub struct AcceptorSettings {
    /// At least one; the first answers clients without SNI or with an unknown one.
    pub certificates: Vec<ServerCertificate>,
    /// Who may vouch for clients.
    pub trust: Arc<TrustBundle>,
    /// What is demanded of every certificate of a path.
    pub rules: LeafRules,
    /// What clients are called by.
    pub names: NameOrder,
    /// Which certificates are revoked.
    pub revocation: revocation::Index,
    /// The oldest version accepted.
    pub floor: ProtocolFloor,
    /// TLS 1.2 suites in OpenSSL's notation, instead of Mozilla's intermediate list.
    pub ciphers: Option<String>,
    /// Intermediates a path may have at most.
    pub verify_depth: u32,
    /// Bytes of certificates a client may send at most.
    pub max_client_chain: usize,
    /// Whether the client's certificates are kept in the form of RFC 9440.
    pub keep_certificates: bool,
    /// Whether HTTP/2 is spoken, too.
    pub http2: bool,
    /// Keys for session tickets; `None` offers no resumption.
    pub tickets: Option<Arc<TicketKeys>>,
}

/// What a handshake may take beside the client's certificates.
const HANDSHAKE_BYTES: usize = 64 * 1024;

/// A listener's side of the handshake.
pub struct Acceptor {
    pub(super) context: SslContext,
    pub(super) verifier: Arc<Verifier>,
    pub(super) judging: Judging,
    demands: [u8; 32],
    handshake_bytes: usize,
    table: Arc<SniTable>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Builds the TLS contexts, one for each set of server certificates.
    ///
    /// # Errors
    ///
    /// A text for the operator: a cipher list without a usable suite, a certificate the library won't serve.
    pub fn new(settings: &AcceptorSettings) -> Result<Self, String> {
        let verifier = Arc::new(Verifier {
            trust: settings.trust.clone(),
            rules: settings.rules.clone(),
            names: settings.names.clone(),
            keep_certificates: settings.keep_certificates,
        });
        let demands = demands(settings);
        let session_context = session_context(settings, &demands);
        let builder = Builder { settings, verifier: &verifier, session_context };
        let table = builder.sni_table()?;
        let mut base = builder.context(&table.default_set)?;
        let table = Arc::new(table);
        backend::choose_certificate(&mut base, table.clone());
        Ok(Acceptor {
            context: base.build(),
            verifier,
            judging: Judging { revocation: settings.revocation.clone(), known: Arc::default() },
            demands,
            handshake_bytes: settings.max_client_chain.saturating_add(HANDSHAKE_BYTES),
            table,
        })
    }

    /// Whether one of the listener's certificates is for this lower-case name.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        self.table.named(name).is_some()
    }

    /// Bytes that a client may send in a handshake: its certificates, and beside them the largest hello, a ticket and what
    /// records add.
    pub fn handshake_bytes(&self) -> usize {
        self.handshake_bytes
    }

    /// A hash over what is demanded of a handshake apart from trust and revocation. Where it differs, a connection that
    /// was let in before might not be let in now.
    pub fn demands(&self) -> &[u8; 32] {
        &self.demands
    }
}

/// A hash of everything that decides whether a client is let in, but not of when it was decided: replicas with the same
/// files agree, and a new revocation sends every client through a full handshake, where the alert is right.
fn session_context(settings: &AcceptorSettings, demands: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"portcullis session context v1");
    hash.update(settings.trust.hash());
    hash.update(settings.revocation.content_hash());
    hash.update(demands);
    hash.finalize().into()
}

fn demands(settings: &AcceptorSettings) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([
        u8::from(settings.rules.require_eku),
        u8::from(settings.rules.allow_v1),
        u8::from(settings.floor == ProtocolFloor::Tls13),
    ]);
    hash.update(settings.rules.min_rsa_bits.to_be_bytes());
    hash.update(settings.verify_depth.to_be_bytes());
    hash.finalize().into()
}

struct Builder<'a> {
    settings: &'a AcceptorSettings,
    verifier: &'a Arc<Verifier>,
    session_context: [u8; 32],
}

impl Builder<'_> {
    /// A context that serves the certificates at these positions.
    fn context(&self, set: &[usize]) -> Result<SslContextBuilder, String> {
        let library = |e: ErrorStack| format!("the TLS library refused the settings: {e}");
        let mut builder = SslContextBuilder::new(SslMethod::tls()).map_err(library)?;
        self.protocol(&mut builder)?;
        self.client_side(&mut builder).map_err(library)?;
        self.sessions(&mut builder).map_err(library)?;
        for index in set {
            if let Some(certificate) = self.settings.certificates.get(*index) {
                serve(&mut builder, certificate).map_err(|e| {
                    format!("the TLS library won't serve the certificate of {}: {e}", certificate.info().subject)
                })?;
            }
        }
        Ok(builder)
    }

    /// Versions, suites, ALPN.
    fn protocol(&self, builder: &mut SslContextBuilder) -> Result<(), String> {
        let floor = match self.settings.floor {
            ProtocolFloor::Tls12 => SslVersion::TLS1_2,
            ProtocolFloor::Tls13 => SslVersion::TLS1_3,
        };
        builder.set_min_proto_version(Some(floor)).map_err(|e| format!("min_version: {e}"))?;
        let ciphers = self.settings.ciphers.as_deref().unwrap_or(INTERMEDIATE_CIPHERS);
        builder.set_cipher_list(ciphers).map_err(|_| {
            format!("ciphers: \"{ciphers}\" names no suite this TLS library offers (OpenSSL notation, colon separated)")
        })?;
        builder.set_sigalgs_list(SIGNATURES).map_err(|e| format!("signature algorithms: {e}"))?;
        builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
        let spoken = if self.settings.http2 { ALPN } else { HTTP1 };
        builder.set_alpn_select_callback(move |_, offered| {
            select_next_proto(spoken, offered).ok_or(AlpnError::ALERT_FATAL)
        });
        backend::tune(builder);
        Ok(())
    }

    /// What is demanded of the client.
    fn client_side(&self, builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let verifier = self.verifier.clone();
        let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        builder.set_verify_callback(mode, move |ok, context| verifier.callback(ok, context));
        builder.set_verify_depth(self.settings.verify_depth);
        for authority in self.settings.trust.certificates() {
            builder.add_client_ca(authority)?;
        }
        builder.set_cert_store(self.settings.trust.store()?);
        backend::set_max_chain_bytes(builder, self.settings.max_client_chain);
        Ok(())
    }

    /// Resumption, by tickets only: a cache on the server would have to be shared between replicas.
    fn sessions(&self, builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        // Without one, OpenSSL answers a resuming client with a fatal alert.
        builder.set_session_id_context(&self.session_context)?;
        match &self.settings.tickets {
            Some(keys) => backend::protect_tickets(builder, keys.clone()),
            None => {
                builder.set_options(SslOptions::NO_TICKET);
                backend::disable_tickets(builder)?;
            }
        }
        Ok(())
    }

    fn sni_table(&self) -> Result<SniTable, String> {
        let all = &self.settings.certificates;
        let mut sets: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, certificate) in all.iter().enumerate() {
            for name in certificate.names() {
                add_distinct_kind(sets.entry(name).or_default(), index, all);
            }
        }
        // Clients without SNI get the first certificate and its siblings: those of the same name and another key.
        let mut default_set = vec![0];
        for name in all.first().into_iter().flat_map(ServerCertificate::names) {
            for index in sets.get(name.as_str()).into_iter().flatten() {
                add_distinct_kind(&mut default_set, *index, all);
            }
        }
        let mut contexts: HashMap<Vec<usize>, SslContext> = HashMap::new();
        let mut variants = |set: &[usize]| -> Result<Variants, String> {
            let mut built = Variants::default();
            let groups: Vec<&[usize]> =
                if backend::MIXED_KEYS_IN_ONE_CONTEXT { vec![set] } else { set.chunks(1).collect() };
            for group in groups {
                let context = match contexts.get(group) {
                    Some(context) => context.clone(),
                    None => {
                        let context = self.context(group)?.build();
                        contexts.insert(group.to_vec(), context.clone());
                        context
                    }
                };
                let ecdsa = group.first().and_then(|index| all.get(*index)).is_some_and(is_ecdsa);
                *if ecdsa { &mut built.ecdsa } else { &mut built.other } = Some(context);
            }
            Ok(built)
        };
        let mut table = SniTable { default: variants(&default_set)?, default_set, ..SniTable::default() };
        for (name, set) in &sets {
            let built = variants(set)?;
            match name.strip_prefix("*.") {
                Some(parent) => table.wildcard.insert(parent.to_owned(), built),
                None => table.exact.insert((*name).to_owned(), built),
            };
        }
        Ok(table)
    }
}

/// Adds a certificate to a set unless one with the same kind of key is in it already: the first listed wins.
fn add_distinct_kind(set: &mut Vec<usize>, index: usize, all: &[ServerCertificate]) {
    let kind = |index: usize| all.get(index).map(|certificate| certificate.key.id());
    if set.iter().all(|other| kind(*other) != kind(index)) {
        set.push(index);
    }
}

fn is_ecdsa(certificate: &ServerCertificate) -> bool {
    certificate.key.id() == Id::EC
}

pub(super) fn serve(builder: &mut SslContextBuilder, certificate: &ServerCertificate) -> Result<(), ErrorStack> {
    let mut chain = certificate.chain.iter();
    if let Some(leaf) = chain.next() {
        builder.set_certificate(leaf)?;
    }
    builder.set_private_key(&certificate.key)?;
    // A second certificate in one context shares the list of intermediates; clients ignore those they don't need
    // (RFC 8446 §4.4.2).
    for intermediate in chain {
        builder.add_extra_chain_cert(intermediate.clone())?;
    }
    builder.check_private_key()
}

/// The contexts for a name, by kind of server key.
#[derive(Default)]
struct Variants {
    ecdsa: Option<SslContext>,
    other: Option<SslContext>,
}

impl Variants {
    /// The ECDSA one if the client can verify it: it is several times cheaper to sign with.
    fn pick(&self, ecdsa: bool) -> Option<&SslContext> {
        let preferred = if ecdsa { &self.ecdsa } else { &self.other };
        preferred.as_ref().or(self.other.as_ref()).or(self.ecdsa.as_ref())
    }
}

/// Which context answers to which server name.
#[derive(Default)]
pub(super) struct SniTable {
    exact: HashMap<String, Variants>,
    /// By the parent of the wildcard.
    wildcard: HashMap<String, Variants>,
    default: Variants,
    default_set: Vec<usize>,
}

impl SniTable {
    /// The context for a lower-case server name; `ecdsa` tells whether the client verifies ECDSA signatures.
    pub(super) fn find(&self, name: Option<&str>, ecdsa: bool) -> Option<&SslContext> {
        name.and_then(|name| self.named(name)).unwrap_or(&self.default).pick(ecdsa)
    }

    fn named(&self, name: &str) -> Option<&Variants> {
        let by_parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(by_parent)
    }
}
