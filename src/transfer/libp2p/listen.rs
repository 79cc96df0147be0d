//! Where a node listens, what it tells others of that, and which addresses of others it dials.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use libp2p::{Multiaddr, Swarm, futures::StreamExt, multiaddr::Protocol, swarm::SwarmEvent};
use tokio::time::timeout;

use super::{Behaviour, Listening, MAX_ADDRESSES, lock};
use crate::{
    ids::Address,
    transfer::{NetworkError, Way},
};

/// How long the listeners may take to say where they listen.
const LISTEN: Duration = Duration::from_secs(5);
/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere: it can dial only, which is all that a worker needs.
    No,
    /// On every interface, on free ports, by QUIC and TCP, IPv4 and, where there is any, IPv6.
    Everywhere,
    /// The same on this port, of UDP and TCP: for one that a firewall or a router lets through.
    Port(u16),
    /// On these libp2p addresses.
    On(Vec<Address>),
}

impl Listen {
    /// What a user writes for it: nothing at all for [`Listen::Everywhere`], else ports (at most one), IP addresses with
    /// a port (`192.0.2.1:4001`, `[2001:db8::1]:4001`, meaning QUIC and TCP) and libp2p addresses.
    ///
    /// # Errors
    /// [`NetworkError::Listen`] with what was expected.
    pub fn from_words<T: AsRef<str>>(words: &[T]) -> Result<Self, NetworkError> {
        let port = |word: &str| word.parse().ok().filter(|port| *port != 0).map(Self::Port);
        match words {
            [] => Ok(Self::Everywhere),
            [one] if port(one.as_ref()).is_some() => Ok(port(one.as_ref()).unwrap_or(Self::Everywhere)),
            many => {
                let places = many.iter().map(|word| addresses_of(word.as_ref())).collect::<Result<Vec<_>, _>>()?;
                Ok(Self::On(places.into_iter().flatten().collect()))
            }
        }
    }
}

/// What a user writes for addresses at which others find this machine: IP addresses with a port, meaning QUIC and TCP, and libp2p
/// addresses.
///
/// # Errors
/// [`NetworkError::Announce`], also for an address or a port that leads nowhere.
pub fn announced<T: AsRef<str>>(words: &[T]) -> Result<Vec<Address>, NetworkError> {
    let one = |word: &T| {
        let wrong = || NetworkError::Announce { address: word.as_ref().to_owned() };
        let addresses = addresses_of(word.as_ref()).map_err(|_| wrong())?;
        if addresses.iter().filter_map(diallable).all(|address| leads_somewhere(&address)) {
            Ok(addresses)
        } else {
            Err(wrong())
        }
    };
    Ok(words.iter().map(one).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().take(MAX_ADDRESSES).collect())
}

fn leads_somewhere(address: &Multiaddr) -> bool {
    address.iter().all(|part| match part {
        Protocol::Ip4(ip) => !ip.is_unspecified(),
        Protocol::Ip6(ip) => !ip.is_unspecified(),
        Protocol::Udp(port) | Protocol::Tcp(port) => port != 0,
        _ => true,
    })
}

/// The addresses that a word stands for.
fn addresses_of(word: &str) -> Result<Vec<Address>, NetworkError> {
    let wrong = || cannot_listen(&word, "write a port, ADDRESS:PORT, or a libp2p address like /ip4/0.0.0.0/tcp/4001");
    let texts = match word.parse::<SocketAddr>() {
        Ok(place) => {
            let (kind, ip, port) = (if place.is_ipv4() { "ip4" } else { "ip6" }, place.ip(), place.port());
            vec![format!("/{kind}/{ip}/udp/{port}/quic-v1"), format!("/{kind}/{ip}/tcp/{port}")]
        }
        Err(_) => vec![word.to_owned()],
    };
    let addresses: Vec<Address> =
        texts.iter().map(|text| text.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    if addresses.iter().all(|address| diallable(address).is_some()) { Ok(addresses) } else { Err(wrong()) }
}

/// An address that this node can dial: an IP address with a QUIC or a TCP port, and nothing else.
pub(super) fn diallable(address: &Address) -> Option<Multiaddr> {
    let address: Multiaddr = address.as_str().parse().ok()?;
    let parts: Vec<_> = address.iter().collect();
    let known = matches!(
        parts.as_slice(),
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1]
            | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)]
    );
    known.then_some(address)
}

/// Which addresses are told to others: QUIC first; loopback only if wanted or if there is nothing else; never those
/// that mean another machine elsewhere.
pub(super) fn tellable(mut listening: Vec<Multiaddr>, loopback: bool) -> Vec<Multiaddr> {
    let is_local = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    };
    let needs_scope = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_link_local(),
        Some(Protocol::Ip6(ip)) => ip.is_unicast_link_local(),
        _ => false,
    };
    listening.retain(|address| !needs_scope(address));
    if !loopback && !listening.iter().all(is_local) {
        listening.retain(|address| !is_local(address));
    }
    listening.sort_by_key(|address| (!is_quic(address), is_local(address)));
    listening.truncate(MAX_ADDRESSES);
    listening
}

/// Begins to listen and waits until every listener has said where.
pub(super) async fn listen(
    swarm: &mut Swarm<Behaviour>,
    listen: &Listen,
    listening: &Listening,
) -> Result<(), NetworkError> {
    let mut waiting = Vec::new();
    for (address, required) in places(listen)? {
        match swarm.listen_on(address.clone()) {
            Ok(id) if required => waiting.push((id, address)),
            Ok(_) => {}
            Err(error) if required => return Err(cannot_listen(&address, error)),
            Err(error) => tracing::debug!(%address, %error, "not listening"),
        }
    }
    let everywhere = matches!(listen, Listen::Everywhere | Listen::Port(_));
    let heard = async {
        while !waiting.is_empty() || (everywhere && !is_settled(&lock(listening))) {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    lock(listening).push(address);
                    waiting.retain(|(id, _)| *id != listener_id);
                }
                SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } => {
                    if let Some((_, address)) = waiting.iter().find(|(id, _)| *id == listener_id) {
                        return Err(cannot_listen(address, error));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    };
    match timeout(LISTEN, heard).await {
        Ok(result) => result,
        Err(_) => match waiting.first() {
            Some((_, address)) => Err(cannot_listen(address, "the listener says nothing")),
            None => Ok(()),
        },
    }
}

fn cannot_listen(address: &impl ToString, reason: impl ToString) -> NetworkError {
    NetworkError::Listen { address: address.to_string(), reason: reason.to_string() }
}

/// Where to listen, and whether it is an error if that is not possible.
fn places(listen: &Listen) -> Result<Vec<(Multiaddr, bool)>, NetworkError> {
    let required = |text: &Address| match diallable(text) {
        Some(address) => Ok((address, true)),
        None => Err(cannot_listen(text, "only /ip4 and /ip6 with /udp/…/quic-v1 or /tcp/… can be listened on")),
    };
    match listen {
        Listen::No => Ok(Vec::new()),
        Listen::On(addresses) => addresses.iter().map(required).collect(),
        Listen::Everywhere => Ok(everywhere(0).to_vec()),
        Listen::Port(port) => Ok(everywhere(*port).to_vec()),
    }
}

/// Every interface, IPv4 and, where there is any, IPv6.
fn everywhere(port: u16) -> [(Multiaddr, bool); 4] {
    let (v4, v6) = (Protocol::Ip4(Ipv4Addr::UNSPECIFIED), Protocol::Ip6(Ipv6Addr::UNSPECIFIED));
    let quic =
        |ip: &Protocol<'static>| Multiaddr::empty().with(ip.clone()).with(Protocol::Udp(port)).with(Protocol::QuicV1);
    let tcp = |ip: &Protocol<'static>| Multiaddr::empty().with(ip.clone()).with(Protocol::Tcp(port));
    [(quic(&v4), true), (tcp(&v4), true), (quic(&v6), false), (tcp(&v6), false)]
}

/// Whether QUIC and TCP are known for the same IP addresses. The interfaces are told one by one, so just after the
/// start one of the two may know of loopback alone; where one of them was not asked for, there is nothing to wait for.
fn is_settled(listening: &[Multiaddr]) -> bool {
    let ips = |quic: bool| -> HashSet<String> {
        let of_kind = listening.iter().filter(|address| is_quic(address) == quic);
        of_kind.filter_map(|address| address.iter().next()).map(|ip| ip.to_string()).collect()
    };
    let (quic, tcp) = (ips(true), ips(false));
    quic.is_empty() || tcp.is_empty() || quic == tcp
}

/// Which way an address goes.
pub(super) fn way(address: &Multiaddr) -> Way {
    if is_quic(address) { Way::Quic } else { Way::Tcp }
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::QuicV1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn others_are_told_what_they_can_dial_quic_first() {
        let all = addresses(&[
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/192.0.2.1/tcp/1",
            "/ip6/fe80::1/udp/2/quic-v1",
            "/ip4/127.0.0.1/udp/2/quic-v1",
            "/ip4/192.0.2.1/udp/2/quic-v1",
        ]);
        let told = tellable(all.clone(), false);
        assert_eq!(told, addresses(&["/ip4/192.0.2.1/udp/2/quic-v1", "/ip4/192.0.2.1/tcp/1"]));
        let told = tellable(all, true);
        assert_eq!(told.len(), 4);
        assert_eq!(told[1], addresses(&["/ip4/127.0.0.1/udp/2/quic-v1"])[0], "loopback after the others");
        let lonely = addresses(&["/ip4/127.0.0.1/tcp/1"]);
        assert_eq!(tellable(lonely.clone(), false), lonely, "better than nothing");
        assert_eq!(tellable(addresses(&["/ip4/192.0.2.1/tcp/1"; 40]), false).len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_start_waits_until_both_transports_know_the_same_interfaces() {
        let mut known = addresses(&["/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip4/127.0.0.1/udp/2/quic-v1"]);
        assert!(!is_settled(&known));
        known.extend(addresses(&["/ip4/192.0.2.1/udp/2/quic-v1"]));
        assert!(is_settled(&known));
    }

    #[test]
    fn words_of_a_user_are_places_to_listen() {
        let on = |words: &[&str]| Listen::from_words(words);
        assert_eq!(on(&[]).unwrap(), Listen::Everywhere);
        assert_eq!(on(&["4001"]).unwrap(), Listen::Port(4001));
        let Listen::On(places) = on(&["[2001:db8::1]:4001", "/ip4/127.0.0.1/tcp/0"]).unwrap() else { panic!() };
        let places: Vec<_> = places.iter().map(ToString::to_string).collect();
        assert_eq!(places, ["/ip6/2001:db8::1/udp/4001/quic-v1", "/ip6/2001:db8::1/tcp/4001", "/ip4/127.0.0.1/tcp/0"]);
        for word in ["0", "65536", "example.org:4001", "/dns4/example.org/tcp/1", ""] {
            let error = on(&[word]).unwrap_err().to_string();
            assert!(error.contains("write a port"), "{word}: {error}");
        }
    }

    #[test]
    fn what_is_announced_leads_somewhere() {
        let told = announced(&["203.0.113.7:4001", "/ip6/2001:db8::1/tcp/4001"]).unwrap();
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["/ip4/203.0.113.7/udp/4001/quic-v1", "/ip4/203.0.113.7/tcp/4001", "/ip6/2001:db8::1/tcp/4001"]
        );
        for word in ["0.0.0.0:4001", "[::]:4001", "203.0.113.7:0", "4001", "example.org:4001", "203.0.113.7", ""] {
            let error = announced(&[word]).unwrap_err().to_string();
            assert!(error.contains("ADDRESS:PORT"), "{word}: {error}");
        }
    }

    #[test]
    fn only_ip_addresses_are_dialled() {
        let dialled = |text: &str| diallable(&text.parse().unwrap()).is_some();
        assert!(dialled("/ip4/192.0.2.1/udp/2/quic-v1"));
        assert!(dialled("/ip6/2001:db8::1/tcp/1"));
        for text in ["/dns4/example.org/tcp/1", "/ip4/192.0.2.1/udp/2", "/ip4/192.0.2.1/tcp/1/ws", "/unix/x", "no"] {
            assert!(!dialled(text), "{text}");
        }
    }
}
