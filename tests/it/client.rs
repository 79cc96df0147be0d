//! The client over a board and a network in memory, with workers that are played by hand.

use std::{sync::Arc, time::Duration};

use p2p_worker::{
    board::{Board, BoardEvent, Link, hub::Hub as BoardHub, memory::MemoryBoard},
    client::{Client, ClientError, ClientEvent, DEFAULT_ATTEMPTS, Setup},
    clock,
    ids::{FutureId, PeerName, Topic},
    proto::message::{Message, Protocols, Received, Via},
    spool::Spooled,
    transfer::{
        Invitation, Network, Transfer, TransferConfig, TransferError,
        memory::{Hub, MemoryNode},
    },
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{board_support::soon, transfer_support::provenance};

const OURS: Protocols = Protocols { libp2p: true, wormhole: false };

struct Stage {
    board: Arc<BoardHub>,
    network: Hub,
    folder: TempDir,
    client: Client,
    dispatcher: JoinHandle<()>,
}

impl Stage {
    async fn new() -> Self {
        let (board, network, folder) = (Arc::new(BoardHub::default()), Hub::default(), tempfile::tempdir().unwrap());
        let setup = Setup {
            me: "alice@home:1".parse().unwrap(),
            link: join(&board).await,
            transfer: Some(transfer(&network, "client")),
            wormhole: None,
            spool_directory: folder.path().to_owned(),
            max_result: 1000,
            max_attempts: DEFAULT_ATTEMPTS,
        };
        let (client, dispatcher) = Client::start(setup);
        Self { board, network, folder, client, dispatcher }
    }

    async fn worker(&self, name: &str) -> Worker {
        let name: PeerName = format!("{name}@away:1").parse().unwrap();
        let transfer = transfer(&self.network, &name.as_str()[..1]);
        let spool_directory = self.folder.path().to_owned();
        Worker { name, link: join(&self.board).await, transfer, spool_directory }
    }

    async fn post(&self, future: &str) -> mpsc::Receiver<ClientEvent> {
        let payload = Spooled::from_bytes(self.folder.path(), b"a future").unwrap();
        self.client.post(id(future), Arc::new(payload)).await
    }

    async fn end(self) {
        drop(self.client);
        soon("the end of the client", self.dispatcher).await.unwrap();
    }
}

pub(crate) async fn join(board: &Arc<BoardHub>) -> Link {
    let topic: Topic = "friends/future.p2p".parse().unwrap();
    MemoryBoard::new(board, "alice".parse().unwrap()).join(&topic).await.unwrap()
}

/// Silence is noticed soon, so that the test is.
pub(crate) fn transfer(network: &Hub, name: &str) -> Transfer<MemoryNode> {
    let config = TransferConfig {
        heartbeat: Duration::from_millis(200),
        silence: Duration::from_secs(2),
        ..TransferConfig::default()
    };
    Transfer::new(Arc::new(network.node(name.parse().unwrap())), config)
}

fn id(name: &str) -> FutureId {
    name.parse().unwrap()
}

/// A worker that does what the test says.
struct Worker {
    name: PeerName,
    link: Link,
    transfer: Transfer<MemoryNode>,
    spool_directory: std::path::PathBuf,
}

impl Worker {
    /// Offers on the next request, and waits until it is accepted.
    async fn claim(&mut self, future: &str) -> Invitation {
        loop {
            let BoardEvent::Line(line) = soon("a line", self.link.incoming.recv()).await.unwrap() else { continue };
            match Received::read(&line, clock::now()).map(|received| received.message) {
                Ok(Message::Request { from, future: wanted, .. }) if wanted == id(future) => {
                    let peer = Some(self.transfer.network().id().clone());
                    let offer =
                        Message::Offer { from: self.name.clone(), to: from, future: wanted, protocols: OURS, peer };
                    let line = offer.to_line("x", clock::now() + Duration::from_secs(60));
                    self.link.outgoing.send(line).await.unwrap();
                }
                Ok(Message::Accept { to, future, via: Via::Libp2p { node, ticket }, at, .. }) if to == self.name => {
                    let spool_directory = self.spool_directory.clone();
                    return Invitation {
                        client: node,
                        addresses: at,
                        ticket,
                        future,
                        max_future: 1000,
                        spool_directory,
                    };
                }
                _ => {}
            }
        }
    }

    async fn resolve(&self, invitation: Invitation, result: &[u8]) -> Result<(), TransferError> {
        let (_, session) = self.transfer.fetch(invitation).await?;
        session.begin(provenance()).await?;
        session.printed("past R\u{7}\n".to_owned()).await?;
        let result = Spooled::from_bytes(&self.spool_directory, result).unwrap();
        session.deliver(&result, provenance()).await
    }
}

/// Waits for an event, passing over others.
pub(crate) async fn wait_for<T>(
    events: &mut mpsc::Receiver<ClientEvent>,
    wanted: impl Fn(&ClientEvent) -> Option<T>,
) -> T {
    loop {
        let event = soon("an event", events.recv()).await.unwrap();
        if let Some(found) = wanted(&event) {
            return found;
        }
        assert!(!matches!(event, ClientEvent::Done(..) | ClientEvent::Failed(_)), "{event:?}");
    }
}

async fn result(events: &mut mpsc::Receiver<ClientEvent>) -> u64 {
    let size = wait_for(events, |event| match event {
        ClientEvent::Done(result, _) => Some(result.size()),
        _ => None,
    });
    let size = size.await;
    assert!(soon("the end", events.recv()).await.is_none(), "one result and no more");
    size
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_never_comes_is_replaced_and_refused_when_it_does() {
    let stage = Stage::new().await;
    let (mut late, mut prompt) = (stage.worker("late").await, stage.worker("prompt").await);
    let mut events = stage.post("f-1").await;
    let stale = late.claim("f-1").await;
    wait_for(&mut events, |event| matches!(event, ClientEvent::Doubted(_)).then_some(())).await;
    let fresh = prompt.claim("f-1").await;
    let refused = late.resolve(stale, b"too late").await;
    assert!(matches!(refused, Err(TransferError::Cancelled)), "{refused:?}");
    prompt.resolve(fresh, b"once").await.unwrap();
    let printed = wait_for(&mut events, |event| match event {
        ClientEvent::Printed(text) => Some(text.clone()),
        _ => None,
    });
    assert_eq!(printed.await, "past R\u{2407}\n");
    assert_eq!(result(&mut events).await, 4);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_workers_future_goes_to_the_next_and_its_result_counts_no_more() {
    let stage = Stage::new().await;
    let (mut silent, mut prompt) = (stage.worker("silent").await, stage.worker("prompt").await);
    let mut events = stage.post("f-1").await;
    let invitation = silent.claim("f-1").await;
    let (_, session) = silent.transfer.fetch(invitation.clone()).await.unwrap();
    // Its process dies with its streams.
    drop((session, silent));
    let again =
        |event: &ClientEvent| matches!(event, ClientEvent::Doubted(_) | ClientEvent::PostedAgain(_)).then_some(());
    wait_for(&mut events, again).await;
    let fresh = prompt.claim("f-1").await;
    let impostor = stage.worker("silent").await;
    let refused = impostor.resolve(invitation, b"too late").await;
    assert!(refused.is_err(), "{refused:?}");
    prompt.resolve(fresh, b"once").await.unwrap();
    assert_eq!(result(&mut events).await, 4);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_is_posted_once_at_a_time() {
    let stage = Stage::new().await;
    let mut first = stage.post("f-1").await;
    let mut second = stage.post("f-1").await;
    let why = soon("an event", second.recv()).await;
    assert!(matches!(why, Some(ClientEvent::Failed(ClientError::Twice))), "{why:?}");
    stage.client.withdraw(id("f-1")).await;
    let failed = |event: &ClientEvent| matches!(event, ClientEvent::Failed(ClientError::Withdrawn)).then_some(());
    wait_for(&mut first, failed).await;
    let mut worker = stage.worker("w").await;
    let mut third = stage.post("f-1").await;
    let invitation = worker.claim("f-1").await;
    worker.resolve(invitation, b"result").await.unwrap();
    assert_eq!(result(&mut third).await, 6);
    stage.end().await;
}
