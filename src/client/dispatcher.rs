//! The one task that owns all postings.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use tokio::{sync::mpsc, task::AbortHandle, time::sleep};

use super::{ClientError, ClientEvent, EVENT_QUEUE, Setup, Terms};
use crate::{
    board::BoardEvent,
    clock,
    ids::{FutureId, NodeId, PeerName, Ticket},
    proto::{
        message::Message,
        posting::{Action, Event, Postings},
        refusal::Payload,
    },
    spool::Spooled,
    transfer::{Delivery, DeliveryEvent, Grant, Network, TransferError},
};

pub(super) enum Command {
    Post { future: FutureId, payload: Arc<Spooled>, terms: Terms, events: mpsc::Sender<ClientEvent> },
    Withdraw(FutureId),
}

/// An event of the delivery with this ticket.
pub(super) type Delivered = (FutureId, Ticket, DeliveryEvent);

/// A future that has no result yet.
struct Open {
    payload: Arc<Spooled>,
    events: mpsc::Sender<ClientEvent>,
    taken: Option<Taken>,
    last_error: Option<TransferError>,
    /// It is on the board for anybody to take, and its owner was told so.
    told_posted: bool,
}

/// The worker that a future was granted to.
struct Taken {
    worker: PeerName,
    ticket: Ticket,
    in_doubt: bool,
    forward: AbortHandle,
}

impl Drop for Taken {
    /// Ends the forwarding task and with it the delivery, which cancels on its stream and revokes its ticket.
    fn drop(&mut self) {
        self.forward.abort();
    }
}

pub(super) struct Dispatcher<N: Network> {
    setup: Setup<N>,
    postings: Postings,
    open: HashMap<FutureId, Open>,
    deliveries: mpsc::Sender<Delivered>,
    /// Why the board is away, and whether for good.
    lost: String,
    is_lost: bool,
}

impl<N: Network> Dispatcher<N> {
    pub(super) fn new(setup: Setup<N>) -> (Self, mpsc::Receiver<Delivered>) {
        let (deliveries, delivered) = mpsc::channel(EVENT_QUEUE);
        let postings = Postings::new(setup.me.clone(), setup.max_attempts);
        let (open, lost) = (HashMap::new(), "it was closed".to_owned());
        (Self { setup, postings, open, deliveries, lost, is_lost: false }, delivered)
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Command>, mut delivered: mpsc::Receiver<Delivered>) {
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
                Some((future, ticket, event)) = delivered.recv() => self.delivered(future, ticket, event).await,
                () = sleep(wakeup.unwrap_or_default()), if wakeup.is_some() => self.step(Event::Tick).await,
            }
        }
        let open: Vec<FutureId> = self.open.keys().cloned().collect();
        for future in open {
            self.withdraw(future).await;
        }
        self.setup.link.leave().await;
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
            Action::Grant { future, worker, node } => self.grant(future, worker, node).await,
            Action::Confirm { future, worker } => self.confirm(future, worker).await,
            Action::Doubted(future) => self.doubt(&future),
            Action::TimedOut(future) => self.end(&future, ClientEvent::Failed(ClientError::TimedOut)),
            Action::GaveUp { future, attempts } => {
                let last = self.open.get_mut(&future).and_then(|open| open.last_error.take());
                self.end(&future, ClientEvent::Failed(ClientError::GaveUp { attempts, last }));
            }
        }
    }

    async fn grant(&mut self, future: FutureId, worker: PeerName, node: NodeId) {
        let Some(open) = self.open.get_mut(&future) else { return };
        // Whoever had it before is told that it is cancelled, should it come back.
        open.taken = None;
        open.told_posted = false;
        let grant = Grant {
            worker: node,
            future: future.clone(),
            payload: Arc::clone(&open.payload),
            max_result: self.setup.max_result,
            spool_directory: self.setup.spool_directory.clone(),
        };
        let delivery = match self.setup.transfer.grant(grant) {
            Ok(delivery) => delivery,
            Err(error) => return Box::pin(self.transfer_failed(future, error)).await,
        };
        let ticket = delivery.ticket;
        let forward = tokio::spawn(forward(future.clone(), delivery, self.deliveries.clone())).abort_handle();
        open.taken = Some(Taken { worker: worker.clone(), ticket, in_doubt: false, forward });
        self.tell(&future, ClientEvent::Accepted(worker.clone()));
        self.confirm(future, worker).await;
    }

    /// Says on the board who has a future, and with which ticket.
    async fn confirm(&mut self, future: FutureId, worker: PeerName) {
        let Some(ticket) = self.open.get(&future).and_then(|open| open.taken.as_ref()).map(|taken| taken.ticket) else {
            return;
        };
        let network = self.setup.transfer.network();
        let (me, at) = (network.id().clone(), network.addresses());
        let accept = self.postings.accept(future, worker, me, ticket, at, clock::now());
        if let Action::Say(message, expires) = accept {
            let _ = self.setup.link.outgoing.send(message.to_line(&clock::local_time(), expires)).await;
        }
    }

    fn doubt(&mut self, future: &FutureId) {
        let Some(taken) = self.open.get_mut(future).and_then(|open| open.taken.as_mut()) else { return };
        taken.in_doubt = true;
        let worker = taken.worker.clone();
        tracing::info!(%future, %worker, "the worker is silent; posting again");
        self.tell(future, ClientEvent::Doubted(worker));
    }

    async fn delivered(&mut self, future: FutureId, ticket: Ticket, event: DeliveryEvent) {
        // What a worker that was replaced still said is not for anybody.
        let taken = self.open.get_mut(&future).and_then(|open| open.taken.as_mut());
        let Some(taken) = taken.filter(|taken| taken.ticket == ticket) else { return };
        let told = match event {
            DeliveryEvent::Connected => {
                if std::mem::take(&mut taken.in_doubt) {
                    let worker = taken.worker.clone();
                    self.tell(&future, ClientEvent::Returned(worker));
                }
                return self.step(Event::Came(future)).await;
            }
            DeliveryEvent::Disconnected(_) => return self.step(Event::Silent(future)).await,
            DeliveryEvent::Sent => return,
            DeliveryEvent::Sending { bytes, total } => ClientEvent::Sending { bytes, total },
            DeliveryEvent::Begun(provenance) => ClientEvent::Running(provenance),
            DeliveryEvent::Printed(text) => ClientEvent::Printed(text),
            DeliveryEvent::Progress(condition) => ClientEvent::Progress(condition),
            DeliveryEvent::Receiving { bytes, total } => ClientEvent::Receiving { bytes, total },
            DeliveryEvent::Done { result, provenance } => {
                self.end(&future, ClientEvent::Done(result, provenance));
                return self.step(Event::Done(future)).await;
            }
            DeliveryEvent::Failed(error) => return self.transfer_failed(future, error).await,
        };
        self.tell(&future, told);
    }

    async fn transfer_failed(&mut self, future: FutureId, error: TransferError) {
        if self.is_lost {
            return self.fail_without_board(future).await;
        }
        if is_final(&error) {
            self.end(&future, ClientEvent::Failed(ClientError::Refused(error)));
            return self.step(Event::Withdraw(future)).await;
        }
        tracing::info!(%future, %error, "the transfer failed; posting again");
        self.tell(&future, ClientEvent::PostedAgain(error.to_string()));
        let came = !matches!(error, TransferError::NobodyCame { .. });
        if let Some(open) = self.open.get_mut(&future) {
            open.taken = None;
            open.told_posted = false;
            open.last_error = Some(error);
        }
        self.step(Event::Failed { future, came }).await;
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

/// Whether another worker would fail in the same way.
fn is_final(error: &TransferError) -> bool {
    matches!(
        error,
        TransferError::TooLarge { what: Payload::Result, .. } | TransferError::Spool(_) | TransferError::Random(_)
    )
}

async fn forward(future: FutureId, mut delivery: Delivery, to: mpsc::Sender<Delivered>) {
    let ticket = delivery.ticket;
    while let Some(event) = delivery.events.recv().await {
        if to.send((future.clone(), ticket, event)).await.is_err() {
            return;
        }
    }
}
