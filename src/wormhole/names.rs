//! Looking up names: `p2p-wormhole` cannot, since a resolver reads files and speaks with more than one peer.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use p2p_wormhole_contract::message::{Host, MAX_ADDRESSES};
use tokio::{net::lookup_host, time::timeout};

use super::{WormholeError, address::authority};

/// The addresses of a name, at most [`MAX_ADDRESSES`], in the resolver's order.
///
/// # Errors
/// [`WormholeError::Resolve`].
pub(super) async fn addresses(host: &Host, patience: Duration) -> Result<Vec<IpAddr>, WormholeError> {
    let failed = |source| WormholeError::Resolve { host: authority(host), source };
    let found = timeout(patience, lookup_host((host.name.as_str(), host.port))).await;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs()));
    let found = found.map_err(late).map_err(failed)?.map_err(failed)?;
    let mut seen = BTreeSet::new();
    let addresses = found.map(|address| address.ip()).filter(|address| seen.insert(*address)).take(MAX_ADDRESSES);
    Ok(addresses.collect())
}

/// The same for names that a peer gave: what it made up has no address.
pub(super) async fn of_stranger(hosts: &[Host], patience: Duration) -> Vec<Vec<IpAddr>> {
    let mut found = Vec::with_capacity(hosts.len());
    for host in hosts {
        // The program has checked them, but who knows who speaks there.
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        let named = host.name.len() <= 253 && host.name.chars().all(fine);
        let addresses = if named { addresses(host, patience).await.unwrap_or_default() } else { Vec::new() };
        found.push(addresses);
    }
    found
}
