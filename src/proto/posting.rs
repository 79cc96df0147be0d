//! The client's side of the board: futures that are posted until somebody takes them.
//!
//! Events and the time go in, actions come out. The rules:
//! - At most [`WINDOW`] requests are on the board at a time; the other futures wait in the order in which they came.
//! - The first unexpired offer of a worker that speaks libp2p wins; all others are left alone and expire by themselves.
//! - A future belongs to one worker at a time. When its transfer fails it is posted again, under the same name, and
//!   offers with the name or the node of the worker that failed are passed over for a while.
//! - A worker that does not come, or falls silent, is in *doubt* after [`DOUBT`]: the future is posted again, and belongs
//!   to whoever is faster, the worker if it comes back or the next one that offers. The ticket of a worker that was
//!   replaced is void, so that there is one result.
//! - Offers are forgeable: only a worker that came, and so proved its node, counts as an attempt.
//! - An offer for something that was never posted is counted and ignored.

use std::{collections::BTreeMap, time::Duration};

use super::{
    claim::{Counters, our_protocols},
    message::{About, Message, Received, Role, Via},
};
use crate::{
    clock::Timestamp,
    ids::{Address, FutureId, NodeId, PeerName, Ticket},
};

/// How long a request is valid; it is posted again when it expires, as R clients do.
pub const REQUEST_VALIDITY: Duration = Duration::from_secs(10);

/// The most requests of one client that are on the board at a time. R peers read ten lines a second, and each request is
/// posted again every [`REQUEST_VALIDITY`].
pub const WINDOW: usize = 16;

/// For how long a worker may stay away before its future is posted again: from the accept to its coming, and after its
/// stream broke.
pub const DOUBT: Duration = Duration::from_secs(4);

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
    /// The user has this future. One that is known already stays as it is.
    Post {
        /// Its name.
        future: FutureId,
        /// Bytes of its RDS.
        size: u64,
        /// When it is of no use any more.
        deadline: Option<Timestamp>,
    },
    /// The accepted worker is here, for the first time or again.
    Came(FutureId),
    /// The stream of the accepted worker broke; it may come back.
    Silent(FutureId),
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
    /// Make a ticket for this worker, void the one that there may be for this future, then post [`Postings::accept`].
    Grant {
        /// The future.
        future: FutureId,
        /// The worker, as it writes itself.
        worker: PeerName,
        /// Its libp2p peer id, which the handshake must prove.
        node: NodeId,
    },
    /// Post [`Postings::accept`] once more, with the ticket that there is.
    Confirm {
        /// The future.
        future: FutureId,
        /// The worker that has it.
        worker: PeerName,
    },
    /// The worker that has it did not come or fell silent; the future is posted again.
    Doubted(FutureId),
    /// It was tried so many times, and is forgotten now.
    GaveUp {
        /// The future.
        future: FutureId,
        /// How many workers were accepted for it.
        attempts: u32,
    },
    /// Its deadline has passed; it is withdrawn and forgotten.
    TimedOut(FutureId),
}

#[derive(Debug)]
struct Posting {
    /// Which was posted before which.
    number: u64,
    size: u64,
    deadline: Option<Timestamp>,
    /// How many workers get it, one after the other.
    max_attempts: u32,
    /// When the request is due (again); `None` while it waits for room on the board, or is in good hands.
    due: Option<Timestamp>,
    worker: Option<Taker>,
    /// Workers that came and failed.
    attempts: u32,
    /// How many workers were accepted and never came.
    unreached: u32,
    /// Who failed, and until when its offers are passed over.
    distrusted: Vec<(Offerer, Timestamp)>,
}

/// The worker that has a future.
#[derive(Debug)]
struct Taker {
    who: Offerer,
    /// It was here, with the node that its offer named.
    came: bool,
    /// The future is posted again.
    in_doubt: bool,
}

/// Who an offer says it is from.
#[derive(Debug)]
struct Offerer {
    name: PeerName,
    node: NodeId,
}

impl Posting {
    fn new(number: u64, size: u64, deadline: Option<Timestamp>, max_attempts: u32) -> Self {
        let (due, worker, distrusted) = (None, None, Vec::new());
        Self { number, size, deadline, max_attempts, due, worker, attempts: 0, unreached: 0, distrusted }
    }

    fn distrusts(&self, name: &PeerName, node: &NodeId, now: Timestamp) -> bool {
        self.distrusted.iter().any(|(one, until)| *until > now && (one.name == *name || one.node == *node))
    }

    /// Counts a worker that failed or was replaced, and passes over it for a while.
    fn failed(&mut self, worker: Taker, came: bool, now: Timestamp) {
        let failures = if came { &mut self.attempts } else { &mut self.unreached };
        *failures = failures.saturating_add(1);
        self.distrusted.retain(|(_, until)| *until > now);
        self.distrusted.push((worker.who, now + DISTRUST));
    }

    /// Whether one more failure would be the last.
    fn is_last(&self, came: bool) -> bool {
        if came { self.attempts.saturating_add(1) >= self.max_attempts } else { self.unreached + 1 >= MAX_UNREACHED }
    }

    /// Whether an offer can be taken: nobody has the future, or it is in doubt, and one more may fail.
    fn is_open(&self) -> bool {
        let replaceable = |taker: &Taker| taker.in_doubt && !self.is_last(taker.came);
        self.worker.as_ref().is_none_or(replaceable)
    }

    /// Whether its request is on the board, with nobody accepted.
    fn is_wanting(&self) -> bool {
        self.worker.is_none() && self.due.is_some()
    }
}

/// A client's postings.
#[derive(Debug)]
pub struct Postings {
    me: PeerName,
    max_attempts: u32,
    joined: bool,
    hello_due: Timestamp,
    posted: u64,
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
            posted: 0,
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
                // What was said while the board was away is lost.
                self.postings.values_mut().filter(|posting| posting.due.is_some()).for_each(|p| p.due = Some(now));
            }
            Event::Lost => self.joined = false,
            Event::Line(line) => match Received::read(&line, now) {
                Ok(received) => self.hear(received.message, now, &mut actions),
                Err(_) => self.count("unreadable line"),
            },
            Event::Skipped(lines) => *self.counters.entry("skipped line").or_default() += lines,
            Event::Post { future, size, deadline } => {
                self.posted += 1;
                let posting = Posting::new(self.posted, size, deadline, self.max_attempts);
                self.postings.entry(future).or_insert(posting);
            }
            Event::Came(future) => self.came(&future, &mut actions),
            Event::Silent(future) => {
                let posting = self.postings.get_mut(&future).filter(|posting| posting.worker.is_some());
                posting.into_iter().for_each(|posting| posting.due = Some(now + DOUBT));
            }
            Event::Failed { future, came } => self.post_again(future, came, now, &mut actions),
            Event::Done(future) => drop(self.postings.remove(&future)),
            Event::Withdraw(future) => self.withdraw(future, now, &mut actions),
            Event::Tick => {}
        }
        self.time_out(now, &mut actions);
        if self.joined {
            self.say_hello(now, &mut actions);
            self.fill_window(now);
            self.post_due(now, &mut actions);
        }
        actions
    }

    /// Gives this future to at most so many workers, one after the other, whatever holds for the others.
    pub fn limit_attempts(&mut self, future: &FutureId, most: u32) {
        if let Some(posting) = self.postings.get_mut(future) {
            posting.max_attempts = most;
        }
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let due = self.postings.values().filter_map(|posting| posting.due).chain([self.hello_due]);
        let deadlines = self.postings.values().filter_map(|posting| posting.deadline);
        due.filter(|_| self.joined).chain(deadlines).min()
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
            Some(node) if posting.distrusts(&from, &node, now) => self.count("offer of a worker that failed"),
            Some(_) if !posting.is_open() => self.count("offer that came too late"),
            Some(node) => {
                if let Some(before) = posting.worker.take() {
                    let came = before.came;
                    posting.failed(before, came, now);
                }
                let who = Offerer { name: from.clone(), node: node.clone() };
                posting.worker = Some(Taker { who, came: false, in_doubt: false });
                posting.due = Some(now + DOUBT);
                actions.push(Action::Grant { future, worker: from, node });
            }
        }
    }

    /// The worker is here: nobody else is wanted.
    fn came(&mut self, future: &FutureId, actions: &mut Vec<Action>) {
        let Some(posting) = self.postings.get_mut(future) else { return };
        let Some(taker) = &mut posting.worker else { return };
        posting.due = None;
        taker.came = true;
        if std::mem::take(&mut taker.in_doubt) {
            // Those who offered meanwhile drop the future when they see whose it is.
            actions.push(Action::Confirm { future: future.clone(), worker: taker.who.name.clone() });
        }
    }

    fn post_again(&mut self, future: FutureId, came: bool, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(posting) = self.postings.get_mut(&future) else { return };
        let Some(worker) = posting.worker.take() else { return };
        let is_last = posting.is_last(came);
        posting.failed(worker, came, now);
        posting.due = Some(now);
        if is_last {
            let attempts = posting.attempts.saturating_add(posting.unreached);
            self.postings.remove(&future);
            actions.push(Action::GaveUp { future, attempts });
        }
    }

    fn withdraw(&mut self, future: FutureId, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(posting) = self.postings.remove(&future) else { return };
        // What was never on the board is nobody's business.
        if posting.worker.is_some() || posting.due.is_some() {
            let to = posting.worker.map(|worker| worker.who.name);
            actions.push(Action::Say(Message::Withdraw { from: self.me.clone(), to, future }, now));
        }
    }

    fn time_out(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let late = |posting: &Posting| posting.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<FutureId> =
            self.postings.iter().filter(|(_, p)| late(p)).map(|(future, _)| future.clone()).collect();
        for future in late {
            self.withdraw(future.clone(), now, actions);
            actions.push(Action::TimedOut(future));
        }
    }

    fn say_hello(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.hello_due <= now {
            self.hello_due = now + HELLO_VALIDITY / 2;
            let hello = Message::Hello {
                role: Role::Client,
                from: self.me.clone(),
                protocols: our_protocols(),
                about: About::default(),
            };
            actions.push(Action::Say(hello, now + HELLO_VALIDITY));
        }
    }

    /// Lets the futures that have waited longest onto the board.
    fn fill_window(&mut self, now: Timestamp) {
        let wanting = self.postings.values().filter(|posting| posting.is_wanting()).count();
        let mut queued: Vec<&mut Posting> =
            self.postings.values_mut().filter(|posting| posting.worker.is_none() && posting.due.is_none()).collect();
        let room = WINDOW.saturating_sub(wanting);
        if room > 0 {
            queued.sort_by_key(|posting| posting.number);
            queued.into_iter().take(room).for_each(|posting| posting.due = Some(now));
        }
    }

    fn post_due(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let due = |posting: &Posting| posting.due.is_some_and(|due| due <= now);
        let mut due: Vec<_> = self.postings.iter_mut().filter(|(_, posting)| due(posting)).collect();
        // Workers take the oldest one of a client: the one that they hear of first.
        due.sort_by_key(|(_, posting)| posting.number);
        for (future, posting) in due {
            posting.due = Some(now + REQUEST_VALIDITY);
            if let Some(taker) = &mut posting.worker
                && !std::mem::replace(&mut taker.in_doubt, true)
            {
                actions.push(Action::Doubted(future.clone()));
                if !taker.came {
                    // The accept may have been lost.
                    actions.push(Action::Confirm { future: future.clone(), worker: taker.who.name.clone() });
                }
            }
            let (from, future) = (self.me.clone(), future.clone());
            let request = Message::Request { from, future, size: posting.size, protocols: our_protocols() };
            actions.push(Action::Say(request, now + REQUEST_VALIDITY));
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

    fn post(future: &str) -> Event {
        Event::Post { future: future.parse().unwrap(), size: 5, deadline: None }
    }

    fn requests(actions: &[Action]) -> usize {
        actions.iter().filter(|action| matches!(action, Action::Say(Message::Request { .. }, _))).count()
    }

    fn posted() -> Postings {
        let mut client = Postings::new("c@h:1".parse().unwrap(), 2);
        assert!(client.handle(post("f-1"), T0).is_empty(), "nothing is said before the topic is joined");
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
        client.handle(Event::Came(future()), due);
        assert_eq!(client.handle(Event::Tick, due + REQUEST_VALIDITY), []);
    }

    #[test]
    fn requests_are_posted_in_the_order_in_which_they_came_whatever_their_names() {
        let mut client = Postings::new("c@h:1".parse().unwrap(), 2);
        for name in ["f-9", "f-1", "f-5"] {
            client.handle(post(name), T0);
        }
        let names = |said: Vec<Action>| -> Vec<String> {
            let name = |action| match action {
                Action::Say(Message::Request { future, .. }, _) => Some(future.to_string()),
                _ => None,
            };
            said.into_iter().filter_map(name).collect()
        };
        assert_eq!(names(client.handle(Event::Joined, T0)), ["f-9", "f-1", "f-5"]);
        assert_eq!(names(client.handle(Event::Tick, T0 + REQUEST_VALIDITY)), ["f-9", "f-1", "f-5"]);
    }

    #[test]
    fn only_so_many_requests_are_on_the_board_at_a_time() {
        let mut client = Postings::new("c@h:1".parse().unwrap(), 2);
        client.handle(Event::Joined, T0);
        let said: usize = (0..100).map(|i| requests(&client.handle(post(&format!("f-{i}")), T0))).sum();
        assert_eq!(said, WINDOW);
        assert_eq!(requests(&client.handle(Event::Tick, T0 + REQUEST_VALIDITY)), WINDOW, "the same ones");
        let now = T0 + REQUEST_VALIDITY;
        let said = client.handle(offer("w@w:1", "f-3", OURS, now), now);
        assert_eq!(granted(&said), Some("w@w:1"));
        assert_eq!(requests(&said), 1, "the next one");
        assert_eq!(client.handle(Event::Withdraw("f-99".parse().unwrap()), now), [], "it was never there");
        assert_eq!(requests(&client.handle(Event::Withdraw("f-1".parse().unwrap()), now)), 1);
    }

    #[test]
    fn a_worker_that_does_not_come_is_reminded_and_then_the_faster_one_has_it() {
        let mut client = posted();
        client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
        assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, T0), T0)), None, "it has a worker");
        let now = client.next_wakeup().unwrap();
        assert_eq!(now, T0 + DOUBT);
        let said = client.handle(Event::Tick, now);
        let again = Action::Confirm { future: future(), worker: "w@w:1".parse().unwrap() };
        assert_eq!(said[..2], [Action::Doubted(future()), again]);
        assert_eq!((said.len(), requests(&said)), (3, 1));
        assert_eq!(granted(&client.handle(offer("w@w:1", "f-1", OURS, now), now)), Some("w@w:1"), "here it is");
        client.handle(Event::Tick, now + DOUBT);
        assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, now + DOUBT), now + DOUBT)), Some("v@w:1"));
        assert_eq!(client.postings[&future()].unreached, 2);
    }

    #[test]
    fn a_silent_worker_that_comes_back_keeps_its_future() {
        let mut client = posted();
        client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
        client.handle(Event::Came(future()), T0);
        client.handle(Event::Silent(future()), T0);
        let now = T0 + DOUBT;
        let said = client.handle(Event::Tick, now);
        assert_eq!((said.len(), requests(&said)), (2, 1), "no reminder: it has the ticket {said:?}");
        let back = client.handle(Event::Came(future()), now);
        assert_eq!(back, [Action::Confirm { future: future(), worker: "w@w:1".parse().unwrap() }]);
        assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, now), now)), None);
        client.handle(Event::Silent(future()), now);
        client.handle(Event::Tick, now + DOUBT);
        assert_eq!(granted(&client.handle(offer("v@w:1", "f-1", OTHER, now + DOUBT), now + DOUBT)), Some("v@w:1"));
        let end = client.handle(failed(true), now + DOUBT);
        assert_eq!(end, [Action::GaveUp { future: future(), attempts: 2 }], "both came and failed");
    }

    #[test]
    fn the_last_attempt_is_not_taken_from_a_silent_worker() {
        let mut client = posted();
        client.handle(offer("w@w:1", "f-1", OURS, T0), T0);
        client.handle(failed(true), T0);
        client.handle(offer("v@w:1", "f-1", OTHER, T0), T0);
        client.handle(Event::Came(future()), T0);
        client.handle(Event::Silent(future()), T0);
        let now = T0 + DOUBT;
        client.handle(Event::Tick, now);
        let third = offer("u@w:1", "f-1", "protocols=libp2p,peer=12D3KooWu", now);
        assert_eq!(granted(&client.handle(third, now)), None);
    }

    #[test]
    fn what_is_late_is_withdrawn() {
        let mut client = posted();
        let deadline = T0 + Duration::from_secs(30);
        let late: FutureId = "f-2".parse().unwrap();
        client.handle(Event::Post { future: late.clone(), size: 1, deadline: Some(deadline) }, T0);
        client.handle(Event::Lost, T0);
        assert_eq!(client.next_wakeup(), Some(deadline), "even when the board is away");
        let said = client.handle(Event::Tick, deadline);
        assert!(matches!(&said[..], [Action::Say(Message::Withdraw { .. }, _), Action::TimedOut(_)]), "{said:?}");
        assert_eq!(client.next_wakeup(), None);
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
