//! The registries behind the gateway: which one serves a request, at which address, and whether it can take it.
//!
//! An [`Upstream`] lives as long as its settings stay the same, across reloads, so that health, counters and pooled
//! connections aren't lost to an unrelated change.

mod admission;
mod bulk;
pub(crate) mod client;
pub(crate) mod document;
mod health;
mod resolve;
mod sparing;
mod storage;
mod suspects;
mod way;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use pingora::upstreams::peer::HttpPeer;

pub use admission::Admission;
pub(crate) use bulk::{Dial, Kept};
pub use health::watch;
pub use storage::Storage;
pub use suspects::Suspects;

use crate::config::{self, Authorization, Endpoint};
use crate::oci::RepoName;
use crate::telemetry::{CertificateKind, Outcome, UpstreamFault, UpstreamMetrics};
use crate::tls::{CertificateInfo, UpstreamMaterial};
use sparing::Sparing;
use way::{Bulk, ServerName, Way};

/// One registry, at one address or several that are equivalent.
#[derive(Debug)]
pub struct Upstream {
    settings: config::Upstream,
    material: Material,
    expiries: Vec<(CertificateKind, CertificateInfo)>,
    endpoints: Vec<EndpointState>,
    turn: AtomicUsize,
    admission: Arc<admission::Gate>,
    credentials: Option<HeaderValue>,
    suspects: Suspects,
    sparing: Sparing,
    metrics: Arc<UpstreamMetrics>,
    /// The hosts that redirects are followed to.
    storages: Vec<Arc<Storage>>,
}

/// The certificates that an upstream is spoken to with.
#[derive(Debug, Clone, Default)]
pub struct Material {
    /// With the registry.
    pub registry: UpstreamMaterial,
    /// With the hosts that redirects are followed to.
    pub storage: UpstreamMaterial,
}

#[derive(Debug)]
struct EndpointState {
    endpoint: Endpoint,
    way: Arc<Way>,
    addresses: ArcSwap<Vec<Arc<Address>>>,
}

impl EndpointState {
    fn new(endpoint: Endpoint, way: Arc<Way>) -> Self {
        EndpointState { endpoint, way, addresses: ArcSwap::default() }
    }
}

/// One socket address, or unix socket, of an upstream.
#[derive(Debug)]
pub struct Address {
    label: Arc<str>,
    peer: HttpPeer,
    /// For connections that blobs are read from; see [`Address::dial`].
    bulk: Option<Bulk>,
    healthy: AtomicBool,
    /// Checks in a row that disagree with `healthy`.
    against: AtomicU32,
}

impl Address {
    /// The address as records and metrics name it.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// What pingora connects to.
    #[must_use]
    pub fn peer(&self) -> &HttpPeer {
        &self.peer
    }

    /// Lets a request for a blob have a connection that is read in large pieces, where there are such: over TCP, without
    /// TLS, which brings a record at a time whatever is asked for.
    pub(crate) fn dial(&self, peer: &mut HttpPeer, kept: &Arc<Kept>) -> Option<Arc<Dial>> {
        let bulk = self.bulk?;
        let dial = Dial::new(kept, bulk);
        peer.group_key = bulk.group;
        peer.options.custom_l4 = Some(dial.clone());
        Some(dial)
    }

    /// Whether the active checks hold it for able to serve.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }
}

impl Upstream {
    /// Makes the upstream; names are not resolved yet (see [`Upstream::resolve`]).
    ///
    /// # Errors
    ///
    /// A text for the operator when credentials or a socket path can't be expressed.
    pub fn new(settings: config::Upstream, material: Material, metrics: UpstreamMetrics) -> Result<Arc<Self>, String> {
        let credentials = match &settings.authorization {
            Authorization::Replace(credentials) => Some(basic_auth(credentials)?),
            Authorization::Pass | Authorization::Drop => None,
        };
        let name = |given: Option<String>| given.map_or(ServerName::Host, ServerName::Given);
        let tls = settings.tls.as_ref().map(|tls| name(tls.server_name.clone()));
        let way = Arc::new(Way::new(tls, settings.timeouts, material.registry.clone()));
        let endpoints = settings.endpoints.iter().cloned();
        let endpoints = endpoints.map(|endpoint| EndpointState::new(endpoint, way.clone())).collect();
        let metrics = Arc::new(metrics);
        let upstream = Upstream {
            admission: Arc::new(admission::Gate::new(&settings.limits, settings.timeouts.connect, metrics.clone())),
            turn: AtomicUsize::new(0),
            storages: Storage::all_of(&settings, &material.storage),
            expiries: [material.registry.expiries(), material.storage.expiries()].concat(),
            endpoints,
            credentials,
            suspects: Suspects::default(),
            sparing: Sparing::default(),
            metrics,
            material,
            settings,
        };
        upstream.fill_literal_addresses()?;
        Ok(Arc::new(upstream))
    }

    /// Whether it was made from just this.
    #[must_use]
    pub fn is_made_from(&self, settings: &config::Upstream, material: &Material) -> bool {
        let same = |one: &UpstreamMaterial, other: &UpstreamMaterial| one.digest() == other.digest();
        self.settings == *settings
            && same(&self.material.registry, &material.registry)
            && same(&self.material.storage, &material.storage)
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &config::Upstream {
        &self.settings
    }

    /// Where what happens to it is counted.
    #[must_use]
    pub fn metrics(&self) -> &UpstreamMetrics {
        &self.metrics
    }

    /// The certificates it is spoken to with, and when they begin and expire.
    #[must_use]
    pub fn certificate_expiries(&self) -> &[(CertificateKind, CertificateInfo)] {
        &self.expiries
    }

    /// The `Authorization` to send instead of the client's.
    #[must_use]
    pub fn credentials(&self) -> Option<&HeaderValue> {
        self.credentials.as_ref()
    }

    /// Content of it that is not what its digest names.
    #[must_use]
    pub fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    /// The level at which the log mentions one more answer of this upstream that ended so: its own once a minute, else
    /// debug, since whoever may pull what is wrong can pull it all day. Metrics and access records have each.
    #[must_use]
    pub fn level(&self, outcome: Outcome) -> log::Level {
        self.sparing.level(outcome)
    }

    /// Waits for a place among the requests in flight.
    ///
    /// # Errors
    ///
    /// [`UpstreamFault::Busy`] when too many wait already, or none became free in time.
    pub async fn admit(&self) -> Result<Admission, UpstreamFault> {
        admission::Gate::admit(&self.admission).await
    }

    /// The next healthy address in turn.
    ///
    /// # Errors
    ///
    /// [`UpstreamFault::Resolve`] when no name has ever been resolved, [`UpstreamFault::Unhealthy`] when every address
    /// fails its checks.
    pub fn pick(&self) -> Result<Arc<Address>, UpstreamFault> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // The common case allocates nothing: one endpoint with one address.
        let total: usize = self.endpoints.iter().map(|endpoint| endpoint.addresses.load().len()).sum();
        if total == 0 {
            return Err(UpstreamFault::Resolve);
        }
        (0..total)
            .filter_map(|step| self.nth(turn.wrapping_add(step) % total))
            .find(|address| address.is_healthy())
            .ok_or(UpstreamFault::Unhealthy)
    }

    fn nth(&self, mut position: usize) -> Option<Arc<Address>> {
        for endpoint in &self.endpoints {
            let addresses = endpoint.addresses.load();
            match addresses.get(position) {
                Some(address) => return Some(address.clone()),
                None => position -= addresses.len(),
            }
        }
        None
    }

    /// Every address known now.
    #[must_use]
    pub fn addresses(&self) -> Vec<Arc<Address>> {
        self.endpoints
            .iter()
            .flat_map(|endpoint| endpoint.addresses.load().iter().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// The Host to send when the client's is not to be kept.
    pub(crate) fn default_host(&self) -> String {
        let endpoint = self.endpoints.first().map(|endpoint| endpoint.endpoint.to_string());
        match (&self.settings.host, endpoint) {
            (Some(host), _) => host.clone(),
            (None, Some(endpoint)) if !endpoint.starts_with("unix:") => endpoint,
            (None, _) => "localhost".to_owned(),
        }
    }

    /// The hosts that the configuration knows the registry by.
    pub(crate) fn own_hosts(&self) -> Vec<String> {
        let tcp = self.settings.endpoints.iter().filter(|endpoint| matches!(endpoint, Endpoint::Tcp { .. }));
        self.settings.host.iter().cloned().chain(tcp.map(ToString::to_string)).collect()
    }

    /// The host that redirects are followed to, if it is one of them.
    #[must_use]
    pub fn storage(&self, host: &config::StorageHost) -> Option<&Arc<Storage>> {
        self.storages.iter().find(|storage| storage.host() == host)
    }

    /// Everything that has addresses.
    fn states(&self) -> impl Iterator<Item = &EndpointState> {
        self.endpoints.iter().chain(self.storages.iter().map(|storage| &storage.state))
    }
}

fn basic_auth(credentials: &config::Credentials) -> Result<HeaderValue, String> {
    let pair = format!("{}:{}", credentials.username, credentials.password.expose());
    let mut value = HeaderValue::from_str(&format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes())))
        .map_err(|_| "the credentials can't be sent as a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Which upstream serves which request.
#[derive(Debug, Clone, Default)]
pub struct Table {
    upstreams: Vec<Arc<Upstream>>,
}

impl Table {
    /// The table over these upstreams.
    #[must_use]
    pub fn new(upstreams: Vec<Arc<Upstream>>) -> Self {
        Table { upstreams }
    }

    /// All of them, in the order of the configuration.
    #[must_use]
    pub fn all(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// The upstream called `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.iter().find(|upstream| upstream.name() == name)
    }

    /// The upstream for a request: the longest repository prefix first, then the host, then the listener's own.
    ///
    /// `host` is in lower case and without port.
    #[must_use]
    pub fn choose(
        &self,
        listener_default: &str,
        host: Option<&str>,
        repository: Option<&RepoName>,
    ) -> Option<&Arc<Upstream>> {
        let by_repository = repository.and_then(|repository| {
            let matching = self.upstreams.iter().filter_map(|upstream| {
                let prefixes = upstream.settings.repositories.iter();
                let longest =
                    prefixes.filter(|prefix| is_prefix(prefix, repository.as_str())).map(String::len).max()?;
                Some((longest, upstream))
            });
            matching.max_by_key(|(length, _)| *length).map(|(_, upstream)| upstream)
        });
        let by_host =
            || host.and_then(|host| self.upstreams.iter().find(|u| u.settings.hosts.iter().any(|name| name == host)));
        by_repository.or_else(by_host).or_else(|| self.named(listener_default))
    }
}

/// Whether `prefix` covers `repository` by whole segments: `team` covers `team/app`, not `team-evil/app`.
fn is_prefix(prefix: &str, repository: &str) -> bool {
    repository.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How long one look-up of a name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_whole_segments() {
        assert!(is_prefix("team", "team"));
        assert!(is_prefix("team", "team/app"));
        assert!(!is_prefix("team", "team-evil/app"));
        assert!(!is_prefix("team/app", "team"));
    }
}
