//! What the status page shows, gathered from all over the gateway when somebody asks for it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::ListenerAddress;
use super::revocation::{Standpoint, standing};
use crate::config::{Admin, AdminAddress, Freshness, Settings};
use crate::edge::Register;
use crate::revocation::Standing;
use crate::snapshot::{Reader, Snapshot, SourceStatus, unix_now};
use crate::status::{
    self, CertificateView, ClientView, ClientsView, HandshakeView, ListView, ListenerView, Refresh, RefusalView,
    ReloadView, SourceView, UpstreamView, View,
};
use crate::telemetry::{AccessRecord, Outcome, RefusedHandshake, Reloaded, Telemetry};
use crate::tls;
use crate::upstream::Upstream;

/// Clients that are shown with their connections.
const MOST_CLIENTS: usize = 20;

/// Refusals that are shown, alike ones together.
const MOST_REFUSALS: usize = 30;

/// Where the page finds what it shows.
#[derive(Debug)]
pub(super) struct StatusPage {
    pub(super) listeners: Vec<ListenerAddress>,
    /// Where the internal listeners are, once they are.
    pub(super) internal: OnceLock<(Option<SocketAddr>, Option<AdminAddress>)>,
    pub(super) reader: Reader,
    pub(super) register: Arc<Register>,
    pub(super) telemetry: Telemetry,
    pub(super) draining: watch::Receiver<bool>,
    /// Unix seconds.
    pub(super) started: i64,
}

impl StatusPage {
    /// The page as it is now. Looks at every live connection: for a thread that may take a moment.
    pub(super) fn render(&self, query: &str) -> String {
        status::render(&self.view(query))
    }

    /// The internal listeners are there.
    pub(super) fn set_internal(&self, admin: &crate::admin::Admin) {
        let _ = self.internal.set((admin.health_address(), admin.control_address().cloned()));
    }

    fn view(&self, query: &str) -> View {
        let snapshot = self.reader.load();
        let settings = &snapshot.settings;
        let (now, totals) = (unix_now(), self.telemetry.metrics.totals());
        let lately = &self.telemetry.lately;
        let standpoint = Standpoint { snapshot: &snapshot };
        let uncovered = standpoint.issuers_without_list();
        View {
            now,
            started: self.started,
            version: env!("CARGO_PKG_VERSION"),
            backend: tls::BACKEND,
            generation: snapshot.generation,
            draining: *self.draining.borrow(),
            refresh: Refresh::parse(query),
            listeners: self.listeners(settings),
            certificates: certificates(&snapshot),
            sources: snapshot.sources.iter().map(|source| source_view(&standpoint, source)).collect(),
            uncovered: uncovered.iter().map(|issuer| issuer.subject.clone()).collect(),
            uncovered_refused: settings.revocation.freshness == Freshness::Required,
            expiring: self.telemetry.expiring.clients(now),
            reloads: lately.reloads().into_iter().map(reload_view).collect(),
            shadow_failed: snapshot.published.shadow_failed,
            clients: self.clients(settings),
            refusals: refusals(&self.telemetry.recent.refusals()),
            handshakes: handshakes(lately.refused_handshakes()),
            upstreams: snapshot.upstreams.all().iter().map(|upstream| upstream_view(upstream)).collect(),
            steps: lately.traffic.steps(Instant::now(), &totals),
            totals,
            ailments: self.telemetry.metrics.ailments(),
        }
    }

    fn listeners(&self, settings: &Settings) -> Vec<ListenerView> {
        let edges = self.listeners.iter().map(|listener| ListenerView {
            name: listener.name.clone(),
            address: listener.address.to_string(),
            demands: "a client certificate".to_owned(),
        });
        let (health, control) = self.internal.get().cloned().unwrap_or_default();
        let health = health.map(|address| ListenerView {
            name: "health and metrics".to_owned(),
            address: address.to_string(),
            demands: "nothing; plain HTTP".to_owned(),
        });
        let control =
            settings.admin.as_ref().map(|admin| admin_listener(admin, control.as_ref().unwrap_or(&admin.address)));
        edges.chain(health).chain(control).collect()
    }

    fn clients(&self, settings: &Settings) -> ClientsView {
        let presence = self.register.clients(MOST_CLIENTS);
        let clients = presence.clients.iter().map(|client| ClientView {
            identity: client.latest.identity.label.to_string(),
            address: client.latest.client.to_string(),
            listener: client.latest.listener.to_string(),
            connections: client.connections,
            requests: client.requests,
            not_after: client.latest.identity.not_after,
        });
        ClientsView {
            clients: clients.collect(),
            others: presence.others,
            connections: presence.connections,
            limit: settings.limits.connections.all,
        }
    }
}

fn admin_listener(admin: &Admin, address: &AdminAddress) -> ListenerView {
    let certificate = admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let demands = match (certificate, admin.token.is_some()) {
        (true, true) => "a client certificate and a token",
        (true, false) => "a client certificate",
        (false, true) => "a token",
        (false, false) => "nothing",
    };
    let (address, by) = match address {
        AdminAddress::Tcp(tcp) if address.is_local() => (tcp.to_string(), "from this machine"),
        AdminAddress::Tcp(address) => (address.to_string(), "over TLS"),
        AdminAddress::Unix(path) => (format!("unix:{}", path.display()), "of the gateway's user"),
    };
    ListenerView { name: "administration".to_owned(), address, demands: format!("{demands}, {by}") }
}

fn certificates(snapshot: &Snapshot) -> Vec<CertificateView> {
    let certificates = snapshot.published.certificates.iter().map(|certificate| CertificateView {
        kind: certificate.kind.as_str(),
        name: certificate.name.clone(),
        subject: certificate.subject.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
    });
    certificates.collect()
}

fn source_view(standpoint: &Standpoint<'_>, source: &SourceStatus) -> SourceView {
    let warning = standpoint.snapshot.settings.revocation.expiry_warning;
    let lists = source.lists.iter().map(|list| ListView {
        issuer: list.issuer_name.clone(),
        standing: standing(list),
        // A delta that runs out leaves its base in force.
        vouches: list.standing == Standing::InForce && list.delta_of.is_none(),
        number: list.number.map(|number| number.to_string()),
        entries: list.entries,
        this_update: list.this_update,
        next_update: list.next_update,
        warning,
    });
    let faults = source.faults.iter().map(ToString::to_string);
    SourceView {
        name: source.name.clone(),
        last_success: standpoint.last_success(source),
        awaited: source.awaited,
        lists: lists.collect(),
        faults: faults.chain(standpoint.fetch_fault(source).map(|(_, fault)| fault)).collect(),
    }
}

fn reload_view(reloaded: Reloaded) -> ReloadView {
    let Reloaded { time, origin, took, generation, ok, report } = reloaded;
    // The number stands beside it.
    let report = report.strip_prefix(&format!("generation {generation}\n")).unwrap_or(&report).to_owned();
    ReloadView { at: seconds(time), origin, took, generation, ok, report }
}

/// Alike ones together, the newest first.
fn refusals(records: &[Arc<AccessRecord>]) -> Vec<RefusalView> {
    let mut all: Vec<RefusalView> = Vec::new();
    for record in records {
        let refusal = refusal(record);
        match all.iter_mut().find(|other| other.is_like(&refusal)) {
            Some(other) => other.times += 1,
            None => all.push(refusal),
        }
    }
    all.truncate(MOST_REFUSALS);
    all
}

fn refusal(record: &AccessRecord) -> RefusalView {
    let text = |text: &Option<crate::telemetry::Text>| text.as_ref().map(ToString::to_string).unwrap_or_default();
    let rule = match (&record.limit, &record.rule) {
        (Some(limit), _) => format!("limit {limit}"),
        (None, Some(rule)) => rule.to_string(),
        (None, None) if record.outcome == Outcome::Denied => "default deny".to_owned(),
        (None, None) => String::new(),
    };
    RefusalView {
        at: seconds(record.time + record.duration),
        times: 1,
        identity: record.connection.identity.label.to_string(),
        address: record.connection.client.ip().to_string(),
        action: record.action.map_or_else(|| record.method.to_string(), |action| action.as_str().to_owned()),
        repository: text(&record.repository),
        reference: text(&record.reference),
        reason: record.outcome.as_str(),
        rule,
        decision: record.decision.map(|_| record.decision_id.to_string()),
    }
}

/// Alike ones together, the newest first.
fn handshakes(refused: Vec<RefusedHandshake>) -> Vec<HandshakeView> {
    let mut all: Vec<HandshakeView> = Vec::new();
    for RefusedHandshake { time, listener, client, result, detail } in refused {
        let (address, reason) = (client.ip().to_string(), result.as_str());
        match all.iter_mut().find(|other| (&other.address, other.reason, &other.detail) == (&address, reason, &detail))
        {
            Some(other) => other.times += 1,
            None => {
                let listener = listener.to_string();
                all.push(HandshakeView { at: seconds(time), times: 1, address, listener, reason, detail });
            }
        }
    }
    all.truncate(MOST_REFUSALS);
    all
}

fn upstream_view(upstream: &Upstream) -> UpstreamView {
    let addresses = upstream.addresses();
    let faults = upstream.metrics().faults();
    UpstreamView {
        name: upstream.name().to_owned(),
        checked: upstream.settings().health_check.is_some(),
        addresses: addresses.iter().map(|a| (a.label().to_string(), a.is_healthy())).collect(),
        load: upstream.metrics().load(),
        faults: faults.iter().map(|(fault, count)| (fault.as_str(), *count)).collect(),
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
