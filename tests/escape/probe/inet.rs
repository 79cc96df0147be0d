//! Acts that talk to the network.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use nix::errno::Errno;
use syscalls::Sysno;

use crate::{
    acts::{Outcome, done},
    raw,
};

/// Tries to reach somebody, or to be reached.
pub(crate) fn attempt(what: &str, arguments: &[&str]) -> Outcome {
    match (what, arguments) {
        ("connect", [to, port]) => done(TcpStream::connect_timeout(&address(to, port)?, Duration::from_secs(5))),
        ("datagram", [to, port]) => datagram(address(to, port)?),
        ("listen", [at, port]) => done(TcpListener::bind(address(at, port)?)),
        ("families", []) => families(),
        _ => Ok(format!("no such act: inet {what} {arguments:?}")),
    }
}

fn address(address: &str, port: &str) -> Result<SocketAddr, Errno> {
    let address: IpAddr = address.parse().map_err(|_| Errno::EDOM)?;
    Ok(SocketAddr::new(address, port.parse().map_err(|_| Errno::EDOM)?))
}

fn datagram(to: SocketAddr) -> Outcome {
    let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    done(UdpSocket::bind(from).and_then(|socket| socket.send_to(b"x", to)))
}

/// The address families of which there are sockets, by any type and some protocols that have holes of their own.
fn families() -> Outcome {
    const TYPES: [usize; 6] = [1, 2, 3, 4, 5, 10];
    // The default, ICMP, IPv6's ICMP, SCTP, MPTCP, all of Ethernet.
    const PROTOCOLS: [usize; 6] = [0, 1, 58, 132, 262, 0x300];
    let any = |family: usize| {
        TYPES.iter().any(|kind| {
            PROTOCOLS
                .iter()
                .any(|protocol| raw::call(Sysno::socket as usize, [family, *kind, *protocol, 0, 0, 0]).is_ok())
        })
    };
    let families: Vec<String> = (0..64).filter(|family| any(*family)).map(|family| family.to_string()).collect();
    Ok(if families.is_empty() { "none".to_owned() } else { families.join(",") })
}
