//! Why bytes did not get through.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    ids::IdError,
    proto::{
        frames::FrameError,
        manifest::ManifestError,
        refusal::{Payload, Refusal},
    },
    spool::SpoolError,
};

/// Why there is no node, or no stream.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The node's key cannot be read or written.
    #[error("cannot use the node key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is not such a key.
    #[error("{} is not a libp2p node key; move it away and a new one is made", path.display())]
    KeyFormat {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the key.
    #[error("the node key {} can be read by others; run `chmod 600` on it", path.display())]
    KeyMode {
        /// The file.
        path: PathBuf,
    },
    /// The node cannot listen there.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address that was asked for.
        address: String,
        /// What libp2p said.
        reason: String,
    },
    /// Nobody can dial this.
    #[error(
        "cannot tell others to come to {address:?}: write ADDRESS:PORT, with an IP address, or a libp2p address like /ip4/203.0.113.7/udp/4001/quic-v1"
    )]
    Announce {
        /// What was typed.
        address: String,
    },
    /// The node cannot be made at all.
    #[error("cannot start libp2p: {0}")]
    Start(String),
    /// A name that cannot be one.
    #[error("not usable")]
    Name(#[from] IdError),
    /// Not a peer id.
    #[error("{0} is not a libp2p peer id")]
    PeerId(String),
    /// No address that can be dialled.
    #[error("no address of the peer can be dialled: only /ip4 and /ip6 with /udp/…/quic-v1 or /tcp/… can")]
    NoAddress,
    /// No address answered, or another peer did.
    #[error("no connection to the peer: {0}")]
    Unreachable(String),
    /// The peer closed the connection, which it does to those that it does not expect.
    #[error("the peer took the connection and closed it: it does not expect this worker (any more)")]
    Closed,
    /// It took too long.
    #[error("no connection to the peer within {} s", after.as_secs())]
    Timeout {
        /// The bound.
        after: Duration,
    },
    /// The node has ended.
    #[error("the libp2p node has ended")]
    Ended,
}

/// Why a future or a result did not get through.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// There is no stream to the client.
    #[error("cannot reach the client")]
    Network(#[from] NetworkError),
    /// The accepted worker never dialled.
    #[error("the worker did not come within {} s; can it reach this machine?", after.as_secs())]
    NobodyCame {
        /// The bound.
        after: Duration,
    },
    /// The worker was there, and did not come back after the stream broke ([`std::error::Error::source`] says how).
    #[error("the worker was lost and did not come back within {} s", after.as_secs())]
    WorkerSilent {
        /// The bound.
        after: Duration,
        /// How the stream broke.
        #[source]
        source: io::Error,
    },
    /// The client was there, and could not be reached again after the stream broke.
    #[error("the client was lost and could not be reached again within {} s", after.as_secs())]
    ClientGone {
        /// The bound.
        after: Duration,
        /// How the stream broke.
        #[source]
        source: io::Error,
    },
    /// The client cancelled the future.
    #[error("the future was cancelled")]
    Cancelled,
    /// The other side will not go on.
    #[error("the other side will not go on: {0}")]
    Refused(Refusal),
    /// More bytes than one of the two sides takes. None of them were stored.
    #[error("the {what} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: Payload,
        /// Its size in bytes.
        size: u64,
        /// The smaller of the limits that it broke.
        limit: u64,
    },
    /// The bytes that came are not those that were promised.
    #[error("the {what} that arrived is not the one that was sent")]
    Digest {
        /// What was damaged.
        what: Payload,
    },
    /// The other side is there but the payload does not move.
    #[error("the {what} did not get through within {} s", after.as_secs())]
    Stalled {
        /// What was on its way.
        what: Payload,
        /// The bound that was broken.
        after: Duration,
    },
    /// The other side sent what is not a frame.
    #[error("the other side does not keep to the protocol")]
    Frame(#[from] FrameError),
    /// The other side sent a frame where it does not belong.
    #[error("the other side does not keep to the protocol: {0}")]
    Protocol(&'static str),
    /// The other side named pieces of a future that cannot be pieces of it.
    #[error("the other side does not keep to the protocol")]
    Manifest(#[from] ManifestError),
    /// This side cannot store or read the bytes.
    #[error("cannot spool")]
    Spool(#[from] SpoolError),
    /// The system has no random bits for a ticket.
    #[error("cannot make a ticket")]
    Random(#[source] io::Error),
    /// The session is over.
    #[error("the session is over")]
    Over,
}

impl TransferError {
    /// What the other side is told of it.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Cancelled => Refusal::Cancelled,
            Self::TooLarge { what, size, limit } => Refusal::TooLarge { what: *what, size: *size, limit: *limit },
            Self::Digest { what } => Refusal::Digest(*what),
            // The path of the spool folder is nobody else's business; the kernel's word is enough.
            Self::Spool(SpoolError::Write { source, .. } | SpoolError::Read { source, .. }) => {
                Refusal::Storage(source.to_string().into())
            }
            Self::Frame(_) | Self::Protocol(_) | Self::Manifest(_) => Refusal::Protocol(self.to_string().into()),
            other => Refusal::GaveUp(other.to_string().into()),
        }
    }
}

impl From<Refusal> for TransferError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Cancelled => Self::Cancelled,
            Refusal::TooLarge { what, size, limit } => Self::TooLarge { what, size, limit },
            other => Self::Refused(other),
        }
    }
}

/// How a conversation over one stream ended before its end.
#[derive(Debug)]
pub(super) enum Interrupted {
    /// The stream broke: the worker may dial again.
    Broken(io::Error),
    /// It is over.
    Failed(TransferError),
}

impl From<TransferError> for Interrupted {
    fn from(error: TransferError) -> Self {
        Self::Failed(error)
    }
}

impl From<SpoolError> for Interrupted {
    fn from(error: SpoolError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<FrameError> for Interrupted {
    fn from(error: FrameError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}
