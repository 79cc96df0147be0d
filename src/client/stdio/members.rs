//! What the board tells beside the futures: whether it is there, and which workers say that they are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::line::Line;
use crate::{
    board::BoardEvent,
    clock::{self, Timestamp},
    ids::PeerName,
    proto::message::{About, Message, Received, Role},
};

/// The most workers that are remembered; names are forgeable, and beyond it the one that was silent longest goes.
const MOST: usize = 256;

/// Whether the board is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BoardState {
    /// Nobody signed in yet.
    Joining,
    /// Lines come and go.
    Joined,
    /// It is being tried again.
    Lost(String),
    /// Never again.
    Gone(String),
}

impl BoardState {
    /// The word for it.
    #[must_use]
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Joined => "joined",
            Self::Lost(_) => "lost",
            Self::Gone(_) => "gone",
        }
    }
}

/// A worker that said something.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Worker {
    seen: Timestamp,
    until: Timestamp,
    about: About,
}

/// What is known of the cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Members {
    workers: Arc<Mutex<BTreeMap<PeerName, Worker>>>,
    state: watch::Sender<BoardState>,
    /// Whether any worker is known.
    any: watch::Sender<bool>,
}

impl Default for Members {
    fn default() -> Self {
        Self { workers: Arc::default(), state: watch::Sender::new(BoardState::Joining), any: watch::Sender::new(false) }
    }
}

impl Members {
    /// What the board is doing, now and from now on.
    #[must_use]
    pub(super) fn state(&self) -> watch::Receiver<BoardState> {
        self.state.subscribe()
    }

    /// Whether any worker is known, now and from now on.
    #[must_use]
    pub(super) fn any(&self) -> watch::Receiver<bool> {
        self.any.subscribe()
    }

    /// Takes what came from the board; `None` when nothing will any more.
    pub fn hear(&self, event: Option<&BoardEvent>) {
        match event {
            Some(BoardEvent::Joined) => drop(self.state.send_replace(BoardState::Joined)),
            Some(BoardEvent::Lost(reason)) => drop(self.state.send_replace(BoardState::Lost(reason.clone()))),
            Some(BoardEvent::Line(line)) => self.hear_line(line, clock::now()),
            Some(BoardEvent::Skipped(_)) => {}
            None => self.state.send_modify(|state| {
                let reason = match state {
                    BoardState::Lost(reason) | BoardState::Gone(reason) => std::mem::take(reason),
                    _ => "the connection was closed".to_owned(),
                };
                *state = BoardState::Gone(reason);
            }),
        }
    }

    /// There never was a board.
    pub(super) fn never_joined(&self, reason: String) {
        self.state.send_replace(BoardState::Gone(reason));
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<PeerName, Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear_line(&self, line: &[u8], now: Timestamp) {
        let Ok(Received { message, expires }) = Received::read(line, now) else { return };
        let until = expires.unwrap_or(now);
        match message {
            Message::Hello { role: Role::Worker, from, about, .. } => {
                let mut workers = self.workers();
                workers.insert(from, Worker { seen: now, until, about });
                forget(&mut workers, now);
            }
            Message::Offer { from, .. } => {
                let mut workers = self.workers();
                let worker = workers.entry(from).or_insert(Worker { seen: now, until, about: About::default() });
                worker.seen = now;
                worker.until = worker.until.max(until);
                forget(&mut workers, now);
            }
            _ => return,
        }
        self.tell_any();
    }

    fn tell_any(&self) {
        let any = !self.workers().is_empty();
        self.any.send_if_modified(|before| std::mem::replace(before, any) != any);
    }

    /// A line for each worker whose word still holds.
    #[must_use]
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut workers = self.workers();
        forget(&mut workers, clock::now());
        let line = |(name, worker): (&PeerName, &Worker)| {
            let About { r, driver, profile } = &worker.about;
            let line = Line::new("worker").with("name", name).with("seen", worker.seen.unix_seconds());
            line.maybe("r", r.as_ref()).maybe("driver", driver.as_ref()).maybe("profile", profile.as_ref())
        };
        let lines = workers.iter().map(line).collect();
        drop(workers);
        self.tell_any();
        lines
    }
}

fn forget(workers: &mut BTreeMap<PeerName, Worker>, now: Timestamp) {
    workers.retain(|_, worker| worker.until > now);
    while workers.len() > MOST {
        let oldest = workers.iter().min_by_key(|(_, worker)| worker.seen).map(|(name, _)| name.clone());
        let Some(oldest) = oldest else { return };
        workers.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(members: &Members, rest: &str) {
        let until = clock::now().unix_seconds() + 600;
        members.hear(Some(&BoardEvent::Line(format!("when=x,expires={until},{rest}").into_bytes())));
    }

    #[test]
    fn workers_are_known_by_what_they_say() {
        let members = Members::default();
        hear(&members, "type=worker,from=a@b:1,protocols=libp2p,r=4.2.2,driver=jail,profile=strict");
        hear(&members, "type=worker,from=old@b:1,protocols=wormhole");
        hear(&members, "type=client,from=c@b:1,protocols=libp2p");
        hear(&members, "type=offer,from=w@b:1,to=c@b:1,future=f,protocols=libp2p,peer=12D3KooWx");
        hear(&members, "type=offer,from=a@b:1,to=c@b:1,future=f,protocols=libp2p,peer=12D3KooWy");
        let lines: Vec<String> = members.lines().iter().map(|line| line.as_str().to_owned()).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("worker\tname=a@b:1\tseen="), "{lines:?}");
        assert!(lines[0].ends_with("\tr=4.2.2\tdriver=jail\tprofile=strict"), "{lines:?}");
        assert!(lines[2].starts_with("worker\tname=w@b:1\tseen="), "{lines:?}");
    }

    #[test]
    fn forged_names_do_not_fill_the_memory() {
        let members = Members::default();
        (0..1000).for_each(|n| hear(&members, &format!("type=worker,from=a@b:{n},protocols=libp2p")));
        assert_eq!(members.lines().len(), MOST);
    }

    #[test]
    fn a_board_that_is_gone_keeps_its_reason() {
        let members = Members::default();
        let state = members.state();
        members.hear(Some(&BoardEvent::Joined));
        assert_eq!(*state.borrow(), BoardState::Joined);
        members.hear(Some(&BoardEvent::Lost("cut".into())));
        members.hear(None);
        assert_eq!(*state.borrow(), BoardState::Gone("cut".into()));
    }
}
