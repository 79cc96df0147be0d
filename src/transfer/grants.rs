//! Which tickets are good, for whom, and what became of those that are not any more.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::{Network, TransferConfig, TransferError, link::Link};
use crate::{
    ids::{FutureId, NodeId, Ticket},
    proto::{
        frames::{FromWorker, Hello, Stage, VERSION},
        refusal::Refusal,
    },
    spool::Spooled,
};

/// What a worker is let in for.
#[derive(Debug)]
pub struct Grant {
    /// The worker that was accepted; nobody else can use the ticket.
    pub worker: NodeId,
    /// The future's name.
    pub future: FutureId,
    /// Its bytes.
    pub payload: Arc<Spooled>,
    /// The largest result that is taken, in bytes.
    pub max_result: u64,
    /// The folder of the unnamed file that the result goes to.
    pub spool_directory: PathBuf,
}

/// A worker's stream that was let in.
pub(super) struct Attachment<S> {
    pub(super) link: Link<S, FromWorker>,
    pub(super) hello: Hello,
}

/// What becomes of a stream with a good ticket.
pub(super) enum Admission<S> {
    /// It goes to the delivery.
    Welcome(mpsc::Sender<Attachment<S>>),
    /// The result is here already; the worker only missed that it was told so.
    Acknowledge,
}

/// What a ticket is good for.
pub(super) enum State<S> {
    /// A run, by this way to its delivery.
    Live(mpsc::Sender<Attachment<S>>),
    /// To be told that the result arrived.
    Delivered,
    /// To be told why not.
    Over(Refusal),
}

struct Entry<S> {
    worker: NodeId,
    future: FutureId,
    state: State<S>,
}

/// All tickets of a node. There are as many as runs that are under way or ended within [`TransferConfig::linger`].
pub(super) struct Grants<N: Network> {
    pub(super) network: Arc<N>,
    pub(super) config: TransferConfig,
    entries: Mutex<HashMap<Ticket, Entry<N::Stream>>>,
}

impl<N: Network> Grants<N> {
    pub(super) fn new(network: Arc<N>, config: TransferConfig) -> Self {
        Self { network, config, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Ticket, Entry<N::Stream>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a ticket and lets its worker connect.
    pub(super) fn issue(
        &self,
        grant: &Grant,
        delivery: mpsc::Sender<Attachment<N::Stream>>,
    ) -> Result<Ticket, TransferError> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(|error| TransferError::Random(error.into()))?;
        let ticket = Ticket(bits);
        let (worker, future) = (grant.worker.clone(), grant.future.clone());
        self.network.allow(&worker);
        self.entries().insert(ticket, Entry { worker, future, state: State::Live(delivery) });
        Ok(ticket)
    }

    /// Whether this peer may go on with this hello.
    ///
    /// Tickets are found by a keyed hash, so how long it takes says nothing about how much of a guess was right.
    pub(super) fn admit(&self, peer: &NodeId, hello: &Hello) -> Result<Admission<N::Stream>, Refusal> {
        if hello.version != VERSION {
            return Err(Refusal::Version { theirs: VERSION });
        }
        let entries = self.entries();
        let entry = entries.get(&hello.ticket).ok_or(Refusal::Ticket)?;
        if entry.worker != *peer || entry.future != hello.future {
            return Err(Refusal::Ticket);
        }
        match (&entry.state, hello.stage) {
            (State::Live(delivery), _) => Ok(Admission::Welcome(delivery.clone())),
            (State::Delivered, Stage::Resume) => Ok(Admission::Acknowledge),
            (State::Delivered, Stage::Fetch { .. }) => Err(Refusal::Used),
            (State::Over(refusal), _) => Err(refusal.clone()),
        }
    }

    /// Ends what a ticket is good for.
    pub(super) fn settle(&self, ticket: Ticket, state: State<N::Stream>) {
        if let Some(entry) = self.entries().get_mut(&ticket) {
            entry.state = state;
        }
    }

    /// Forgets a ticket, and its worker if it has no other one.
    pub(super) fn forget(&self, ticket: Ticket) {
        let mut entries = self.entries();
        let Some(gone) = entries.remove(&ticket) else { return };
        if !entries.values().any(|entry| entry.worker == gone.worker) {
            self.network.disallow(&gone.worker);
        }
    }
}
