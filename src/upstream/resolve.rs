//! Names to addresses, off the serving path. The last good answer stays when a look-up fails.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{EndpointState, LOOKUP_TIMEOUT, Upstream};
use crate::config::Endpoint;

impl Upstream {
    /// Fills in what needs no look-up: IP addresses and unix sockets.
    pub(super) fn fill_literal_addresses(&self) -> Result<(), String> {
        for state in self.states() {
            match &state.endpoint {
                Endpoint::Unix(path) => {
                    let text = path.to_str().ok_or("the path of a unix socket must be UTF-8")?;
                    state.addresses.store(Arc::new(vec![state.way.unix(text)?]));
                }
                Endpoint::Tcp { host, port } => {
                    if let Ok(ip) = host.parse::<IpAddr>() {
                        let address = state.way.tcp(host, SocketAddr::new(ip, *port));
                        state.addresses.store(Arc::new(vec![address]));
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks every name up. Addresses that stay keep their health.
    pub async fn resolve(&self) {
        for state in self.states() {
            if let Endpoint::Tcp { host, port } = &state.endpoint
                && host.parse::<IpAddr>().is_err()
            {
                self.resolve_name(state, host, *port).await;
            }
        }
    }

    async fn resolve_name(&self, state: &EndpointState, host: &str, port: u16) {
        let lookup = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await;
        let mut found: Vec<SocketAddr> = match lookup {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(e)) => return self.keep(state, host, &e.to_string()),
            Err(_) => return self.keep(state, host, "no answer in time"),
        };
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            return self.keep(state, host, "the name has no address");
        }
        let known = state.addresses.load();
        if known.iter().map(|address| address.label.as_ref()).eq(found.iter().map(ToString::to_string)) {
            return;
        }
        let keep = |address: &SocketAddr| known.iter().find(|k| k.label.as_ref() == address.to_string()).cloned();
        let addresses = found.iter().map(|address| keep(address).unwrap_or_else(|| state.way.tcp(host, *address)));
        state.addresses.store(Arc::new(addresses.collect()));
        log::info!("upstream {}: {host} is {} address(es) now", self.name(), found.len());
    }

    fn keep(&self, state: &EndpointState, host: &str, cause: &str) {
        let kept = state.addresses.load().len();
        log::warn!(
            "upstream {}: cannot resolve {host}: {cause} ({kept} address(es) of the last good answer kept)",
            self.name()
        );
    }
}
