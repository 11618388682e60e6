//! What the page shows, as plain values. Times are in unix seconds. Texts may be of any origin.

use std::time::Duration;

use super::Level;
use crate::telemetry::{Ailments, Counts, ExpiringClient, Step};

/// Everything there is to show.
#[derive(Debug)]
pub struct View {
    /// When it was put together.
    pub now: i64,
    /// When the process began to serve.
    pub started: i64,
    /// Of the program.
    pub version: &'static str,
    /// The TLS library.
    pub backend: &'static str,
    /// The generation in force.
    pub generation: u64,
    /// Whether the gateway is leaving.
    pub draining: bool,
    /// How often the browser is to ask again.
    pub refresh: Refresh,
    /// Where it listens.
    pub listeners: Vec<ListenerView>,
    /// Certificates of the configuration.
    pub certificates: Vec<CertificateView>,
    /// Sources of revocation lists.
    pub sources: Vec<SourceView>,
    /// Authorities of which there is no list.
    pub uncovered: Vec<String>,
    /// Whether their certificates are refused for it.
    pub uncovered_refused: bool,
    /// Clients whose certificates run out soon.
    pub expiring: Vec<ExpiringClient>,
    /// Attempts to load everything anew, the newest first.
    pub reloads: Vec<ReloadView>,
    /// Whether the file of the shadow policy could not be used.
    pub shadow_failed: bool,
    /// Who is connected.
    pub clients: ClientsView,
    /// Who was turned away, the newest first.
    pub refusals: Vec<RefusalView>,
    /// Who didn't get in, the newest first.
    pub handshakes: Vec<HandshakeView>,
    /// The registries.
    pub upstreams: Vec<UpstreamView>,
    /// The last minutes, the oldest first.
    pub steps: Vec<Step>,
    /// What was counted since the start.
    pub totals: Counts,
    /// What is wrong with the gateway's own records.
    pub ailments: Ailments,
}

/// How often a browser asks for the page again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// After so many seconds.
    Every(u32),
    /// When its user says so.
    Off,
}

impl Refresh {
    /// Reads the query of the page's URL: `refresh=off` or a number of seconds from 2 to 3600; else it is 10.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("refresh="));
        match asked.map(|text| (text, text.parse())) {
            Some(("off", _)) => Self::Off,
            Some((_, Ok(seconds @ 2..=3600))) => Self::Every(seconds),
            _ => Self::Every(10),
        }
    }
}

/// A listening address.
#[derive(Debug)]
pub struct ListenerView {
    /// Its name, or what it is for.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// What is spoken and asked for there.
    pub demands: String,
}

/// A certificate of the configuration.
#[derive(Debug)]
pub struct CertificateView {
    /// What it is for.
    pub kind: &'static str,
    /// The listener or upstream.
    pub name: String,
    /// Its subject.
    pub subject: String,
    /// Since when it is valid.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
}

/// A source of revocation lists.
#[derive(Debug)]
pub struct SourceView {
    /// Its path or URL.
    pub name: String,
    /// When it was last good.
    pub last_success: Option<i64>,
    /// Whether nothing is known of it yet.
    pub awaited: bool,
    /// Its last good lists.
    pub lists: Vec<ListView>,
    /// What is wrong with it now.
    pub faults: Vec<String>,
}

/// A revocation list.
#[derive(Debug)]
pub struct ListView {
    /// Who signed it.
    pub issuer: String,
    /// Whether it is in force; else why not.
    pub standing: &'static str,
    /// Whether clients are refused when it runs out.
    pub vouches: bool,
    /// Its number.
    pub number: Option<String>,
    /// How many certificates it revokes.
    pub entries: usize,
    /// When it was signed.
    pub this_update: i64,
    /// Until when it holds.
    pub next_update: i64,
    /// How long before that it is spoken of.
    pub warning: Duration,
}

/// An attempt to load everything anew.
#[derive(Debug)]
pub struct ReloadView {
    /// When it ended.
    pub at: i64,
    /// Who or what asked for it.
    pub origin: String,
    /// How long it took.
    pub took: Duration,
    /// The generation in force since.
    pub generation: u64,
    /// Whether everything is in force as configured.
    pub ok: bool,
    /// What was found in the files.
    pub report: String,
}

/// Who is connected.
#[derive(Debug, Default)]
pub struct ClientsView {
    /// Those with the most connections.
    pub clients: Vec<ClientView>,
    /// How many clients there are besides.
    pub others: usize,
    /// Connections of all.
    pub connections: usize,
    /// How many there may be.
    pub limit: usize,
}

impl ClientsView {
    /// How many clients there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.clients.len() + self.others
    }
}

/// A client that is connected.
#[derive(Debug)]
pub struct ClientView {
    /// What it is called.
    pub identity: String,
    /// Where its newest connection comes from.
    pub address: String,
    /// The listener of that.
    pub listener: String,
    /// How many connections it has.
    pub connections: usize,
    /// Requests on them.
    pub requests: u64,
    /// When its certificate runs out.
    pub not_after: i64,
}

/// A request that was turned away, or several alike.
#[derive(Debug)]
pub struct RefusalView {
    /// When the last one was.
    pub at: i64,
    /// How many are alike.
    pub times: u64,
    /// Who asked.
    pub identity: String,
    /// From where, the last time.
    pub address: String,
    /// What for: the action, or the method.
    pub action: String,
    /// Where.
    pub repository: String,
    /// The tag or digest, the last time.
    pub reference: String,
    /// Why not.
    pub reason: &'static str,
    /// The rule, limit or lack of one that decided.
    pub rule: String,
    /// The last decision, if it can be explained.
    pub decision: Option<String>,
}

impl RefusalView {
    /// Whether it is the same again.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let key = |one: &Self| {
            (one.reason, one.rule.clone(), one.identity.clone(), one.action.clone(), one.repository.clone())
        };
        key(self) == key(other)
    }
}

/// A client that didn't get in, or several alike.
#[derive(Debug)]
pub struct HandshakeView {
    /// When the last one was.
    pub at: i64,
    /// How many are alike.
    pub times: u64,
    /// From where, the last time.
    pub address: String,
    /// The listener.
    pub listener: String,
    /// Why not.
    pub reason: &'static str,
    /// The cause, with what the certificate says.
    pub detail: String,
}

/// A registry.
#[derive(Debug)]
pub struct UpstreamView {
    /// Its name in the configuration.
    pub name: String,
    /// Whether its health is checked.
    pub checked: bool,
    /// Its addresses, and whether each gets requests.
    pub addresses: Vec<(String, bool)>,
    /// Connections in use, and requests that wait for one.
    pub load: (i64, i64),
    /// What has gone wrong since the start, and how often.
    pub faults: Vec<(&'static str, u64)>,
}

impl UpstreamView {
    /// How it is.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.addresses.iter().filter(|(_, healthy)| *healthy).count() {
            0 => Level::Bad,
            healthy if healthy < self.addresses.len() => Level::Warn,
            _ => Level::Good,
        }
    }
}

/// How it is with something that ends, and that is to be replaced `warning` before, or when a quarter of its time is left if
/// that is later.
#[must_use]
pub(super) fn time_left(begin: i64, end: i64, now: i64, warning: Duration) -> Level {
    let warning = i64::try_from(warning.as_secs()).unwrap_or(i64::MAX).min(end.saturating_sub(begin) / 4);
    match end.saturating_sub(now) {
        left if left < warning / 4 || left < 0 => Level::Bad,
        left if left < warning => Level::Warn,
        _ => Level::Good,
    }
}
