//! The worker's side of the board: which requests are open, which one to offer on, which accepts are for us.
//!
//! Events and the time go in, actions come out. The rules:
//! - An offer takes a slot until it is accepted, until somebody else is, or until it expires; so a worker never promises
//!   more than it has slots.
//! - Whose turn it is, is settled in `table`: clients take turns, however many futures each of them posts.
//! - Of many free workers one or two offer: each waits for a time of its own (`crowd`), and makes way for another one's
//!   offer. An offer that comes to nothing holds nobody back for longer than [`YIELD`], and only a few times.
//! - Only an accept for an offer of ours starts a task, and only once. Lines are forgeable, so what an accept leads to is
//!   settled by the transfer's handshake, not here.
//! - A `withdraw` counts until the accept. After it only the client's own authenticated stream can cancel, or anybody
//!   who can write to the board could stop anybody's future.
//! - Everything that strangers can make us remember is bounded.

mod crowd;
mod table;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use super::message::{About, LineError, Message, Protocols, Received, Role, Via};
use crate::{
    clock::Timestamp,
    ids::{Address, FutureId, NodeId, PeerName, Ticket},
};
use crowd::{Bid, Crowd};
use table::Table;

/// How long an offer is valid.
pub const OFFER_VALIDITY: Duration = Duration::from_secs(15);

/// How much later than its validity an accept still counts: the client may have written it in time.
const OFFER_GRACE: Duration = Duration::from_secs(2);

/// For how long we make way for another worker's offer. A client of ours accepts as soon as it hears of it; R clients may
/// be busy for a while.
pub const YIELD: Duration = Duration::from_secs(5);

/// How long a worker's hello is valid; it is said again after half of it.
const HELLO_VALIDITY: Duration = Duration::from_secs(600);

/// The least time between two hellos that answer those of clients.
const HELLO_PAUSE: Duration = Duration::from_secs(30);

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
    /// Our libp2p peer id.
    pub node: NodeId,
    /// Tasks at a time.
    pub slots: usize,
    /// The largest future that we take, in bytes of its RDS.
    pub max_future: u64,
    /// What we say of ourselves.
    pub about: About,
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
}

/// An accepted future.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Whose, and which.
    pub key: Key,
    /// The client's peer id.
    pub node: NodeId,
    /// What to show it.
    pub ticket: Ticket,
    /// Where it listens.
    pub at: Vec<Address>,
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
    running: HashSet<Key>,
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
            running: HashSet::new(),
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
            }
            Event::Lost => {
                // What was offered may never have arrived; clients post their requests again.
                self.joined = false;
                self.offers.clear();
                self.requests.forget_all();
                self.crowd.lost();
            }
            Event::Line(line) => match Received::read(&line, now) {
                Ok(received) => self.hear(received, now, &mut actions),
                Err(error) => self.count_line(&error),
            },
            Event::Skipped(lines) => *self.counters.entry("skipped line").or_default() += lines,
            Event::Ended(key) => {
                self.running.remove(&key);
            }
            Event::Drain => self.draining = true,
            Event::Tick => {}
        }
        self.forget_expired(now);
        self.say_hello(now, &mut actions);
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
        offers.chain(due).chain(ready).chain(hello).min()
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

    /// Whether some client may still accept an offer.
    #[must_use]
    pub fn has_offers(&self) -> bool {
        !self.offers.is_empty()
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
        self.offers.contains_key(key) || self.running.contains(key)
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
            // A client wants to know who is there.
            Message::Hello { role: Role::Client, .. } if !self.draining && self.answered.is_none_or(|at| at <= now) => {
                let due = now + self.crowd.answer_delay(&self.settings.me);
                let due = self.answered.map_or(due, |before| due.max(before + HELLO_PAUSE));
                self.answered = Some(due);
                self.hello_due = self.hello_due.min(due);
            }
            Message::Request { from, future, size, protocols } => {
                self.hear_request(Key { client: from, future }, size, protocols, expires, now);
            }
            Message::Offer { from, to, future, protocols, peer } => {
                if from != self.settings.me {
                    let by = Protocols { libp2p: protocols.libp2p && peer.is_some(), ..protocols };
                    self.requests.make_way(&Key { client: to, future }, by, expires.min(now + YIELD), now);
                }
                self.hear_worker(from, true, now);
            }
            Message::Accept { from, to, future, via, at } => {
                let key = Key { client: from, future };
                self.requests.accepted(&key, now);
                if to == self.settings.me {
                    self.hear_accept(key, via, at, actions);
                } else {
                    self.offers.remove(&key);
                    self.crowd.accepted(&to, now);
                }
            }
            Message::Withdraw { from, future, .. } => {
                let key = Key { client: from, future };
                self.requests.forget(&key);
                self.offers.remove(&key);
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
        if !protocols.libp2p {
            self.count("request without libp2p");
        } else if size > self.settings.max_future {
            self.count("request over --max-future");
        } else if !self.running.contains(&key) && self.requests.hear(key, protocols, expires, now).is_err() {
            self.count("too many open requests");
        }
    }

    fn hear_accept(&mut self, key: Key, via: Via, at: Vec<Address>, actions: &mut Vec<Action>) {
        if self.offers.remove(&key).is_none() {
            self.count("accept without an offer");
            return;
        }
        match via {
            Via::Libp2p { node, ticket } => {
                self.running.insert(key.clone());
                actions.push(Action::Start(Job { key, node, ticket, at }));
            }
            Via::Wormhole { .. } => self.count("accept via an unknown transfer"),
        }
    }

    fn forget_expired(&mut self, now: Timestamp) {
        let expired: Vec<Key> =
            self.offers.iter().filter(|(_, until)| **until <= now).map(|(k, _)| k.clone()).collect();
        for key in expired {
            self.offers.remove(&key);
            self.count("offer not taken");
            self.requests.in_vain(&key, now);
        }
        self.requests.forget_expired(now);
        self.crowd.forget_expired(now);
    }

    fn say_hello(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.joined && self.hello_due <= now {
            self.hello_due = now + HELLO_VALIDITY / 2;
            self.crowd.said(now);
            let (from, about) = (self.settings.me.clone(), self.settings.about.clone());
            actions.push(Action::Say(
                Message::Hello { role: Role::Worker, from, protocols: our_protocols(), about },
                now + HELLO_VALIDITY,
            ));
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
            protocols: our_protocols(),
            peer: Some(self.settings.node.clone()),
        };
        Action::Say(offer, now + OFFER_VALIDITY)
    }
}

/// The transfers that our own peers know.
#[must_use]
pub fn our_protocols() -> Protocols {
    Protocols { libp2p: true, wormhole: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T0: Timestamp = Timestamp(1_795_361_280_000);

    fn claims(slots: usize) -> Claims {
        let me = "worker@w:1".parse().unwrap();
        let mut claims = Claims::new(Settings {
            me,
            node: "12D3KooWw".parse().unwrap(),
            slots,
            max_future: 1000,
            about: About::default(),
        });
        let actions = claims.handle(Event::Joined, T0);
        assert!(matches!(actions.as_slice(), [Action::Say(Message::Hello { .. }, _)]));
        claims
    }

    fn request(client: &str, future: &str) -> Event {
        line(format!("type=request,from={client},future={future},size=10,protocols=libp2p"), 10)
    }

    fn accept(client: &str, worker: &str, future: &str) -> Event {
        let ticket = Ticket([1; 16]);
        line(format!("type=accept,from={client},to={worker},future={future},via=libp2p://12D3KooWc/{ticket}"), 10)
    }

    fn line(rest: String, seconds: u64) -> Event {
        Event::Line(format!("when=x,expires={},{rest}", T0.unix_seconds() + seconds).into_bytes())
    }

    fn offers(actions: &[Action]) -> Vec<String> {
        let offer = |action: &Action| match action {
            Action::Say(Message::Offer { to, future, .. }, _) => Some(format!("{to} {future}")),
            _ => None,
        };
        actions.iter().filter_map(offer).collect()
    }

    fn starts(actions: &[Action]) -> usize {
        actions.iter().filter(|action| matches!(action, Action::Start(_))).count()
    }

    #[test]
    fn clients_that_say_hello_are_answered_and_seldom() {
        let mut worker = claims(1);
        let hello = |n: u32| line(format!("type=client,from=c@h:{n},protocols=libp2p"), 600);
        let is_hello = |action: &Action| matches!(action, Action::Say(Message::Hello { role: Role::Worker, .. }, _));
        assert!(worker.handle(hello(1), T0).iter().all(is_hello), "at once, by who knows of no other");
        assert_eq!(worker.handle(hello(2), T0), []);
        assert_eq!(worker.next_wakeup(T0), Some(T0 + HELLO_PAUSE), "once more, for those who came since");
        let said = |n: u32| worker.handle(hello(n), T0 + Duration::from_millis(100) * n).len();
        assert_eq!((0..1000).map(said).sum::<usize>(), 3, "in a hundred seconds");
    }

    #[test]
    fn a_request_is_offered_on_accepted_and_run_once() {
        let mut worker = claims(1);
        assert_eq!(offers(&worker.handle(request("c@h:1", "f-1"), T0)), ["c@h:1 f-1"]);
        assert_eq!(offers(&worker.handle(request("c@h:1", "f-1"), T0)), [""; 0], "not twice");
        assert_eq!(starts(&worker.handle(accept("c@h:1", "worker@w:1", "f-1"), T0)), 1);
        assert_eq!(starts(&worker.handle(accept("c@h:1", "worker@w:1", "f-1"), T0)), 0, "a repeated accept");
        assert_eq!(offers(&worker.handle(request("c@h:1", "f-2"), T0)), [""; 0], "the slot is taken");
        let ended = Key { client: "c@h:1".parse().unwrap(), future: "f-1".parse().unwrap() };
        assert_eq!(offers(&worker.handle(Event::Ended(ended), T0)), ["c@h:1 f-2"]);
    }

    #[test]
    fn an_accept_without_an_offer_starts_nothing() {
        let mut worker = claims(1);
        assert_eq!(starts(&worker.handle(accept("c@h:1", "worker@w:1", "f-1"), T0)), 0);
        worker.handle(request("c@h:1", "f-1"), T0);
        assert_eq!(starts(&worker.handle(accept("d@h:1", "worker@w:1", "f-1"), T0)), 0, "another client");
        assert_eq!(starts(&worker.handle(accept("c@h:1", "other@w:1", "f-1"), T0)), 0, "another worker");
        assert_eq!(worker.counters()["accept without an offer"], 2);
        assert_eq!(offers(&worker.handle(request("c@h:1", "f-2"), T0)), ["c@h:1 f-2"], "the slot is free again");
    }

    #[test]
    fn an_offer_that_nobody_takes_frees_its_slot_and_is_not_repeated_at_once() {
        let mut worker = claims(1);
        worker.handle(line("type=request,from=c@h:1,future=f-1,size=1,protocols=libp2p".into(), 100), T0);
        worker.handle(line("type=request,from=c@h:1,future=f-2,size=1,protocols=libp2p".into(), 100), T0);
        let later = worker.next_wakeup(T0).unwrap();
        assert_eq!(later, T0 + OFFER_VALIDITY + OFFER_GRACE);
        assert_eq!(offers(&worker.handle(Event::Tick, later)), ["c@h:1 f-2"]);
    }

    #[test]
    fn a_draining_worker_offers_nothing_but_honours_what_it_offered() {
        let mut worker = claims(2);
        worker.handle(request("c@h:1", "f-1"), T0);
        worker.handle(Event::Drain, T0);
        assert_eq!(offers(&worker.handle(request("c@h:1", "f-2"), T0)), [""; 0]);
        assert_eq!(starts(&worker.handle(accept("c@h:1", "worker@w:1", "f-1"), T0)), 1);
    }

    #[test]
    fn requests_that_cannot_be_served_are_counted() {
        let mut worker = claims(1);
        worker.handle(line("type=request,from=c@h:1,future=f,size=1001,protocols=libp2p".into(), 10), T0);
        worker.handle(line("type=request,from=c@h:1,future=f,size=1,protocols=wormhole".into(), 10), T0);
        worker.handle(Event::Line(b"hello".to_vec()), T0);
        let counted: Vec<_> = worker.counters().iter().collect();
        assert_eq!(
            counted,
            [(&"not a message", &1), (&"request over --max-future", &1), (&"request without libp2p", &1)]
        );
    }

    #[test]
    fn a_request_counts_for_two_minutes_at_most_and_can_be_renewed() {
        let mut worker = claims(1);
        let long = |client: &str| line(format!("type=request,from={client},future=f,size=1,protocols=libp2p"), 86_000);
        for client in ["c@h:1", "d@h:1", "e@h:1"] {
            worker.handle(long(client), T0);
        }
        let later = T0 + REQUEST_VALIDITY / 2;
        worker.handle(long("e@h:1"), later);
        worker.handle(Event::Tick, T0 + REQUEST_VALIDITY);
        let left: Vec<_> = worker.requests.keys().map(|key| key.client.as_str()).collect();
        assert_eq!(left, ["e@h:1"]);
        worker.handle(Event::Tick, later + REQUEST_VALIDITY);
        assert_eq!(worker.open_requests(), 0);
    }

    #[test]
    fn a_flood_of_requests_is_bounded() {
        let mut worker = claims(1);
        for i in 0..3000 {
            worker.handle(request(&format!("c@h:{}", i % 20), &format!("f-{i}")), T0);
        }
        assert!(worker.open_requests() <= table::MAX_REQUESTS);
    }

    fn heard_offer(from: &str, future: &str, rest: &str) -> Event {
        line(format!("type=offer,from={from},to=c@h:1,future={future},protocols={rest}"), 15)
    }

    /// When the worker would offer, if nothing more happens before.
    fn offers_at(worker: &mut Claims, mut now: Timestamp) -> Timestamp {
        while offers(&worker.handle(Event::Tick, now)).is_empty() {
            now = worker.next_wakeup(now).unwrap();
        }
        now
    }

    #[test]
    fn a_worker_that_knows_of_others_waits_and_makes_way_but_not_for_ever() {
        let mut worker = claims(1);
        worker.handle(line("type=worker,from=v@w:2,protocols=libp2p".into(), 600), T0);
        let long = |future: &str| line(format!("type=request,from=c@h:1,future={future},size=1,protocols=libp2p"), 100);
        assert_eq!(offers(&worker.handle(long("f-1"), T0)), [""; 0], "not at once");
        let due = worker.next_wakeup(T0).unwrap();
        assert!(due > T0 && due < T0 + Duration::from_secs(1), "{due:?}");
        worker.handle(heard_offer("v@w:2", "f-1", "libp2p,peer=12D3KooWv"), T0);
        assert_eq!(offers(&worker.handle(Event::Tick, due)), [""; 0], "the other one was faster");
        let at = offers_at(&mut worker, due);
        assert!(at >= T0 + YIELD && at < T0 + YIELD + Duration::from_secs(1), "{at:?}");
    }

    #[test]
    fn offers_that_the_client_cannot_take_hold_nobody_back() {
        let mut worker = claims(1);
        worker.handle(line("type=worker,from=v@w:2,protocols=libp2p".into(), 600), T0);
        worker.handle(request("c@h:1", "f-1"), T0);
        worker.handle(heard_offer("r@w:3", "f-1", "wormhole"), T0);
        worker.handle(heard_offer("q@w:4", "f-1", "libp2p"), T0);
        let at = offers_at(&mut worker, T0);
        assert!(at < T0 + Duration::from_secs(1), "{at:?}");
        let mut worker = claims(1);
        worker.handle(line("type=worker,from=v@w:2,protocols=libp2p".into(), 600), T0);
        worker.handle(line("type=request,from=c@h:1,future=f-1,size=1,protocols=libp2p;wormhole".into(), 10), T0);
        worker.handle(heard_offer("r@w:3", "f-1", "wormhole"), T0);
        assert!(offers_at(&mut worker, T0) >= T0 + YIELD, "an R worker was faster");
    }

    #[test]
    fn clients_take_turns() {
        let mut worker = claims(1);
        for future in ["f-1", "f-2", "f-3"] {
            worker.handle(request("c@h:1", future), T0);
        }
        worker.handle(request("d@h:1", "f-9"), T0 + Duration::from_secs(1));
        let mut served = Vec::new();
        for (client, future) in [("c@h:1", "f-1"), ("d@h:1", "f-9"), ("c@h:1", "f-2"), ("c@h:1", "f-3")] {
            let now = T0 + Duration::from_secs(2);
            worker.handle(accept(client, "worker@w:1", future), now);
            let ended = Key { client: client.parse().unwrap(), future: future.parse().unwrap() };
            served.extend(offers(&worker.handle(Event::Ended(ended), now)));
        }
        assert_eq!(served, ["d@h:1 f-9", "c@h:1 f-2", "c@h:1 f-3"]);
    }

    proptest! {
        /// Whatever comes in whatever order: never more promises than slots, never the same future twice at a time.
        #[test]
        fn promises_never_exceed_slots(steps in proptest::collection::vec((0u8..6, 0u8..4, 0u64..20), 0..200)) {
            let mut worker = claims(2);
            let mut now = T0;
            let mut running = HashSet::new();
            for (what, which, seconds) in steps {
                let key = Key { client: "c@h:1".parse().unwrap(), future: format!("f-{which}").parse().unwrap() };
                let until = now.unix_seconds() + 10;
                let text = |rest: String| Event::Line(format!("when=x,expires={until},{rest}").into_bytes());
                let event = match what {
                    0 => text(format!("type=request,from=c@h:1,future=f-{which},size=1,protocols=libp2p")),
                    1 => text(format!(
                        "type=accept,from=c@h:1,to=worker@w:1,future=f-{which},via=libp2p://12D3KooWc/{}", Ticket([1; 16]))),
                    2 => text(format!("type=accept,from=c@h:1,to=other@w:1,future=f-{which},via=wormhole://1-a")),
                    3 => { running.remove(&key); Event::Ended(key) }
                    4 => Event::Line(format!("when=x,type=withdraw,from=c@h:1,future=f-{which}").into_bytes()),
                    _ => { now = now + Duration::from_secs(seconds); Event::Tick }
                };
                for action in worker.handle(event, now) {
                    if let Action::Start(job) = action {
                        prop_assert!(running.insert(job.key), "started twice");
                    }
                }
                prop_assert!(worker.offers.len() + worker.running.len() <= 2);
                prop_assert_eq!(worker.running.len(), running.len());
            }
        }
    }
}
