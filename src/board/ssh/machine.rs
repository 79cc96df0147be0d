//! This machine's addresses, which change when it is carried to another network: a connection from an address that is gone is
//! dead, though neither end hears of it before their keepalives are missed.

use std::net::IpAddr;

use futures_util::StreamExt;
use if_watch::{IfEvent, tokio::IfWatcher};

/// The addresses that come and go, as the kernel tells (rtnetlink(7)). Where it may not be asked, nothing ever happens here,
/// and keepalives notice what is broken.
pub(super) struct Addresses {
    watcher: Option<IfWatcher>,
}

impl Addresses {
    /// Begins to listen. Must be called inside a tokio runtime.
    pub(super) fn watch() -> Self {
        let watcher = IfWatcher::new();
        if let Err(error) = &watcher {
            tracing::debug!(%error, "this machine does not say when its addresses change");
        }
        Self { watcher: watcher.ok() }
    }

    /// Waits until this address is gone; any one that others could know, where `from` is not known. Cancel-safe.
    pub(super) async fn gone(&mut self, from: Option<IpAddr>) -> IpAddr {
        loop {
            if let IfEvent::Down(network) = self.next().await
                && from.map_or_else(|| is_of_a_network(network.addr()), |from| from == network.addr())
            {
                return network.addr();
            }
        }
    }

    /// Waits until there is an address that was not there before. Cancel-safe.
    pub(super) async fn new_one(&mut self) -> IpAddr {
        loop {
            if let IfEvent::Up(network) = self.next().await
                && is_of_a_network(network.addr())
            {
                return network.addr();
            }
        }
    }

    async fn next(&mut self) -> IfEvent {
        while let Some(watcher) = &mut self.watcher {
            match watcher.select_next_some().await {
                Ok(event) => return event,
                Err(error) => {
                    tracing::debug!(%error, "this machine does not say any more when its addresses change");
                    self.watcher = None;
                }
            }
        }
        std::future::pending().await
    }
}

/// Whether a connection to another network can be from this address.
fn is_of_a_network(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_lead_somewhere_count() {
        for (address, counts) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_of_a_network(address.parse().unwrap()), counts, "{address}");
        }
    }
}
