//! The few requests of rtnetlink(7) that the way to the internet takes, each answered before the next is made.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::spec::Ipv4Block;

/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`, `NLM_F_EXCL` with `NLM_F_CREATE`.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const NEW: u16 = 0x200 | 0x400;

/// Messages of netlink(7) and rtnetlink(7).
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

/// `NLM_F_DUMP_INTR`: what is listed changed meanwhile, so something may be missing.
const INTERRUPTED: u16 = 0x10;
/// How often such a list is asked for again.
const MOST_TRIES: u32 = 10;
/// The most blocks that are taken from a machine: a router of the internet's core has a million routes.
const MOST_BLOCKS: usize = 4096;
/// The shortest prefix that is taken for somebody's network. Shorter ones are ways to (nearly) everything, such as the two
/// halves of the internet that VPNs add in place of a default route.
const SHORTEST: u8 = 8;

/// The length of the header of a message and of an attribute, in bytes.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// `AF_INET` as the first byte of messages.
const INET: u8 = 2;

/// Where a route leads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Nowhere: the sender is told that there is no route.
    Nowhere,
    /// To the link with this number.
    Link(u32),
    /// To this router, which is on that link whatever else is known of it.
    Router([u8; 4], u32),
}

/// A socket of the network namespace in which it was made.
#[derive(Debug)]
pub(crate) struct Routing {
    socket: OwnedFd,
}

impl Routing {
    /// For the network namespace of this process.
    pub(crate) fn here() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        Ok(Self { socket })
    }

    /// The number of the link with this name; `ENODEV` where there is none.
    pub(crate) fn link(&self, name: &str) -> nix::Result<u32> {
        let body = [link_header(0, false), attribute(3, &c_name(name))].concat();
        self.send(RTM_GETLINK, REQUEST, &body)?;
        let answer = self.receive()?;
        let mut found = Err(Errno::EBADMSG);
        for (kind, _, body) in messages(&answer) {
            match kind {
                NLMSG_ERROR => return Err(error(body).err().unwrap_or(Errno::EBADMSG)),
                RTM_NEWLINK => found = number(body, 4).ok_or(Errno::EBADMSG),
                _ => {}
            }
        }
        found
    }

    /// A pair of links: one here, its other end in that network namespace.
    pub(crate) fn add_pair(&self, here: &str, there: &str, namespace: BorrowedFd<'_>) -> nix::Result<()> {
        let fd = namespace.as_raw_fd().to_ne_bytes();
        let peer = [link_header(0, false), attribute(3, &c_name(there)), attribute(28, &fd)].concat();
        let info = [attribute(1, b"veth\0"), attribute(2, &attribute(1, &peer))].concat();
        let body = [link_header(0, false), attribute(3, &c_name(here)), attribute(18, &info)].concat();
        self.ask(RTM_NEWLINK, NEW, &body)
    }

    /// Takes the link into use, for packets of at most so many bytes where that is given.
    pub(crate) fn up(&self, link: u32, mtu: Option<u32>) -> nix::Result<()> {
        let mtu = mtu.map_or_else(Vec::new, |mtu| attribute(4, &mtu.to_ne_bytes()));
        self.ask(RTM_NEWLINK, 0, &[link_header(link, true), mtu].concat())
    }

    /// Gives the link this address, with no other on the link.
    pub(crate) fn add_address(&self, link: u32, address: [u8; 4]) -> nix::Result<()> {
        let mut body = vec![INET, 32, 0, 0];
        body.extend(link.to_ne_bytes());
        body.extend([attribute(1, &address), attribute(2, &address)].concat());
        self.ask(RTM_NEWADDR, NEW, &body)
    }

    /// Adds a route. One that is there already is not an error.
    pub(crate) fn add_route(&self, to: Ipv4Block, way: Way) -> nix::Result<()> {
        const MAIN: u8 = 254;
        const STATIC: u8 = 4;
        const ON_LINK: u32 = 4;
        let (scope, kind, flags, link, router) = match way {
            Way::Nowhere => (0, 7, 0, None, None),
            Way::Link(link) => (253, 1, 0, Some(link), None),
            Way::Router(router, link) => (0, 1, ON_LINK, Some(link), Some(router)),
        };
        let mut body = vec![INET, to.prefix, 0, 0, MAIN, STATIC, scope, kind];
        body.extend(u32::to_ne_bytes(flags));
        if to.prefix > 0 {
            body.extend(attribute(1, &to.address));
        }
        body.extend(link.map_or_else(Vec::new, |link| attribute(4, &link.to_ne_bytes())));
        body.extend(router.map_or_else(Vec::new, |router| attribute(5, &router)));
        match self.ask(RTM_NEWROUTE, NEW, &body) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// What this machine is and has around it: the addresses and networks of all links, and wherever a route of any table
    /// leads but the default.
    ///
    /// `E2BIG` where that is more than 4096 blocks; `EAGAIN` where it does not stop changing.
    pub(crate) fn own_blocks(&self) -> nix::Result<Vec<Ipv4Block>> {
        for _ in 0..MOST_TRIES {
            let mut found = Vec::new();
            let whole =
                self.list(RTM_GETADDR, RTM_NEWADDR, &[INET, 0, 0, 0, 0, 0, 0, 0], |body| {
                    addresses(body, &mut found);
                    found.len()
                })? && self.list(RTM_GETROUTE, RTM_NEWROUTE, &[INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], |body| {
                    found.extend(destination(body));
                    found.len()
                })?;
            if whole {
                found.sort_unstable_by_key(|block| (block.address, block.prefix));
                found.dedup();
                return Ok(found);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Gives the bodies of a list's entries to a function, which says how much it has. Whether the list was whole.
    fn list(&self, what: u16, entry: u16, body: &[u8], mut take: impl FnMut(&[u8]) -> usize) -> nix::Result<bool> {
        self.send(what, REQUEST | DUMP, body)?;
        let mut whole = true;
        loop {
            let answer = self.receive()?;
            for (kind, flags, body) in messages(&answer) {
                whole &= flags & INTERRUPTED == 0;
                match kind {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => return Err(error(body).err().unwrap_or(Errno::EBADMSG)),
                    kind if kind == entry && take(body) > MOST_BLOCKS => return Err(Errno::E2BIG),
                    _ => {}
                }
            }
        }
    }

    /// A request whose answer says only whether it was carried out.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> nix::Result<()> {
        self.send(kind, REQUEST | ACK | flags, body)?;
        let answer = self.receive()?;
        let said = messages(&answer).find(|(kind, _, _)| *kind == NLMSG_ERROR);
        said.map_or(Err(Errno::EBADMSG), |(_, _, body)| error(body))
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> nix::Result<()> {
        let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty()).map(drop)
    }

    fn receive(&self) -> nix::Result<Vec<u8>> {
        let mut buffer = vec![0; 32 << 10];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// The blocks of an address (`struct ifaddrmsg`): itself, and all that is on its link or at its other end.
fn addresses(body: &[u8], found: &mut Vec<Ipv4Block>) {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let prefix = body.get(1).copied().unwrap_or(32);
    for (kind, value) in attributes(body.get(8..).unwrap_or_default()) {
        let Ok(address) = <[u8; 4]>::try_from(value) else { continue };
        match kind {
            // An address with (nearly) all others on its link would close everything.
            ADDRESS if prefix < SHORTEST => found.push(Ipv4Block { address, prefix: 32 }),
            ADDRESS => found.push(Ipv4Block::around(address, prefix)),
            LOCAL => found.push(Ipv4Block { address, prefix: 32 }),
            _ => {}
        }
    }
}

/// Where a route (`struct rtmsg`) leads, if not to (nearly) everything.
fn destination(body: &[u8]) -> Option<Ipv4Block> {
    const DESTINATION: u16 = 1;
    let prefix = body.get(1).copied().filter(|prefix| *prefix >= SHORTEST)?;
    let (_, value) = attributes(body.get(12..)?).find(|(kind, _)| *kind == DESTINATION)?;
    Some(Ipv4Block::around(value.try_into().ok()?, prefix))
}

impl Ipv4Block {
    /// The network of that size around an address.
    fn around(address: [u8; 4], prefix: u8) -> Self {
        let prefix = prefix.min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Self { address: (u32::from_be_bytes(address) & mask).to_be_bytes(), prefix }
    }
}

/// `struct ifinfomsg`, with `IFF_UP` to be set or not.
fn link_header(link: u32, up: bool) -> Vec<u8> {
    let flag = u32::from(up).to_ne_bytes();
    [&[0; 4][..], &link.to_ne_bytes(), &flag, &flag].concat()
}

fn c_name(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// An attribute, filled up to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The kinds, flags and bodies of the messages in an answer.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes, 0)?).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, flags, body))
    })
}

/// The kinds and values of attributes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What `struct nlmsgerr` says.
fn error(body: &[u8]) -> nix::Result<()> {
    match number(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(negative) => Err(Errno::from_raw(negative.saturating_neg())),
        None => Err(Errno::EBADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_addresses_and_routes() {
        let block = |address, prefix| Ipv4Block { address, prefix };
        let mut found = Vec::new();
        let of = |prefix, address: [u8; 4], local: [u8; 4]| {
            [vec![INET, prefix, 0, 0, 1, 0, 0, 0], attribute(1, &address), attribute(2, &local)].concat()
        };
        addresses(&of(20, [203, 0, 113, 77], [203, 0, 113, 77]), &mut found);
        addresses(&of(0, [198, 51, 100, 9], [198, 51, 100, 1]), &mut found);
        let expected = [
            block([203, 0, 112, 0], 20),
            block([203, 0, 113, 77], 32),
            block([198, 51, 100, 9], 32),
            block([198, 51, 100, 1], 32),
        ];
        assert_eq!(found, expected);
        let route =
            |prefix, to: [u8; 4]| [vec![INET, prefix, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0], attribute(1, &to)].concat();
        assert_eq!(destination(&route(16, [141, 20, 0, 0])), Some(block([141, 20, 0, 0], 16)));
        // The default, and half of everything.
        assert_eq!((destination(&route(0, [0; 4])), destination(&route(1, [128, 0, 0, 0]))), (None, None));
    }

    #[test]
    fn answers_that_are_cut_or_nonsense() {
        let whole = [&20u32.to_ne_bytes()[..], &2u16.to_ne_bytes(), &[0; 10], &(-19i32).to_ne_bytes()].concat();
        let said: Vec<_> = messages(&whole).collect();
        assert_eq!(said, [(NLMSG_ERROR, 0, &whole[16..])]);
        assert_eq!(error(said[0].2), Err(Errno::ENODEV));
        for end in 0..whole.len() {
            assert_eq!(messages(&whole[..end]).count(), 0);
            assert!(attributes(&whole[..end]).count() <= end);
        }
        // A length that would never get on.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
        assert_eq!(error(&[]), Err(Errno::EBADMSG));
    }

    /// The kernel answers, whoever asks.
    #[test]
    fn this_machine() {
        let routing = Routing::here().unwrap();
        assert_eq!(routing.link("no-such-link"), Err(Errno::ENODEV));
        let lo = routing.link("lo").unwrap();
        assert!(lo > 0);
        let up = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default().contains("127.0.0.1");
        let blocks = routing.own_blocks().unwrap();
        assert!(!up || blocks.contains(&Ipv4Block { address: [127, 0, 0, 1], prefix: 32 }), "{blocks:?}");
    }
}
