//! A session of `client --stdio` over pipes and a board in memory: many futures, a reader who sleeps, a board that goes.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use p2p_worker::{
    board::{Board, hub::Hub as BoardHub, memory::MemoryBoard},
    client::{
        Client, DEFAULT_ATTEMPTS, Setup,
        stdio::{Connected, End, Members, NoBoard, Record, SessionError, Settings, serve},
    },
    ids::Topic,
    transfer::{Transfer, TransferConfig, memory::Hub},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, duplex},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::board_support::soon;

struct Session {
    folder: TempDir,
    orders: DuplexStream,
    events: Lines<BufReader<DuplexStream>>,
    ended: JoinHandle<Result<End, SessionError>>,
    stop: CancellationToken,
}

impl Session {
    /// A session that has shaken hands, on a board without workers; or whose board cannot be had.
    async fn new(board: Result<(), NoBoard>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let settings = Settings {
            folder: folder.path().to_owned(),
            max_future: 1000,
            max_result: 1 << 20,
            board: "memory".to_owned(),
            cluster: None,
            attempts: DEFAULT_ATTEMPTS,
        };
        // Small pipes, as if a process were at the other end that does not read.
        let ((orders, input), (output, events)) = (duplex(4096), duplex(4096));
        let (members, stop) = (Members::default(), CancellationToken::new());
        let connect = connect(board, folder.path().to_owned(), members.clone());
        let ended = tokio::spawn(serve(settings, input, output, stop.clone(), members, connect));
        let events = BufReader::new(events).lines();
        let mut session = Self { folder, orders, events, ended, stop };
        session.say("hello\tprotocol=2").await;
        assert_eq!(session.next().await.unwrap().kind, "hello");
        session
    }

    async fn say(&mut self, line: &str) {
        soon("an order is taken", self.orders.write_all(format!("{line}\n").as_bytes())).await.unwrap();
    }

    async fn next(&mut self) -> Option<Record> {
        let line = soon("an event", self.events.next_line()).await.unwrap_or_default()?;
        Some(Record::read(line.as_bytes()).unwrap())
    }

    async fn wait(&mut self, kind: &str) -> Record {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the end, before {kind}"));
            if event.kind == kind {
                return event;
            }
        }
    }

    async fn post(&mut self, number: usize) {
        // What is announced and what is not make no difference here.
        if number.is_multiple_of(3) {
            self.say(&format!("writing\tfile=in{number}")).await;
        }
        fs::write(self.folder.path().join(format!("in{number}")), "a future").unwrap();
        self.say(&format!("post\tfuture=f-{number}\tfile=in{number}")).await;
    }

    /// What comes until the end: the futures that failed, by class.
    async fn rest(&mut self) -> Vec<(String, String)> {
        let mut failed = Vec::new();
        while let Some(event) = self.next().await {
            if event.kind == "failed" {
                failed.push((event.get("future").unwrap().to_owned(), event.get("class").unwrap().to_owned()));
            }
        }
        failed
    }
}

async fn connect(board: Result<(), NoBoard>, folder: impl AsRef<Path>, members: Members) -> Result<Connected, NoBoard> {
    board?;
    let (hub, network) = (Arc::new(BoardHub::default()), Hub::default());
    let topic: Topic = "friends/future.p2p".parse().unwrap();
    let link = MemoryBoard::new(&hub, "alice".parse().unwrap()).join(&topic).await.unwrap();
    let me: p2p_worker::ids::PeerName = "alice@home:1".parse().unwrap();
    let setup = Setup {
        me: me.clone(),
        link: link.tapped(move |event| members.hear(event)),
        transfer: Some(Transfer::new(Arc::new(network.node("client".parse().unwrap())), TransferConfig::default())),
        wormhole: None,
        spool_directory: folder.as_ref().to_owned(),
        max_result: 1 << 20,
        max_attempts: DEFAULT_ATTEMPTS,
    };
    let (client, dispatcher) = Client::start(setup);
    Ok(Connected { client, dispatcher, me, cluster: "alice/friends".parse().unwrap() })
}

fn files(session: &Session) -> usize {
    fs::read_dir(session.folder.path()).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_futures_wait_in_their_files_and_each_has_one_end() {
    let mut session = Session::new(Ok(())).await;
    let mut failed = BTreeSet::new();
    for number in 0..1000 {
        session.post(number).await;
    }
    session.say("status").await;
    let status = session.wait("status").await;
    assert_eq!(status.get("open"), Some("1000"));
    assert!(files(&session) >= 800, "{}: those that wait hold no descriptor", files(&session));
    for number in (0..1000).step_by(2) {
        session.say(&format!("withdraw\tfuture=f-{number}")).await;
        let event = session.wait("failed").await;
        assert_eq!(event.get("class"), Some("withdrawn"));
        failed.insert(event.get("future").unwrap().to_owned());
    }
    session.say("post\tfuture=f-1\tfile=again").await;
    assert!(session.wait("error").await.get("reason").unwrap().contains("open already"));
    session.orders.shutdown().await.unwrap();
    let rest = session.rest().await;
    assert!(rest.iter().all(|(_, class)| class == "withdrawn"));
    failed.extend(rest.into_iter().map(|(future, _)| future));
    assert_eq!(failed.len(), 1000);
    assert_eq!(soon("the end", &mut session.ended).await.unwrap().unwrap(), End::Left);
    assert_eq!(files(&session), 0, "nothing is left of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_sleeps_loses_no_end() {
    let mut session = Session::new(Ok(())).await;
    for number in 0..300 {
        session.post(number).await;
        session.say(&format!("withdraw\tfuture=f-{number}")).await;
    }
    session.say("ping\tn=1").await;
    let mut ends = BTreeSet::new();
    let mut pong = false;
    while !pong || ends.len() < 300 {
        let event = session.next().await.unwrap();
        match event.kind.as_str() {
            "failed" => assert!(ends.insert(event.get("future").unwrap().to_owned()), "twice"),
            "pong" => pong = true,
            _ => {}
        }
    }
    session.stop.cancel();
    session.rest().await;
    assert_eq!(soon("the end", session.ended).await.unwrap().unwrap(), End::Left);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_never_wakes_does_not_keep_the_program() {
    let mut session = Session::new(Ok(())).await;
    for number in 0..100 {
        session.post(number).await;
    }
    session.orders.shutdown().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), session.ended).await;
    assert_eq!(ended.unwrap().unwrap().unwrap(), End::Left);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_board_everything_fails_with_its_reason() {
    let reason = NoBoard { reason: "no way there".to_owned(), hint: Some("go round".to_owned()) };
    let mut session = Session::new(Err(reason)).await;
    let board = session.wait("board").await;
    assert_eq!((board.get("state"), board.get("reason")), (Some("gone"), Some("no way there")));
    assert_eq!(board.get("hint"), Some("go round"));
    session.rest().await;
    assert_eq!(soon("the end", session.ended).await.unwrap().unwrap(), End::BoardGone);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_not_there_is_no_future() {
    let mut session = Session::new(Ok(())).await;
    fs::write(session.folder.path().join("large"), vec![0; 1001]).unwrap();
    session.say("post\tfuture=f-1\tfile=large").await;
    let failed = session.wait("failed").await;
    assert_eq!((failed.get("class"), failed.get("future")), (Some("too-large"), Some("f-1")));
    session.say("post\tfuture=f-2\tfile=none").await;
    assert_eq!(session.wait("failed").await.get("class"), Some("launch"));
    session.say("post\tfuture=f-3\tfile=none\ttimeout=0.01").await;
    session.wait("failed").await;
    session.stop.cancel();
    assert_eq!(soon("the end", session.ended).await.unwrap().unwrap(), End::Left);
}
