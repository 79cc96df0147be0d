//! The messages. Any change to this file changes [`crate::CONTRACT`].

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// The longest code, in bytes.
pub const MAX_CODE: usize = 128;
/// The most addresses of a mailbox server or of one relay.
pub const MAX_ADDRESSES: usize = 8;
/// The most relays, ours and those of the peer each.
pub const MAX_RELAYS: usize = 4;
/// The longest text from the peer or from a server that is passed on, in characters.
pub const MAX_TEXT: usize = 300;

/// What p2p-worker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The first message, once.
    Request(Box<Request>),
    /// Answers [`Event::Resolve`]: the addresses of each name, in the same order, none where it has none.
    Addresses(Vec<Vec<IpAddr>>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The direction.
    pub task: Task,
    /// The code, nameplate and password: `0007-32543fbc7bc7-f`. At most [`MAX_CODE`] bytes.
    pub code: String,
    /// The mailbox server.
    pub mailbox: Mailbox,
    /// Our transit relays, which are offered to the peer. At most [`MAX_RELAYS`].
    pub relays: Vec<Relay>,
    /// Whether relays may be used at all, ours or the peer's.
    pub relayed: bool,
    /// How far direct connections may go.
    pub reach: Reach,
    /// How long each phase may take.
    pub times: Times,
}

/// The direction of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Send so many bytes, which come as data.
    Send {
        /// How many.
        size: u64,
    },
    /// Receive one file of at most so many bytes.
    Receive {
        /// The limit.
        most: u64,
    },
}

/// A mailbox server, by WebSocket without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Where it is, tried in this order. At most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// The path of its URL, `/v1`.
    pub path: String,
}

/// A name and a port as they stand in hints; the name may also be an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Host {
    /// The name.
    pub name: String,
    /// The TCP port.
    pub port: u16,
}

/// A transit relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// As the peer is told.
    pub host: Host,
    /// What the name means. At most [`MAX_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
}

/// How far direct connections may go: what addresses of this machine the peer is told, and what addresses that the peer
/// names are dialled. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reach {
    /// No direct connections.
    Nowhere,
    /// Addresses of the public internet.
    Public,
    /// Also private ones (RFC 1918, RFC 4193, RFC 6598, link-local).
    Private,
    /// Also this machine itself.
    Loopback,
}

/// How long each phase may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// To reach the mailbox server and to open the mailbox.
    pub mailbox_ms: u64,
    /// For the peer to come, and for the exchange of keys.
    pub peer_ms: u64,
    /// From there to an offer and its answer.
    pub offer_ms: u64,
    /// To reach the peer, or a relay and the peer through it.
    pub connect_ms: u64,
    /// For one record of at most 1 MiB to come, or one of 64 KiB to be taken.
    pub stall_ms: u64,
    /// For the whole payload with its acknowledgement.
    pub payload_ms: u64,
}

impl Times {
    /// The bound of a phase, in milliseconds.
    #[must_use]
    pub fn of(&self, phase: Phase) -> u64 {
        match phase {
            Phase::Mailbox => self.mailbox_ms,
            Phase::Peer => self.peer_ms,
            Phase::Offer => self.offer_ms,
            Phase::Connect => self.connect_ms,
            Phase::Payload => self.payload_ms,
        }
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The mailbox server.
    Mailbox,
    /// The peer, on the mailbox.
    Peer,
    /// The offer and its answer.
    Offer,
    /// A connection with the peer.
    Connect,
    /// The payload and its acknowledgement.
    Payload,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mailbox => "the mailbox server did not answer",
            Self::Peer => "nobody came with this code",
            Self::Offer => "the peer came, but did not say what it has or wants",
            Self::Connect => "no connection with the peer, neither directly nor through a relay",
            Self::Payload => "the payload did not get through",
        })
    }
}

/// What `p2p-wormhole` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The first message, once: what holds this program itself.
    Confined(Vec<Layer>),
    /// A phase begins.
    Phase(Phase),
    /// Asks for the addresses of names, of at most [`MAX_RELAYS`].
    Resolve(Vec<Host>),
    /// There is a connection; pieces of the payload may follow.
    Connected {
        /// The address and port of the other end, which is the relay's on a connection through a relay.
        with: SocketAddr,
        /// Whether it is a relay's.
        relayed: bool,
        /// Bytes of the payload, as the sender says.
        size: u64,
    },
    /// So many bytes are sent.
    Progress(u64),
    /// The last message: everything went through, and the receiver said so.
    Done,
    /// The last message: it did not.
    Failed(Failure),
}

/// A layer of the sandbox that `p2p-wormhole` puts around itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name, `Landlock`.
    pub name: String,
    /// Whether it is in force, all of it.
    pub enforced: bool,
    /// What of it is; or why it is not.
    pub detail: String,
}

/// Why a transfer failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    /// The request cannot be carried out.
    #[error("the request cannot be carried out: {0}")]
    Request(String),
    /// The mailbox server cannot be reached, or does not do its part.
    #[error("the mailbox server: {0}")]
    Mailbox(String),
    /// The peer's key is another one. Between wormhole-william (1.0.6) and any other program this happens with the right
    /// password too, about once in 180 times.
    #[error(
        "somebody who does not know the password used the code first (or wormhole-william failed to agree on a key, as it \
         does now and then with other programs: try again with a new code)"
    )]
    Password,
    /// A phase took too long.
    #[error("{phase} within {} ms", after_ms)]
    TimedOut {
        /// Which.
        phase: Phase,
        /// The bound.
        after_ms: u64,
    },
    /// The peer gave up, and said why.
    #[error("the peer gave up: {0}")]
    Peer(String),
    /// The peer offers something else than one file.
    #[error("the peer offers {0}, where one file was expected")]
    Offer(Offered),
    /// The peer offers more than is taken. Nothing of it was.
    #[error("the peer offers {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// What it announced.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The peer does not keep to the protocol.
    #[error("the peer does not keep to the protocol: {0}")]
    Protocol(String),
    /// No connection with the peer.
    #[error("no connection with the peer: {0}")]
    NoWay(String),
    /// The connection broke in the middle.
    #[error("the connection broke after {done} of {size} bytes: {why}")]
    Lost {
        /// Bytes that got through.
        done: u64,
        /// Bytes that should have.
        size: u64,
        /// What was seen of it.
        why: String,
    },
    /// More bytes came than were announced. Those were not passed on.
    #[error("the peer sends more than the {announced} bytes that it announced")]
    TooMany {
        /// What it announced.
        announced: u64,
    },
    /// The receiver got other bytes than those that were sent.
    #[error("the peer received other bytes than those that were sent")]
    Digest,
    /// p2p-worker closed fd 0.
    #[error("cancelled")]
    Cancelled,
    /// p2p-worker does not keep to the contract.
    #[error("p2p-worker does not keep to the contract: {0}")]
    Contract(String),
    /// A fault of this program, or of the library, which was caught.
    #[error("a fault in p2p-wormhole: {0}")]
    Fault(String),
}

impl Failure {
    /// The same with every text of it, which may be a stranger's, replaced.
    #[must_use]
    pub fn map_text(self, clean: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Request(text) => Self::Request(clean(&text)),
            Self::Mailbox(text) => Self::Mailbox(clean(&text)),
            Self::Peer(text) => Self::Peer(clean(&text)),
            Self::Protocol(text) => Self::Protocol(clean(&text)),
            Self::NoWay(text) => Self::NoWay(clean(&text)),
            Self::Lost { done, size, why } => Self::Lost { done, size, why: clean(&why) },
            Self::Contract(text) => Self::Contract(clean(&text)),
            Self::Fault(text) => Self::Fault(clean(&text)),
            same @ (Self::Password
            | Self::TimedOut { .. }
            | Self::Offer(_)
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::Digest
            | Self::Cancelled) => same,
        }
    }
}

/// What else a peer can offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Offered {
    /// A folder.
    Folder,
    /// A text message.
    Text,
    /// Something of a kind that is not known.
    Unknown,
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "a folder",
            Self::Text => "a text message",
            Self::Unknown => "something of an unknown kind",
        })
    }
}
