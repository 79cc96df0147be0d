//! The client's dispatcher: one task owns all postings, grants tickets, and tells each future's owner what happens.
//!
//! It talks to the board through a [`Link`] and to workers through [`Transfer`]; what to say when is decided by
//! [`crate::proto::posting`]. It does not look into futures or results.

pub mod host;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
    time::sleep,
};

use crate::{
    board::{BoardEvent, Link},
    clock,
    ids::{FutureId, NodeId, PeerName},
    proto::{
        message::Message,
        posting::{Action, Event, Postings},
        refusal::Payload,
    },
    sandbox::Provenance,
    spool::Spooled,
    transfer::{
        Delivery, DeliveryEvent, Grant, Network, Transfer, TransferConfig, TransferError,
        libp2p::{Listen, Node, NodeConfig},
    },
};

/// How many workers get a future, one after the other, before the client gives up.
pub const DEFAULT_ATTEMPTS: u32 = 4;

/// Events that wait for the owner of one future; progress that finds no room is left out, everything else waits.
const EVENT_QUEUE: usize = 64;

/// What happens to a posted future. The last event is [`ClientEvent::Done`] or [`ClientEvent::Failed`].
#[derive(Debug)]
pub enum ClientEvent {
    /// Its request is on the board.
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
    /// It is being evaluated, under this.
    Running(Provenance),
    /// An immediateCondition of the user's code, as RDS. A stranger's bytes.
    Progress(Vec<u8>),
    /// So many bytes of its result are here.
    Receiving {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The transfer failed for this reason; it is posted again.
    PostedAgain(String),
    /// The result, and under what it came to be.
    Done(Spooled, Provenance),
    /// There will be no result.
    Failed(ClientError),
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
        last: Option<TransferError>,
    },
    /// What was refused once will be refused again.
    #[error("the transfer was refused")]
    Refused(#[source] TransferError),
    /// The link to the board ended for good.
    #[error("the connection to the board ended: {0}")]
    BoardLost(String),
    /// The user withdrew it.
    #[error("withdrawn")]
    Withdrawn,
}

enum Command {
    Post { future: FutureId, payload: Arc<Spooled>, events: mpsc::Sender<ClientEvent> },
    Withdraw(FutureId),
}

/// The transfer of a client: a libp2p node with a key for this once, which listens everywhere on free ports.
///
/// # Errors
/// [`TransferError::Network`].
pub async fn listening_transfer() -> Result<Transfer<Node>, TransferError> {
    let config = NodeConfig { listen: Listen::Everywhere, loopback: true, ..NodeConfig::default() };
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
    /// How the bytes travel.
    pub transfer: Transfer<N>,
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
        let (deliveries, delivered) = mpsc::channel(EVENT_QUEUE);
        let postings = Postings::new(setup.me.clone(), setup.max_attempts);
        let dispatcher = Dispatcher { setup, postings, open: HashMap::new(), deliveries };
        (Self { commands }, tokio::spawn(dispatcher.run(orders, delivered)))
    }

    /// Posts a future; what happens to it comes through the receiver.
    pub async fn post(&self, future: FutureId, payload: Arc<Spooled>) -> mpsc::Receiver<ClientEvent> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        // When the dispatcher is gone, the receiver ends at once.
        let _ = self.commands.send(Command::Post { future, payload, events }).await;
        receiver
    }

    /// Takes a future back, wherever it is: its worker stops it.
    pub async fn withdraw(&self, future: FutureId) {
        let _ = self.commands.send(Command::Withdraw(future)).await;
    }
}

/// A future that has no result yet.
struct Open {
    payload: Arc<Spooled>,
    events: mpsc::Sender<ClientEvent>,
    delivery: Option<AbortHandle>,
    last_error: Option<TransferError>,
}

impl Drop for Open {
    /// Ends the forwarding task and with it the delivery, which cancels on its stream and revokes its ticket.
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            delivery.abort();
        }
    }
}

struct Dispatcher<N: Network> {
    setup: Setup<N>,
    postings: Postings,
    open: HashMap<FutureId, Open>,
    deliveries: mpsc::Sender<(FutureId, DeliveryEvent)>,
}

impl<N: Network> Dispatcher<N> {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Command>,
        mut delivered: mpsc::Receiver<(FutureId, DeliveryEvent)>,
    ) {
        let mut lost = "it was closed".to_owned();
        loop {
            let wakeup = self.postings.next_wakeup().map(|at| at - clock::now());
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => break,
                },
                event = self.setup.link.incoming.recv() => match event {
                    Some(BoardEvent::Joined) => self.step(Event::Joined).await,
                    Some(BoardEvent::Line(line)) => self.step(Event::Line(line)).await,
                    Some(BoardEvent::Skipped(lines)) => self.step(Event::Skipped(lines)).await,
                    Some(BoardEvent::Lost(reason)) => {
                        lost = reason;
                        self.step(Event::Lost).await;
                    }
                    None => return self.fail_all(&lost),
                },
                Some((future, event)) = delivered.recv() => self.delivered(future, event).await,
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
            Command::Post { future, payload, events } => {
                let size = payload.size();
                self.open.insert(future.clone(), Open { payload, events, delivery: None, last_error: None });
                self.step(Event::Post(future, size)).await;
            }
            Command::Withdraw(future) => self.withdraw(future).await,
        }
    }

    async fn withdraw(&mut self, future: FutureId) {
        self.tell(&future, ClientEvent::Failed(ClientError::Withdrawn));
        self.open.remove(&future);
        self.step(Event::Withdraw(future)).await;
    }

    fn fail_all(&mut self, reason: &str) {
        for (_, open) in self.open.drain() {
            let _ = open.events.try_send(ClientEvent::Failed(ClientError::BoardLost(reason.to_owned())));
        }
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
                let posted = match &message {
                    Message::Request { future, .. } => Some(future.clone()),
                    _ => None,
                };
                let line = message.to_line(&clock::local_time(), expires);
                // A link that ended says so on its other half.
                let _ = self.setup.link.outgoing.send(line).await;
                if let Some(future) = posted {
                    self.tell(&future, ClientEvent::Posted);
                }
            }
            Action::Grant { future, worker, node } => self.grant(future, worker, node).await,
            Action::GaveUp { future, attempts } => {
                if let Some(mut open) = self.open.remove(&future) {
                    let last = open.last_error.take();
                    let _ = open.events.try_send(ClientEvent::Failed(ClientError::GaveUp { attempts, last }));
                }
            }
        }
    }

    async fn grant(&mut self, future: FutureId, worker: PeerName, node: NodeId) {
        let Some(open) = self.open.get_mut(&future) else { return };
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
        let forward = forward(future.clone(), delivery, self.deliveries.clone());
        open.delivery = Some(tokio::spawn(forward).abort_handle());
        self.tell(&future, ClientEvent::Accepted(worker.clone()));
        let network = self.setup.transfer.network();
        let (me, at) = (network.id().clone(), network.addresses());
        let accept = self.postings.accept(future, worker, me, ticket, at, clock::now());
        if let Action::Say(message, expires) = accept {
            let _ = self.setup.link.outgoing.send(message.to_line(&clock::local_time(), expires)).await;
        }
    }

    async fn delivered(&mut self, future: FutureId, event: DeliveryEvent) {
        let told = match event {
            DeliveryEvent::Connected | DeliveryEvent::Disconnected(_) | DeliveryEvent::Sent => return,
            DeliveryEvent::Sending { bytes, total } => ClientEvent::Sending { bytes, total },
            DeliveryEvent::Begun(provenance) => ClientEvent::Running(provenance),
            DeliveryEvent::Progress(condition) => ClientEvent::Progress(condition),
            DeliveryEvent::Receiving { bytes, total } => ClientEvent::Receiving { bytes, total },
            DeliveryEvent::Done { result, provenance } => {
                self.tell(&future, ClientEvent::Done(result, provenance));
                self.open.remove(&future);
                return self.step(Event::Done(future)).await;
            }
            DeliveryEvent::Failed(error) => return self.transfer_failed(future, error).await,
        };
        self.tell(&future, told);
    }

    async fn transfer_failed(&mut self, future: FutureId, error: TransferError) {
        if is_final(&error) {
            self.tell(&future, ClientEvent::Failed(ClientError::Refused(error)));
            self.open.remove(&future);
            return self.step(Event::Withdraw(future)).await;
        }
        tracing::info!(%future, %error, "the transfer failed; posting again");
        self.tell(&future, ClientEvent::PostedAgain(error.to_string()));
        let came = !matches!(error, TransferError::NobodyCame { .. });
        if let Some(open) = self.open.get_mut(&future) {
            open.delivery = None;
            open.last_error = Some(error);
        }
        self.step(Event::Failed { future, came }).await;
    }

    /// Tells a future's owner. One who does not listen loses progress, never the end: the last place in the queue is
    /// kept for it, so that nobody's silence holds up the others.
    fn tell(&mut self, future: &FutureId, event: ClientEvent) {
        let Some(open) = self.open.get(future) else { return };
        let is_end = matches!(event, ClientEvent::Done(..) | ClientEvent::Failed(_));
        if is_end || open.events.capacity() > 1 {
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

async fn forward(future: FutureId, mut delivery: Delivery, to: mpsc::Sender<(FutureId, DeliveryEvent)>) {
    while let Some(event) = delivery.events.recv().await {
        if to.send((future.clone(), event)).await.is_err() {
            return;
        }
    }
}
