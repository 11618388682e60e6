//! Listeners.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::address::is_host_name;
use super::{DAY, MINUTE, Range, Resolver};
use crate::config::model;
use crate::config::settings::{KeyPair, Listener, ListenerTls, ServerCertificate};
use crate::config::units::{ByteSize, Shown};
use crate::config::yaml::nearest;

impl Resolver<'_> {
    pub(super) fn listeners(&mut self, models: &[model::Listener], upstreams: &[model::Upstream]) -> Vec<Listener> {
        let listeners: Vec<_> =
            models.iter().enumerate().map(|(index, model)| self.listener(index, model, upstreams)).collect();
        let names = listeners.iter().enumerate();
        let names = names.map(|(index, listener)| (format!("listeners[{index}].name"), listener.name.clone()));
        self.unique(names, "name");
        self.check_addresses(&listeners);
        listeners
    }

    fn listener(&mut self, index: usize, model: &model::Listener, upstreams: &[model::Upstream]) -> Listener {
        let at = format!("listeners[{index}]");
        let name = model.name.clone().unwrap_or_else(|| format!("listener-{}", index + 1));
        self.check_name(&format!("{at}.name"), &name);
        let mut addresses = Vec::new();
        for (index, text) in model.addresses.iter().enumerate() {
            // A faulty one keeps its place, so that later checks name the right index.
            let address = self.socket_address(&format!("{at}.addresses[{index}]"), text);
            addresses.push(address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))));
        }
        Listener {
            name,
            addresses,
            upstream: self.default_upstream(&format!("{at}.upstream"), model.upstream.as_deref(), upstreams),
            proxy_sources: self.proxy_sources(&format!("{at}.proxy_protocol"), model.proxy_protocol.as_ref()),
            tls: self.listener_tls(&format!("{at}.tls"), &model.tls),
        }
    }

    /// The networks whose word on the client's address is taken.
    fn proxy_sources(&mut self, at: &str, model: Option<&model::ProxyProtocol>) -> Vec<IpNet> {
        let Some(model) = model else { return Vec::new() };
        let at = format!("{at}.trusted_sources");
        let mut networks = Vec::new();
        for (index, text) in model.trusted_sources.iter().enumerate() {
            let at = format!("{at}[{index}]");
            let address = || text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
            let Some(network) = text.parse().ok().or_else(address) else {
                let message = "is no address and no network; write it like 10.0.0.7, 10.0.0.0/24 or 2001:db8::/64";
                self.error(at, format!("{} {message}", Shown(text)));
                continue;
            };
            if network.addr() != network.network() {
                self.error(at, format!("{network} lies inside a network; did you mean {}?", network.trunc()));
            } else if network.prefix_len() == 0 {
                self.warning(at, "any client can then give itself the address it likes; list the load balancers only");
            }
            networks.push(network.trunc());
        }
        networks
    }

    /// The upstream a listener names, or the only one there is.
    fn default_upstream(&mut self, at: &str, asked: Option<&str>, upstreams: &[model::Upstream]) -> String {
        let Some(asked) = asked else {
            if let [_, _, ..] = upstreams {
                self.error(at, "there are several upstreams; say which one serves this listener by default");
            }
            return upstreams.first().map(|only| only.name.clone()).unwrap_or_default();
        };
        if !upstreams.iter().any(|upstream| upstream.name == asked) {
            let hint = match nearest(asked, upstreams.iter().map(|upstream| &upstream.name)) {
                Some(near) => format!("did you mean {}?", Shown(near)),
                None => "add it to upstreams".to_owned(),
            };
            self.error(at, format!("there is no upstream {}; {hint}", Shown(asked)));
        }
        asked.to_owned()
    }

    fn listener_tls(&mut self, at: &str, model: &model::ListenerTls) -> ListenerTls {
        let certificates = model.certificates.iter().enumerate();
        let certificates =
            certificates.map(|(index, own)| self.server_certificate(&format!("{at}.certificates[{index}]"), own));
        let certificates = certificates.collect();
        if model.ciphers.as_deref().is_some_and(|list| list.trim().is_empty() || !list.is_ascii()) {
            self.error(format!("{at}.ciphers"), "this is no cipher list; null gives the default one");
        }
        let chain = self.size(
            &format!("{at}.max_client_chain"),
            model.max_client_chain,
            ByteSize::from_kib(1),
            ByteSize::from_mib(1),
        );
        let ticket_keys = Range { min: MINUTE, max: 7 * DAY };
        ListenerTls {
            certificates,
            client_ca: self.path(&format!("{at}.client_ca"), &model.client_ca),
            min_version: model.min_version,
            ciphers: model.ciphers.clone(),
            verify_depth: model.verify_depth,
            max_client_chain: usize::try_from(chain).unwrap_or(usize::MAX),
            require_eku: model.require_eku,
            allow_v1: model.allow_v1,
            session_tickets: model.session_tickets,
            ticket_key_lifetime: self.time(
                &format!("{at}.ticket_key_lifetime"),
                model.ticket_key_lifetime,
                ticket_keys,
            ),
        }
    }

    fn server_certificate(&mut self, at: &str, model: &model::ServerCertificate) -> ServerCertificate {
        for (index, name) in model.names.iter().enumerate() {
            if !is_host_name(name.strip_prefix("*.").unwrap_or(name)) {
                let message = "is no name that a client can ask for; write a DNS name, or *. and a DNS name";
                self.error(format!("{at}.names[{index}]"), format!("{} {message}", Shown(name)));
            }
        }
        ServerCertificate {
            pair: KeyPair {
                certificate: self.path(&format!("{at}.certificate"), &model.certificate),
                key: self.path(&format!("{at}.key"), &model.key),
            },
            names: model.names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    /// Reports addresses that two sockets of this process would fight over.
    fn check_addresses(&mut self, listeners: &[Listener]) {
        let mut seen: HashMap<SocketAddr, String> = HashMap::new();
        for (outer, listener) in listeners.iter().enumerate() {
            for (inner, &address) in listener.addresses.iter().enumerate() {
                let at = format!("listeners[{outer}].addresses[{inner}]");
                if address.port() == 0 {
                    continue;
                }
                if let Some(first) = seen.get(&address) {
                    self.error(at, format!("{address} is already taken by {first}"));
                } else {
                    seen.insert(address, at);
                }
            }
        }
    }
}
