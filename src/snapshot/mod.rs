//! The configuration in force: settings, certificates, trust, revocation, policy and upstreams as one immutable whole.
//!
//! Everything is loaded, resolved and built before anything is replaced, and then replaced by one swap. A request never
//! sees the new policy with the old trust.

mod build;
mod fetch;
mod keep;
mod lists;
mod parts;
mod shadow;
mod shelf;
mod status;
mod store;
mod watch;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

pub use build::{Builder, Built, Failed};
pub use fetch::Fetcher;
pub use keep::ToKeep;
pub use shelf::Shelf;
pub(crate) use status::span;
pub use status::{SourceKind, SourceStatus};
pub use store::{Publisher, Reader, store};
pub use watch::Watcher;

use crate::admin::Guard;
use crate::config::Settings;
use crate::edge::Connection;
use crate::policy::Policy;
use crate::quotas::Quotas;
use crate::revocation;
use crate::telemetry::{EndReason, Published};
use crate::tls::{Acceptor, TrustBundle};
use crate::uploads::Binder;
use crate::upstream;

/// One generation of everything that serving depends on.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts publications from 1; shows in logs, metrics and access records.
    pub generation: u64,
    /// The resolved configuration.
    pub settings: Settings,
    /// One for each listener, in the order in which their sockets were bound.
    pub listeners: Vec<Listener>,
    /// What administration demands.
    pub admin: Arc<Guard>,
    /// Who else than clients of the registry may vouch for somebody: for administrators.
    pub admin_trust: Option<Arc<TrustBundle>>,
    /// Which certificates are revoked.
    pub revocation: revocation::Index,
    /// Who may do what.
    pub policy: Arc<Policy>,
    /// What is evaluated beside it and enforces nothing.
    pub shadow: Option<Arc<Policy>>,
    /// The registries.
    pub upstreams: upstream::Table,
    /// How much of it, counted.
    pub quotas: Arc<Quotas>,
    /// What ties upload sessions to their clients; none if that is switched off.
    pub uploads: Option<Binder>,
    /// How the sources of revocation lists stood.
    pub sources: Arc<[SourceStatus]>,
    /// How fetching them goes now.
    pub fetched: Arc<Shelf>,
    /// What metrics say about this generation.
    pub published: Published,
}

/// What a listener serves with.
#[derive(Debug)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The networks of load balancers whose connections begin with a header of the PROXY protocol.
    pub proxy_sources: Vec<IpNet>,
    /// Its side of the handshake.
    pub acceptor: Acceptor,
    /// Who may vouch for its clients.
    pub trust: Arc<TrustBundle>,
    /// The upstream of requests that no other claims.
    pub upstream: String,
}

impl Snapshot {
    /// The authorities that may vouch for clients and administrators, one after the other.
    pub fn issuers(&self) -> impl Iterator<Item = &revocation::Issuer> {
        let listeners = self.listeners.iter().map(|listener| &listener.trust);
        listeners.chain(&self.admin_trust).flat_map(|trust| trust.issuers())
    }

    /// A source of revocation lists that has no list yet, where that keeps clients out (administrators don't count).
    ///
    /// What tells a gateway that has only begun from one whose lists have run out: that one has them still.
    #[must_use]
    pub fn source_without_list(&self) -> Option<String> {
        let issuers = self.authorities().map(|issuer| issuer.id);
        status::lacking(&self.sources, issuers, &self.settings.revocation)
    }

    /// The authorities of clients, each with whether its clients are refused for want of a revocation list.
    pub fn shut_out(&self) -> impl Iterator<Item = (&revocation::Issuer, bool)> {
        let now = unix_now();
        let is_shut_out = move |id| status::is_shut_out(&self.sources, id, &self.settings.revocation, now);
        self.authorities().map(move |issuer| (issuer, is_shut_out(&issuer.id)))
    }

    fn authorities(&self) -> impl Iterator<Item = &revocation::Issuer> {
        self.listeners.iter().flat_map(|listener| listener.trust.issuers())
    }

    /// Why a connection that an earlier generation let in must end, if this one wouldn't let it in.
    ///
    /// Asked for every live connection when a generation is published, and for a connection that was accepted
    /// meanwhile.
    #[must_use]
    pub fn judge(&self, connection: &Connection) -> Option<EndReason> {
        let now = unix_now();
        let identity = &connection.identity;
        if identity.not_after() < now {
            return Some(EndReason::Expired);
        }
        if connection.is_approved_by(self.generation, now) {
            return None;
        }
        // A listener that demands more of certificates than it did, or has lost the anchor, wouldn't let it in.
        let welcome = self.listeners.get(connection.listener).is_some_and(|listener| {
            *listener.acceptor.demands() == connection.demands
                && identity.path.last().is_some_and(|anchor| listener.trust.contains(&anchor.fingerprint))
        });
        if !welcome {
            return Some(EndReason::Untrusted);
        }
        match self.revocation.check(&identity.path, now) {
            Ok(()) => {
                connection.approve(self.generation, self.revocation.permits_until(&identity.path));
                None
            }
            Err(revocation::Refusal::Revoked { .. }) => Some(EndReason::Revoked),
            Err(_) => Some(EndReason::RevocationUnknown),
        }
    }
}

/// Seconds since the Unix epoch; a clock before 1970 reads as 0.
pub(crate) fn unix_now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}
