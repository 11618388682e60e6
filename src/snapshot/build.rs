//! From files to a snapshot: all or nothing, except for revocation lists, which each keep their own last good state.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::keep::ToKeep;
use super::lists::Lists;
use super::parts::{AdminMaterial, Before, Parts, Pinned, Report};
use super::status::{SourceStatus, warn_of_gaps};
use super::{Listener, Shelf, Snapshot, unix_now};
use crate::admin::{Guard, Transport};
use crate::config::{self, Diagnostics, SharedRedis, TlsVersion, UploadBinding};
use crate::identity::LeafRules;
use crate::quotas::Quotas;
use crate::revocation::{Index, Issuer};
use crate::shared::Shared;
use crate::telemetry::{CertificateExpiry, CertificateKind, Metrics, Published};
use crate::tls::{self, Acceptor, AcceptorSettings, CertificateInfo, Front, ProtocolFloor, TicketKeys};
use crate::uploads::Binder;
use crate::upstream::{self, Upstream};

/// Makes snapshots from the configuration file, and keeps what must survive from one to the next.
pub struct Builder {
    file: PathBuf,
    metrics: Arc<Metrics>,
    read_only: bool,
    generation: u64,
    lists: Lists,
    tickets: Tickets,
    /// With a key made by this process.
    uploads: Option<Binder>,
    /// Whose counters the next limits go on with.
    quotas: Option<Arc<Quotas>>,
    /// Connections to what replicas share.
    shared: Option<Arc<Shared>>,
    /// What the snapshot in force was made of.
    last: Option<Arc<Parts>>,
    /// How the sources of lists stood for the snapshot in force.
    last_sources: Arc<[SourceStatus]>,
    /// What the files named when they were last read, usable or not.
    inputs: Vec<PathBuf>,
    pinned: Option<Pinned>,
}

/// Intermediates that an administrator's path may have, and bytes of certificates: what listeners have as defaults.
const ADMIN_DEPTH: u32 = 4;
const ADMIN_CHAIN: usize = 32 * 1024;

type Tickets = HashMap<String, (Duration, Arc<TicketKeys>)>;

/// A snapshot that may be published, and what there is to say about it.
#[derive(Debug)]
pub struct Built {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Warnings, and errors of revocation lists, which don't keep a snapshot from being published.
    pub findings: Diagnostics,
    /// Upstreams that no earlier snapshot had: their names are not resolved and nobody checks their health yet.
    pub new_upstreams: Vec<Arc<Upstream>>,
}

/// Why nothing new can be put in force as configured.
#[derive(Debug)]
pub struct Failed {
    /// Everything that is wrong, each with file, line and key.
    pub findings: Diagnostics,
    /// The last good configuration with newer revocation lists, if there are any: a mistake in a policy must not hold up
    /// a revocation.
    pub revocations: Option<Built>,
}

impl Builder {
    /// A builder for this configuration file.
    #[must_use]
    pub fn new(file: &Path, metrics: Arc<Metrics>) -> Self {
        Self::with(file, metrics, false)
    }

    /// A builder that only looks: nothing is written to the state directory.
    #[must_use]
    pub fn read_only(file: &Path, metrics: Arc<Metrics>) -> Self {
        Self::with(file, metrics, true)
    }

    fn with(file: &Path, metrics: Arc<Metrics>, read_only: bool) -> Self {
        Builder {
            file: file.to_owned(),
            metrics,
            read_only,
            generation: 0,
            lists: Lists::new(read_only),
            tickets: HashMap::new(),
            uploads: None,
            quotas: None,
            shared: None,
            last: None,
            last_sources: Arc::default(),
            inputs: vec![file.to_owned()],
            pinned: None,
        }
    }

    /// Ties upload sessions to their clients by this key, where the configuration names none.
    #[must_use]
    pub fn with_upload_key(mut self, key: &[u8]) -> Self {
        self.uploads = Some(Binder::new(key));
        self
    }

    /// The files and directories that the configuration named when it was last read, even if it could not be used.
    #[must_use]
    pub fn inputs(&self) -> &[PathBuf] {
        &self.inputs
    }

    /// Where lists behind URLs are to be put for the next build.
    #[must_use]
    pub fn shelf(&self) -> Arc<Shelf> {
        self.lists.shelf().clone()
    }

    /// What must outlive a restart, once it is published.
    pub fn what_to_keep(&mut self) -> Option<ToKeep> {
        self.lists.what_to_keep()
    }

    /// Whether there is a state directory that can't be used.
    #[must_use]
    pub fn is_forgetful(&self) -> bool {
        self.lists.is_forgetful()
    }

    /// Loads every file and builds the next snapshot. Blocking, and expensive with large revocation lists.
    ///
    /// # Errors
    ///
    /// [`Failed`], with everything that is wrong.
    pub fn build(&mut self) -> Result<Built, Box<Failed>> {
        let loaded = config::load(&self.file).and_then(|document| {
            self.inputs = document.value.inputs().into_iter().map(Path::to_path_buf).collect();
            let upstreams = self.last.as_ref().map_or(&[][..], |last| &last.upstreams);
            let shadow = self.last.as_ref().map(|last| &last.shadow);
            let (pinned, metrics) = (self.pinned.as_ref(), &self.metrics);
            let before = Before { upstreams, shadow, pinned, metrics, read_only: self.read_only };
            Parts::load(document, &before, &mut self.inputs)
        });
        let (parts, mut findings) = match loaded {
            Ok(loaded) => loaded,
            Err(findings) => return Err(Box::new(Failed { findings, revocations: self.newer_lists() })),
        };
        match self.assemble(&Arc::new(parts)) {
            Ok(mut built) => {
                findings.extend(built.findings);
                built.findings = findings;
                Ok(built)
            }
            Err(more) => {
                findings.extend(more);
                Err(Box::new(Failed { findings, revocations: self.newer_lists() }))
            }
        }
    }

    /// The last good parts with the lists as they are now, if that changes anything.
    fn newer_lists(&mut self) -> Option<Built> {
        let last = self.last.clone()?;
        let before = self.last_sources.clone();
        let built = self.assemble(&last).ok()?;
        let lists =
            |sources: &[SourceStatus]| sources.iter().flat_map(|source| source.lists.clone()).collect::<Vec<_>>();
        if lists(&before) == lists(&self.last_sources) {
            // What was built is as good as what is in force, under the same number.
            self.generation -= 1;
            return None;
        }
        Some(built)
    }

    /// Reads the lists and makes a snapshot of them and `parts`. On success they are the builder's new state.
    fn assemble(&mut self, parts: &Arc<Parts>) -> Result<Built, Diagnostics> {
        let mut report = Report { document: &parts.document, findings: Vec::new() };
        let admin_trust = parts.admin.as_ref().and_then(|admin| admin.trust.clone());
        let trusts = parts.material.iter().map(|m| &m.trust).chain(&admin_trust);
        let issuers: Vec<Issuer> = trusts.flat_map(|trust| trust.issuers().iter().cloned()).collect();
        let taken = self.lists.load(parts.settings(), &issuers, &mut report);
        let revocation = taken.index.clone();
        warn_of_gaps(&taken.statuses, &issuers, parts.settings(), unix_now(), &mut report);
        let mut tickets = self.tickets.clone();
        let listeners = build_listeners(parts, &revocation, &mut tickets, &mut report);
        let guard = build_guard(parts, &revocation).map_err(|message| report.error("admin.tls", message));
        let uploads = upload_binder(&parts.settings().uploads, &mut self.uploads);
        let uploads = uploads.map_err(|message| report.error("uploads", message));
        let shared = shared_limits(parts.settings().shared_limits.as_ref(), self.shared.as_ref(), &self.metrics);
        let shared = shared.map_err(|message| report.error("shared_limits.redis", message));
        let findings = report.into_diagnostics();
        let (Some(listeners), Ok(guard), Ok(uploads), Ok(shared)) = (listeners, guard, uploads, shared) else {
            return Err(findings);
        };
        // From here on nothing can fail.
        let sources: Arc<[SourceStatus]> = self.lists.commit(taken, parts.settings()).into();
        for source in sources.iter() {
            source.faults.iter().for_each(|fault| self.metrics.crl_error(&source.name, fault.as_str()));
        }
        let before = self.quotas.as_deref();
        let quotas = Arc::new(Quotas::new(&parts.policy, before, shared.clone(), &self.metrics));
        let generation = self.generation + 1;
        let known = self.last.as_ref().map_or(&[][..], |last| &last.upstreams);
        let is_new = |upstream: &&Arc<Upstream>| !known.iter().any(|old| Arc::ptr_eq(old, upstream));
        let new_upstreams = parts.upstreams.iter().filter(is_new).cloned().collect();
        let snapshot = Arc::new(Snapshot {
            generation,
            listeners,
            admin: Arc::new(guard),
            admin_trust,
            revocation,
            policy: parts.policy.clone(),
            shadow: parts.shadow.policy(),
            upstreams: upstream::Table::new(parts.upstreams.clone()),
            uploads,
            quotas: quotas.clone(),
            published: published(generation, parts, &sources),
            sources: sources.clone(),
            fetched: self.lists.shelf().clone(),
            settings: parts.settings().clone(),
        });
        self.generation = generation;
        self.tickets = tickets;
        self.quotas = Some(quotas);
        self.shared = shared;
        self.last_sources = sources;
        self.last = Some(parts.clone());
        self.pinned.get_or_insert_with(|| Pinned::of(&snapshot.settings));
        Ok(Built { snapshot, findings, new_upstreams })
    }
}

fn build_listeners(
    parts: &Parts,
    revocation: &Index,
    tickets: &mut Tickets,
    report: &mut Report<'_>,
) -> Option<Vec<Listener>> {
    let settings = parts.settings();
    let mut listeners = Vec::new();
    for index in &parts.order {
        let (Some(configured), Some(material)) = (settings.listeners.get(*index), parts.material.get(*index)) else {
            continue;
        };
        let tls = &configured.tls;
        let built = ticket_keys(configured, tickets).and_then(|tickets| {
            Acceptor::new(&AcceptorSettings {
                certificates: material.certificates.clone(),
                trust: material.trust.clone(),
                rules: LeafRules { require_eku: tls.require_eku, allow_v1: tls.allow_v1, ..LeafRules::default() },
                names: settings.client_names.clone(),
                revocation: revocation.clone(),
                floor: match tls.min_version {
                    TlsVersion::Tls12 => ProtocolFloor::Tls12,
                    TlsVersion::Tls13 => ProtocolFloor::Tls13,
                },
                ciphers: tls.ciphers.clone(),
                verify_depth: tls.verify_depth,
                max_client_chain: tls.max_client_chain,
                keep_certificates: settings.headers.client_cert,
                http2: true,
                tickets,
            })
        });
        match built {
            Ok(acceptor) => listeners.push(Listener {
                name: configured.name.as_str().into(),
                proxy_sources: configured.proxy_sources.clone(),
                acceptor,
                trust: material.trust.clone(),
                upstream: configured.upstream.clone(),
            }),
            Err(message) => report.error(&format!("listeners[{index}].tls"), message),
        }
    }
    (listeners.len() == parts.order.len()).then_some(listeners)
}

/// What administration demands. Each connection is let in for one request, so nobody there outlives a revocation.
fn build_guard(parts: &Parts, revocation: &Index) -> Result<Guard, String> {
    let settings = parts.settings();
    let Some(admin) = &settings.admin else { return Ok(Guard::closed()) };
    let names = admin.tls.as_ref().map(|tls| tls.client_names.clone()).unwrap_or_default();
    let transport = match &parts.admin {
        None => Transport::Plain,
        Some(AdminMaterial { certificate, trust: None }) => Transport::Shown(Front::new(certificate)?),
        Some(AdminMaterial { certificate, trust: Some(trust) }) => {
            Transport::Proven(Acceptor::new(&AcceptorSettings {
                certificates: vec![certificate.clone()],
                trust: trust.clone(),
                rules: LeafRules::default(),
                names: settings.client_names.clone(),
                revocation: revocation.clone(),
                floor: ProtocolFloor::Tls12,
                ciphers: None,
                verify_depth: ADMIN_DEPTH,
                max_client_chain: ADMIN_CHAIN,
                keep_certificates: false,
                http2: false,
                tickets: None,
            })?)
        }
    };
    Ok(Guard::new(admin.token.as_ref(), transport, names))
}

/// The keys of a listener outlive reloads, unless their lifetime changes.
fn ticket_keys(listener: &config::Listener, tickets: &mut Tickets) -> Result<Option<Arc<TicketKeys>>, String> {
    if !listener.tls.session_tickets {
        return Ok(None);
    }
    let lifetime = listener.tls.ticket_key_lifetime;
    if let Some((_, keys)) = tickets.get(&listener.name).filter(|(old, _)| *old == lifetime) {
        return Ok(Some(keys.clone()));
    }
    let keys = Arc::new(TicketKeys::new(lifetime)?);
    tickets.insert(listener.name.clone(), (lifetime, keys.clone()));
    Ok(Some(keys))
}

/// A key of the process's own outlives reloads, for the uploads that run do.
fn upload_binder(binding: &UploadBinding, own: &mut Option<Binder>) -> Result<Option<Binder>, String> {
    match (binding, &own) {
        (UploadBinding::Off, _) => Ok(None),
        (UploadBinding::SharedKey { key, .. }, _) => Ok(Some(Binder::new(key.expose()))),
        (UploadBinding::OwnKey, Some(binder)) => Ok(Some(binder.clone())),
        (UploadBinding::OwnKey, None) => Ok(Some(own.insert(Binder::new(&tls::random_key()?)).clone())),
    }
}

/// Connections outlive reloads, unless what they were made from changes.
fn shared_limits(
    settings: Option<&SharedRedis>,
    before: Option<&Arc<Shared>>,
    metrics: &Metrics,
) -> Result<Option<Arc<Shared>>, String> {
    let Some(settings) = settings else { return Ok(None) };
    match before.filter(|shared| shared.settings() == settings) {
        Some(shared) => Ok(Some(shared.clone())),
        None => Shared::new(settings, metrics).map(|shared| Some(Arc::new(shared))),
    }
}

fn expiry(kind: CertificateKind, name: &str, info: &CertificateInfo) -> CertificateExpiry {
    let (name, subject) = (name.to_owned(), info.subject.clone());
    CertificateExpiry { kind, name, subject, not_before: info.not_before, not_after: info.not_after }
}

fn published(generation: u64, parts: &Parts, sources: &[SourceStatus]) -> Published {
    let mut certificates = Vec::new();
    for (listener, material) in parts.settings().listeners.iter().zip(&parts.material) {
        let mut add = |kind, info| certificates.push(expiry(kind, &listener.name, info));
        material.certificates.iter().for_each(|certificate| add(CertificateKind::Server, certificate.info()));
        material.trust.infos().iter().for_each(|info| add(CertificateKind::ClientCa, info));
    }
    if let Some(admin) = &parts.admin {
        let mut add = |kind, info| certificates.push(expiry(kind, "admin", info));
        add(CertificateKind::Admin, admin.certificate.info());
        admin.trust.iter().flat_map(|trust| trust.infos()).for_each(|info| add(CertificateKind::AdminCa, info));
    }
    for upstream in &parts.upstreams {
        let infos = upstream.certificate_expiries().iter();
        certificates.extend(infos.map(|(kind, info)| expiry(*kind, upstream.name(), info)));
    }
    Published {
        generation,
        certificates,
        crls: sources.iter().map(SourceStatus::metrics).collect(),
        upstreams: parts.upstreams.iter().map(|upstream| upstream.name().to_owned()).collect(),
        shadow_failed: parts.shadow.failed(),
        limits: parts.policy.limits().iter().map(|limit| limit.name().to_string()).collect(),
        redis: parts.settings().shared_limits.as_ref().map(ToString::to_string),
    }
}
