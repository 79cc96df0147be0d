//! The one task that owns all postings.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    ClientError, ClientEvent, EVENT_QUEUE, Setup, Terms, WayError,
    passage::{self, Fault, Passage, Passed, RunNumber},
    wormhole::{PASSAGES, Run, Wormholes},
};
use crate::{
    board::BoardEvent,
    clock,
    ids::{Address, ClaimCode, FutureId, NodeId, PeerName, Ticket},
    proto::{
        message::{Message, Protocols},
        posting::{Action, Event, Postings, Route},
    },
    spool::Spooled,
    transfer::{Grant, Network, Transfer},
};

/// How long transfers by wormhole have at the end, to tell their peers that they are cancelled.
const FAREWELL: Duration = Duration::from_secs(4);

pub(super) enum Command {
    Post { future: FutureId, payload: Arc<Spooled>, terms: Terms, events: mpsc::Sender<ClientEvent> },
    Withdraw(FutureId),
}

/// A future that has no result yet.
struct Open {
    payload: Arc<Spooled>,
    events: mpsc::Sender<ClientEvent>,
    taken: Option<Taken>,
    last_error: Option<WayError>,
    /// It is on the board for anybody to take, and its owner was told so.
    told_posted: bool,
}

/// The worker that a future was granted to.
struct Taken {
    worker: PeerName,
    run: RunNumber,
    way: Way,
    in_doubt: bool,
    forward: AbortHandle,
}

/// By what it comes.
enum Way {
    Libp2p(Ticket),
    Wormhole {
        /// Says that the result is to be fetched.
        fetches: mpsc::Sender<bool>,
        /// Ends the run.
        _cancel: DropGuard,
    },
}

impl Drop for Taken {
    /// Ends the forwarding task, and with it a delivery by libp2p, which cancels on its stream and revokes its ticket. A run
    /// by wormhole tells its peer and ends by itself.
    fn drop(&mut self) {
        self.forward.abort();
    }
}

pub(super) struct Dispatcher<N: Network> {
    setup: Setup<N>,
    postings: Postings,
    open: HashMap<FutureId, Open>,
    passages: mpsc::Sender<Passed>,
    /// How many grants there were.
    runs: RunNumber,
    /// Runs by wormhole, the last words of those that were cancelled included.
    wormholes: TaskTracker,
    /// Why the board is away, and whether for good.
    lost: String,
    is_lost: bool,
    /// Where this client can be reached, and what tells when that may have changed.
    at: Vec<Address>,
    moves: Option<watch::Receiver<u64>>,
}

impl<N: Network> Dispatcher<N> {
    pub(super) fn new(setup: Setup<N>) -> (Self, mpsc::Receiver<Passed>) {
        let (passages, passed) = mpsc::channel(EVENT_QUEUE);
        let speaks = Protocols { libp2p: setup.transfer.is_some(), wormhole: setup.wormhole.is_some() };
        let postings = Postings::new(setup.me.clone(), setup.max_attempts).speaking(speaks);
        let (open, lost, wormholes) = (HashMap::new(), "it was closed".to_owned(), TaskTracker::new());
        let network = setup.transfer.as_ref().map(Transfer::network);
        let (at, moves) = (network.map_or_else(Vec::new, Network::addresses), network.map(Network::moves));
        (Self { setup, postings, open, passages, runs: 0, wormholes, lost, is_lost: false, at, moves }, passed)
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Command>, mut passed: mpsc::Receiver<Passed>) {
        loop {
            let wakeup = self.postings.next_wakeup().map(|at| at - clock::now());
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => break,
                },
                event = self.setup.link.incoming.recv(), if !self.is_lost => match event {
                    Some(BoardEvent::Joined) => self.step(Event::Joined).await,
                    Some(BoardEvent::Line(line)) => self.step(Event::Line(line)).await,
                    Some(BoardEvent::Skipped(lines)) => self.step(Event::Skipped(lines)).await,
                    Some(BoardEvent::Lost(reason)) => {
                        self.lost = reason;
                        self.step(Event::Lost).await;
                    }
                    None => self.lose_board().await,
                },
                () = moved(&mut self.moves) => self.look_where_we_are().await,
                Some((future, run, passage)) = passed.recv() => self.passed(future, run, passage).await,
                () = sleep(wakeup.unwrap_or_default()), if wakeup.is_some() => self.step(Event::Tick).await,
            }
        }
        let open: Vec<FutureId> = self.open.keys().cloned().collect();
        for future in open {
            self.withdraw(future).await;
        }
        self.setup.link.leave().await;
        self.wormholes.close();
        let _ = timeout(FAREWELL, self.wormholes.wait()).await;
    }

    /// This machine may have been carried to another network.
    async fn look_where_we_are(&mut self) {
        let Some(network) = self.setup.transfer.as_ref().map(Transfer::network) else { return };
        let before = std::mem::replace(&mut self.at, network.addresses());
        if self.at.iter().any(|address| !before.contains(address)) {
            self.step(Event::Moved).await;
        }
    }

    async fn obey(&mut self, order: Command) {
        match order {
            Command::Post { future, payload, terms: Terms { patience, attempts }, events } => {
                let size = payload.size();
                match self.open.entry(future.clone()) {
                    // The first one's owner keeps it.
                    Entry::Occupied(_) => return drop(events.try_send(ClientEvent::Failed(ClientError::Twice))),
                    Entry::Vacant(place) => {
                        place.insert(Open { payload, events, taken: None, last_error: None, told_posted: false });
                    }
                }
                let deadline = patience.map(|patience| clock::now() + patience);
                self.step(Event::Post { future: future.clone(), size, deadline }).await;
                if let Some(attempts) = attempts {
                    self.postings.limit_attempts(&future, attempts);
                }
                if self.is_lost {
                    self.fail_without_board(future).await;
                }
            }
            Command::Withdraw(future) => self.withdraw(future).await,
        }
    }

    async fn withdraw(&mut self, future: FutureId) {
        self.end(&future, ClientEvent::Failed(ClientError::Withdrawn));
        self.step(Event::Withdraw(future)).await;
    }

    /// The board will not come back: what a worker has goes on, the rest is over.
    async fn lose_board(&mut self) {
        self.is_lost = true;
        let waiting = self.open.iter().filter(|(_, open)| open.taken.is_none());
        let waiting: Vec<FutureId> = waiting.map(|(future, _)| future.clone()).collect();
        for future in waiting {
            self.fail_without_board(future).await;
        }
    }

    async fn fail_without_board(&mut self, future: FutureId) {
        self.end(&future, ClientEvent::Failed(ClientError::BoardLost(self.lost.clone())));
        self.step(Event::Withdraw(future)).await;
    }

    /// Hands an event to the state machine and does what it says.
    async fn step(&mut self, event: Event) {
        for action in self.postings.handle(event, clock::now()) {
            self.act(action).await;
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Say(message, expires) => {
                let line = message.to_line(&clock::local_time(), expires);
                // A link that ended says so on its other half.
                let _ = self.setup.link.outgoing.send(line).await;
                if let Message::Request { future, .. } = message {
                    self.tell_posted(&future);
                }
            }
            Action::Grant { future, worker, route } => self.grant(future, worker, route).await,
            Action::Fetch { future, said } => self.fetch(&future, said),
            Action::Confirm { future, worker } => self.confirm(future, worker).await,
            Action::Doubted(future) => self.doubt(&future),
            Action::TimedOut(future) => self.end(&future, ClientEvent::Failed(ClientError::TimedOut)),
            Action::GaveUp { future, attempts } => {
                let last = self.open.get_mut(&future).and_then(|open| open.last_error.take());
                self.end(&future, ClientEvent::Failed(ClientError::GaveUp { attempts, last }));
            }
        }
    }

    async fn grant(&mut self, future: FutureId, worker: PeerName, route: Route) {
        let Some(open) = self.open.get_mut(&future) else { return };
        // Whoever had it before is told that it is cancelled, should it come back.
        open.taken = None;
        open.told_posted = false;
        self.runs += 1;
        match (route, self.setup.wormhole.clone()) {
            (Route::Libp2p(node), _) => self.grant_by_libp2p(future, worker, node).await,
            (Route::Wormhole, Some(wormholes)) => self.grant_by_wormhole(future, worker, wormholes),
            (Route::Wormhole, None) => {}
        }
    }

    async fn grant_by_libp2p(&mut self, future: FutureId, worker: PeerName, node: NodeId) {
        let (Some(open), Some(transfer)) = (self.open.get_mut(&future), &self.setup.transfer) else { return };
        let grant = Grant {
            worker: node,
            future: future.clone(),
            payload: Arc::clone(&open.payload),
            max_result: self.setup.max_result,
            spool_directory: self.setup.spool_directory.clone(),
        };
        let delivery = match transfer.grant(grant) {
            Ok(delivery) => delivery,
            Err(error) => {
                return Box::pin(self.way_failed(future, passage::fault(&error), error.into())).await;
            }
        };
        let (run, way) = (self.runs, Way::Libp2p(delivery.ticket));
        let forward = passage::forward_delivery(future.clone(), run, delivery, self.passages.clone());
        let forward = tokio::spawn(forward).abort_handle();
        open.taken = Some(Taken { worker: worker.clone(), run, way, in_doubt: false, forward });
        self.tell(&future, ClientEvent::Accepted(worker.clone()));
        self.confirm(future, worker).await;
    }

    /// The worker is accepted when the mailbox is open, so that nobody is kept waiting for one that is not there.
    fn grant_by_wormhole(&mut self, future: FutureId, worker: PeerName, wormholes: Wormholes) {
        let Some(open) = self.open.get_mut(&future) else { return };
        // One fetch at a time; what is asked for meanwhile is asked for once.
        let ((fetches, asked), (told, passages)) = (mpsc::channel(1), mpsc::channel(PASSAGES));
        let cancel = CancellationToken::new();
        let run = Run {
            wormholes,
            payload: Arc::clone(&open.payload),
            max_result: self.setup.max_result,
            spool_directory: self.setup.spool_directory.clone(),
            passages: told,
            fetches: asked,
            cancel: cancel.clone(),
        };
        self.wormholes.spawn(run.run());
        let forward = passage::forward(future, self.runs, passages, self.passages.clone());
        let forward = tokio::spawn(forward).abort_handle();
        let way = Way::Wormhole { fetches, _cancel: cancel.drop_guard() };
        open.taken = Some(Taken { worker, run: self.runs, way, in_doubt: false, forward });
    }

    /// Says on the board who has a future, and with which ticket.
    async fn confirm(&mut self, future: FutureId, worker: PeerName) {
        let way = self.open.get(&future).and_then(|open| open.taken.as_ref()).map(|taken| &taken.way);
        let Some(Way::Libp2p(ticket)) = way else { return };
        let Some(network) = self.setup.transfer.as_ref().map(Transfer::network) else { return };
        let (me, at) = (network.id().clone(), network.addresses());
        let accept = self.postings.accept(future, worker, me, *ticket, at, clock::now());
        self.act_say(accept).await;
    }

    /// Says who has a future by wormhole, and with which code.
    async fn accept_by_wormhole(&mut self, future: FutureId, code: ClaimCode) {
        let Some(taken) = self.open.get(&future).and_then(|open| open.taken.as_ref()) else { return };
        let worker = taken.worker.clone();
        let accept = self.postings.accept_by_wormhole(future.clone(), worker.clone(), code, clock::now());
        self.act_say(accept).await;
        self.tell(&future, ClientEvent::Accepted(worker));
    }

    async fn act_say(&self, action: Action) {
        if let Action::Say(message, expires) = action {
            // A link that ended says so on its other half.
            let _ = self.setup.link.outgoing.send(message.to_line(&clock::local_time(), expires)).await;
        }
    }

    fn fetch(&self, future: &FutureId, said: bool) {
        let way = self.open.get(future).and_then(|open| open.taken.as_ref()).map(|taken| &taken.way);
        if let Some(Way::Wormhole { fetches, .. }) = way {
            let _ = fetches.try_send(said);
        }
    }

    fn doubt(&mut self, future: &FutureId) {
        let Some(taken) = self.open.get_mut(future).and_then(|open| open.taken.as_mut()) else { return };
        taken.in_doubt = true;
        let worker = taken.worker.clone();
        tracing::info!(%future, %worker, "the worker is silent; posting again");
        self.tell(future, ClientEvent::Doubted(worker));
    }

    async fn passed(&mut self, future: FutureId, run: RunNumber, passage: Passage) {
        // What a worker that was replaced still said is not for anybody.
        let taken = self.open.get_mut(&future).and_then(|open| open.taken.as_mut());
        let Some(taken) = taken.filter(|taken| taken.run == run) else { return };
        let told = match passage {
            Passage::Open(code) => return self.accept_by_wormhole(future, code).await,
            Passage::Came => {
                if std::mem::take(&mut taken.in_doubt) {
                    let worker = taken.worker.clone();
                    self.tell(&future, ClientEvent::Returned(worker));
                }
                return self.step(Event::Came(future)).await;
            }
            Passage::Silent => return self.step(Event::Silent(future)).await,
            Passage::Sending { bytes, total } => ClientEvent::Sending { bytes, total },
            Passage::Begun(provenance) => ClientEvent::Running(provenance),
            Passage::Printed(text) => ClientEvent::Printed(text),
            Passage::Progress(condition) => ClientEvent::Progress(condition),
            Passage::Receiving { bytes, total } => ClientEvent::Receiving { bytes, total },
            Passage::Done(result, provenance) => {
                self.end(&future, ClientEvent::Done(result, provenance));
                return self.step(Event::Done(future)).await;
            }
            Passage::Failed { fault, error } => return self.way_failed(future, fault, error).await,
        };
        self.tell(&future, told);
    }

    async fn way_failed(&mut self, future: FutureId, fault: Fault, error: WayError) {
        if self.is_lost {
            return self.fail_without_board(future).await;
        }
        if fault == Fault::Final {
            self.end(&future, ClientEvent::Failed(ClientError::Refused(error)));
            return self.step(Event::Withdraw(future)).await;
        }
        let reason = match &error {
            WayError::Libp2p(error) => error.to_string(),
            error => crate::error_chain(error),
        };
        tracing::info!(%future, %reason, "the transfer failed; posting again");
        self.tell(&future, ClientEvent::PostedAgain(reason));
        if let Some(open) = self.open.get_mut(&future) {
            open.taken = None;
            open.told_posted = false;
            open.last_error = Some(error);
        }
        self.step(match fault {
            Fault::Code => Event::CodeSpoilt(future),
            fault => Event::Failed { future, came: fault == Fault::Worker },
        })
        .await;
    }

    fn tell_posted(&mut self, future: &FutureId) {
        let Some(open) = self.open.get_mut(future) else { return };
        if open.taken.is_none() && !std::mem::replace(&mut open.told_posted, true) {
            self.tell(future, ClientEvent::Posted);
        }
    }

    /// Tells a future's owner, and forgets it.
    fn end(&mut self, future: &FutureId, event: ClientEvent) {
        if let Some(open) = self.open.remove(future) {
            let _ = open.events.try_send(event);
        }
    }

    /// Tells a future's owner. One who does not listen loses progress, never the end: the last place in the queue is
    /// kept for it, so that nobody's silence holds up the others.
    fn tell(&mut self, future: &FutureId, event: ClientEvent) {
        let Some(open) = self.open.get(future) else { return };
        if open.events.capacity() > 1 {
            let _ = open.events.try_send(event);
        }
    }
}

/// Waits until this machine's addresses may have changed; for ever where nothing tells. Cancel-safe.
async fn moved(moves: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = moves
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
