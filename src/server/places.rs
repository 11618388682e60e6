//! Where the gateway listens, said to whoever has to know.

use super::ListenerAddress;
use super::sockets::Inherited;
use crate::admin::Admin;
use crate::config::{AdminAddress, Settings};
use crate::edge::Bound;

/// Connections to an address that nobody serves would hang.
pub(super) fn nothing_unclaimed(inherited: &Inherited) -> Result<(), String> {
    match inherited.unclaimed() {
        None => Ok(()),
        Some(addresses) => Err(format!(
            "the service manager passed sockets that the configuration doesn't name: {addresses}; listen there \
             (listeners[].addresses, health.address, admin.address), or take them out of the socket unit"
        )),
    }
}

/// Where listeners accept connections, in the order of the configuration.
pub(super) fn addresses(settings: &Settings, bound: &[Bound]) -> Vec<ListenerAddress> {
    let name = |index: usize| settings.listeners.get(index).map_or_else(String::new, |listener| listener.name.clone());
    bound.iter().map(|socket| ListenerAddress { name: name(socket.listener), address: socket.address }).collect()
}

/// Says where the gateway listens. Tests and programs read it.
pub(super) fn announce(listeners: &[ListenerAddress], admin: &Admin) {
    for ListenerAddress { name, address } in listeners {
        log::info!(kind = "edge", listener = name.as_str(), address:% = address; "listening");
    }
    if let Some(address) = admin.health_address() {
        log::info!(kind = "health", address:% = address; "listening");
    }
    match admin.control_address() {
        Some(AdminAddress::Tcp(address)) => log::info!(kind = "admin", address:% = address; "listening"),
        Some(AdminAddress::Unix(path)) => {
            log::info!(kind = "admin", address:% = format!("unix:{}", path.display()); "listening");
        }
        None => {}
    }
}
