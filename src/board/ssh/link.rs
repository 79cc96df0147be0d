//! One joined topic over SSH, kept up: when the connection breaks, it is made anew.
//!
//! That a topic is joined shows when a line of our own comes back: the *mark*, `joined=` and random digits, which no R peer
//! takes for a message and no client of ours passes on. A link that is left posts another one after its last line and waits
//! for it, so that what was posted is on the board before the connection ends. Reading and writing are two futures that never wait for one
//! another, because the SSH library stops at a full queue in either direction; nor does reading wait for ever for the
//! link's owner, who may be waiting for writing.

use std::{convert::Infallible, fmt::Write, pin::pin, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    SshBoardConfig,
    access::AccessCheck,
    machine::Addresses,
    session::{Answer, Channel, Reading, Said, Session, Writing},
};
use crate::{
    board::{
        BoardError, BoardEvent, LINK_QUEUE, Link, is_postable,
        outlet::{Deaf, Outlet},
    },
    error_chain,
    ids::Topic,
    proto::lines::LineSplitter,
};

/// How long the mark may take to come back.
const MARK_RETURNS: Duration = Duration::from_secs(10);
/// Waiting times between attempts to connect again: from the first to the last, twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LAST_WAIT: Duration = Duration::from_secs(60);
/// The first waiting time when it was this machine whose address changed: others do not come back at the same time.
const WAIT_AFTER_MOVE: Duration = Duration::from_millis(250);
/// A connection that held for this long was a good one: after it, waiting starts from the beginning.
const GOOD: Duration = Duration::from_secs(10);
/// How long the last lines may take to be on the board, and then the end of the connection.
const FAREWELL: Duration = Duration::from_secs(3);
/// How many bytes of lines are sent as one piece.
const BATCH: usize = 16 * 1024;

/// Joins a topic and keeps it up until the link is dropped.
///
/// # Errors
/// [`BoardError`] of the first attempt, which is not repeated.
pub(super) async fn start(config: SshBoardConfig, topic: Topic) -> Result<Link, BoardError> {
    let pipe = Pipe::open(&config, &topic).await?;
    let (events, incoming) = mpsc::channel(LINK_QUEUE);
    let (outgoing, lines) = mpsc::channel(LINK_QUEUE);
    let keeper = Keeper { config, topic, events, lines, addresses: Addresses::watch() };
    let carrier = tokio::spawn(keeper.run(pipe));
    Ok(Link { incoming, outgoing, carrier })
}

/// Keeps a link up.
struct Keeper {
    config: SshBoardConfig,
    topic: Topic,
    events: mpsc::Sender<BoardEvent>,
    lines: mpsc::Receiver<String>,
    /// Of this machine.
    addresses: Addresses,
}

/// Why a connection is of no use any more.
struct Broken {
    reason: String,
    /// This machine has another address now.
    moved: bool,
}

impl From<String> for Broken {
    fn from(reason: String) -> Self {
        Self { reason, moved: false }
    }
}

/// Nobody listens to the link any more, or it cannot be had again.
struct Over;

impl Keeper {
    async fn run(mut self, mut pipe: Pipe) {
        let mut wait = FIRST_WAIT;
        loop {
            let began = Instant::now();
            let Ok(Broken { reason, moved }) = self.carry(pipe).await else { return };
            tracing::warn!(topic = %self.topic, %reason, "the connection to the board broke");
            let told = tokio::select! {
                told = self.events.send(BoardEvent::Lost(reason)) => told,
                never = throw_away(&mut self.lines) => match never {},
            };
            if told.is_err() {
                return;
            }
            if moved {
                wait = WAIT_AFTER_MOVE;
            } else if began.elapsed() >= GOOD {
                wait = FIRST_WAIT;
            }
            pipe = match Box::pin(self.open_again(&mut wait)).await {
                Ok(pipe) => pipe,
                Err(Over) => return,
            };
        }
    }

    /// Tries until it works, and at once when this machine has a new address, throwing away what is posted meanwhile.
    async fn open_again(&mut self, wait: &mut Duration) -> Result<Pipe, Over> {
        let Self { config, topic, events, lines, addresses } = self;
        let attempts = async {
            loop {
                tokio::select! {
                    () = sleep(jittered(*wait)) => {}
                    _ = addresses.new_one() => {
                        *wait = WAIT_AFTER_MOVE;
                        // It may not be of use this instant.
                        sleep(jittered(*wait)).await;
                    }
                }
                *wait = wait.saturating_mul(2).min(LAST_WAIT);
                match Pipe::open(config, topic).await {
                    Ok(pipe) => return Ok(pipe),
                    Err(error) => {
                        let reason = error_chain(&error);
                        tracing::warn!(%topic, %reason, "cannot join again");
                        if error.is_final() {
                            // Nobody is left to tell if this fails.
                            let _ = events.send(BoardEvent::Lost(reason)).await;
                            return Err(Over);
                        }
                    }
                }
            }
        };
        tokio::select! {
            opened = attempts => opened,
            never = throw_away(lines) => match never {},
            () = events.closed() => Err(Over),
        }
    }

    /// Carries lines both ways until the connection breaks, and says why it did.
    async fn carry(&mut self, pipe: Pipe) -> Result<Broken, Over> {
        let Pipe { session, mut read, mut write, splitter, early } = pipe;
        let (events, left, mark, from) = (self.events.clone(), CancellationToken::new(), mark(), session.from());
        let reading = read_lines(&mut read, splitter, early, Outlet::joined(events.clone()));
        // Not dropped before it is done: what it has taken would be lost.
        let mut writing = pin!(write_lines(&mut self.lines, &mut write, &left, &mark));
        let ended = tokio::select! {
            reason = reading => reason.map(Broken::from),
            broke = &mut writing => {
                Ok(broke.map_or_else(|error| error_chain(&error), |()| "the link was left".to_owned()).into())
            }
            address = self.addresses.gone(from) => {
                Ok(Broken { reason: format!("this machine no longer has the address {address}"), moved: true })
            }
            () = events.closed() => Err(Over),
        };
        if ended.is_err() {
            left.cancel();
            // What was posted before the link was left still goes out.
            let last = async { tokio::join!(writing, wait_for_last(&mark, &mut read)) };
            let _ = timeout(FAREWELL, last).await;
            // Best effort: the board learns it anyway when the connection is gone.
            let _ = timeout(FAREWELL, session.close()).await;
        }
        ended
    }
}

/// Throws away what is posted while there is no connection, so that nobody waits for room.
async fn throw_away(lines: &mut mpsc::Receiver<String>) -> Infallible {
    while lines.recv().await.is_some() {}
    std::future::pending().await
}

/// Waits until what was posted last, the mark, is on the board.
async fn wait_for_last(mark: &str, read: &mut Reading) {
    // It may begin in the middle of a line, which cannot be the mark.
    let mut splitter = LineSplitter::new();
    let mut answer = Answer::default();
    // Whatever else ends it has ended it: nobody is left to be told.
    let _ = read_until(mark, read, &mut splitter, &mut answer, |_| ()).await;
}

/// Reads until the mark is back, handing on every other line.
///
/// # Errors
/// What came instead, or that the channel ended.
async fn read_until(
    mark: &str,
    read: &mut Reading,
    splitter: &mut LineSplitter,
    answer: &mut Answer,
    mut line: impl FnMut(&[u8]),
) -> Result<(), Unexpected> {
    let mut is_back = false;
    while !is_back {
        match read.next().await {
            Some(Said::Output(data)) => splitter.push(&data, |found| {
                is_back |= found == mark.as_bytes();
                if !is_mark(found) {
                    line(found);
                }
            }),
            Some(said) if answer.take(&said) => {}
            _ => return Err(Unexpected),
        }
    }
    Ok(())
}

/// The channel ended instead; the [`Answer`] knows why.
struct Unexpected;

async fn read_lines(
    read: &mut Reading,
    mut splitter: LineSplitter,
    early: Vec<Vec<u8>>,
    mut outlet: Outlet,
) -> Result<String, Over> {
    let mut found = early;
    let mut answer = Answer::default();
    loop {
        for line in found.drain(..) {
            outlet.line(line).await.map_err(|Deaf| Over)?;
        }
        outlet.skip(splitter.take_overlong());
        let said = tokio::select! {
            told = outlet.tell(), if outlet.owes() => {
                told.map_err(|Deaf| Over)?;
                continue;
            }
            said = read.next() => said,
        };
        match said {
            Some(Said::Output(data)) => splitter.push(&data, |line| {
                if !is_mark(line) {
                    found.push(line.to_vec());
                }
            }),
            Some(said) if answer.take(&said) => {}
            Some(_) => return Ok(format!("the board closed the topic: {}", answer.complaint())),
            None => return Ok("the connection ended".to_owned()),
        }
    }
}

/// Posts lines until the link is left, and then those that wait and the mark.
///
/// # Errors
/// Whatever broke the connection.
async fn write_lines(
    lines: &mut mpsc::Receiver<String>,
    write: &mut Writing,
    left: &CancellationToken,
    mark: &str,
) -> Result<(), russh::Error> {
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = left.cancelled(), if !lines.is_closed() => {
                lines.close();
                continue;
            }
        };
        match line {
            Some(line) => write.send(batch(line, lines)).await?,
            None => break,
        }
    }
    // Who cannot post any more can still listen.
    left.cancelled().await;
    write.send(format!("{mark}\n").into_bytes()).await
}

/// A line, and those that wait behind it, as one piece.
fn batch(line: String, lines: &mut mpsc::Receiver<String>) -> Vec<u8> {
    let (mut batch, mut next) = (Vec::with_capacity(line.len().saturating_add(1)), Some(line));
    while let Some(line) = next {
        if is_postable(&line) {
            batch.extend_from_slice(line.as_bytes());
            batch.push(b'\n');
        }
        next = if batch.len() < BATCH { lines.try_recv().ok() } else { None };
    }
    batch
}

/// A topic that is joined.
struct Pipe {
    session: Session,
    read: Reading,
    write: Writing,
    splitter: LineSplitter,
    /// What came before the mark did.
    early: Vec<Vec<u8>>,
}

impl Pipe {
    async fn open(config: &SshBoardConfig, topic: &Topic) -> Result<Self, BoardError> {
        let session = Session::open(config, &config.target(&config.address)).await?;
        let access = AccessCheck::before(config, &session, topic).await;
        let command = command(config, topic);
        let Channel { mut read, mut write } = session.channel(&command).await?;
        let (splitter, early) = wait_for_mark(&session, &mut read, &mut write, &command).await?;
        access.after(config, &session).await?;
        Ok(Self { session, read, write, splitter, early })
    }
}

async fn wait_for_mark(
    session: &Session,
    read: &mut Reading,
    write: &mut Writing,
    command: &str,
) -> Result<(LineSplitter, Vec<Vec<u8>>), BoardError> {
    let mark = mark();
    let mut answer = Answer::default();
    let (mut splitter, mut early) = (LineSplitter::new(), Vec::new());
    let patience = session.patience().unwrap_or(MARK_RETURNS);
    let waiting = timeout(patience, async {
        // If it cannot be written, what comes back instead says why.
        let _ = write.send(format!("{mark}\n").into_bytes()).await;
        let keep = |line: &[u8]| {
            if early.len() < LINK_QUEUE {
                early.push(line.to_vec());
            }
        };
        read_until(&mark, read, &mut splitter, &mut answer, keep).await
    });
    match waiting.await {
        Ok(Ok(())) => Ok((splitter, early)),
        Ok(Err(Unexpected)) => Err(session.refused(command, &answer)),
        Err(_) => Err(BoardError::TimedOut {
            host: session.host().to_owned(),
            step: "the topic, on which our own line should come back",
            seconds: patience.as_secs(),
        }),
    }
}

fn command(config: &SshBoardConfig, topic: &Topic) -> String {
    let names: Vec<&str> = config.shares_with.iter().map(|name| name.as_str()).collect();
    let list = if names.is_empty() { String::new() } else { format!(" -a {}", names.join(",")) };
    format!("pipe {topic} -r -c{list}")
}

const MARK: &str = "joined=";

/// Whether a line is a mark, ours or that of another client of the topic.
fn is_mark(line: &[u8]) -> bool {
    let digits = line.strip_prefix(MARK.as_bytes());
    digits.is_some_and(|digits| digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// A line that nobody else posts by chance.
fn mark() -> String {
    let mut text = MARK.to_owned();
    for _ in 0..2 {
        // Writing to a String cannot fail.
        let _ = write!(text, "{:016x}", random());
    }
    text
}

/// Somewhere from half of the time to all of it, so that the clients of a board that was gone do not come back at once.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + 0.5 * f64::from(u16::try_from(random() & 0xffff).unwrap_or_default()) / f64::from(u16::MAX))
}

/// Random bits; a system without any is still served, and notices nothing but equal marks.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}
