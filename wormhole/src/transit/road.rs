//! What ways there are to the peer: where we listen, and whom we dial.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use async_io::Async;
use p2p_wormhole_contract::message::{Reach, Relay};

use crate::addresses;

/// Where the peer can reach us.
pub(crate) struct Listening {
    pub(super) listeners: Vec<Async<TcpListener>>,
    /// What the peer is told.
    pub(crate) told: Vec<SocketAddr>,
}

impl Listening {
    /// Listens on a port of the kernel's choice, for each family of which there is an address within reach.
    pub(crate) fn new(here: &[IpAddr], reach: Reach) -> Self {
        let mut listening = Self { listeners: Vec::new(), told: Vec::new() };
        let (four, six): (Vec<_>, Vec<_>) = addresses::told(here, reach).into_iter().partition(IpAddr::is_ipv4);
        // Where a family does not work, there are the other one and the relay.
        let _ = listening.add(Ipv4Addr::UNSPECIFIED.into(), &four);
        let _ = listening.add(Ipv6Addr::UNSPECIFIED.into(), &six);
        listening
    }

    fn add(&mut self, any: IpAddr, addresses: &[IpAddr]) -> io::Result<()> {
        if !addresses.is_empty() {
            let listener = Async::<TcpListener>::bind(SocketAddr::new(any, 0))?;
            let port = listener.get_ref().local_addr()?.port();
            self.listeners.push(listener);
            self.told.extend(addresses.iter().map(|address| SocketAddr::new(*address, port)));
        }
        Ok(())
    }
}

/// All that is tried.
pub(crate) struct Road {
    pub(crate) listening: Listening,
    /// Where the peer says that it listens, as far as that is within reach.
    pub(crate) direct: Vec<SocketAddr>,
    /// Ours, and those of the peer's that are within reach.
    pub(crate) relays: Vec<SocketAddr>,
}

impl Road {
    pub(crate) fn new(
        listening: Listening,
        reach: Reach,
        told: &[SocketAddr],
        ours: &[Relay],
        theirs: &[Relay],
    ) -> Self {
        let direct = told.iter().copied().filter(|address| addresses::within(address.ip(), reach)).collect();
        let expand = |relay: &Relay| {
            let port = relay.host.port;
            relay.addresses.iter().map(move |address| SocketAddr::new(*address, port)).collect::<Vec<_>>()
        };
        // Our own relays are where their owner says; a peer's must be on the public internet at least.
        let reach = reach.max(Reach::Public);
        let theirs = theirs.iter().flat_map(expand).filter(|address| addresses::within(address.ip(), reach));
        let mut relays: Vec<SocketAddr> = Vec::new();
        for address in ours.iter().flat_map(expand).chain(theirs.take(addresses::MOST)) {
            if !relays.contains(&address) {
                relays.push(address);
            }
        }
        Self { listening, direct, relays }
    }
}
