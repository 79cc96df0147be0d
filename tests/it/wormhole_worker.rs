//! A whole worker, with the real sandbox and R, over a board and wormholes in memory; R clients are played by hand.

use std::{path::Path, sync::Arc, time::Duration};

use p2p_worker::{
    board::{Board, BoardEvent, Link, hub::Hub as BoardHub, memory::MemoryBoard},
    clock,
    ids::{ClaimCode, FutureId, PeerName, Topic},
    proto::{
        claim::Settings,
        message::{About, Message, Protocols, Received, Via},
    },
    runner::Workbench,
    sandbox::{Known, Surroundings},
    spool::Spooled,
    supervisor::{self, Routes, Setup, Shutdown, Status, Summary},
    transfer::{Network, Transfer, TransferConfig, memory::Hub},
    wormhole::{Code, Failure, Phase, Wormhole, WormholeError, memory::Mailbox},
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::board_support::soon;

/// How long one side of a wormhole waits for the other where that is what a test is about, and where it is not.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

/// What R clients speak.
const THEIRS: Protocols = Protocols { libp2p: false, wormhole: true };

struct Stage {
    board: Arc<BoardHub>,
    network: Hub,
    mailbox: Mailbox,
    folder: TempDir,
}

struct Worker {
    shutdown: Shutdown,
    status: watch::Receiver<Status>,
    ended: JoinHandle<Summary>,
}

impl Stage {
    fn new(patience: Duration) -> Self {
        let (board, network, folder) = (Arc::new(BoardHub::default()), Hub::default(), tempfile::tempdir().unwrap());
        Self { board, network, mailbox: Mailbox::new(patience), folder }
    }

    async fn join(&self) -> Link {
        let topic: Topic = "friends/future.p2p".parse().unwrap();
        MemoryBoard::new(&self.board, "alice".parse().unwrap()).join(&topic).await.unwrap()
    }

    async fn workbench(&self, profile: &str) -> Workbench {
        let surroundings = Surroundings { home: None, state: Some(self.folder.path().to_owned()) };
        let jail = Some(env!("CARGO_BIN_EXE_p2p-jail").into());
        let known = Known { jail, surroundings, ..Known::default() };
        Workbench::prepare("jail", profile, known).await.unwrap().with_limits(1 << 20, 1 << 30)
    }

    async fn worker(&self, name: &str, slots: usize) -> Worker {
        self.worker_with(name, slots, self.workbench("standard").await).await
    }

    async fn worker_with(&self, name: &str, slots: usize, workbench: Workbench) -> Worker {
        let node = Arc::new(self.network.node(name.parse().unwrap()));
        let libp2p = Transfer::new(node, TransferConfig::default());
        let settings = Settings {
            me: format!("{name}@box:7").parse().unwrap(),
            node: Some(libp2p.network().id().clone()),
            wormhole: true,
            slots,
            max_future: workbench.max_future(),
            about: About::default(),
        };
        let routes = Routes { libp2p: Some(libp2p), wormhole: Some(Arc::new(self.mailbox.clone())) };
        let (sender, mut status) = watch::channel(Status::default());
        let workbench = Arc::new(workbench);
        let setup = Setup { settings, link: self.join().await, routes, workbench, status: sender };
        let shutdown = Shutdown::default();
        let ended = tokio::spawn(supervisor::run(setup, shutdown.clone()));
        soon("the worker", status.wait_for(|status| status.joined)).await.unwrap();
        Worker { shutdown, status, ended }
    }

    async fn client(&self, name: &str) -> Client {
        let (mailbox, folder) = (self.mailbox.clone(), self.folder.path().to_owned());
        Client { name: format!("{name}@vm:1").parse().unwrap(), link: self.join().await, mailbox, folder }
    }

    async fn future(&self, code: &str) -> (FutureId, Arc<Spooled>) {
        self.workbench("standard").await.make(code, &CancellationToken::new()).await.unwrap()
    }

    fn spooled(&self, bytes: &[u8]) -> Spooled {
        Spooled::from_bytes(self.folder.path(), bytes).unwrap()
    }
}

impl Worker {
    async fn has_failed(&mut self, times: u64) {
        let done = |status: &Status| status.running == 0 && status.failed == times;
        soon("an idle worker", self.status.wait_for(done)).await.unwrap();
    }

    async fn is_busy(&mut self) {
        soon("a busy worker", self.status.wait_for(|status| status.running > 0)).await.unwrap();
    }

    async fn leaves(self) -> Summary {
        self.shutdown.drain.cancel();
        soon("the end of the worker", self.ended).await.unwrap()
    }
}

/// An R client, as the protocol page has it.
struct Client {
    name: PeerName,
    link: Link,
    mailbox: Mailbox,
    folder: std::path::PathBuf,
}

impl Client {
    async fn say(&self, message: &Message) {
        let line = message.to_line(&clock::local_time(), clock::now() + Duration::from_secs(60));
        self.link.outgoing.send(line).await.unwrap();
    }

    async fn heard<T>(&mut self, wanted: impl Fn(&Message) -> Option<T>) -> T {
        loop {
            let event = soon("a line", self.link.incoming.recv()).await.unwrap();
            if let BoardEvent::Line(line) = event
                && let Ok(received) = Received::read(&line, clock::now())
                && let Some(found) = wanted(&received.message)
            {
                return found;
            }
        }
    }

    async fn request(&self, future: &FutureId, size: u64) {
        let (from, future) = (self.name.clone(), future.clone());
        self.say(&Message::Request { from, future, size, protocols: THEIRS }).await;
    }

    /// The first worker that offers.
    async fn offer(&mut self, wanted: &FutureId) -> PeerName {
        let me = self.name.clone();
        self.heard(|message| match message {
            Message::Offer { from, to, future, .. } if *to == me && future == wanted => Some(from.clone()),
            _ => None,
        })
        .await
    }

    async fn accept(&self, worker: PeerName, future: &FutureId, code: &ClaimCode) {
        let (from, future, via) = (self.name.clone(), future.clone(), Via::Wormhole { code: code.clone() });
        self.say(&Message::Accept { from, to: worker, future, via, at: Vec::new() }).await;
    }

    /// Request, offer, accept; the code.
    async fn claim(&mut self, future: &FutureId, size: u64) -> ClaimCode {
        self.request(future, size).await;
        let worker = self.offer(future).await;
        let code = format!("0000-{}", &blake3::hash(future.as_str().as_bytes()).to_hex()[..12]).parse().unwrap();
        self.accept(worker, future, &code).await;
        code
    }

    /// Sends to whoever comes. wormhole-william waits for as long as it takes.
    async fn send(&self, code: &ClaimCode, payload: &Spooled) -> Result<(), WormholeError> {
        let (code, never) = (Code::of_future(code), CancellationToken::new());
        let sent = async {
            loop {
                match self.mailbox.send(&code, payload, |_| (), &never).await {
                    Err(error) if is_alone(&error) => {}
                    ended => return ended,
                }
            }
        };
        soon("the future", sent).await
    }

    /// Waits for the line, then for the result.
    async fn result(&mut self, wanted: &FutureId, code: &ClaimCode) -> Vec<u8> {
        let me = self.name.clone();
        let via = self
            .heard(|message| match message {
                Message::Result { to, future, via, .. } if *to == me && future == wanted => Some(via.clone()),
                _ => None,
            })
            .await;
        assert_eq!(via, Via::Wormhole { code: code.clone() });
        let (code, never) = (Code::of_result(code), CancellationToken::new());
        let received = async {
            loop {
                match self.mailbox.receive(&code, 1 << 30, &self.folder, |_| (), &never).await {
                    Err(error) if is_alone(&error) => {}
                    ended => return ended,
                }
            }
        };
        bytes(&soon("the result", received).await.unwrap())
    }

    /// All of it.
    async fn resolve(&mut self, future: &FutureId, payload: &Spooled) -> Vec<u8> {
        let code = self.claim(future, payload.size()).await;
        self.send(&code, payload).await.unwrap();
        self.result(future, &code).await
    }

    async fn withdraw(&self, future: &FutureId) {
        let (from, future) = (self.name.clone(), future.clone());
        self.say(&Message::Withdraw { from, to: None, future }).await;
    }
}

/// Whether nobody came.
fn is_alone(error: &WormholeError) -> bool {
    matches!(error, WormholeError::Failed(Failure::TimedOut { phase: Phase::Peer, .. }))
}

fn bytes(spooled: &Spooled) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut spooled.reader(), &mut bytes).unwrap();
    bytes
}

/// Whether a result, which is not compressed, has these words in it.
fn says(result: &[u8], words: &str) -> bool {
    result.windows(words.len()).any(|part| part == words.as_bytes())
}

fn id(name: &str) -> FutureId {
    name.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_r_client_gets_its_value_and_its_error() {
    let stage = Stage::new(LONG);
    let worker = stage.worker("bob", 1).await;
    let mut client = stage.client("alice").await;
    let (future, payload) = stage.future("paste0('the ', 'value')").await;
    let result = client.resolve(&future, &payload).await;
    assert!(says(&result, "FutureResult") && says(&result, "the value"));
    let (future, payload) = stage.future("stop('no', ' such', ' thing')").await;
    let result = client.resolve(&future, &payload).await;
    assert!(says(&result, "simpleError") && says(&result, "no such thing"));
    let Summary { delivered, failed, .. } = worker.leaves().await;
    assert_eq!((delivered, failed), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_get_what_is_theirs() {
    let stage = Stage::new(LONG);
    let worker = stage.worker("bob", 2).await;
    let mut running = Vec::new();
    for number in 0..5 {
        let mut client = stage.client(&format!("client{number}")).await;
        let (future, payload) = stage.future(&format!("paste0('value of ', {number})")).await;
        running.push(tokio::spawn(async move { client.resolve(&future, &payload).await }));
    }
    for (number, result) in running.into_iter().enumerate() {
        assert!(says(&result.await.unwrap(), &format!("value of {number}")));
    }
    assert_eq!(worker.leaves().await.delivered, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_future_is_answered_with_the_reason() {
    let stage = Stage::new(LONG);
    let worker = stage.worker("bob", 1).await;
    let mut client = stage.client("alice").await;
    let (other, payload) = stage.future("1").await;
    let cut = bytes(&payload)[..200].to_vec();
    let not_a_future =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/value.result.rds")).unwrap();
    for (number, what, words) in [
        (1, &b"hello"[..], "cannot be read as RDS"),
        (2, b"", "nothing arrived"),
        (3, &cut, "cannot be read as RDS"),
        (4, &not_a_future, "not a Future but an object of class 'FutureResult'"),
        (5, &bytes(&payload), other.as_str()),
    ] {
        let future = id(&format!("{:032x}-{number}", 0xabc));
        let result = client.resolve(&future, &stage.spooled(what)).await;
        let told = String::from_utf8_lossy(&result);
        assert!(says(&result, "FutureLaunchError") && says(&result, words), "{words}: {told}");
        assert!(says(&result, &format!("{:032x}", 0xabc)), "the uuid that was announced: {told}");
    }
    // The positive control: that future by its own name.
    assert!(!says(&client.resolve(&other, &payload).await, "FutureLaunchError"));
    // More than is taken, although less was announced.
    let large = stage.spooled(&vec![7; (1 << 20) + 1]);
    let code = client.claim(&id("f-3"), 100).await;
    assert!(client.send(&code, &large).await.is_err());
    let result = client.result(&id("f-3"), &code).await;
    assert!(says(&result, "1048577 bytes, over the limit of 1048576"), "{}", String::from_utf8_lossy(&result));
    let Summary { delivered, failed, .. } = worker.leaves().await;
    assert_eq!((delivered, failed), (6, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_told_and_the_slot_is_free() {
    let stage = Stage::new(SHORT);
    let mut worker = stage.worker("bob", 1).await;
    let mut silent = stage.client("silent").await;
    let code = silent.claim(&id("f-1"), 100).await;
    let result = silent.result(&id("f-1"), &code).await;
    assert!(says(&result, "FutureLaunchError") && says(&result, "nobody came with this code"));
    // One that does not come for the answer either.
    silent.claim(&id("f-2"), 100).await;
    worker.has_failed(2).await;
    let Summary { delivered, failed, .. } = worker.leaves().await;
    assert_eq!((delivered, failed), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_come_for_its_result_holds_the_slot_for_a_bounded_time() {
    let stage = Stage::new(SHORT);
    let mut worker = stage.worker("bob", 1).await;
    let mut client = stage.client("alice").await;
    let (future, payload) = stage.future("1").await;
    let code = client.claim(&future, payload.size()).await;
    client.send(&code, &payload).await.unwrap();
    worker.has_failed(1).await;
    let (next, payload) = stage.future("'next'").await;
    assert!(says(&client.resolve(&next, &payload).await, "next"));
    let Summary { delivered, failed, .. } = worker.leaves().await;
    assert_eq!((delivered, failed), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawn_in_any_order_it_is_stopped_and_the_slot_is_free_at_once() {
    let stage = Stage::new(LONG);
    let mut worker = stage.worker("bob", 1).await;
    let mut client = stage.client("alice").await;
    let (next, payload_of_next) = stage.future("'next'").await;

    // Between offer and accept.
    client.request(&id("f-1"), 10).await;
    client.offer(&id("f-1")).await;
    client.withdraw(&id("f-1")).await;
    assert!(says(&client.resolve(&next, &payload_of_next).await, "next"));

    // While the future is on its way: nobody ever sends it. The answer waits for whoever wants it.
    let downloading = client.claim(&id("f-2"), 10).await;
    worker.is_busy().await;
    client.withdraw(&id("f-2")).await;
    client.withdraw(&id("f-2")).await;
    let result = client.result(&id("f-2"), &downloading).await;
    assert!(says(&result, "FutureInterruptError") && says(&result, "the future was cancelled"));

    // While it runs. A stranger's withdraw stops nothing.
    let marker = std::process::id() % 1000 + 660_000;
    let (endless, payload) = stage.future(&format!("system('sleep {marker}')")).await;
    let running = client.claim(&endless, payload.size()).await;
    client.send(&running, &payload).await.unwrap();
    sleeps(marker, true).await;
    stage.client("mallory").await.withdraw(&endless).await;
    client.withdraw(&id("f-3")).await;
    client.request(&next, payload_of_next.size()).await;
    assert_eq!(worker.status.borrow().running, 1);
    client.withdraw(&endless).await;
    // The next one is offered on while the answer to the last one waits.
    client.offer(&next).await;
    client.withdraw(&next).await;
    sleeps(marker, false).await;
    let result = client.result(&endless, &running).await;
    assert!(says(&result, "FutureInterruptError"), "{}", String::from_utf8_lossy(&result));

    // While the result is on its way.
    let (done, payload) = stage.future("1").await;
    let uploading = client.claim(&done, payload.size()).await;
    client.send(&uploading, &payload).await.unwrap();
    client.heard(|message| matches!(message, Message::Result { future, .. } if *future == done).then_some(())).await;
    client.withdraw(&done).await;
    worker.has_failed(3).await;
    assert!(says(&client.resolve(&next, &payload_of_next).await, "next"));
    let Summary { delivered, failed, .. } = worker.leaves().await;
    assert_eq!((delivered, failed), (2, 3));
}

/// Waits until a program with this number as its argument runs, or does not.
async fn sleeps(marker: u32, wanted: bool) {
    let is = || {
        let mut programs = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
        programs.any(|line| line.split(|byte| *byte == 0).any(|text| text == marker.to_string().as_bytes()))
    };
    let wait = async {
        while is() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the task's program", wait).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_accepts_first_in_anothers_name_does_not_keep_it_from_its_result() {
    let stage = Stage::new(SHORT);
    let worker = stage.worker("bob", 1).await;
    let mut client = stage.client("alice").await;
    let (future, payload) = stage.future("'the true one'").await;
    client.request(&future, payload.size()).await;
    let offered = client.offer(&future).await;
    let forged: ClaimCode = "6666-aaaaaaaaaaaa".parse().unwrap();
    client.accept(offered.clone(), &future, &forged).await;
    let code: ClaimCode = "0007-bbbbbbbbbbbb".parse().unwrap();
    client.accept(offered, &future, &code).await;
    client.send(&code, &payload).await.unwrap();
    let me = client.name.clone();
    let announced = |message: &Message| {
        matches!(message, Message::Result { to, via: Via::Wormhole { code }, .. } if *to == me && code.as_str().starts_with("6666")).then_some(())
    };
    client.heard(announced).await;
    assert!(says(&client.result(&future, &code).await, "the true one"));
    let Summary { delivered, failed, .. } = worker.leaves().await;
    assert_eq!((delivered, failed), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_says_so() {
    let stage = Stage::new(LONG);
    let mut worker = stage.worker("bob", 2).await;
    let (mut client, mut slow) = (stage.client("alice").await, stage.client("slow").await);
    let (endless, payload) = stage.future("repeat {}").await;
    let running = client.claim(&endless, payload.size()).await;
    client.send(&running, &payload).await.unwrap();
    let downloading = slow.claim(&id("f-1"), 10).await;
    soon("two claims", worker.status.wait_for(|status| status.running == 2)).await.unwrap();
    worker.shutdown.stop.cancel();
    let first = slow.result(&id("f-1"), &downloading).await;
    assert!(says(&first, "the worker is being stopped by its owner"));
    let second = client.result(&endless, &running).await;
    assert!(says(&second, "the worker is being stopped by its owner") && says(&second, "FutureInterruptError"));
    assert_eq!(soon("the end of the worker", worker.ended).await.unwrap().failed, 2);
}

/// R workers offer at once and without regard to others; each future has one worker all the same, and the R worker gets some.
#[tokio::test(flavor = "multi_thread")]
async fn ours_and_an_r_worker_share_the_futures_and_none_runs_twice() {
    const FUTURES: usize = 8;
    let stage = Stage::new(LONG);
    let workers = [stage.worker("bob", 1).await, stage.worker("carl", 1).await];
    let r_worker = stage.client("rworker").await;
    let playing = tokio::spawn(play_r_worker(r_worker));
    let mut futures = Vec::new();
    for number in 0..FUTURES {
        futures.push(stage.future(&format!("paste0('ours ', {number})")).await);
    }
    // All at once, or ours, which are faster, would have them all.
    let mut clients = Vec::new();
    for (number, (future, payload)) in futures.into_iter().enumerate() {
        let mut client = stage.client(&format!("client{number}")).await;
        clients.push(tokio::spawn(async move { client.resolve(&future, &payload).await }));
    }
    let (mut ours, mut theirs) = (0, 0);
    for (number, result) in clients.into_iter().enumerate() {
        let result = result.await.unwrap();
        let is_ours = says(&result, &format!("ours {number}"));
        assert!(is_ours != (result == b"of an R worker"), "{number}");
        (ours, theirs) = (ours + u64::from(is_ours), theirs + u64::from(!is_ours));
    }
    playing.abort();
    let mut delivered = 0;
    for worker in workers {
        let summary = worker.leaves().await;
        delivered += summary.delivered;
        assert_eq!(summary.failed, 0);
    }
    assert_eq!(delivered, ours, "each that is ours ran once");
    assert!(theirs > 0 && ours > 0, "{ours} ours, {theirs} theirs");
}

/// Offers on every request at once when it is idle; takes a line every 10 ms.
async fn play_r_worker(mut me: Client) {
    let mut open = std::collections::VecDeque::new();
    let mut offered = None;
    loop {
        let message = me.heard(|message| Some(message.clone())).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        match message {
            Message::Request { from, future, .. } => open.push_back((from, future)),
            Message::Accept { from, to, future, via: Via::Wormhole { code }, .. } => {
                open.retain(|one| *one != (from.clone(), future.clone()));
                if to == me.name {
                    let (of_future, of_result) = (Code::of_future(&code), Code::of_result(&code));
                    let never = CancellationToken::new();
                    me.mailbox.receive(&of_future, 1 << 30, &me.folder, |_| (), &never).await.unwrap();
                    let result = Spooled::from_bytes(&me.folder, b"of an R worker").unwrap();
                    let via = Via::Wormhole { code };
                    me.say(&Message::Result { from: me.name.clone(), to: from, future, via }).await;
                    me.mailbox.send(&of_result, &result, |_| (), &never).await.unwrap();
                }
            }
            _ => {}
        }
        let oldest = open.front().cloned();
        if let Some((to, future)) = oldest.clone().filter(|_| oldest != offered) {
            me.say(&Message::Offer { from: me.name.clone(), to, future, protocols: THEIRS, peer: None }).await;
            offered = oldest;
        }
    }
}
