//! Listening sockets, wherever they come from: bound here, bound by the service manager, or a predecessor's.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::admin::{Admin, Adopted};
use crate::config::{AdminAddress, Settings};
use crate::edge::{self, Bound};

/// What the socket for probes and metrics is called.
pub(super) const HEALTH: &str = "health";

/// What the socket for administration is called. Listeners have names of their own.
pub(super) const ADMIN: &str = "admin";

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl From<&AdminAddress> for Address {
    fn from(address: &AdminAddress) -> Self {
        match address {
            AdminAddress::Tcp(address) => Address::Tcp(*address),
            AdminAddress::Unix(path) => Address::Unix(path.clone()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is known of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    /// What the gateway that bound it used it for; unknown of the service manager's.
    pub(super) role: Option<String>,
    /// The address as that gateway's configuration has it, with port 0 if any would do.
    pub(super) configured: Option<Address>,
    /// Where it listens.
    pub(super) bound: Address,
    /// Whether the service manager made it, and so removes its file.
    pub(super) managed: bool,
}

impl Label {
    pub(super) fn edge(listener: &str) -> String {
        format!("listener {listener}")
    }
}

/// A listening socket and what is known of it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) descriptor: OwnedFd,
    pub(super) label: Label,
}

/// Sockets that were there before the gateway was.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<Socket>);

impl Inherited {
    pub(super) fn new(sockets: Vec<Socket>) -> Self {
        Inherited(sockets)
    }

    /// Takes every socket that listens on `address`; else those that were bound for the same purpose by the same line
    /// of the configuration, which may leave the port to the kernel.
    pub(super) fn take(&mut self, role: &str, address: &Address) -> Vec<Socket> {
        let labels = || self.0.iter().map(|socket| &socket.label);
        let same_line =
            |label: &&Label| label.role.as_deref() == Some(role) && label.configured.as_ref() == Some(address);
        let found = labels().find(|label| label.bound == *address).or_else(|| labels().find(same_line));
        let Some(bound) = found.map(|label| label.bound.clone()) else { return Vec::new() };
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|socket| socket.label.bound == bound);
        self.0 = left;
        taken
    }

    /// The one socket of an internal listener.
    pub(super) fn take_one(&mut self, role: &str, address: &Address) -> Option<Socket> {
        self.take(role, address).into_iter().next()
    }

    /// Where those listen that the service manager made and nobody took.
    pub(super) fn unclaimed(&self) -> Option<String> {
        let addresses: Vec<String> =
            self.0.iter().filter(|socket| socket.label.managed).map(|socket| socket.label.bound.to_string()).collect();
        if addresses.is_empty() { None } else { Some(addresses.join(", ")) }
    }
}

/// Copies of all listening sockets, for a successor. As long as there is one, connections are let in and queued.
pub(super) type Copies = Vec<Socket>;

/// Every address of every listener with its sockets: those there are already, else one for each serving thread.
pub(super) fn listen(settings: &Settings, inherited: &mut Inherited) -> Result<(Vec<Bound>, Copies), String> {
    let (mut all, mut copies) = (Vec::new(), Vec::new());
    for (index, listener) in settings.listeners.iter().enumerate() {
        let explain = |e: String| format!("listener \"{}\": {e}", listener.name);
        for address in &listener.addresses {
            let role = Label::edge(&listener.name);
            let configured = Address::Tcp(*address);
            let taken = inherited.take(&role, &configured);
            let managed = taken.iter().any(|socket| socket.label.managed);
            let bound = match taken.is_empty() {
                true => edge::bind(index, *address, settings.threads),
                false => adopt(index, taken).map_err(|e| format!("the socket for {address} can't be used: {e}")),
            };
            let bound = bound.map_err(explain)?;
            for socket in &bound.sockets {
                let descriptor = socket.try_clone().map_err(|e| explain(e.to_string()))?.into();
                let label = Label {
                    role: Some(role.clone()),
                    configured: Some(configured.clone()),
                    bound: Address::Tcp(bound.address),
                    managed,
                };
                copies.push(Socket { descriptor, label });
            }
            all.push(bound);
        }
    }
    Ok((all, copies))
}

/// Where the sockets of the internal listeners come from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Origins {
    health_managed: bool,
    admin_managed: bool,
    /// Whether that for administration was there already.
    pub(super) admin_adopted: bool,
}

impl Origins {
    /// Whether the file of the socket for administration, which was a predecessor's, is now this process's to remove.
    pub(super) fn admin_path_is_ours(&self) -> bool {
        self.admin_adopted && !self.admin_managed
    }
}

/// The sockets there are for the internal listeners.
pub(super) fn adopted(settings: &Settings, inherited: &mut Inherited) -> (Adopted, Origins) {
    let mut one = |role, address: Option<Address>| inherited.take_one(role, &address?);
    let health = one(HEALTH, settings.health.map(Address::Tcp));
    let control = one(ADMIN, settings.admin.as_ref().map(|admin| Address::from(&admin.address)));
    let managed = |socket: &Option<Socket>| socket.as_ref().is_some_and(|socket| socket.label.managed);
    let origins = Origins {
        health_managed: managed(&health),
        admin_managed: managed(&control),
        admin_adopted: control.is_some(),
    };
    let descriptor = |socket: Option<Socket>| socket.map(|socket| socket.descriptor);
    (Adopted { health: descriptor(health), control: descriptor(control) }, origins)
}

/// The sockets of the internal listeners, for a successor.
pub(super) fn internal_copies(settings: &Settings, admin: &mut Admin, origins: Origins) -> Copies {
    let Adopted { health, control } = admin.take_copies();
    let label = |role: &str, managed: bool, configured: Option<Address>, bound: Option<Address>| {
        Some(Label { role: Some(role.to_owned()), configured, bound: bound?, managed })
    };
    let (configured, bound) = (
        settings.admin.as_ref().map(|admin| Address::from(&admin.address)),
        admin.control_address().map(Address::from),
    );
    let health_bound = admin.health_address().map(Address::Tcp);
    let labels = [
        label(HEALTH, origins.health_managed, settings.health.map(Address::Tcp), health_bound),
        label(ADMIN, origins.admin_managed, configured, bound),
    ];
    let sockets = [health, control].into_iter().zip(labels);
    sockets.filter_map(|(descriptor, label)| Some(Socket { descriptor: descriptor?, label: label? })).collect()
}

fn adopt(listener: usize, taken: Vec<Socket>) -> std::io::Result<Bound> {
    let sockets: Vec<TcpListener> = taken.into_iter().map(|socket| TcpListener::from(socket.descriptor)).collect();
    let address = sockets.first().map_or(Err(std::io::ErrorKind::NotFound.into()), TcpListener::local_addr)?;
    for socket in &sockets {
        socket.set_nonblocking(true)?;
    }
    Ok(Bound { listener, address, sockets })
}

/// A thread's sockets, each with the position of its listener.
pub(super) type Share = Vec<(usize, TcpListener)>;

/// Spreads the sockets over the serving threads.
///
/// A predecessor may have had more threads, or fewer, and the service manager makes one socket an address. None goes
/// unserved then, for the kernel has put connections into its queue; and no thread goes idle: it shares a socket with
/// another one rather than bind one more, whose queue would be lost if this process doesn't get to serve in the end.
pub(super) fn shares(bound: Vec<Bound>, threads: usize) -> std::io::Result<Vec<Share>> {
    let mut shares: Vec<Share> = (0..threads).map(|_| Vec::new()).collect();
    for Bound { listener, sockets, .. } in bound {
        let mut spread = Vec::new();
        for index in 0..threads.max(sockets.len()) {
            let Some(socket) = sockets.get(index % sockets.len().max(1)) else { continue };
            spread.push(socket.try_clone()?);
        }
        for (index, socket) in spread.into_iter().enumerate() {
            if let Some(share) = shares.get_mut(index % threads.max(1)) {
                share.push((listener, socket));
            }
        }
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Address {
        Address::Tcp(text.parse().expect("an address"))
    }

    fn socket(role: Option<&str>, configured: &str) -> (Socket, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let bound = Address::Tcp(listener.local_addr().expect("an address"));
        let label = Label {
            role: role.map(str::to_owned),
            configured: role.map(|_| tcp(configured)),
            bound: bound.clone(),
            managed: role.is_none(),
        };
        (Socket { descriptor: listener.into(), label }, bound)
    }

    #[test]
    fn a_socket_is_taken_by_its_address_else_by_its_line_and_once() {
        let (health, _) = socket(Some(HEALTH), "127.0.0.1:0");
        let (admin, admin_bound) = socket(Some(ADMIN), "127.0.0.1:0");
        let (managed, managed_bound) = socket(None, "");
        let mut inherited = Inherited::new(vec![health, admin, managed]);
        assert!(inherited.take("listener main", &tcp("127.0.0.1:0")).is_empty(), "made for something else");
        let taken = inherited.take_one(ADMIN, &tcp("127.0.0.1:0")).expect("its own");
        assert_eq!(taken.label.bound, admin_bound);
        assert!(inherited.take_one(ADMIN, &tcp("127.0.0.1:0")).is_none());
        assert_eq!(inherited.unclaimed(), Some(managed_bound.to_string()));
        assert_eq!(inherited.take("listener main", &managed_bound).len(), 1);
        assert_eq!(inherited.unclaimed(), None, "a predecessor keeps what is no longer configured");
    }

    #[test]
    fn no_socket_goes_unserved_and_no_thread_idle() {
        for (sockets, threads) in [(1, 1), (1, 3), (2, 3), (3, 2), (5, 2)] {
            let sockets =
                (0..sockets).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect::<Vec<_>>();
            let ports = |listeners: &[&TcpListener]| {
                let mut ports: Vec<u16> =
                    listeners.iter().map(|l| l.local_addr().expect("an address").port()).collect();
                ports.sort_unstable();
                ports.dedup();
                ports
            };
            let all = ports(&sockets.iter().collect::<Vec<_>>());
            let address = sockets[0].local_addr().expect("an address");
            let shares = shares(vec![Bound { listener: 7, address, sockets }], threads).expect("descriptors");
            assert_eq!(shares.len(), threads);
            assert!(shares.iter().all(|share| !share.is_empty() && share.iter().all(|(listener, _)| *listener == 7)));
            let served: Vec<&TcpListener> = shares.iter().flatten().map(|(_, socket)| socket).collect();
            assert_eq!(ports(&served), all, "{threads} threads");
        }
    }
}
