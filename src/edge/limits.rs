//! How many connections there may be: in all, from one address, of one identity, and in the middle of a handshake.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::ConnectionLimits;
use crate::identity::ClientId;
use crate::tally::Tally;
use crate::telemetry::HandshakeResult;

/// The counters of a gateway, shared by its workers.
#[derive(Debug, Default)]
pub struct Counters {
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    by_address: Tally<IpAddr>,
    handshakes_by_address: Tally<IpAddr>,
    by_identity: Tally<ClientId>,
}

impl Counters {
    /// Counts a connection that was just accepted, of whom is not known yet.
    pub(super) fn connection(self: &Arc<Self>, limits: &ConnectionLimits) -> Result<ConnectionSlot, HandshakeResult> {
        if self.connections.fetch_add(1, Ordering::AcqRel) >= limits.all {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            return Err(HandshakeResult::TooManyConnections);
        }
        Ok(ConnectionSlot { counters: self.clone(), address: None })
    }

    /// Counts a handshake that is about to begin, the header of a load balancer included.
    pub(super) fn handshake(self: &Arc<Self>, limits: &ConnectionLimits) -> Result<HandshakeSlot, HandshakeResult> {
        if self.handshakes.fetch_add(1, Ordering::AcqRel) >= limits.handshakes {
            self.handshakes.fetch_sub(1, Ordering::AcqRel);
            return Err(HandshakeResult::TooManyHandshakes);
        }
        Ok(HandshakeSlot { counters: self.clone(), address: None })
    }

    /// Counts a connection of a client.
    pub(super) fn identity(
        self: &Arc<Self>,
        client: ClientId,
        limits: &ConnectionLimits,
    ) -> Result<IdentitySlot, HandshakeResult> {
        if !self.by_identity.enter(client, limits.per_identity) {
            return Err(HandshakeResult::TooManyOfIdentity);
        }
        Ok(IdentitySlot { counters: self.clone(), client })
    }
}

/// What counts as one address: an IPv6 host may have the whole of its /64, so that is what is counted.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A connection's place, given back on drop.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    counters: Arc<Counters>,
    address: Option<IpAddr>,
}

impl ConnectionSlot {
    /// Counts the connection for its client's address, now that it is known.
    pub(super) fn of_address(&mut self, address: IpAddr, limits: &ConnectionLimits) -> Result<(), HandshakeResult> {
        let address = source(address);
        if !self.counters.by_address.enter(address, limits.per_address) {
            return Err(HandshakeResult::TooManyOfAddress);
        }
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.counters.connections.fetch_sub(1, Ordering::AcqRel);
        if let Some(address) = &self.address {
            self.counters.by_address.leave(address);
        }
    }
}

/// A handshake's place, given back on drop.
#[derive(Debug)]
pub(super) struct HandshakeSlot {
    counters: Arc<Counters>,
    address: Option<IpAddr>,
}

impl HandshakeSlot {
    /// Counts the handshake for its client's address, now that it is known.
    pub(super) fn of_address(&mut self, address: IpAddr, limits: &ConnectionLimits) -> Result<(), HandshakeResult> {
        let address = source(address);
        if !self.counters.handshakes_by_address.enter(address, limits.handshakes_per_address) {
            return Err(HandshakeResult::TooManyHandshakesOfAddress);
        }
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.counters.handshakes.fetch_sub(1, Ordering::AcqRel);
        if let Some(address) = &self.address {
            self.counters.handshakes_by_address.leave(address);
        }
    }
}

/// An identity's place, given back on drop.
#[derive(Debug)]
pub(super) struct IdentitySlot {
    counters: Arc<Counters>,
    client: ClientId,
}

impl Drop for IdentitySlot {
    fn drop(&mut self) {
        self.counters.by_identity.leave(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Attribute, Description, PeerIdentity};

    fn limits(one: usize) -> ConnectionLimits {
        ConnectionLimits { all: 3, per_address: one, per_identity: one, handshakes: 3, handshakes_per_address: one }
    }

    #[test]
    fn places_come_back_and_one_address_does_not_take_anothers() {
        let counters = Arc::new(Counters::default());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let enter = |address| {
            let mut slot = counters.connection(&limits(1))?;
            slot.of_address(address, &limits(1)).map(|()| slot)
        };
        let first = enter(one).expect("room");
        assert_eq!(enter(one).err(), Some(HandshakeResult::TooManyOfAddress));
        let second = enter(other).expect("room for another address");
        drop(first);
        let third = enter(one).expect("room again");
        drop((second, third));
        assert_eq!(counters.connections.load(Ordering::Acquire), 0);
        assert_eq!(counters.by_address.keys(), 0);
    }

    #[test]
    fn the_bound_on_all_holds_across_addresses() {
        let counters = Arc::new(Counters::default());
        let held: Vec<_> = (1..=3).map(|_| counters.handshake(&limits(9))).collect();
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(counters.handshake(&limits(9)).err(), Some(HandshakeResult::TooManyHandshakes));
    }

    #[test]
    fn a_network_of_one_host_is_one_address() {
        let parse = |text: &str| source(text.parse().expect("an address"));
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_eq!(parse("::ffff:192.0.2.1"), parse("192.0.2.1"));
    }

    #[test]
    fn an_identity_has_its_own_bound() {
        let counters = Arc::new(Counters::default());
        let client = |cn: &str| {
            let subject = vec![Attribute { name: "CN".into(), value: cn.to_owned() }];
            PeerIdentity::described(Description { subject, ..Description::default() }).client_id()
        };
        let _held = counters.identity(client("one"), &limits(1)).expect("room");
        assert_eq!(counters.identity(client("one"), &limits(1)).err(), Some(HandshakeResult::TooManyOfIdentity));
        assert!(counters.identity(client("other"), &limits(1)).is_ok());
    }
}
