//! How far an address is: what of this machine is told to peers, and what peers may have dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use p2p_wormhole_contract::message::Reach;

/// The most addresses that a peer is told, or of those that it tells that are dialled.
pub(crate) const MOST: usize = 8;

/// The addresses of this machine's interfaces. Asks the kernel by netlink, which the sandbox does not allow any more.
pub(crate) fn of_this_machine() -> Vec<IpAddr> {
    let up = |flags: InterfaceFlags| flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
    let interfaces = getifaddrs().into_iter().flatten().filter(|interface| up(interface.flags));
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let four = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    addresses.collect()
}

/// What of these addresses is within reach, at most [`MOST`]. Link-local IPv6 addresses say nothing without an interface.
pub(crate) fn told(addresses: &[IpAddr], reach: Reach) -> Vec<IpAddr> {
    let tellable = |address: &&IpAddr| match address {
        IpAddr::V6(address) => !address.is_unicast_link_local(),
        IpAddr::V4(_) => true,
    };
    addresses.iter().filter(tellable).filter(|address| within(**address, reach)).take(MOST).copied().collect()
}

/// Whether an address may be told or dialled.
pub(crate) fn within(address: IpAddr, reach: Reach) -> bool {
    needs(address.to_canonical()).is_some_and(|needed| needed <= reach)
}

/// The least reach that includes an address; `None` for what is nobody's.
fn needs(address: IpAddr) -> Option<Reach> {
    match address {
        IpAddr::V4(address) => four(address),
        IpAddr::V6(address) => six(address),
    }
}

fn four(address: Ipv4Addr) -> Option<Reach> {
    let [a, b, ..] = address.octets();
    let shared = a == 100 && (64..128).contains(&b); // RFC 6598
    if address.is_loopback() {
        Some(Reach::Loopback)
    } else if address.is_multicast() || address.is_broadcast() || a == 0 || a >= 240 {
        None
    } else if address.is_private() || address.is_link_local() || address.is_documentation() || shared {
        Some(Reach::Private)
    } else {
        Some(Reach::Public)
    }
}

fn six(address: Ipv6Addr) -> Option<Reach> {
    let [first, second, ..] = address.segments();
    if address.is_loopback() {
        Some(Reach::Loopback)
    } else if address.is_multicast() || address.is_unspecified() {
        None
    } else if let Some(embedded) = embedded(address) {
        // What a translator would make of it must be in reach too.
        four(embedded)
    } else if address.is_unique_local() || address.is_unicast_link_local() || (first == 0x2001 && second == 0xdb8) {
        Some(Reach::Private)
    } else {
        (first & 0xe000 == 0x2000).then_some(Reach::Public) // Only 2000::/3 is assigned (RFC 4291).
    }
}

/// The IPv4 address inside one of 64:ff9b::/96 (RFC 6052) or of 2002::/16 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        [0x20, 0x02, a, b, c, d, ..] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_its_reach() {
        let of = |text: &str| needs(text.parse::<IpAddr>().unwrap().to_canonical());
        for text in ["1.1.1.1", "100.128.0.1", "2a00::1", "2002:101:101::1", "64:ff9b::1.1.1.1"] {
            assert_eq!(of(text), Some(Reach::Public), "{text}");
        }
        for text in ["10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "fd00::2", "fe80::1"] {
            assert_eq!(of(text), Some(Reach::Private), "{text}");
        }
        assert_eq!(of("64:ff9b::10.0.0.1"), Some(Reach::Private));
        assert_eq!(of("2002:7f00:1::"), Some(Reach::Loopback));
        for text in ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(of(text), Some(Reach::Loopback), "{text}");
        }
        for text in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "4000::1", "::7f00:1"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_private_is_told_unless_asked_for() {
        let all = ["192.168.1.2", "127.0.0.1", "8.8.8.8", "fe80::1"].map(|text| text.parse().unwrap());
        assert!(told(&all, Reach::Nowhere).is_empty());
        assert_eq!(told(&all, Reach::Public), [all[2]]);
        assert_eq!(told(&all, Reach::Private), [all[0], all[2]]);
        assert_eq!(told(&all, Reach::Loopback), all[..3]);
    }
}
