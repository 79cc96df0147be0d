//! The worker's dispatcher: one task owns all state; each accepted future is an actor in a slot of its own.
//!
//! What is claimed and when is decided by [`crate::proto::claim`]; how a future is fetched, evaluated and delivered by
//! `slot`. The dispatcher connects them with the board, and ends in good order: on *drain* it offers no more and waits
//! for what runs; on *stop* it stops everything and leaves no process behind.

mod by_wormhole;
mod foresight;
mod session;
mod slot;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{Id, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    board::{BoardEvent, Link},
    clock,
    ids::Address,
    proto::claim::{Action, Claims, Counters, Event, Job, Key, Settings},
    runner::Workbench,
    transfer::{Network, Transfer},
    wormhole::Wormhole,
};
use foresight::Foresight;
use slot::{Slot, SlotEnd};

/// News of slots that wait for the dispatcher.
const NEWS_QUEUE: usize = 64;

/// The most answers that may be on their way without a slot.
const MAX_FAREWELLS: usize = 16;

/// What a worker logs when futures can come.
pub const JOINED: &str = "joined the cluster; waiting for futures";

/// How often [`Status::turns`] grows where nothing happens.
pub const BEAT: Duration = Duration::from_secs(2);

/// What a worker is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether futures can come: it has joined the cluster's topic, and the board is there.
    pub joined: bool,
    /// Whether it is leaving.
    pub leaving: bool,
    /// Futures that are being fetched, evaluated or delivered.
    pub running: usize,
    /// As in [`Summary`].
    pub delivered: u64,
    /// As in [`Summary`].
    pub failed: u64,
    /// Grows each time that the dispatcher has dealt with something, and every [`BEAT`]: one that hangs does not.
    pub turns: u64,
}

/// How bytes travel: by those transfers that there are. The settings must offer the same.
#[derive(Debug)]
pub struct Routes<N: Network, W> {
    /// Ours.
    pub libp2p: Option<Transfer<N>>,
    /// That of R peers.
    pub wormhole: Option<Arc<W>>,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct Setup<N: Network, W> {
    /// Who we are, and how much we take.
    pub settings: Settings,
    /// The cluster's topic.
    pub link: Link,
    /// How the bytes travel.
    pub routes: Routes<N, W>,
    /// Where futures are evaluated.
    pub workbench: Arc<Workbench>,
    /// Where it says what it is doing.
    pub status: watch::Sender<Status>,
}

/// When a worker ends.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Offer no more, finish what runs, leave.
    pub drain: CancellationToken,
    /// Stop what runs, leave at once.
    pub stop: CancellationToken,
}

/// What a worker did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Futures whose result reached their client.
    pub delivered: u64,
    /// Futures that were accepted and could not be fetched or delivered.
    pub failed: u64,
    /// Lines of the board that were passed over, by reason.
    pub ignored: Counters,
    /// Why the board was lost for good, if that is what ended it.
    pub board_lost: Option<String>,
}

/// Runs a worker until it is told to leave or the board is lost for good.
pub async fn run<N: Network, W: Wormhole>(setup: Setup<N, W>, shutdown: Shutdown) -> Summary {
    let slots = setup.settings.slots;
    let (news, heard) = mpsc::channel(NEWS_QUEUE);
    let foresight = Arc::<Foresight>::default();
    setup.routes.libp2p.iter().for_each(|transfer| transfer.gives_way_too(foresight.relief()));
    let dispatcher = Dispatcher {
        claims: Claims::new(setup.settings),
        outgoing: setup.link.outgoing.clone(),
        routes: Arc::new(setup.routes),
        workbench: setup.workbench,
        foresight,
        news,
        permits: Arc::new(Semaphore::new(MAX_FAREWELLS)),
        farewells: JoinSet::new(),
        free: (0..slots).rev().collect(),
        running: JoinSet::new(),
        taken: HashMap::new(),
        stop: shutdown.stop.clone(),
        status: setup.status,
        summary: Summary::default(),
    };
    dispatcher.run(setup.link, heard, shutdown).await
}

/// A claim in a slot.
struct Taken {
    key: Key,
    number: usize,
    /// Where its client is.
    at: watch::Sender<Vec<Address>>,
    withdrawn: CancellationToken,
}

struct Dispatcher<N: Network, W> {
    claims: Claims,
    outgoing: mpsc::Sender<String>,
    routes: Arc<Routes<N, W>>,
    workbench: Arc<Workbench>,
    foresight: Arc<Foresight>,
    /// From slots.
    news: mpsc::Sender<Event>,
    /// How many farewells there may be.
    permits: Arc<Semaphore>,
    /// Answers on their way to clients whose claims are over.
    farewells: JoinSet<()>,
    /// Numbers of free slots; each has CPUs of its own.
    free: Vec<usize>,
    running: JoinSet<SlotEnd>,
    taken: HashMap<Id, Taken>,
    stop: CancellationToken,
    status: watch::Sender<Status>,
    summary: Summary,
}

impl<N: Network, W: Wormhole> Dispatcher<N, W> {
    async fn run(mut self, mut link: Link, mut news: mpsc::Receiver<Event>, shutdown: Shutdown) -> Summary {
        let mut draining = false;
        let mut connected = true;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A client that accepts an offer of ours is served, even when it does so after we began to leave.
        while !(draining && self.is_idle() && !(connected && self.claims.has_offers())) {
            let wakeup = self.claims.next_wakeup(clock::now()).map(|at| at - clock::now());
            tokio::select! {
                biased;
                () = shutdown.stop.cancelled() => break,
                () = shutdown.drain.cancelled(), if !draining => {
                    draining = true;
                    tracing::info!(running = self.running.len(), "leaving: no more offers");
                    self.step(Event::Drain).await;
                }
                Some(event) = news.recv() => self.step(event).await,
                Some(end) = self.running.join_next_with_id() => self.ended(end).await,
                Some(_) = self.farewells.join_next() => {}
                event = link.incoming.recv(), if connected => {
                    connected = self.heard(event).await;
                    draining |= !connected;
                }
                () = sleep(wakeup.unwrap_or_default()), if wakeup.is_some() => self.step(Event::Tick).await,
                _ = beat.tick() => {}
            }
            self.report(draining);
        }
        self.report(true);
        // Slots end by themselves after a stop: each kills its task, waits until it is gone, and is done. So do farewells.
        while !self.is_idle() {
            tokio::select! {
                biased;
                Some(event) = news.recv() => self.step(event).await,
                Some(end) = self.running.join_next_with_id() => self.ended(end).await,
                Some(_) = self.farewells.join_next() => {}
            }
        }
        link.leave().await;
        self.summary.ignored = self.claims.counters().clone();
        self.summary
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.farewells.is_empty()
    }

    /// Says what it is doing.
    fn report(&self, leaving: bool) {
        let (running, Summary { delivered, failed, .. }) = (self.running.len(), &self.summary);
        self.status.send_modify(|status| {
            let (joined, turns) = (status.joined, status.turns.wrapping_add(1));
            *status = Status { joined, leaving, running, delivered: *delivered, failed: *failed, turns };
        });
    }

    /// Takes an event of the board; false when the board is lost for good.
    async fn heard(&mut self, event: Option<BoardEvent>) -> bool {
        match event {
            Some(BoardEvent::Joined) => {
                tracing::info!("{JOINED}");
                self.step(Event::Joined).await;
            }
            Some(BoardEvent::Line(line)) => self.step(Event::Line(line)).await,
            Some(BoardEvent::Skipped(lines)) => self.step(Event::Skipped(lines)).await,
            Some(BoardEvent::Lost(reason)) => {
                tracing::warn!(%reason, "the board is away; what runs goes on");
                self.summary.board_lost = Some(reason);
                self.step(Event::Lost).await;
            }
            None => {
                tracing::error!("the board is lost for good");
                self.step(Event::Drain).await;
                self.summary.board_lost.get_or_insert_with(|| "the connection was closed".to_owned());
                return false;
            }
        }
        true
    }

    async fn step(&mut self, event: Event) {
        if matches!(event, Event::Joined) {
            self.summary.board_lost = None;
        }
        if let Event::Joined | Event::Lost = event {
            self.status.send_modify(|status| status.joined = matches!(event, Event::Joined));
        }
        for action in self.claims.handle(event, clock::now()) {
            match action {
                Action::Say(message, expires) => {
                    // A link that ended says so on its other half.
                    let _ = self.outgoing.send(message.to_line(&clock::local_time(), expires)).await;
                }
                Action::Start(job) => self.start(job),
                Action::Moved(job) => self.moved(job),
                Action::Stop(key) => self.withdraw(&key),
            }
        }
    }

    fn start(&mut self, job: Job) {
        let key = job.key.clone();
        let Some(number) = self.free.pop() else { return };
        let (withdrawn, by) = (CancellationToken::new(), job.via.transfer());
        let (at, moves) = watch::channel(job.at.clone());
        tracing::info!(future = %key.future, client = %key.client, by, "accepted");
        let slot = Slot {
            number,
            job,
            moves,
            routes: Arc::clone(&self.routes),
            workbench: Arc::clone(&self.workbench),
            foresight: Arc::clone(&self.foresight),
            news: self.news.clone(),
            farewells: Arc::clone(&self.permits),
            withdrawn: withdrawn.clone(),
            stop: self.stop.child_token(),
        };
        let task = self.running.spawn(slot.serve());
        self.taken.insert(task.id(), Taken { key, number, at, withdrawn });
    }

    /// A client has said where it is now; whether it is there, the handshake shows.
    fn moved(&self, Job { key, at, .. }: Job) {
        let Some(taken) = self.taken.values().find(|taken| taken.key == key) else { return };
        taken.at.send_if_modified(|before| {
            let is_new = *before != at;
            if is_new {
                tracing::info!(future = %key.future, client = %key.client, "the client has other addresses");
                *before = at;
            }
            is_new
        });
    }

    /// A client has said on the board that it no longer wants what we have of it.
    fn withdraw(&self, key: &Key) {
        if let Some(taken) = self.taken.values().find(|taken| taken.key == *key) {
            tracing::info!(future = %key.future, client = %key.client, "withdrawn");
            taken.withdrawn.cancel();
        }
    }

    async fn ended(&mut self, end: Result<(Id, SlotEnd), tokio::task::JoinError>) {
        let (id, end) = match end {
            Ok((id, end)) => (id, end),
            Err(error) => (error.id(), SlotEnd::Failed(error.to_string())),
        };
        let Some(Taken { key, number, .. }) = self.taken.remove(&id) else { return };
        self.free.push(number);
        match end {
            SlotEnd::Delivered(how) => {
                self.summary.delivered += 1;
                tracing::info!(future = %key.future, %how, "delivered");
            }
            SlotEnd::Leaving(why, farewell) => {
                self.summary.failed += 1;
                tracing::warn!(future = %key.future, %why, "released; its client is being told");
                self.farewells.spawn(farewell);
            }
            SlotEnd::Failed(why) => {
                self.summary.failed += 1;
                tracing::warn!(future = %key.future, %why, "released");
            }
        }
        self.step(Event::Ended(key)).await;
    }
}
