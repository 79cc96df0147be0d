//! The worker's side of the board: which requests are open, which one to offer on, which accepts are for us.
//!
//! Events and the time go in, actions come out. The rules:
//! - An offer takes a slot until it is accepted, until somebody else is, or until it expires; so a worker never promises
//!   more than it has slots.
//! - Whose turn it is, is settled in `table`: clients take turns, however many futures each of them posts.
//! - Of many free workers one or two offer: each waits for a time of its own (`crowd`), and makes way for another one's
//!   offer. An offer that comes to nothing holds nobody back for longer than [`YIELD`], and only a few times.
//! - Only an accept for an offer of ours starts a task, and only once. Lines are forgeable, so what an accept leads to is
//!   settled by the transfer's handshake, not here. The same accept once more says where the client is now.
//! - An R client that has accepted waits for its result for ever. So an accept by wormhole is honoured even when we gave the
//!   offer up not long ago, and when another accept of the same future came first, which may have been forged; the
//!   result is announced until its client came for it (`debts`).
//! - A `withdraw` counts until the accept. After it only the client's own authenticated stream can cancel, or anybody
//!   who can write to the board could stop anybody's future. Clients that accepted by wormhole have no such stream:
//!   theirs counts until the end, and can be forged by everyone in the cluster.
//! - Everything that strangers can make us remember is bounded.

mod crowd;
mod debts;
mod table;

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    time::Duration,
};

use super::message::{About, LineError, Message, Protocols, Received, Role, Via};
use crate::{
    clock::Timestamp,
    ids::{Address, FutureId, NodeId, PeerName},
};
use crowd::{Bid, Crowd};
use debts::Debts;
use table::Table;

/// How long an offer is valid.
pub const OFFER_VALIDITY: Duration = Duration::from_secs(15);

/// How much later than its validity an accept still counts: the client may have written it in time.
const OFFER_GRACE: Duration = Duration::from_secs(2);

/// For how long we make way for another worker's offer. A client of ours accepts as soon as it hears of it; R clients may
/// be busy for a while.
pub const YIELD: Duration = Duration::from_secs(5);

/// How long a result's announcement is valid, as R workers have it.
pub const RESULT_VALIDITY: Duration = Duration::from_secs(60);

/// How long a worker's hello is valid; it is said again after half of it.
const HELLO_VALIDITY: Duration = Duration::from_secs(600);

/// The least time between two hellos that answer those of clients: 1 s, or as long as the answers of all workers take, which
/// are spread, and at most 30 s.
const HELLO_PAUSE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

/// For how long a request counts after it was heard, whatever it says itself: clients post theirs again long before, and
/// forged ones must not keep the table full.
pub const REQUEST_VALIDITY: Duration = Duration::from_secs(120);

/// A future of a client. Two clients may use the same future's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The client, as it writes itself.
    pub client: PeerName,
    /// The future.
    pub future: FutureId,
}

/// Who we are and how much we take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our name on the board.
    pub me: PeerName,
    /// Our libp2p peer id, if we speak libp2p.
    pub node: Option<NodeId>,
    /// Whether we speak by wormhole, as R peers do.
    pub wormhole: bool,
    /// Tasks at a time.
    pub slots: usize,
    /// The largest future that we take, in bytes of its RDS.
    pub max_future: u64,
    /// What we say of ourselves.
    pub about: About,
}

impl Settings {
    /// The transfers that we offer.
    #[must_use]
    pub fn protocols(&self) -> Protocols {
        Protocols { libp2p: self.node.is_some(), wormhole: self.wormhole }
    }
}

/// What happens to a worker.
#[derive(Debug)]
pub enum Event {
    /// The topic is joined, for the first time or again.
    Joined,
    /// The connection to the board broke.
    Lost,
    /// A line came.
    Line(Vec<u8>),
    /// So many lines were passed over before they got here, being too long or too many at a time.
    Skipped(u64),
    /// There is a result for a client that has to come for it. It is announced now, and again until [`Event::Answered`].
    Resolved(Key, Via),
    /// The client has that result, or it is given up.
    Answered(Key, Via),
    /// A task that was started is over, in whatever way.
    Ended(Key),
    /// Offer no more.
    Drain,
    /// The time of [`Claims::next_wakeup`] has come.
    Tick,
}

/// What a worker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Post this, valid until then.
    Say(Message, Timestamp),
    /// Fetch, evaluate and deliver.
    Start(Job),
    /// The client of this task that runs says that it is at these addresses now, which can be anybody's line.
    Moved(Job),
    /// Its client no longer wants it: stop it, wherever it is.
    Stop(Key),
}

/// An accepted future.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Whose, and which.
    pub key: Key,
    /// How it travels.
    pub via: Via,
    /// Where it listens.
    pub at: Vec<Address>,
}

/// A task that was started.
#[derive(Debug)]
struct Running {
    via: Via,
    /// Whether it was told to stop.
    stopped: bool,
}

/// Lines and requests that were passed over, by reason.
pub type Counters = BTreeMap<&'static str, u64>;

/// The worker's claims.
#[derive(Debug)]
pub struct Claims {
    settings: Settings,
    joined: bool,
    draining: bool,
    hello_due: Timestamp,
    /// When a client's hello was answered last, or will be.
    answered: Option<Timestamp>,
    requests: Table,
    crowd: Crowd,
    /// What we offered on, and until when an accept counts.
    offers: HashMap<Key, Timestamp>,
    running: HashMap<Key, Running>,
    debts: Debts,
    /// Since when there has been a free slot, and a board to offer it on.
    free_since: Option<Timestamp>,
    counters: Counters,
}

impl Claims {
    /// A worker that has not joined yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            joined: false,
            draining: false,
            hello_due: Timestamp::default(),
            answered: None,
            requests: Table::default(),
            crowd: Crowd::new(),
            offers: HashMap::new(),
            running: HashMap::new(),
            debts: Debts::default(),
            free_since: None,
            counters: Counters::new(),
        }
    }

    /// Takes an event; the actions are to be done in their order.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Joined => {
                self.joined = true;
                self.hello_due = now;
                self.debts.announce_all(now);
            }
            Event::Lost => {
                // What was offered may never have arrived; clients post their requests again.
                self.joined = false;
                self.offers.drain().for_each(|(key, _)| self.debts.lapse(key, now));
                self.requests.forget_all();
                self.crowd.lost();
            }
            Event::Line(line) => match Received::read(&line, now) {
                Ok(received) => self.hear(received, now, &mut actions),
                Err(error) => self.count_line(&error),
            },
            Event::Skipped(lines) => *self.counters.entry("skipped line").or_default() += lines,
            Event::Resolved(key, via) => self.debts.owe(key, via, now),
            Event::Answered(key, via) => self.debts.pay(&key, &via),
            Event::Ended(key) => {
                self.running.remove(&key);
            }
            Event::Drain => self.draining = true,
            Event::Tick => {}
        }
        self.forget_expired(now);
        self.say_hello(now, &mut actions);
        self.announce_results(now, &mut actions);
        self.start_waiting(&mut actions);
        self.note_freedom(now);
        while let Some(key) = self.next_offer(now) {
            actions.push(self.offer(key, now));
            self.note_freedom(now);
        }
        actions
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_wakeup(&self, now: Timestamp) -> Option<Timestamp> {
        let hello = self.joined.then_some(self.hello_due);
        let offers = self.offers.values().copied();
        let due = self.turns(now).into_iter().map(|(_, due)| due).min();
        let ready = self.free_since.and_then(|_| self.requests.next_ready(now, |key| self.is_ours(key)));
        let results = self.joined.then(|| self.debts.next_due()).flatten();
        offers.chain(due).chain(ready).chain(hello).chain(results).min()
    }

    /// Tasks that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Open requests that are remembered.
    #[must_use]
    pub fn open_requests(&self) -> usize {
        self.requests.len()
    }

    /// Whether some client may still accept an offer, or has accepted one that was not started yet.
    #[must_use]
    pub fn has_offers(&self) -> bool {
        !self.offers.is_empty() || self.debts.is_waiting()
    }

    /// What was passed over, by reason.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn count(&mut self, reason: &'static str) {
        *self.counters.entry(reason).or_default() += 1;
    }

    fn count_line(&mut self, error: &LineError) {
        self.count(match error {
            LineError::NotAMessage => "not a message",
            LineError::Expired => "expired line",
            LineError::Absurd => "absurd time",
            LineError::UnknownType => "unknown type",
            LineError::Repeated => "repeated key",
            LineError::Missing(_) => "missing key",
            LineError::Malformed | LineError::Value { .. } => "malformed line",
        });
    }

    /// Whether we are done with a request for now: we offered on it, or resolve it.
    fn is_ours(&self, key: &Key) -> bool {
        self.offers.contains_key(key) || self.running.contains_key(key) || self.debts.waits(key)
    }

    fn note_freedom(&mut self, now: Timestamp) {
        let taken = self.running.len() + self.offers.len();
        if !self.joined || self.draining || taken >= self.settings.slots {
            self.free_since = None;
        } else {
            self.free_since.get_or_insert(now);
        }
    }

    fn hear(&mut self, received: Received, now: Timestamp, actions: &mut Vec<Action>) {
        let Received { message, expires } = received;
        let expires = expires.unwrap_or(now);
        match message {
            Message::Hello { role: Role::Worker, from, .. } => self.hear_worker(from, false, now),
            // A client wants to know who is there. What is due now answers it, too.
            Message::Hello { role: Role::Client, .. }
                if !self.draining && self.hello_due > now && self.answered.is_none_or(|at| at <= now) =>
            {
                let due = now + self.crowd.answer_delay(&self.settings.me);
                let pause = self.crowd.answer_spread().clamp(*HELLO_PAUSE.start(), *HELLO_PAUSE.end());
                let due = self.answered.map_or(due, |before| due.max(before + pause));
                self.answered = Some(due);
                self.hello_due = self.hello_due.min(due);
            }
            Message::Request { from, future, size, protocols } => {
                self.hear_request(Key { client: from, future }, size, protocols, expires, now);
            }
            Message::Offer { from, to, future, protocols, peer } => {
                if from != self.settings.me {
                    let by = Protocols { libp2p: protocols.libp2p && peer.is_some(), ..protocols };
                    let both = [by, self.settings.protocols()];
                    self.requests.make_way(&Key { client: to, future }, both, expires.min(now + YIELD), now);
                }
                self.hear_worker(from, true, now);
            }
            Message::Accept { from, to, future, via, at } => {
                let key = Key { client: from, future };
                self.requests.accepted(&key, now);
                if to == self.settings.me {
                    self.crowd.chosen(&key.client, now);
                    self.hear_accept(Job { key, via, at }, actions);
                } else {
                    self.drop_offer(&key, now);
                    self.crowd.accepted(&to, &key.client, now);
                }
            }
            Message::Withdraw { from, future, .. } => {
                let key = Key { client: from, future };
                self.requests.forget(&key);
                self.drop_offer(&key, now);
                self.debts.forget_waiting(&key);
                self.stop(key, actions);
            }
            Message::Hello { .. } | Message::Result { .. } => {}
        }
    }

    fn hear_worker(&mut self, worker: PeerName, is_free: bool, now: Timestamp) {
        if worker == self.settings.me {
            self.crowd.came_back(now);
        } else {
            self.crowd.hear(worker, is_free, now);
        }
    }

    fn hear_request(&mut self, key: Key, size: u64, protocols: Protocols, expires: Timestamp, now: Timestamp) {
        let ours = self.settings.protocols();
        if !((ours.libp2p && protocols.libp2p) || (ours.wormhole && protocols.wormhole)) {
            self.count("request for another transfer");
        } else if size > self.settings.max_future {
            self.count("request over --max-future");
        } else if !self.running.contains_key(&key) && self.requests.hear(key, protocols, expires, now).is_err() {
            self.count("too many open requests");
        }
    }

    /// Gives up an offer. Its client may have accepted it all the same.
    fn drop_offer(&mut self, key: &Key, now: Timestamp) {
        if let Some((key, _)) = self.offers.remove_entry(key) {
            self.debts.lapse(key, now);
        }
    }

    fn hear_accept(&mut self, job: Job, actions: &mut Vec<Action>) {
        let offered = self.offers.remove(&job.key).is_some();
        let ours = self.settings.protocols();
        match &job.via {
            Via::Libp2p { .. } if !ours.libp2p => self.count("accept via a transfer that was not offered"),
            Via::Wormhole { .. } if !ours.wormhole => self.count("accept via a transfer that was not offered"),
            _ if offered => self.start(job, actions),
            Via::Libp2p { .. } => match self.running.get(&job.key) {
                // Said again, because we may have missed it, or with the addresses that the client has now.
                Some(running) if running.via == job.via => actions.push(Action::Moved(job)),
                _ => self.count("accept without an offer"),
            },
            Via::Wormhole { .. } => match self.running.get(&job.key) {
                Some(running) if running.via == job.via => self.count("repeated accept"),
                running => {
                    let known = running.is_some_and(|running| matches!(running.via, Via::Wormhole { .. }));
                    if let Err(why) = self.debts.wait(job, known) {
                        self.count(why);
                    }
                }
            },
        }
    }

    fn start(&mut self, job: Job, actions: &mut Vec<Action>) {
        self.running.insert(job.key.clone(), Running { via: job.via.clone(), stopped: false });
        actions.push(Action::Start(job));
    }

    /// Starts what was accepted and had to wait, as far as there is room.
    fn start_waiting(&mut self, actions: &mut Vec<Action>) {
        while self.running.len() + self.offers.len() < self.settings.slots {
            let running = &self.running;
            let Some(job) = self.debts.next_waiting(|key| !running.contains_key(key)) else { return };
            self.start(job, actions);
        }
    }

    /// A client has withdrawn what runs. By libp2p it says so on its own stream.
    fn stop(&mut self, key: Key, actions: &mut Vec<Action>) {
        let by_wormhole = self.running.get_mut(&key).filter(|running| matches!(running.via, Via::Wormhole { .. }));
        if by_wormhole.is_some_and(|running| !std::mem::replace(&mut running.stopped, true)) {
            actions.push(Action::Stop(key));
        }
    }

    fn forget_expired(&mut self, now: Timestamp) {
        let expired: Vec<Key> =
            self.offers.iter().filter(|(_, until)| **until <= now).map(|(k, _)| k.clone()).collect();
        for key in expired {
            self.drop_offer(&key, now);
            self.count("offer not taken");
            self.requests.in_vain(&key, now);
        }
        self.requests.forget_expired(now);
        self.crowd.forget_expired(now);
        self.debts.forget_expired(now);
    }

    fn say_hello(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.joined && self.hello_due <= now {
            self.hello_due = now + HELLO_VALIDITY / 2;
            self.crowd.said(now);
            let (from, about) = (self.settings.me.clone(), self.settings.about.clone());
            actions.push(Action::Say(
                Message::Hello { role: Role::Worker, from, protocols: self.settings.protocols(), about },
                now + HELLO_VALIDITY,
            ));
        }
    }

    /// Tells clients of their results, unless there is no board to do it on.
    fn announce_results(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if !self.joined {
            return;
        }
        for (Key { client: to, future }, via) in self.debts.due(now) {
            let from = self.settings.me.clone();
            actions.push(Action::Say(Message::Result { from, to, future, via }, now + RESULT_VALIDITY));
        }
    }

    /// The requests that we may offer on, in the order of their turns, and from when on; none while no slot is free.
    fn turns(&self, now: Timestamp) -> Vec<(&Key, Timestamp)> {
        let Some(free_since) = self.free_since else { return Vec::new() };
        let breadth = self.crowd.breadth(now);
        let turns = self.requests.turns(now, breadth, |key| self.is_ours(key));
        let due = |(turn, (key, request)): (usize, (_, &table::Request))| {
            let (round, open_before) = (request.round(), free_since - request.ready);
            let delay = self.crowd.delay(&self.settings.me, &Bid { key, round, turn, breadth, open_before });
            (key, request.ready.max(free_since) + delay)
        };
        turns.into_iter().enumerate().map(due).collect()
    }

    fn next_offer(&self, now: Timestamp) -> Option<Key> {
        self.turns(now).into_iter().find(|(_, due)| *due <= now).map(|(key, _)| key.clone())
    }

    fn offer(&mut self, key: Key, now: Timestamp) -> Action {
        self.offers.insert(key.clone(), now + OFFER_VALIDITY + OFFER_GRACE);
        self.crowd.said(now);
        let offer = Message::Offer {
            from: self.settings.me.clone(),
            to: key.client,
            future: key.future,
            protocols: self.settings.protocols(),
            peer: self.settings.node.clone(),
        };
        Action::Say(offer, now + OFFER_VALIDITY)
    }
}

#[cfg(test)]
mod tests;
