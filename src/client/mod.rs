//! The client: futures go in, what happens to each of them comes out.
//!
//! [`Client`] is the handle that the command line, and anything else that has futures, holds; `dispatcher` is the one task
//! that owns all postings, grants tickets, and tells each future's owner what happens. What to say on the board, and
//! when, is decided by [`crate::proto::posting`]; how the bytes travel by [`crate::transfer`], or by
//! [`crate::wormhole`] to workers that speak nothing else. Nothing here looks into futures or results.

mod dispatcher;
pub mod host;
mod passage;
pub mod stdio;
mod wormhole;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    board::Link,
    ids::{Address, FutureId, PeerName},
    sandbox::Provenance,
    spool::Spooled,
    transfer::{
        Network, Transfer, TransferConfig, TransferError,
        libp2p::{Listen, Node, NodeConfig},
    },
};
use dispatcher::{Command, Dispatcher};
pub use passage::WayError;
pub use wormhole::Wormholes;

/// How many workers get a future, one after the other, before the client gives up.
pub const DEFAULT_ATTEMPTS: u32 = 4;

/// Events that wait for the owner of one future; progress that finds no room is left out, everything else waits.
const EVENT_QUEUE: usize = 64;

/// What happens to a posted future. The last event is [`ClientEvent::Done`] or [`ClientEvent::Failed`].
#[derive(Debug)]
pub enum ClientEvent {
    /// Its request is on the board; told once for each time that it is to be taken.
    Posted,
    /// This worker takes it.
    Accepted(PeerName),
    /// So many of its bytes are sent.
    Sending {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// It is being evaluated, under this. By wormhole it is only known to be with the worker, under nobody knows what.
    Running(Provenance),
    /// An immediateCondition of the user's code, as RDS. A stranger's bytes.
    Progress(Vec<u8>),
    /// What the task's programs printed past R (`system()`), as far as it is told; safe for a terminal.
    Printed(String),
    /// So many bytes of its result are here.
    Receiving {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The worker did not come, or is silent; the future is posted again, and has whoever is faster.
    Doubted(PeerName),
    /// The worker that was in doubt is here again and keeps the future.
    Returned(PeerName),
    /// The transfer failed for this reason; it is posted again.
    PostedAgain(String),
    /// The result, and under what it came to be.
    Done(Spooled, Provenance),
    /// There will be no result.
    Failed(ClientError),
}

/// On which terms a future is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// After which it is of no use.
    pub patience: Option<Duration>,
    /// How many workers get it, one after the other; what the client was set up with where it is `None`.
    pub attempts: Option<u32>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Every worker that took it failed; the last failure is the source.
    #[error("{attempts} workers took the future and none returned a result")]
    GaveUp {
        /// How many.
        attempts: u32,
        /// What the last transfer died of.
        #[source]
        last: Option<WayError>,
    },
    /// What was refused once will be refused again.
    #[error("the transfer was refused")]
    Refused(#[source] WayError),
    /// The link to the board ended for good.
    #[error("the connection to the board ended: {0}")]
    BoardLost(String),
    /// There was no result in the time that was given.
    #[error("no result in time")]
    TimedOut,
    /// The user withdrew it.
    #[error("withdrawn")]
    Withdrawn,
    /// Another future of this name is posted already.
    #[error("a future of the same name is posted already")]
    Twice,
}

/// The transfer of a client: a libp2p node with a key for this once, which listens there and tells workers of these addresses
/// besides.
///
/// # Errors
/// [`TransferError::Network`].
pub async fn listening_transfer(listen: Listen, announce: Vec<Address>) -> Result<Transfer<Node>, TransferError> {
    let config = NodeConfig { listen, announce, loopback: true, ..NodeConfig::default() };
    Ok(Transfer::new(Arc::new(Node::start(config).await?), TransferConfig::default()))
}

/// A running client. It ends, and withdraws what is still open, when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
}

/// What a client is made of.
#[derive(Debug)]
pub struct Setup<N: Network> {
    /// Our name on the board.
    pub me: PeerName,
    /// The cluster's topic.
    pub link: Link,
    /// How the bytes travel to workers that speak libp2p; without this, they go to those by wormhole too.
    pub transfer: Option<Transfer<N>>,
    /// How they travel to workers that speak only wormhole; without this, such workers are passed over.
    pub wormhole: Option<Wormholes>,
    /// A folder for results on their way.
    pub spool_directory: PathBuf,
    /// The largest result that is taken, in bytes.
    pub max_result: u64,
    /// See [`DEFAULT_ATTEMPTS`].
    pub max_attempts: u32,
}

impl Client {
    /// Starts the dispatcher. The join handle ends when everything is withdrawn and said.
    #[must_use]
    pub fn start<N: Network>(setup: Setup<N>) -> (Self, JoinHandle<()>) {
        let (commands, orders) = mpsc::channel(EVENT_QUEUE);
        let (dispatcher, delivered) = Dispatcher::new(setup);
        (Self { commands }, tokio::spawn(dispatcher.run(orders, delivered)))
    }

    /// Posts a future; what happens to it comes through the receiver. Any number of futures may be under way.
    pub async fn post(&self, future: FutureId, payload: Arc<Spooled>) -> mpsc::Receiver<ClientEvent> {
        self.post_within(future, payload, None).await
    }

    /// The same, for a future that is of no use after this time.
    pub async fn post_within(
        &self,
        future: FutureId,
        payload: Arc<Spooled>,
        patience: Option<Duration>,
    ) -> mpsc::Receiver<ClientEvent> {
        self.post_on(future, payload, Terms { patience, attempts: None }).await
    }

    /// The same, on terms of its own.
    pub async fn post_on(&self, future: FutureId, payload: Arc<Spooled>, terms: Terms) -> mpsc::Receiver<ClientEvent> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        // When the dispatcher is gone, the receiver ends at once.
        let _ = self.commands.send(Command::Post { future, payload, terms, events }).await;
        receiver
    }

    /// Takes a future back, wherever it is: its worker stops it.
    pub async fn withdraw(&self, future: FutureId) {
        let _ = self.commands.send(Command::Withdraw(future)).await;
    }
}
