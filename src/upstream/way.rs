//! How connections to a host are made: with TLS or without, whom they trust, and how long anything may take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, PeerOptions};

use super::Address;
use crate::config::UpstreamTimeouts;
use crate::tls::UpstreamMaterial;

/// See the module.
#[derive(Debug)]
pub(super) struct Way {
    tls: Option<ServerName>,
    timeouts: UpstreamTimeouts,
    material: UpstreamMaterial,
    /// Keeps pooled connections made with other certificates apart (pingora's pool doesn't look at them).
    group: u64,
    /// For connections that blobs are read from: over TCP, without TLS.
    bulk: Option<Bulk>,
}

/// See [`super::bulk`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulk {
    /// Keeps these connections apart from all others, too.
    pub(super) group: u64,
    /// How long a connection may be idle.
    pub(super) keep_for: Duration,
}

/// The name that a server's certificate must have.
#[derive(Debug)]
pub(super) enum ServerName {
    /// That of the host.
    Host,
    /// This one.
    Given(String),
}

impl Way {
    /// A way with TLS if and only if there is a name to verify.
    pub(super) fn new(tls: Option<ServerName>, timeouts: UpstreamTimeouts, material: UpstreamMaterial) -> Self {
        static NEXT_GROUP: AtomicU64 = AtomicU64::new(1);
        let group = NEXT_GROUP.fetch_add(2, Ordering::Relaxed);
        let bulk = Bulk { group: group + 1, keep_for: timeouts.pool_idle };
        let bulk = tls.is_none().then_some(bulk);
        Way { tls, timeouts, material, group, bulk }
    }

    pub(super) fn tcp(&self, host: &str, address: SocketAddr) -> Arc<Address> {
        // An empty server name would switch verification off in the framework. The configuration doesn't permit one:
        // without a given name, the host is a name.
        let name = match &self.tls {
            Some(ServerName::Given(name)) => name.clone(),
            Some(ServerName::Host) => host.to_owned(),
            None => String::new(),
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the address is resolved already, so nothing blocks and nothing fails"
        )]
        let peer = HttpPeer::new(address, self.tls.is_some(), name);
        self.address(address.to_string(), peer, self.bulk)
    }

    pub(super) fn unix(&self, path: &str) -> Result<Arc<Address>, String> {
        let peer = HttpPeer::new_uds(path, false, String::new()).map_err(|e| format!("{path}: {e}"))?;
        Ok(self.address(format!("unix:{path}"), peer, None))
    }

    fn address(&self, label: String, mut peer: HttpPeer, bulk: Option<Bulk>) -> Arc<Address> {
        peer.options = self.options();
        peer.client_cert_key.clone_from(&self.material.client);
        peer.group_key = self.group;
        let (healthy, against) = (AtomicBool::new(true), AtomicU32::new(0));
        Arc::new(Address { label: label.into(), peer, bulk, healthy, against })
    }

    fn options(&self) -> PeerOptions {
        let mut options = PeerOptions::new();
        options.connection_timeout = Some(self.timeouts.connect);
        options.total_connection_timeout = Some(self.timeouts.connect);
        // One clock of the framework serves the wait for the head and the silences of the answer's body.
        options.read_timeout = Some(self.timeouts.first_byte);
        options.write_timeout = Some(self.timeouts.idle);
        options.idle_timeout = Some(self.timeouts.pool_idle);
        options.alpn = ALPN::H1;
        options.ca.clone_from(&self.material.ca);
        // The head is made anew; what the client nominated for removal isn't in it.
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        options.verify_cert = true;
        options.verify_hostname = true;
        options
    }
}
