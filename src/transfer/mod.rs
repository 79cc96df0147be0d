//! How the bytes of a future and of its result travel between two peers.
//!
//! The *client* listens: for each worker that it accepted it makes a [`Ticket`], good for that worker's proven peer id
//! and that future. The *worker* dials, shows the ticket, and fetches; the result goes back through the same stream.
//! Both sides spool to unnamed files, so nothing ever sits in memory whole, and both know size and BLAKE3 digest of
//! what they pass on. Everything a peer sends is bounded in size and in time.
//!
//! The stream protocol ([`crate::proto::frames`] says what is sent, `delivery` plays the client's side and `session`
//! the worker's) runs over anything that gives authenticated byte streams between peer ids ([`Network`]): libp2p for
//! real ([`libp2p::Node`]), pipes in memory for tests ([`memory::Hub`]).
//!
//! A broken stream is dialled again and goes on at its byte; a large future tries both ways to its client ([`Way`]). What
//! a worker keeps of futures ([`Cache`]) is not sent to it again.
//!
//! What this does not do: it never looks into the bytes, decides nothing about claims, and keeps nothing on disk that
//! outlives the process, apart from the node's key: what is kept lies in unnamed files.
//!
//! [`Ticket`]: crate::ids::Ticket

mod agreement;
mod begun;
mod cache;
mod config;
mod delivery;
mod error;
mod grants;
pub mod libp2p;
mod link;
mod lobby;
pub mod memory;
mod network;
mod payload;
mod redials;
mod session;
mod trial;
mod worker;

use std::{fmt, path::Path, sync::Arc};

use tokio_util::task::AbortOnDropHandle;

pub use begun::Begun;
pub use cache::Cache;
pub use config::TransferConfig;
pub use delivery::{Delivery, DeliveryEvent};
pub use error::{NetworkError, TransferError};
pub use grants::Grant;
pub use network::{By, Network, Way};
pub use session::{CancelCause, Session};
pub use worker::Invitation;

use grants::Grants;
use trial::Ways;

use crate::spool::{Relief, SpoolError, Spooled};

/// Both sides of the transfer over one node of a network. Cheap to clone; when the last clone is dropped no stream is
/// taken any more, while deliveries and sessions that are under way go on.
pub struct Transfer<N: Network> {
    network: Arc<N>,
    config: TransferConfig,
    grants: Arc<Grants<N>>,
    ways: Arc<Ways>,
    cache: Option<Cache>,
    _lobby: Arc<AbortOnDropHandle<()>>,
}

impl<N: Network> Transfer<N> {
    /// Begins to take streams from the network. Must be called inside a tokio runtime.
    pub fn new(network: Arc<N>, config: TransferConfig) -> Self {
        let grants = Arc::new(Grants::new(Arc::clone(&network), config));
        let lobby = AbortOnDropHandle::new(tokio::spawn(lobby::attend(Arc::clone(&network), Arc::clone(&grants))));
        Self { network, config, grants, ways: Arc::default(), cache: None, _lobby: Arc::new(lobby) }
    }

    /// Keeps pieces of the futures that are fetched, so that what they have in common is sent once.
    #[must_use]
    pub fn keeping(self, cache: Cache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// What the next future of a client may begin with, of which two came one after the other; nothing without a cache. Blocking.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn begin_alike(&self, before: &Spooled, last: &Spooled, directory: &Path) -> Result<Option<Begun>, SpoolError> {
        self.cache.as_ref().map_or(Ok(None), |cache| Begun::of(before, last, cache, directory))
    }

    /// What gives way to futures and results on a full disk, beside the cache. Nothing without one.
    pub fn gives_way_too(&self, relief: Relief) {
        self.cache.iter().for_each(|cache| cache.with_it(relief.clone()));
    }

    /// The node that this runs over.
    #[must_use]
    pub fn network(&self) -> &N {
        &self.network
    }
}

impl<N: Network> Clone for Transfer<N> {
    fn clone(&self) -> Self {
        Self {
            network: Arc::clone(&self.network),
            config: self.config,
            grants: Arc::clone(&self.grants),
            ways: Arc::clone(&self.ways),
            cache: self.cache.clone(),
            _lobby: Arc::clone(&self._lobby),
        }
    }
}

impl<N: Network> fmt::Debug for Transfer<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("id", self.network.id()).field("config", &self.config).finish_non_exhaustive()
    }
}
