//! The client's side of the board: futures that are posted until somebody takes them.
//!
//! Events and the time go in, actions come out. The rules:
//! - The first unexpired offer of a worker that speaks libp2p wins; all others are left alone and expire by themselves.
//! - A future is accepted by one worker at a time. When its transfer fails it is posted again, under the same name, and
//!   offers with the name or the node of the worker that failed are passed over for a while.
//! - Offers are forgeable: only a worker that came, and so proved its node, counts as an attempt.
//! - An offer for something that was never posted is counted and ignored.

use std::{collections::BTreeMap, time::Duration};

use super::{
    claim::{Counters, our_protocols},
    message::{Message, Received, Role, Via},
};
use crate::{
    clock::Timestamp,
    ids::{Address, FutureId, NodeId, PeerName, Ticket},
};

/// How long a request is valid; it is posted again when it expires, as R clients do.
pub const REQUEST_VALIDITY: Duration = Duration::from_secs(10);

/// How long an accept is valid.
const ACCEPT_VALIDITY: Duration = Duration::from_secs(60);

/// How long a client's hello is valid.
const HELLO_VALIDITY: Duration = Duration::from_secs(3600);

/// How many accepted workers may fail to come. More than workers that came and failed, because offers can be forged; but a
/// client that nobody can reach must not wait for ever.
const MAX_UNREACHED: u32 = 12;

/// For how long the offers of a worker that failed are passed over.
const DISTRUST: Duration = Duration::from_secs(20);

/// What happens to a client.
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
    /// The user has this future, of so many bytes.
    Post(FutureId, u64),
    /// The transfer with the accepted worker failed.
    Failed {
        /// The future.
        future: FutureId,
        /// Whether the worker ever came, with the node that its offer named.
        came: bool,
    },
    /// The result is here.
    Done(FutureId),
    /// The user no longer wants it.
    Withdraw(FutureId),
    /// The time of [`Postings::next_wakeup`] has come.
    Tick,
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Post this, valid until then.
    Say(Message, Timestamp),
    /// Make a ticket for this worker, then post [`Postings::accept`].
    Grant {
        /// The future.
        future: FutureId,
        /// The worker, as it writes itself.
        worker: PeerName,
        /// Its libp2p peer id, which the handshake must prove.
        node: NodeId,
    },
    /// It was tried so many times, and is forgotten now.
    GaveUp {
        /// The future.
        future: FutureId,
        /// How many workers came for it.
        attempts: u32,
    },
}

#[derive(Debug)]
struct Posting {
    size: u64,
    /// When the request is due again; `None` while a worker has it.
    due: Option<Timestamp>,
    worker: Option<Offerer>,
    /// Workers that came and failed.
    attempts: u32,
    /// How many workers were accepted and never came.
    unreached: u32,
    /// Who failed, and until when its offers are passed over.
    distrusted: Vec<(Offerer, Timestamp)>,
}

/// Who an offer says it is from.
#[derive(Debug)]
struct Offerer {
    name: PeerName,
    node: NodeId,
}

impl Posting {
    fn distrusts(&self, name: &PeerName, node: &NodeId, now: Timestamp) -> bool {
        self.distrusted.iter().any(|(one, until)| *until > now && (one.name == *name || one.node == *node))
    }

    fn distrust(&mut self, one: Offerer, now: Timestamp) {
        self.distrusted.retain(|(_, until)| *until > now);
        self.distrusted.push((one, now + DISTRUST));
    }
}

/// A client's postings.
#[derive(Debug)]
pub struct Postings {
    me: PeerName,
    max_attempts: u32,
    joined: bool,
    hello_due: Timestamp,
    postings: BTreeMap<FutureId, Posting>,
    counters: Counters,
}

impl Postings {
    /// A client that has not joined yet and gives a future to at most `max_attempts` workers, one after the other.
    #[must_use]
    pub fn new(me: PeerName, max_attempts: u32) -> Self {
        Self {
            me,
            max_attempts,
            joined: false,
            hello_due: Timestamp::default(),
            postings: BTreeMap::new(),
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
                self.postings.values_mut().filter(|posting| posting.worker.is_none()).for_each(|p| p.due = Some(now));
            }
            Event::Lost => self.joined = false,
            Event::Line(line) => match Received::read(&line, now) {
                Ok(received) => self.hear(received.message, now, &mut actions),
                Err(_) => self.count("unreadable line"),
            },
            Event::Skipped(lines) => *self.counters.entry("skipped line").or_default() += lines,
            Event::Post(future, size) => {
                let posting =
                    Posting { size, due: Some(now), worker: None, attempts: 0, unreached: 0, distrusted: Vec::new() };
                self.postings.entry(future).or_insert(posting);
            }
            Event::Failed { future, came } => self.post_again(future, came, now, &mut actions),
            Event::Done(future) => {
                self.postings.remove(&future);
            }
            Event::Withdraw(future) => {
                if let Some(posting) = self.postings.remove(&future) {
                    let to = posting.worker.map(|worker| worker.name);
                    let withdraw = Message::Withdraw { from: self.me.clone(), to, future };
                    actions.push(Action::Say(withdraw, now));
                }
            }
            Event::Tick => {}
        }
        if self.joined {
            self.say_hello(now, &mut actions);
            self.post_due(now, &mut actions);
        }
        actions
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let due = self.postings.values().filter_map(|posting| posting.due);
        due.chain([self.hello_due]).min().filter(|_| self.joined)
    }

    /// The line that answers an offer.
    #[must_use]
    pub fn accept(
        &self,
        future: FutureId,
        worker: PeerName,
        node: NodeId,
        ticket: Ticket,
        at: Vec<Address>,
        now: Timestamp,
    ) -> Action {
        let via = Via::Libp2p { node, ticket };
        let accept = Message::Accept { from: self.me.clone(), to: worker, future, via, at };
        Action::Say(accept, now + ACCEPT_VALIDITY)
    }

    /// What was passed over, by reason.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn count(&mut self, reason: &'static str) {
        *self.counters.entry(reason).or_default() += 1;
    }

    fn hear(&mut self, message: Message, now: Timestamp, actions: &mut Vec<Action>) {
        let Message::Offer { from, to, future, protocols, peer } = message else { return };
        if to != self.me {
            return;
        }
        let Some(posting) = self.postings.get_mut(&future) else {
            self.count("offer for a future that is not posted");
            return;
        };
        match peer.filter(|_| protocols.libp2p) {
            None => self.count("offer without libp2p"),
            Some(_) if posting.worker.is_some() => self.count("offer that came too late"),
            Some(node) if posting.distrusts(&from, &node, now) => self.count("offer of a worker that failed"),
            Some(node) => {
                posting.worker = Some(Offerer { name: from.clone(), node: node.clone() });
                posting.due = None;
                actions.push(Action::Grant { future, worker: from, node });
            }
        }
    }

    fn post_again(&mut self, future: FutureId, came: bool, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(posting) = self.postings.get_mut(&future) else { return };
        let failures = if came { &mut posting.attempts } else { &mut posting.unreached };
        *failures = failures.saturating_add(1);
        if posting.attempts >= self.max_attempts || posting.unreached >= MAX_UNREACHED {
            let attempts = posting.attempts.saturating_add(posting.unreached);
            self.postings.remove(&future);
            actions.push(Action::GaveUp { future, attempts });
        } else if let Some(worker) = posting.worker.take() {
            posting.distrust(worker, now);
            posting.due = Some(now);
        }
    }

    fn say_hello(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.hello_due <= now {
            self.hello_due = now + HELLO_VALIDITY / 2;
            let hello = Message::Hello { role: Role::Client, from: self.me.clone(), protocols: our_protocols() };
            actions.push(Action::Say(hello, now + HELLO_VALIDITY));
        }
    }

    fn post_due(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for (future, posting) in &mut self.postings {
            if posting.due.is_some_and(|due| due <= now) {
                posting.due = Some(now + REQUEST_VALIDITY);
                let (from, future) = (self.me.clone(), future.clone());
                let request = Message::Request { from, future, size: posting.size, protocols: our_protocols() };
                actions.push(Action::Say(request, now + REQUEST_VALIDITY));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_795_361_280_000);

    fn offer(worker: &str, future: &str, rest: &str, now: Timestamp) -> Event {
        let until = now.unix_seconds() + 15;
        let text = format!("when=x,expires={until},type=offer,from={worker},to=c@h:1,future={future},{rest}");
        Event::Line(text.into_bytes())
    }

    const OURS: &str = "protocols=libp2p,peer=12D3KooWw";
    const OTHER: &str = "protocols=libp2p,peer=12D3KooWv";

    fn failed(came: bool) -> Event {
        Event::Failed { future: future(), came }
    }

    fn posted() -> Postings {
        let mut client = Postings::new("c@h:1".parse().unwrap(), 2);
        assert!(client.handle(Event::Post(future(), 5), T0).is_empty(), "nothing is said before the topic is joined");
        let said = client.handle(Event::Joined, T0);
        assert!(matches!(
            said.as_slice(),
            [Action::Say(Message::Hello { .. }, _), Action::Say(Message::Request { size: 5, .. }, _)]
        ));
        client
    }

    fn future() -> FutureId {
        "f-1".parse().unwrap()
    }

    fn granted(actions: &[Action]) -> Option<&str> {
        actions.iter().find_map(|action| match action {
            Action::Grant { worker, .. } => Some(worker.as_str()),
            _ => None,
        })
    }

    #[test]
    fn the_first_offer_that_speaks_libp2p_wins() {
        let mut client = posted();
        assert_eq!(granted(&client.handle(offer("r@w:1", "f-1", "protocols=wormhole", T0), T0)), None);
        assert_eq!(granted(&client.handle(offer("w@w:1", "f-2", OURS, T0), T0)), None, "never posted");
        assert_eq!(granted(&client.handle(offer("w@w:1", "f-1", OURS, T0), T0)), Some("w@w:1"));
        assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OURS, T0), T0)), None, "too late");
        assert_eq!(client.counters().len(), 3);
    }

    #[test]
    fn a_request_is_posted_again_until_somebody_takes_it() {
        let mut client = posted();
        let due = client.next_wakeup().unwrap();
        assert_eq!(due, T0 + REQUEST_VALIDITY);
        assert_eq!(client.handle(Event::Tick, due).len(), 1);
        client.handle(offer("w@w:1", "f-1", OURS, due), due);
        assert_eq!(client.handle(Event::Tick, due + REQUEST_VALIDITY), []);
    }

    #[test]
    fn a_failed_worker_is_passed_over_and_in_the_end_the_client_gives_up() {
        let mut client = posted();
        client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
        assert_eq!(client.handle(failed(true), T0).len(), 1, "posted again at once");
        assert_eq!(granted(&client.handle(offer("w@w:1", "f-1", OTHER, T0), T0)), None, "the same name");
        assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OURS, T0), T0)), None, "the same node");
        assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, T0), T0)), Some("v@w:1"));
        let end = client.handle(failed(true), T0);
        assert_eq!(end, [Action::GaveUp { future: future(), attempts: 2 }]);
    }

    #[test]
    fn forged_offers_burn_no_attempts_and_are_forgotten() {
        let mut client = posted();
        for number in 0..MAX_UNREACHED - 1 {
            let now = T0 + Duration::from_secs(30) * number;
            let offer = offer(&format!("x@w:{number}"), "f-1", &format!("protocols=libp2p,peer=12D3KooW{number}"), now);
            assert!(granted(&client.handle(offer, now)).is_some());
            let said = client.handle(failed(false), now + Duration::from_secs(29));
            assert!(said.iter().any(|action| matches!(action, Action::Say(Message::Request { .. }, _))), "{said:?}");
            assert!(client.postings[&future()].distrusted.len() <= 2);
        }
        assert_eq!(client.postings[&future()].attempts, 0);
        let now = T0 + Duration::from_secs(30) * MAX_UNREACHED;
        client.handle(offer("x@w:99", "f-1", "protocols=libp2p,peer=12D3KooW99", now), now);
        let end = client.handle(failed(false), now);
        assert_eq!(end, [Action::GaveUp { future: future(), attempts: MAX_UNREACHED }], "perhaps nobody can reach us");
    }

    #[test]
    fn what_is_withdrawn_or_done_is_forgotten() {
        let mut client = posted();
        let said = client.handle(Event::Withdraw(future()), T0);
        assert!(matches!(said.as_slice(), [Action::Say(Message::Withdraw { to: None, .. }, _)]));
        assert_eq!(client.handle(Event::Tick, T0 + REQUEST_VALIDITY), []);
        assert_eq!(client.handle(Event::Withdraw(future()), T0), []);
    }
}
