//! A network in memory, for tests: the nodes of one [`Hub`] reach one another through pipes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::DuplexStream,
    sync::{Mutex as AsyncMutex, mpsc, watch},
};

use super::{By, Network, NetworkError, Way};
use crate::ids::{Address, NodeId};

/// Bytes that a pipe holds.
const PIPE: usize = 64 * 1024;
/// Streams that wait to be accepted.
const BACKLOG: usize = 16;

/// Where the nodes of one network find one another.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    nodes: Arc<Mutex<HashMap<NodeId, Arc<Door>>>>,
}

/// How one node is reached.
#[derive(Debug)]
struct Door {
    incoming: mpsc::Sender<(NodeId, DuplexStream)>,
    allowed: Mutex<HashSet<NodeId>>,
}

/// A node of a [`Hub`]. Its identity is believed, as libp2p's is proven.
#[derive(Debug)]
pub struct MemoryNode {
    id: NodeId,
    hub: Hub,
    door: Arc<Door>,
    incoming: AsyncMutex<mpsc::Receiver<(NodeId, DuplexStream)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// A node of this name, instead of an earlier one.
    #[must_use]
    pub fn node(&self, id: NodeId) -> MemoryNode {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        let door = Arc::new(Door { incoming: sender, allowed: Mutex::default() });
        lock(&self.nodes).insert(id.clone(), Arc::clone(&door));
        MemoryNode { id, hub: self.clone(), door, incoming: AsyncMutex::new(incoming) }
    }
}

impl Network for MemoryNode {
    type Stream = DuplexStream;

    fn id(&self) -> &NodeId {
        &self.id
    }

    fn addresses(&self) -> Vec<Address> {
        Vec::new()
    }

    fn moves(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    async fn dial(&self, peer: &NodeId, _: &[Address], by: By) -> Result<(DuplexStream, Way), NetworkError> {
        if by == By::Only(Way::Quic) {
            return Err(NetworkError::NoAddress);
        }
        let door = lock(&self.hub.nodes).get(peer).cloned().ok_or(NetworkError::NoAddress)?;
        if !lock(&door.allowed).contains(&self.id) {
            return Err(NetworkError::Closed);
        }
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let gone = || NetworkError::Unreachable("the node is gone".to_owned());
        door.incoming.try_send((self.id.clone(), theirs)).map_err(|_| gone())?;
        Ok((ours, Way::Tcp))
    }

    async fn accept(&self) -> Option<(NodeId, DuplexStream)> {
        self.incoming.lock().await.recv().await
    }

    fn allow(&self, peer: &NodeId) {
        lock(&self.door.allowed).insert(peer.clone());
    }

    fn disallow(&self, peer: &NodeId) {
        lock(&self.door.allowed).remove(peer);
    }
}
