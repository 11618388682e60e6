//! Everything a snapshot is made of except the revocation lists: loaded whole, or not at all.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Diagnostic, Diagnostics, Document, Fault, Settings, Severity};
use crate::policy::{self, Policy};
use crate::telemetry::Metrics;
use crate::tls::{CREDENTIALS, CertificateInfo, MaterialError, ServerCertificate, TrustBundle, UpstreamMaterial};
use crate::upstream::{self, Upstream};

use super::shadow::Shadow;

/// A certificate that expires within this time is worth a warning, in seconds.
const SOON: i64 = 14 * 24 * 3600;

/// What was loaded, and where in the file it stands.
pub(super) struct Parts {
    pub(super) document: Document<Settings>,
    /// Positions in the configuration of the listeners, in the order of their sockets.
    pub(super) order: Vec<usize>,
    pub(super) policy: Arc<Policy>,
    pub(super) shadow: Shadow,
    pub(super) material: Vec<Material>,
    /// None if administration goes without TLS.
    pub(super) admin: Option<AdminMaterial>,
    pub(super) upstreams: Vec<Arc<Upstream>>,
}

/// What new parts are loaded beside.
pub(super) struct Before<'a> {
    pub(super) upstreams: &'a [Arc<Upstream>],
    /// None before there was any.
    pub(super) shadow: Option<&'a Shadow>,
    pub(super) pinned: Option<&'a Pinned>,
    pub(super) metrics: &'a Metrics,
    /// Nothing will be served with the parts.
    pub(super) read_only: bool,
}

impl Parts {
    /// Loads what `document` names, and adds what that names in turn to `inputs`. The findings hold warnings, and on failure
    /// everything that is wrong.
    pub(super) fn load(
        document: Document<Settings>,
        before: &Before<'_>,
        inputs: &mut Vec<PathBuf>,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let mut report = Report { document: &document, findings: document.warnings.clone() };
        let order = before.listener_order(&mut report);
        let policy = load_policy(&document.value.policy, inputs, &mut report);
        let shadow = Shadow::load(document.value.shadow_policy.as_deref(), before.shadow, inputs, &mut report);
        let material = load_listeners(&document.value, before.read_only, &mut report);
        let admin = load_admin(&document.value, material.as_deref().unwrap_or_default(), &mut report);
        let upstreams = before.load_upstreams(&document.value, &mut report);
        let findings = report.into_diagnostics();
        match (order, policy, material, upstreams, admin) {
            (Some(order), Some(policy), Some(material), Some(upstreams), Ok(admin)) => {
                Ok((Parts { order, policy: Arc::new(policy), shadow, material, admin, upstreams, document }, findings))
            }
            _ => Err(findings),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.document.value
    }
}

/// What sockets and threads were made with; it can't change while running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    listeners: Vec<(String, Vec<SocketAddr>)>,
    threads: usize,
    health: Option<SocketAddr>,
    admin: Option<config::AdminAddress>,
    access_log: Option<config::AccessLog>,
    audit_log: Option<config::AuditLog>,
    log: config::Log,
    limits: config::Limits,
    state_directory: Option<PathBuf>,
}

impl Pinned {
    pub(super) fn of(settings: &Settings) -> Self {
        let listeners = settings.listeners.iter().map(|l| (l.name.clone(), l.addresses.clone())).collect();
        Pinned {
            listeners,
            threads: settings.threads,
            health: settings.health,
            admin: settings.admin.as_ref().map(|admin| admin.address.clone()),
            access_log: settings.access_log.clone(),
            audit_log: settings.audit_log.clone(),
            log: settings.log,
            limits: settings.limits,
            state_directory: settings.state_directory.clone(),
        }
    }

    /// The keys whose values differ in `other`.
    fn changed_keys(&self, other: &Self) -> Vec<String> {
        let listeners = other.listeners.iter().enumerate().filter(|(_, listener)| !self.listeners.contains(listener));
        let listeners = listeners.map(|(index, _)| format!("listeners[{index}].addresses"));
        // In the order of the keys.
        let changed: [bool; config::FIXED.len()] = [
            self.threads != other.threads,
            self.health != other.health,
            self.admin != other.admin,
            self.access_log != other.access_log,
            self.audit_log != other.audit_log,
            self.log != other.log,
            self.limits != other.limits,
            self.state_directory != other.state_directory,
        ];
        let others = config::FIXED.into_iter().zip(changed).filter(|(_, changed)| *changed);
        listeners.chain(others.map(|(key, _)| key.to_owned())).collect()
    }
}

impl Before<'_> {
    /// The positions in the configuration of the listeners whose sockets are bound, in the order of the sockets.
    fn listener_order(&self, report: &mut Report<'_>) -> Option<Vec<usize>> {
        let settings = &report.document.value;
        let Some(pinned) = self.pinned else { return Some((0..settings.listeners.len()).collect()) };
        for key in pinned.changed_keys(&Pinned::of(settings)) {
            let message = "this can't change while the gateway runs; it takes effect at the next start (`portcullis upgrade`, or restart)";
            report.warn(&key, message.to_owned());
        }
        let mut order = Vec::new();
        for (name, _) in &pinned.listeners {
            match settings.listeners.iter().position(|listener| listener.name == *name) {
                Some(position) => order.push(position),
                None => report.error(
                    "listeners",
                    format!(
                        "listener \"{name}\" is being served and can't be removed or renamed while running: \
                         `portcullis upgrade`, or restart"
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
            let material = material.map_err(|errors| report.material(&format!("upstreams[{index}].tls"), errors));
            let storage = UpstreamMaterial::load(configured.redirects.ca.as_deref(), None).map_err(|errors| {
                let key = format!("upstreams[{index}].redirect_ca");
                errors.into_iter().for_each(|error| report.error(&key, error.message));
            });
            let (Ok(registry), Ok(storage)) = (material, storage) else { continue };
            let material = upstream::Material { registry, storage };
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
pub(super) struct Report<'a> {
    pub(super) document: &'a Document<Settings>,
    pub(super) findings: Vec<Diagnostic>,
}

impl Report<'_> {
    fn add(&mut self, key: &str, message: String, severity: Severity) {
        self.findings.extend(self.document.diagnose(vec![Fault::new(key, message)], severity));
    }

    pub(super) fn error(&mut self, key: &str, message: String) {
        self.add(key, message, Severity::Error);
    }

    pub(super) fn warn(&mut self, key: &str, message: String) {
        self.add(key, message, Severity::Warning);
    }

    pub(super) fn material(&mut self, section: &str, errors: Vec<MaterialError>) {
        for error in errors {
            self.error(&format!("{section}.{}", error.field), error.message);
        }
    }

    /// What only the running service has.
    fn withheld(&mut self, section: &str, errors: Vec<MaterialError>) {
        for MaterialError { field, .. } in errors {
            let why = "the service manager puts the file there while the service runs, which it doesn't now: neither this key nor lists were looked at";
            self.warn(&format!("{section}.{field}"), why.to_owned());
        }
    }

    fn validity(&mut self, key: &str, info: &CertificateInfo) {
        if let Some(warning) = info.validity_warning(SOON) {
            self.warn(key, warning);
        }
    }

    pub(super) fn into_diagnostics(self) -> Diagnostics {
        Diagnostics(self.findings)
    }
}

pub(super) fn load_policy(path: &Path, inputs: &mut Vec<PathBuf>, report: &mut Report<'_>) -> Option<Policy> {
    let read = config::read_policy(path, |file| policy::compile(&file));
    inputs.extend(read.groups_directory);
    match read.document {
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
pub(super) struct Material {
    pub(super) certificates: Vec<ServerCertificate>,
    pub(super) trust: Arc<TrustBundle>,
}

/// Whether this is a credential of a unit that has none now: `/run/credentials/UNIT/…` (systemd.exec(5), "Credentials").
fn is_with_a_stopped_unit(path: &Path) -> bool {
    let Ok(within) = path.strip_prefix(CREDENTIALS) else { return false };
    let unit = within.components().next().map(|unit| Path::new(CREDENTIALS).join(unit));
    // What can't be looked at may be there.
    unit.is_some_and(|unit| matches!(unit.try_exists(), Ok(false)))
}

fn load_listeners(settings: &Settings, read_only: bool, report: &mut Report<'_>) -> Option<Vec<Material>> {
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
                Err(errors) if read_only && is_with_a_stopped_unit(&pair.key) => {
                    let (mine, other): (Vec<_>, Vec<_>) = errors.into_iter().partition(|error| error.field == "key");
                    report.withheld(&key, mine);
                    report.material(&key, other);
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

/// The files of the admin listener, loaded.
pub(super) struct AdminMaterial {
    pub(super) certificate: ServerCertificate,
    /// None if nobody is asked for a certificate.
    pub(super) trust: Option<Arc<TrustBundle>>,
}

fn load_admin(
    settings: &Settings,
    listeners: &[Material],
    report: &mut Report<'_>,
) -> Result<Option<AdminMaterial>, ()> {
    const SECTION: &str = "admin.tls";
    let Some(tls) = settings.admin.as_ref().and_then(|admin| admin.tls.as_ref()) else { return Ok(None) };
    let certificate = ServerCertificate::load(&tls.pair.certificate, &tls.pair.key, &[]);
    let certificate = certificate.map_err(|errors| report.material(SECTION, errors));
    let trust = tls.client_ca.as_deref().map(TrustBundle::load).transpose();
    let trust = trust.map_err(|errors| report.material(SECTION, errors));
    let (certificate, trust) = (certificate?, trust?);
    report.validity("admin.tls.certificate", certificate.info());
    for info in trust.iter().flat_map(|trust| trust.infos()) {
        report.validity("admin.tls.client_ca", info);
    }
    // Anchors in common, in whatever file, mean clients in common.
    let shared = |trust: &Arc<TrustBundle>| listeners.iter().any(|listener| listener.trust.shares_with(trust));
    if tls.client_names.is_empty() && trust.as_ref().is_some_and(shared) {
        let message = "it shares a CA with a listener's client_ca, so that every client of the registry could administer \
                       the gateway; use a CA of its own, or list client_names";
        report.error("admin.tls.client_ca", message.to_owned());
        return Err(());
    }
    Ok(Some(AdminMaterial { certificate, trust }))
}
