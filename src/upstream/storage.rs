//! The hosts that a registry's redirects are followed to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::way::{ServerName, Way};
use super::{Address, EndpointState};
use crate::config::{Endpoint, RedirectMode, StorageHost, Upstream};
use crate::telemetry::UpstreamFault;
use crate::tls::UpstreamMaterial;

/// One host, at all its addresses.
#[derive(Debug)]
pub struct Storage {
    host: StorageHost,
    pub(super) state: EndpointState,
    turn: AtomicUsize,
}

impl Storage {
    /// The hosts of `upstream`; none if its redirects are not followed.
    pub(super) fn all_of(upstream: &Upstream, material: &UpstreamMaterial) -> Vec<Arc<Self>> {
        let hosts = upstream.redirects.hosts.iter().filter(|_| upstream.redirects.mode == RedirectMode::Follow);
        hosts.map(|host| Arc::new(Self::new(host, upstream, material))).collect()
    }

    fn new(host: &StorageHost, upstream: &Upstream, material: &UpstreamMaterial) -> Self {
        let endpoint = Endpoint::Tcp { host: host.host.clone(), port: host.port };
        let way = Way::new(host.tls.then_some(ServerName::Host), upstream.timeouts, material.clone());
        Storage { host: host.clone(), state: EndpointState::new(endpoint, Arc::new(way)), turn: AtomicUsize::new(0) }
    }

    /// The host as the configuration names it.
    #[must_use]
    pub fn host(&self) -> &StorageHost {
        &self.host
    }

    /// How many addresses it has.
    #[must_use]
    pub fn known(&self) -> usize {
        self.state.addresses.load().len()
    }

    /// The next address in turn.
    ///
    /// # Errors
    ///
    /// [`UpstreamFault::Resolve`] when its name has never been resolved.
    pub fn pick(&self) -> Result<Arc<Address>, UpstreamFault> {
        let addresses = self.state.addresses.load();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(addresses.len());
        turn.and_then(|turn| addresses.get(turn).cloned()).ok_or(UpstreamFault::Resolve)
    }
}
