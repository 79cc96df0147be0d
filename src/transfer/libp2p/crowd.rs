//! How many connections may be under way from one place: somebody who opens connections and says nothing must not keep
//! out those who are invited. Peers have no name before their handshake, so they are counted by their IP address.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};

/// Handshakes that are under way from one place, at most. Several workers may be behind one router.
const PER_PLACE: usize = 16;

/// Another connection from a place with too many unfinished handshakes.
#[derive(Debug, thiserror::Error)]
#[error("{PER_PLACE} handshakes from there are under way already")]
struct Crowded;

/// Counts connections that are being made, by where they come from.
#[derive(Debug, Default)]
pub(super) struct Behaviour {
    pending: HashMap<ConnectionId, IpAddr>,
}

/// An IPv4 address, or the network that one IPv6 customer has all of (64 bits, RFC 6177).
fn place(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => Some(ip.into()),
            None => Some(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()),
        },
        _ => None,
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(place) = place(from) else { return Ok(()) };
        if self.pending.values().filter(|other| **other == place).count() >= PER_PLACE {
            return Err(ConnectionDenied::new(Crowded));
        }
        self.pending.insert(connection, place);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(&connection);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(failure) = event {
            self.pending.remove(&failure.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_fills_up_alone_and_is_free_again() {
        let mut crowd = Behaviour::default();
        let here: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let from = |text: &str| text.parse::<Multiaddr>().unwrap();
        let mut enter = |id: usize, text: &str| {
            crowd.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &here, &from(text)).is_ok()
        };
        assert!((0..PER_PLACE).all(|id| enter(id, &format!("/ip6/2001:db8::{id:x}/tcp/1"))));
        assert!(!enter(100, "/ip6/2001:db8::ffff:0:0:1/udp/9/quic-v1"), "one customer");
        assert!(enter(101, "/ip6/2001:db8:0:1::1/tcp/1"), "another one");
        assert!(enter(102, "/ip4/192.0.2.1/tcp/1"));
        crowd.pending.remove(&ConnectionId::new_unchecked(0));
        let again = crowd.handle_pending_inbound_connection(
            ConnectionId::new_unchecked(103),
            &here,
            &from("/ip6/2001:db8::1/tcp/1"),
        );
        assert!(again.is_ok());
    }
}
