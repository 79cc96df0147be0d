//! What the transfer needs of a network.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::NetworkError;
use crate::ids::{Address, NodeId};

/// How a stream gets to its node. Which way is faster depends on the machines and on what is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// QUIC, over UDP.
    Quic,
    /// TCP, or anything else that is not QUIC.
    Tcp,
}

impl Way {
    /// The way that may be faster.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Quic => Self::Tcp,
            Self::Tcp => Self::Quic,
        }
    }
}

/// Which ways may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Whichever is there first; this one has a small head start.
    First(Way),
    /// This one and no other.
    Only(Way),
}

/// A node of a network whose streams are authenticated: both ends know for certain which node the other one is.
pub trait Network: Send + Sync + 'static {
    /// A bidirectional stream of bytes. Closing the write half is seen by the other side as an end of file.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// This node.
    fn id(&self) -> &NodeId;

    /// Where others can dial this node, best first; empty when it does not listen.
    fn addresses(&self) -> Vec<Address>;

    /// Changes when [`Network::addresses`] may have changed.
    fn moves(&self) -> watch::Receiver<u64>;

    /// Opens a stream to a node, and to no other one that may answer at these addresses, and says which way it goes.
    /// Bounded in time.
    ///
    /// # Errors
    /// [`NetworkError`].
    fn dial(
        &self,
        peer: &NodeId,
        addresses: &[Address],
        by: By,
    ) -> impl Future<Output = Result<(Self::Stream, Way), NetworkError>> + Send;

    /// The next stream that another node opened; `None` when there will be none any more. Cancel-safe.
    fn accept(&self) -> impl Future<Output = Option<(NodeId, Self::Stream)>> + Send;

    /// Lets a node connect to this one. Nobody may, unless allowed.
    fn allow(&self, peer: &NodeId);

    /// Ends what [`Network::allow`] began; streams that are open stay open.
    fn disallow(&self, peer: &NodeId);
}
