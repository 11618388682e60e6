//! From files to a snapshot: all or nothing, except for revocation lists, which each keep their own last good state.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Listener, Snapshot, unix_now};
use crate::config::{
    self, ByteSize, CrlSource, Diagnostic, Diagnostics, Document, Fault, Settings, Severity, TlsVersion,
    list_directory, read_bounded, read_yaml_with,
};
use crate::identity::LeafRules;
use crate::policy::{self, Policy};
use crate::revocation::{self, Index, Issuer, SourceInput, SourceReport, Sources};
use crate::telemetry::{CertificateExpiry, CertificateKind, CrlState, Metrics, Published};
use crate::tls::{
    self, Acceptor, AcceptorSettings, CertificateInfo, MaterialError, ProtocolFloor, ServerCertificate, TicketKeys,
    TrustBundle, UpstreamMaterial,
};
use crate::upstream::{self, Upstream};

/// Files a directory of revocation lists may hold.
const MAX_CRL_FILES: usize = 1024;

/// A certificate that expires within this time is worth a warning, in seconds.
const SOON: i64 = 14 * 24 * 3600;

/// Makes snapshots from the configuration file, and keeps what must survive from one to the next.
pub struct Builder {
    file: PathBuf,
    metrics: Arc<Metrics>,
    generation: u64,
    crls: Sources,
    tickets: HashMap<String, (Duration, Arc<TicketKeys>)>,
    upstreams: Vec<Arc<Upstream>>,
    /// What the sockets were bound with; it can't change while running.
    pinned: Option<Pinned>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pinned {
    listeners: Vec<(String, Vec<SocketAddr>)>,
    threads: usize,
    health: Option<SocketAddr>,
    admin: Option<config::AdminAddress>,
    access_log: Option<config::AccessLog>,
    log: config::Log,
    limits: config::Limits,
}

impl Pinned {
    fn of(settings: &Settings) -> Self {
        let listeners = settings.listeners.iter().map(|l| (l.name.clone(), l.addresses.clone())).collect();
        Pinned {
            listeners,
            threads: settings.threads,
            health: settings.health,
            admin: settings.admin.clone(),
            access_log: settings.access_log.clone(),
            log: settings.log,
            limits: settings.limits,
        }
    }

    /// The keys whose values differ in `other`.
    fn changed_keys(&self, other: &Self) -> Vec<String> {
        let listeners = other.listeners.iter().enumerate().filter(|(_, listener)| !self.listeners.contains(listener));
        let listeners = listeners.map(|(index, _)| format!("listeners[{index}].addresses"));
        let others = [
            ("threads", self.threads != other.threads),
            ("health", self.health != other.health),
            ("admin", self.admin != other.admin),
            ("access_log", self.access_log != other.access_log),
            ("log", self.log != other.log),
            ("limits", self.limits != other.limits),
        ];
        listeners.chain(others.into_iter().filter_map(|(key, changed)| changed.then(|| key.to_owned()))).collect()
    }
}

/// A snapshot that may be published, and what there is to say about it.
#[derive(Debug)]
pub struct Built {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Warnings, and errors of revocation lists, which don't keep a snapshot from being published.
    pub findings: Diagnostics,
    /// Upstreams that no earlier snapshot had: their names are not resolved and nobody checks their health yet.
    pub new_upstreams: Vec<Arc<Upstream>>,
    /// How every source of revocation lists stands.
    pub crls: Vec<SourceReport>,
}

impl Builder {
    /// A builder for this configuration file.
    #[must_use]
    pub fn new(file: &Path, metrics: Arc<Metrics>) -> Self {
        Builder {
            file: file.to_owned(),
            metrics,
            generation: 0,
            crls: Sources::new(default_revocation()),
            tickets: HashMap::new(),
            upstreams: Vec::new(),
            pinned: None,
        }
    }

    /// Loads every file and builds the next snapshot. Blocking, and expensive with large revocation lists.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each with file, line and key. What was built before stays as it was.
    pub fn build(&mut self) -> Result<Built, Diagnostics> {
        let document = config::load(&self.file)?;
        let mut report = Report { document: &document, findings: document.warnings.clone() };
        let order = self.listener_order(&mut report);
        let policy = load_policy(&document.value.policy, &mut report);
        let material = load_listeners(&document.value, &mut report);
        let upstreams = self.load_upstreams(&document.value, &mut report);
        let (Some(order), Some(policy), Some(material), Some(upstreams)) = (order, policy, material, upstreams) else {
            return Err(report.into_diagnostics());
        };
        let issuers: Vec<Issuer> = material.iter().flat_map(|m| m.trust.issuers().iter().cloned()).collect();
        let mut crls = self.crls.clone();
        let (revocation, crl_reports) = load_crls(&mut crls, &document.value, &issuers, &mut report);
        let mut tickets = self.tickets.clone();
        let listeners = build_listeners(&order, &material, &revocation, &mut tickets, &mut report);
        let Some(listeners) = listeners else { return Err(report.into_diagnostics()) };
        let generation = self.generation + 1;
        let published = published(generation, &document.value, &material, &upstreams, &crl_reports);
        let new_upstreams =
            upstreams.iter().filter(|u| !self.upstreams.iter().any(|old| Arc::ptr_eq(old, u))).cloned().collect();
        let findings = report.into_diagnostics();
        let snapshot = Arc::new(Snapshot {
            generation,
            listeners,
            revocation,
            policy,
            upstreams: upstream::Table::new(upstreams.clone()),
            published,
            settings: document.value,
        });
        // From here on nothing can fail.
        self.generation = generation;
        self.crls = crls;
        self.tickets = tickets;
        self.upstreams = upstreams;
        self.pinned.get_or_insert_with(|| Pinned::of(&snapshot.settings));
        Ok(Built { snapshot, findings, new_upstreams, crls: crl_reports })
    }

    /// The positions in the configuration of the listeners whose sockets are bound, in the order of the sockets.
    fn listener_order(&self, report: &mut Report<'_>) -> Option<Vec<usize>> {
        let settings = &report.document.value;
        let Some(pinned) = &self.pinned else { return Some((0..settings.listeners.len()).collect()) };
        for key in pinned.changed_keys(&Pinned::of(settings)) {
            let message = "this can't change while the gateway runs; what it was started with stays until a restart";
            report.warn(&key, message.to_owned());
        }
        let mut order = Vec::new();
        for (name, _) in &pinned.listeners {
            match settings.listeners.iter().position(|listener| listener.name == *name) {
                Some(position) => order.push(position),
                None => report.error(
                    "listeners",
                    format!(
                        "listener \"{name}\" is being served and can't be removed or renamed while running: restart"
                    ),
                ),
            }
        }
        (order.len() == pinned.listeners.len()).then_some(order)
    }

    fn load_upstreams(&self, settings: &Settings, report: &mut Report<'_>) -> Option<Vec<Arc<Upstream>>> {
        let mut upstreams = Vec::new();
        for (index, configured) in settings.upstreams.iter().enumerate() {
            let material = match &configured.tls {
                Some(tls) => {
                    let client = tls.client.as_ref().map(|pair| (pair.certificate.as_path(), pair.key.as_path()));
                    UpstreamMaterial::load(tls.ca.as_deref(), client)
                }
                None => Ok(UpstreamMaterial::default()),
            };
            let material = match material {
                Ok(material) => material,
                Err(errors) => {
                    report.material(&format!("upstreams[{index}].tls"), errors);
                    continue;
                }
            };
            if let Some(kept) = self.upstreams.iter().find(|upstream| upstream.is_made_from(configured, &material)) {
                upstreams.push(kept.clone());
                continue;
            }
            match Upstream::new(configured.clone(), material, self.metrics.upstream(&configured.name)) {
                Ok(upstream) => upstreams.push(upstream),
                Err(message) => report.error(&format!("upstreams[{index}]"), message),
            }
        }
        (upstreams.len() == settings.upstreams.len()).then_some(upstreams)
    }
}

/// Collects findings with their places.
struct Report<'a> {
    document: &'a Document<Settings>,
    findings: Vec<Diagnostic>,
}

impl Report<'_> {
    fn add(&mut self, key: &str, message: String, severity: Severity) {
        self.findings.extend(self.document.diagnose(vec![Fault::new(key, message)], severity));
    }

    fn error(&mut self, key: &str, message: String) {
        self.add(key, message, Severity::Error);
    }

    fn warn(&mut self, key: &str, message: String) {
        self.add(key, message, Severity::Warning);
    }

    fn material(&mut self, section: &str, errors: Vec<MaterialError>) {
        for error in errors {
            self.error(&format!("{section}.{}", error.field), error.message);
        }
    }

    fn validity(&mut self, key: &str, info: &CertificateInfo) {
        if let Some(warning) = info.validity_warning(SOON) {
            self.warn(key, warning);
        }
    }

    fn into_diagnostics(self) -> Diagnostics {
        Diagnostics(self.findings)
    }
}

fn load_policy(path: &Path, report: &mut Report<'_>) -> Option<Policy> {
    match read_yaml_with(path, |file: config::policy::PolicyFile| policy::compile(&file)) {
        Ok(document) => {
            report.findings.extend(document.warnings);
            Some(document.value)
        }
        Err(diagnostics) => {
            report.findings.extend(diagnostics);
            None
        }
    }
}

/// The files of a listener, loaded.
struct Material {
    certificates: Vec<ServerCertificate>,
    trust: Arc<TrustBundle>,
}

fn load_listeners(settings: &Settings, report: &mut Report<'_>) -> Option<Vec<Material>> {
    let mut all = Vec::new();
    for (index, listener) in settings.listeners.iter().enumerate() {
        let section = format!("listeners[{index}].tls");
        let mut certificates = Vec::new();
        for (position, configured) in listener.tls.certificates.iter().enumerate() {
            let key = format!("{section}.certificates[{position}]");
            let pair = &configured.pair;
            match ServerCertificate::load(&pair.certificate, &pair.key, &configured.names) {
                Ok(certificate) => {
                    report.validity(&format!("{key}.certificate"), certificate.info());
                    certificates.push(certificate);
                }
                Err(errors) => report.material(&key, errors),
            }
        }
        match TrustBundle::load(&listener.tls.client_ca) {
            Ok(trust) => {
                for info in trust.infos() {
                    report.validity(&format!("{section}.client_ca"), info);
                }
                if certificates.len() == listener.tls.certificates.len() {
                    all.push(Material { certificates, trust });
                }
            }
            Err(errors) => report.material(&section, errors),
        }
    }
    (all.len() == settings.listeners.len()).then_some(all)
}

fn build_listeners(
    order: &[usize],
    material: &[Material],
    revocation: &Index,
    tickets: &mut HashMap<String, (Duration, Arc<TicketKeys>)>,
    report: &mut Report<'_>,
) -> Option<Vec<Listener>> {
    let settings = &report.document.value;
    let mut listeners = Vec::new();
    for index in order {
        let (Some(configured), Some(material)) = (settings.listeners.get(*index), material.get(*index)) else {
            continue;
        };
        let tls = &configured.tls;
        let built = ticket_keys(configured, tickets).and_then(|tickets| {
            Acceptor::new(&AcceptorSettings {
                certificates: material.certificates.clone(),
                trust: material.trust.clone(),
                rules: LeafRules { require_eku: tls.require_eku, allow_v1: tls.allow_v1, ..LeafRules::default() },
                revocation: revocation.clone(),
                floor: match tls.min_version {
                    TlsVersion::Tls12 => ProtocolFloor::Tls12,
                    TlsVersion::Tls13 => ProtocolFloor::Tls13,
                },
                ciphers: tls.ciphers.clone(),
                verify_depth: tls.verify_depth,
                max_client_chain: tls.max_client_chain,
                keep_certificates: settings.headers.client_cert,
                tickets,
            })
        });
        match built {
            Ok(acceptor) => listeners.push(Listener {
                name: configured.name.as_str().into(),
                acceptor,
                trust: material.trust.clone(),
                upstream: configured.upstream.clone(),
            }),
            Err(message) => report.error(&format!("listeners[{index}].tls"), message),
        }
    }
    (listeners.len() == order.len()).then_some(listeners)
}

/// The keys of a listener outlive reloads, unless their lifetime changes.
fn ticket_keys(
    listener: &config::Listener,
    tickets: &mut HashMap<String, (Duration, Arc<TicketKeys>)>,
) -> Result<Option<Arc<TicketKeys>>, String> {
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

fn default_revocation() -> revocation::Settings {
    revocation::Settings {
        freshness: revocation::Freshness::Required,
        check: revocation::Check::Chain,
        grace: Duration::ZERO,
        clock_skew: Duration::ZERO,
    }
}

fn revocation_settings(configured: &config::Revocation) -> revocation::Settings {
    revocation::Settings {
        freshness: match configured.freshness {
            config::Freshness::Required => revocation::Freshness::Required,
            config::Freshness::Optional => revocation::Freshness::Optional,
        },
        check: match configured.check {
            config::ChainCheck::Chain => revocation::Check::Chain,
            config::ChainCheck::Leaf => revocation::Check::Leaf,
        },
        grace: configured.grace,
        clock_skew: configured.clock_skew,
    }
}

fn load_crls(
    sources: &mut Sources,
    settings: &Settings,
    issuers: &[Issuer],
    report: &mut Report<'_>,
) -> (Index, Vec<SourceReport>) {
    let configured = &settings.revocation;
    sources.set_settings(revocation_settings(configured));
    let is_configured = |key: &str| {
        let key = Path::new(key);
        configured.sources.iter().any(|source| match source {
            CrlSource::File(path) => key == path,
            CrlSource::Directory(path) => key.parent() == Some(path),
        })
    };
    sources.retain(is_configured);
    if configured.sources.is_empty() {
        return (Index::disabled(), Vec::new());
    }
    let mut inputs = Vec::new();
    // The configuration key of each input, for messages.
    let mut places: HashMap<String, String> = HashMap::new();
    for (index, source) in configured.sources.iter().enumerate() {
        match source {
            CrlSource::File(path) => {
                places.insert(path.display().to_string(), format!("revocation.crls[{index}].file"));
                inputs.push(read_crl(path));
            }
            CrlSource::Directory(path) => {
                let place = format!("revocation.crls[{index}].directory");
                match list_directory(path, MAX_CRL_FILES) {
                    Ok(files) => {
                        for file in files {
                            places.insert(file.display().to_string(), place.clone());
                            inputs.push(read_crl(&file));
                        }
                    }
                    Err(e) => {
                        report
                            .error(&place, format!("\"{}\": {e} (the last good lists stay in force)", path.display()));
                    }
                }
            }
        }
    }
    let verify = |data: &revocation::SignedData<'_>, spki: &[u8]| tls::verify_signed_data(data, spki);
    let (index, reports) = sources.update(inputs, issuers, unix_now(), &verify);
    for source in &reports {
        let place = places.get(&source.key).map_or("revocation.crls", String::as_str);
        for fault in &source.faults {
            report.error(place, format!("\"{}\": {fault} (the last good list, if any, stays in force)", source.key));
        }
    }
    (index, reports)
}

fn read_crl(path: &Path) -> SourceInput {
    let limit = ByteSize::from_mib(revocation::MAX_SOURCE as u64 / (1024 * 1024));
    SourceInput { key: path.display().to_string(), bytes: read_bounded(path, limit).map_err(|e| e.to_string()) }
}

fn published(
    generation: u64,
    settings: &Settings,
    material: &[Material],
    upstreams: &[Arc<Upstream>],
    crls: &[SourceReport],
) -> Published {
    let mut certificates = Vec::new();
    for (listener, material) in settings.listeners.iter().zip(material) {
        let mut add = |kind, info: &CertificateInfo| {
            certificates.push(CertificateExpiry { kind, name: listener.name.clone(), not_after: info.not_after });
        };
        material.certificates.iter().for_each(|certificate| add(CertificateKind::Server, certificate.info()));
        material.trust.infos().iter().for_each(|info| add(CertificateKind::ClientCa, info));
    }
    for upstream in upstreams {
        for &(kind, not_after) in upstream.certificate_expiries() {
            certificates.push(CertificateExpiry { kind, name: upstream.name().to_owned(), not_after });
        }
    }
    let crls = crls.iter().map(|source| CrlState {
        source: source.key.clone(),
        entries: source.lists.iter().map(|list| list.entries).sum(),
        next_update: source.lists.iter().map(|list| list.next_update).min(),
        failed: !source.faults.is_empty(),
    });
    Published {
        generation,
        certificates,
        crls: crls.collect(),
        upstreams: upstreams.iter().map(|upstream| upstream.name().to_owned()).collect(),
    }
}
