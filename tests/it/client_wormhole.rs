//! The client and workers that speak only wormhole, over a board and wormholes in memory: played by hand, line by line, as
//! those of future.p2p do it, and as strangers would.

use std::{sync::Arc, time::Duration};

use p2p_worker::{
    board::{BoardEvent, LINK_QUEUE, Link, hub::Hub as BoardHub},
    client::{Client, ClientError, ClientEvent, Setup, WayError, Wormholes},
    clock,
    ids::{FutureId, PeerName},
    proto::message::{Message, Received, Via},
    spool::Spooled,
    transfer::memory::Hub,
    wormhole::{Failure, Wormhole, WormholeError, memory::Mailbox},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    board_support::{LONG, soon},
    client::{join, transfer, wait_for},
};

struct Stage {
    board: Arc<BoardHub>,
    mailbox: Mailbox,
    folder: TempDir,
    client: Client,
    dispatcher: JoinHandle<()>,
    /// What the client hears of the board besides what is said there.
    events: mpsc::Sender<BoardEvent>,
}

impl Stage {
    async fn new(only: bool) -> Self {
        Self::with_patience(only, LONG).await
    }

    /// A client that waits so long for the other side of a code.
    async fn with_patience(only: bool, patience: Duration) -> Self {
        let (board, folder) = (Arc::new(BoardHub::default()), tempfile::tempdir().unwrap());
        let (network, mailbox) = (Hub::default(), Mailbox::new(patience));
        let wormholes = Wormholes::new(mailbox.clone());
        let (events, incoming) = mpsc::channel(LINK_QUEUE);
        let mut link = join(&board).await;
        let board_says = std::mem::replace(&mut link.incoming, incoming);
        tokio::spawn(pass_on(board_says, events.clone()));
        let setup = Setup {
            me: "alice@home:1".parse().unwrap(),
            link,
            transfer: (!only).then(|| transfer(&network, "client")),
            wormhole: Some(wormholes),
            spool_directory: folder.path().to_owned(),
            max_result: 100,
            max_attempts: 2,
        };
        let (client, dispatcher) = Client::start(setup);
        Self { board, mailbox, folder, client, dispatcher, events }
    }

    async fn worker(&self, name: &str) -> Worker {
        let name: PeerName = format!("{name}@away:1").parse().unwrap();
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        Worker { name, link: join(&self.board).await, mailbox: self.mailbox.clone(), folder }
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

async fn pass_on(mut from: mpsc::Receiver<BoardEvent>, to: mpsc::Sender<BoardEvent>) {
    loop {
        let event = tokio::select! {
            event = from.recv() => event,
            () = to.closed() => return,
        };
        let Some(event) = event else { return };
        let _ = to.send(event).await;
    }
}

fn id(name: &str) -> FutureId {
    name.parse().unwrap()
}

/// A worker of future.p2p that does what the test says.
struct Worker {
    name: PeerName,
    link: Link,
    mailbox: Mailbox,
    folder: TempDir,
}

impl Worker {
    async fn next(&mut self) -> Message {
        loop {
            let BoardEvent::Line(line) = soon("a line", self.link.incoming.recv()).await.unwrap() else { continue };
            if let Ok(received) = Received::read(&line, clock::now()) {
                return received.message;
            }
        }
    }

    async fn say(&self, rest: &str) {
        let until = clock::now().unix_seconds() + 60;
        let line = format!("when=x,expires={until},{rest}");
        self.link.outgoing.send(line).await.unwrap();
    }

    async fn offer(&self, future: &str) {
        let name = &self.name;
        self.say(&format!("type=offer,from={name},to=alice@home:1,future={future},protocols=wormhole")).await;
    }

    /// Waits for the request, offers, and waits for the accept: its code.
    async fn claim(&mut self, future: &str) -> String {
        loop {
            match self.next().await {
                Message::Request { future: wanted, .. } if wanted == id(future) => self.offer(future).await,
                Message::Accept { to, future: given, via: Via::Wormhole { code }, at, .. } if to == self.name => {
                    assert_eq!((given, at.len()), (id(future), 0));
                    return code.to_string();
                }
                _ => {}
            }
        }
    }

    async fn receive(&self, code: &str) -> Result<Spooled, WormholeError> {
        let code = format!("{code}-f").parse().unwrap();
        let (folder, cancel) = (self.folder.path(), CancellationToken::new());
        soon("the future", Wormhole::receive(&self.mailbox, &code, 100, folder, |_| (), &cancel)).await
    }

    async fn announce(&self, future: &str, code: &str) {
        let name = &self.name;
        self.say(&format!("type=result,from={name},to=alice@home:1,future={future},via=wormhole://{code}")).await;
    }

    async fn send(&self, code: &str, result: &[u8]) -> Result<(), WormholeError> {
        let code = format!("{code}-r").parse().unwrap();
        let result = Spooled::from_bytes(self.folder.path(), result).unwrap();
        soon("the result's way", Wormhole::send(&self.mailbox, &code, &result, |_| (), &CancellationToken::new())).await
    }

    /// From the request to the result.
    async fn resolve(&mut self, future: &str, result: &[u8]) {
        let code = self.claim(future).await;
        assert_eq!(self.receive(&code).await.unwrap().size(), 8);
        self.announce(future, &code).await;
        self.send(&code, result).await.unwrap();
    }
}

/// The size of the result, which comes from nobody knows what.
async fn result(events: &mut mpsc::Receiver<ClientEvent>) -> u64 {
    let size = wait_for(events, |event| match event {
        ClientEvent::Done(result, provenance) => {
            assert!(provenance.is_unknown());
            Some(result.size())
        }
        _ => None,
    });
    let size = size.await;
    assert!(soon("the end", events.recv()).await.is_none(), "one result and no more");
    size
}

async fn failure(events: &mut mpsc::Receiver<ClientEvent>) -> ClientError {
    loop {
        match soon("an event", events.recv()).await.unwrap() {
            ClientEvent::Failed(error) => return error,
            ClientEvent::Done(..) => panic!("a result"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_speaks_only_wormhole_resolves_futures() {
    for only in [false, true] {
        let stage = Stage::new(only).await;
        let mut worker = stage.worker("r").await;
        for number in 1..=3 {
            let future = format!("f-{number}");
            let mut events = stage.post(&future).await;
            let code = worker.claim(&future).await;
            let (plate, secret) = code.split_once('-').unwrap();
            assert!(plate.len() == 4 && plate.bytes().all(|byte| byte.is_ascii_digit()), "{code}");
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            assert!(secret.len() == 12 && secret.bytes().all(hex), "{code}");
            wait_for(&mut events, |event| matches!(event, ClientEvent::Accepted(_)).then_some(())).await;
            worker.receive(&code).await.unwrap();
            let running = wait_for(&mut events, |event| match event {
                ClientEvent::Running(provenance) => Some(provenance.clone()),
                _ => None,
            });
            assert!(running.await.is_unknown());
            worker.announce(&future, &code).await;
            worker.send(&code, b"result").await.unwrap();
            assert_eq!(result(&mut events).await, 6);
        }
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_accepted_announces_in_vain() {
    let stage = Stage::with_patience(true, Duration::from_secs(2)).await;
    let (mut worker, stranger) = (stage.worker("r").await, stage.worker("mallory").await);
    let mut events = stage.post("f-1").await;
    let code = worker.claim("f-1").await;
    worker.receive(&code).await.unwrap();
    stranger.announce("f-1", &code).await;
    let sent = stranger.send(&code, b"forged").await;
    assert!(sent.is_err(), "nobody takes it");
    // A line of another's name is one of anybody's.
    let forger = Worker { name: worker.name.clone(), ..stranger };
    forger.announce("f-1", &code).await;
    // Nobody comes: the future is posted again, and still is the worker's if it is the faster one.
    wait_for(&mut events, |event| matches!(event, ClientEvent::Doubted(_)).then_some(())).await;
    worker.announce("f-1", &code).await;
    worker.send(&code, b"result").await.unwrap();
    wait_for(&mut events, |event| matches!(event, ClientEvent::Returned(_)).then_some(())).await;
    assert_eq!(result(&mut events).await, 6);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_result_that_does_not_come_goes_to_the_next_worker() {
    let stage = Stage::with_patience(true, Duration::from_secs(2)).await;
    let mut dead = stage.worker("dead").await;
    let mut events = stage.post("f-1").await;
    let code = dead.claim("f-1").await;
    dead.receive(&code).await.unwrap();
    dead.announce("f-1", &code).await;
    wait_for(&mut events, |event| matches!(event, ClientEvent::Doubted(_)).then_some(())).await;
    let mut next = stage.worker("next").await;
    next.resolve("f-1", b"from the next").await;
    assert_eq!(result(&mut events).await, 13);
    let late = dead.send(&code, b"late").await;
    assert!(late.is_err(), "the code is void");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_come_is_replaced_and_two_that_fail_are_enough() {
    let stage = Stage::with_patience(true, Duration::from_secs(1)).await;
    let mut late = stage.worker("late").await;
    let mut events = stage.post("f-1").await;
    late.claim("f-1").await;
    let why = wait_for(&mut events, |event| match event {
        ClientEvent::PostedAgain(reason) => Some(reason.clone()),
        _ => None,
    });
    let why = why.await;
    assert!(why.contains("nobody came"), "{why}");
    // Offers of the same worker are passed over for a while; those of others are not. These come and do not take it all.
    for name in ["one", "two"] {
        let mut worker = stage.worker(name).await;
        let code = worker.claim("f-1").await;
        let small = format!("{code}-f").parse().unwrap();
        let folder = worker.folder.path();
        let refused = Wormhole::receive(&worker.mailbox, &small, 1, folder, |_| (), &CancellationToken::new()).await;
        assert!(refused.is_err());
    }
    let end = failure(&mut events).await;
    stage.end().await;
    assert!(matches!(end, ClientError::GaveUp { last: Some(WayError::Wormhole(_)), .. }), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_over_the_limit_is_refused_for_good() {
    let stage = Stage::new(true).await;
    let mut worker = stage.worker("r").await;
    let mut events = stage.post("f-1").await;
    let code = worker.claim("f-1").await;
    worker.receive(&code).await.unwrap();
    worker.announce("f-1", &code).await;
    assert!(worker.send(&code, &[0; 101]).await.is_err());
    let end = failure(&mut events).await;
    let too_large = Failure::TooLarge { size: 101, limit: 100 };
    let same =
        matches!(&end, ClientError::Refused(WayError::Wormhole(WormholeError::Failed(why))) if *why == too_large);
    assert!(same, "{end:?}");
    loop {
        if let Message::Withdraw { to, .. } = worker.next().await {
            break assert_eq!(to.as_ref(), Some(&worker.name));
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_is_withdrawn_at_every_stage() {
    let stage = Stage::new(true).await;
    let mut worker = stage.worker("r").await;
    for stages in 0..4 {
        let future = format!("f-{stages}");
        let mut events = stage.post(&future).await;
        let mut code = String::new();
        wait_for(&mut events, |event| matches!(event, ClientEvent::Posted).then_some(())).await;
        if stages > 0 {
            code = worker.claim(&future).await;
        }
        if stages > 1 {
            worker.receive(&code).await.unwrap();
            wait_for(&mut events, |event| matches!(event, ClientEvent::Running(_)).then_some(())).await;
        }
        if stages > 2 {
            worker.announce(&future, &code).await;
        }
        stage.client.withdraw(id(&future)).await;
        assert!(matches!(failure(&mut events).await, ClientError::Withdrawn));
        loop {
            if let Message::Withdraw { to, future: gone, .. } = worker.next().await {
                assert_eq!((gone, to.is_some()), (id(&future), stages > 0), "{stages}");
                break;
            }
        }
    }
    // What was withdrawn can be posted anew.
    let mut events = stage.post("f-0").await;
    worker.resolve("f-0", b"result").await;
    assert_eq!(result(&mut events).await, 6);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_was_announced_while_nobody_listened_is_fetched() {
    let stage = Stage::new(true).await;
    let mut worker = stage.worker("r").await;
    let mut events = stage.post("f-1").await;
    let code = worker.claim("f-1").await;
    worker.receive(&code).await.unwrap();
    wait_for(&mut events, |event| matches!(event, ClientEvent::Running(_)).then_some(())).await;
    // Its line did not get through; the client learns that some did not, or that it was away.
    for event in [BoardEvent::Skipped(1), BoardEvent::Joined] {
        stage.events.send(event).await.unwrap();
    }
    worker.send(&code, b"result").await.unwrap();
    assert_eq!(result(&mut events).await, 6);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn among_workers_of_both_kinds_each_future_has_one() {
    let stage = Stage::new(false).await;
    let (one, mut two) = (stage.worker("one").await, stage.worker("two").await);
    let mut first = stage.post("f-1").await;
    // Both offer on the first, when it is posted, one after the other; the first offer is taken.
    while !matches!(two.next().await, Message::Request { .. }) {}
    one.offer("f-1").await;
    while !matches!(two.next().await, Message::Offer { .. }) {}
    two.offer("f-1").await;
    let code = loop {
        if let Message::Accept { to, via: Via::Wormhole { code }, .. } = two.next().await {
            assert_eq!(to, one.name);
            break code.to_string();
        }
    };
    let mut second = stage.post("f-2").await;
    two.resolve("f-2", b"second").await;
    one.receive(&code).await.unwrap();
    one.announce("f-1", &code).await;
    one.send(&code, b"first").await.unwrap();
    assert_eq!((result(&mut first).await, result(&mut second).await), (5, 6));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_result_arrives_unpacked_and_a_damaged_one_comes_from_another() {
    let stage = Stage::new(true).await;
    let mut worker = stage.worker("r").await;
    let mut events = stage.post("f-1").await;
    worker.resolve("f-1", b"\x1f\x8bdamaged").await;
    let again = wait_for(&mut events, |event| match event {
        ClientEvent::PostedAgain(reason) => Some(reason.clone()),
        _ => None,
    });
    let again = again.await;
    assert!(again.contains("cannot be unpacked"), "{again}");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, b"a result of a hundred bytes at most").unwrap();
    let mut next = stage.worker("next").await;
    next.resolve("f-1", &packed.finish().unwrap()).await;
    assert_eq!(result(&mut events).await, 35);

    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &[0; 101]).unwrap();
    let mut events = stage.post("f-2").await;
    next.resolve("f-2", &bomb.finish().unwrap()).await;
    let end = failure(&mut events).await;
    assert!(matches!(end, ClientError::Refused(WayError::Unpack(_))), "{end:?}");
    stage.end().await;
}
