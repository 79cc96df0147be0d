//! The loop: orders in, events out.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
    task::{Id, JoinError, JoinHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    failed::{Class, Failed},
    folder::{Folder, FolderError},
    input::Input,
    journey::{Journey, Road, Turn},
    line::Line,
    members::{BoardState, Members},
    orders::{Hello, Order, OrderError, PROTOCOL, Post},
    outbox::Outbox,
};
use crate::{
    client::Client,
    ids::{ClusterName, FutureId, PeerName},
    text,
};

/// How many futures are at the client at a time; the others wait in their files. Each holds a few open files.
const AT_ONCE: usize = 128;

/// How many futures of a session may be open.
const MOST_OPEN: usize = 20_000;

/// How long the end may take: what runs is stopped, and what can still be told is told.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// What a session is for.
#[derive(Debug)]
pub struct Settings {
    /// Where the bytes of futures and results pass through.
    pub folder: PathBuf,
    /// The largest future, in bytes.
    pub max_future: u64,
    /// The largest result, in bytes, unpacked too.
    pub max_result: u64,
    /// The board, as a person would name it.
    pub board: String,
    /// The cluster, if one was named.
    pub cluster: Option<ClusterName>,
    /// How many workers get a future, where its order does not say.
    pub attempts: u32,
}

/// A client that has joined its cluster.
#[derive(Debug)]
pub struct Connected {
    /// The client.
    pub client: Client,
    /// Ends when everything is withdrawn and said.
    pub dispatcher: JoinHandle<()>,
    /// Our name on the board.
    pub me: PeerName,
    /// The cluster.
    pub cluster: ClusterName,
}

/// Why there is no client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoBoard {
    /// What happened.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side is gone, or we were told to go.
    Left,
    /// The board is lost for good.
    BoardGone,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The other side speaks another protocol, or none.
    #[error("{0}")]
    Refused(String),
}

/// Serves one R session over a pair of pipes until its end. `connect` signs in and joins, while orders are taken already.
///
/// # Errors
/// [`SessionError`], which the other side was told already if it listens.
pub async fn serve<C>(
    settings: Settings,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
    stop: CancellationToken,
    members: Members,
    connect: C,
) -> Result<End, SessionError>
where
    C: Future<Output = Result<Connected, NoBoard>> + Send + 'static,
{
    let folder = Arc::new(Folder::open(&settings.folder)?);
    let outbox = Outbox::new(Arc::clone(&folder));
    let writer = tokio::spawn({
        let outbox = outbox.clone();
        async move { outbox.write_to(output).await }
    });
    let mut input = Input::new(input);
    let greeted = tokio::select! {
        greeted = greet(&mut input) => greeted,
        () = stop.cancelled() => Ok(false),
    };
    match greeted {
        Ok(true) => {}
        Ok(false) => return Ok(End::Left),
        Err(reason) => {
            let line = Line::new("refused").with("reason", &reason).with("protocol", PROTOCOL);
            outbox.keep(line.with("version", env!("CARGO_PKG_VERSION")));
            finish(&outbox, writer, LAST_WORDS).await;
            return Err(SessionError::Refused(reason));
        }
    }
    let hello = Line::new("hello").with("protocol", PROTOCOL).with("version", env!("CARGO_PKG_VERSION"));
    outbox.keep(hello.with("folder", folder.path().display()));
    let board = members.state();
    let road = Road {
        folder,
        outbox: outbox.clone(),
        max_future: settings.max_future,
        max_result: settings.max_result,
        attempts: settings.attempts,
        board: board.clone(),
    };
    let session = Session {
        road: Arc::new(road),
        outbox,
        any_worker: members.any(),
        members,
        board,
        settings,
        connected: None,
        hint: None,
        open: HashMap::new(),
        queue: VecDeque::new(),
        going: 0,
        last_posted: None,
        journeys: JoinSet::new(),
        whose: HashMap::new(),
        closing: CancellationToken::new(),
    };
    Ok(session.run(input, writer, stop, connect).await)
}

/// Takes the first line: true if it is a hello that we understand, false if there is none.
async fn greet(input: &mut Input<impl AsyncRead + Unpin>) -> Result<bool, String> {
    let Some(record) = input.next().await else { return Ok(false) };
    let order =
        record.map_err(|error| error.to_string()).and_then(|r| Order::of(&r).map_err(|error| error.to_string()));
    match order {
        Ok(Order::Hello(Hello { protocol: PROTOCOL, package, r })) => {
            tracing::debug!(?package, ?r, "hello");
            Ok(true)
        }
        Ok(Order::Hello(Hello { protocol, package, .. })) => {
            let package = package.map_or_else(String::new, |version| format!(" {version}"));
            Err(format!(
                "the R package{package} speaks protocol {protocol}, this p2p-worker {} protocol {PROTOCOL}: update the older one",
                env!("CARGO_PKG_VERSION")
            ))
        }
        Ok(_) => Err("the first line must be hello".to_owned()),
        Err(error) => Err(format!("the first line must be hello, and is {error}")),
    }
}

/// Lets the writer write what is left, for some time.
async fn finish(outbox: &Outbox, mut writer: JoinHandle<std::io::Result<()>>, within: Duration) {
    outbox.close();
    if timeout(within, &mut writer).await.is_err() {
        writer.abort();
    }
}

/// An open future.
struct Open {
    withdrawn: CancellationToken,
    /// Until it is its turn.
    turn: Option<oneshot::Sender<Turn>>,
}

struct Session {
    road: Arc<Road>,
    outbox: Outbox,
    members: Members,
    board: watch::Receiver<BoardState>,
    any_worker: watch::Receiver<bool>,
    settings: Settings,
    connected: Option<Connected>,
    /// What to do where the board could not be joined.
    hint: Option<String>,
    open: HashMap<FutureId, Open>,
    /// Those that wait for their turn, in the order in which they came.
    queue: VecDeque<FutureId>,
    /// How many have had it and are not at their end.
    going: usize,
    /// Ready when the last one that had its turn is posted.
    last_posted: Option<oneshot::Receiver<()>>,
    journeys: JoinSet<FutureId>,
    whose: HashMap<Id, FutureId>,
    closing: CancellationToken,
}

impl Session {
    async fn run<C>(
        mut self,
        mut input: Input<impl AsyncRead + Unpin>,
        mut writer: JoinHandle<std::io::Result<()>>,
        stop: CancellationToken,
        connect: C,
    ) -> End
    where
        C: Future<Output = Result<Connected, NoBoard>> + Send + 'static,
    {
        let mut connect = pin!(connect);
        let mut connecting = true;
        let outbox = self.outbox.clone();
        let end = loop {
            if self.is_over() {
                break End::BoardGone;
            }
            tokio::select! {
                record = async { outbox.room().await; input.next().await } => match record {
                    Some(record) => self.take(record.map_err(|error| (String::new(), error.to_string()))),
                    None => break End::Left,
                },
                Some(ended) = self.journeys.join_next_with_id() => self.ended(ended),
                connected = &mut connect, if connecting => {
                    connecting = false;
                    self.connected(connected);
                }
                Ok(()) = self.board.changed() => self.board_changed(),
                Ok(()) = self.any_worker.changed() => self.first_worker(),
                // Nobody reads any more.
                _ = &mut writer => break End::Left,
                () = stop.cancelled() => break End::Left,
            }
        };
        self.leave(writer).await;
        end
    }

    /// Whether the board is lost for good and nothing is under way any more.
    fn is_over(&self) -> bool {
        self.open.is_empty()
            && matches!(*self.board.borrow(), BoardState::Gone(_))
            && !self.board.has_changed().unwrap_or(true)
    }

    /// Withdraws everything, tells what there is to tell, and goes; in [`LAST_WORDS`] at most.
    async fn leave(mut self, writer: JoinHandle<std::io::Result<()>>) {
        let until = Instant::now() + LAST_WORDS;
        self.closing.cancel();
        let withdrawn = async { while self.journeys.join_next().await.is_some() {} };
        let _ = tokio::time::timeout_at(until, withdrawn).await;
        self.journeys.abort_all();
        if let Some(Connected { client, dispatcher, .. }) = self.connected.take() {
            drop(client);
            drop(self.open);
            let _ = tokio::time::timeout_at(until, dispatcher).await;
        }
        if !writer.is_finished() {
            finish(&self.outbox, writer, until - Instant::now()).await;
        }
    }

    fn error(&self, order: &str, reason: impl std::fmt::Display) {
        self.outbox.keep(Line::new("error").with("reason", reason).with("order", order));
    }

    fn take(&mut self, record: Result<super::line::Record, (String, String)>) {
        let order = record.and_then(|record| Order::of(&record).map_err(|error| (record.kind, error.to_string())));
        match order {
            Ok(Order::Hello(_)) => self.error("hello", OrderError::HelloTwice),
            Ok(Order::Writing(file)) => self.road.folder.follow(&file),
            Ok(Order::Post(post)) => self.post(post),
            Ok(Order::Withdraw(future)) => {
                if let Some(open) = self.open.get(&future) {
                    open.withdrawn.cancel();
                }
            }
            Ok(Order::Status) => self.status(),
            Ok(Order::Ping(n)) => self.outbox.keep(Line::new("pong").with("n", n)),
            Err((order, reason)) => self.error(&order, reason),
        }
    }

    fn post(&mut self, post: Post) {
        let refused = if self.open.contains_key(&post.future) {
            Some(OrderError::Open)
        } else {
            (self.open.len() >= MOST_OPEN).then_some(OrderError::TooMany)
        };
        if let Some(error) = refused {
            return self.error("post", format!("{}: {error}", post.future));
        }
        let (turn, waits) = oneshot::channel();
        let withdrawn = self.closing.child_token();
        let future = post.future.clone();
        let deadline = post.timeout.map(|patience| Instant::now() + patience);
        let (road, token) = (Arc::clone(&self.road), withdrawn.clone());
        let task = self.journeys.spawn(Journey { road, post, deadline, turn: waits, withdrawn: token }.go());
        self.whose.insert(task.id(), future.clone());
        self.open.insert(future.clone(), Open { withdrawn, turn: Some(turn) });
        self.queue.push_back(future);
        self.let_go();
    }

    /// Gives those their turn that have waited longest.
    fn let_go(&mut self) {
        let Some(Connected { client, .. }) = &self.connected else { return };
        while self.going < AT_ONCE {
            let Some(next) = self.queue.pop_front() else { return };
            let Some(turn) = self.open.get_mut(&next).and_then(|open| open.turn.take()) else { continue };
            let (posted, after) = oneshot::channel();
            let before = self.last_posted.replace(after).unwrap_or_else(|| oneshot::channel().1);
            // One that was withdrawn meanwhile is counted until it has said so.
            let _ = turn.send(Turn { client: client.clone(), before, posted });
            self.going += 1;
        }
    }

    fn ended(&mut self, ended: Result<(Id, FutureId), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(future) = self.whose.remove(&id) else { return };
        let Some(open) = self.open.remove(&future) else { return };
        if let Err(error) = ended {
            self.outbox.keep(Failed::new(Class::Local, &error).line(&future, None));
        }
        if open.turn.is_none() {
            self.going = self.going.saturating_sub(1);
        }
        self.let_go();
    }

    fn connected(&mut self, connected: Result<Connected, NoBoard>) {
        match connected {
            Ok(connected) => {
                tracing::debug!(me = %connected.me, "connected");
                self.connected = Some(connected);
                self.let_go();
            }
            Err(NoBoard { reason, hint }) => {
                self.hint = hint;
                self.members.never_joined(text::for_log(&reason, 1000));
            }
        }
    }

    /// What is known of the board and of us.
    fn about(&self, line: Line) -> Line {
        let cluster = self.connected.as_ref().map(|connected| &connected.cluster).or(self.settings.cluster.as_ref());
        let line = line.with("state", self.board.borrow().word()).with("board", &self.settings.board);
        line.maybe("cluster", cluster).maybe("me", self.connected.as_ref().map(|connected| &connected.me))
    }

    fn board_changed(&mut self) {
        let state = self.board.borrow_and_update().clone();
        let reason = match state {
            BoardState::Joining => return,
            BoardState::Joined => None,
            BoardState::Lost(reason) | BoardState::Gone(reason) => Some(reason),
        };
        let line = self.about(Line::new("board")).maybe("reason", reason.map(|reason| text::for_log(&reason, 1000)));
        self.outbox.keep(line.maybe("hint", self.hint.take()));
    }

    /// Tells of the first worker that was heard, so that nobody has to ask again and again.
    fn first_worker(&mut self) {
        if *self.any_worker.borrow_and_update() {
            self.members.lines().into_iter().for_each(|line| self.outbox.keep(line));
        }
    }

    fn status(&self) {
        let workers = self.members.lines();
        let line = self.about(Line::new("status")).with("open", self.open.len()).with("workers", workers.len());
        let line = line.with("dropped", self.outbox.dropped());
        self.outbox.keep(line);
        workers.into_iter().for_each(|line| self.outbox.keep(line));
    }
}
