//! The client's side of the board: futures that are posted until somebody takes them.
//!
//! Events and the time go in, actions come out. The rules:
//! - At most [`WINDOW`] requests are on the board at a time; the other futures wait in the order in which they came.
//! - The first unexpired offer of a worker that speaks libp2p wins; all others are left alone and expire by themselves.
//! - A worker that speaks only wormhole, as those of future.p2p do, gets the future if nobody offers to take it by libp2p
//!   within [`PREFERENCE`]: what it says of its sandbox is nothing, and a quarter of a second is little beside the second
//!   that its way takes. A client that speaks only wormhole takes the first offer.
//! - A future belongs to one worker at a time. When its transfer fails it is posted again, under the same name, and
//!   offers with the name or the node of the worker that failed are passed over for a while.
//! - A worker that does not come is in *doubt* after [`DOUBT`], one that falls silent after [`ABSENCE`]: the future is posted again, and belongs
//!   to whoever is faster, the worker if it comes back or the next one that offers. The ticket of a worker that was
//!   replaced is void, so that there is one result.
//! - Who has a future by wormhole says on the board when its result can be fetched, and nothing before, however long it
//!   takes. What may have been said while nobody listened is asked for ([`Action::Fetch`]).
//! - A client that moved to other addresses says them in the accepts of the workers that have its futures, which it gives the
//!   time to come there before it doubts them.
//! - Offers are forgeable: only a worker that came, and so proved its node, counts as an attempt.
//! - An offer for something that was never posted is counted and ignored.

mod one;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use super::{
    claim::Counters,
    message::{About, Message, Protocols, Received, Role, Via},
};
use crate::{
    clock::Timestamp,
    ids::{Address, ClaimCode, FutureId, NodeId, PeerName, Ticket},
};
use one::{Offerer, Posting};

/// How long a request is valid; it is posted again when it expires, as R clients do.
pub const REQUEST_VALIDITY: Duration = Duration::from_secs(10);

/// The most requests of one client that are on the board at a time. R peers read ten lines a second, and each request is
/// posted again every [`REQUEST_VALIDITY`].
pub const WINDOW: usize = 16;

/// For how long a worker may stay away after it was accepted before its future is posted again.
pub const DOUBT: Duration = Duration::from_secs(4);

/// For how long a worker may stay away after its stream broke, before its future is posted again. It dials again after a
/// tenth of a second, by a way that it knows.
pub const ABSENCE: Duration = Duration::from_millis(1500);

/// How long an accept is valid.
const ACCEPT_VALIDITY: Duration = Duration::from_secs(60);

/// How long a client's hello is valid.
const HELLO_VALIDITY: Duration = Duration::from_secs(3600);

/// For how long an offer by wormhole waits for one by libp2p.
pub const PREFERENCE: Duration = Duration::from_millis(250);

/// By which transfer an accepted worker comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Ours; the handshake must prove this peer id.
    Libp2p(NodeId),
    /// That of future.p2p.
    Wormhole,
}

/// What happens to a client.
#[derive(Debug)]
pub enum Event {
    /// The topic is joined, for the first time or again.
    Joined,
    /// The connection to the board broke.
    Lost,
    /// This client can be reached at other addresses than before.
    Moved,
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
    /// The code of the accepted worker was used by somebody else, which is no fault of its. It may offer again at once.
    CodeSpoilt(FutureId),
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
    /// Make a ticket or draw a code for this worker, void what there may be of these for this future, then post
    /// [`Postings::accept`] or [`Postings::accept_by_wormhole`].
    Grant {
        /// The future.
        future: FutureId,
        /// The worker, as it writes itself.
        worker: PeerName,
        /// How it comes.
        route: Route,
    },
    /// Receive the result by wormhole, once the future is sent.
    Fetch {
        /// The future.
        future: FutureId,
        /// Whether the worker said that it is there. Else it may have said so while nobody listened.
        said: bool,
    },
    /// Post [`Postings::accept`] once more, with the ticket that there is and the addresses of now.
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

/// A client's postings.
#[derive(Debug)]
pub struct Postings {
    me: PeerName,
    max_attempts: u32,
    speaks: Protocols,
    joined: bool,
    /// The addresses changed, and the topic was not joined since, so nobody may have heard of it.
    moved: bool,
    /// Until when a worker that fell silent may be on its way to the new addresses.
    settling: Timestamp,
    hello_due: Timestamp,
    posted: u64,
    postings: BTreeMap<FutureId, Posting>,
    counters: Counters,
}

impl Postings {
    /// A client that has not joined yet, speaks libp2p, and gives a future to at most `max_attempts` workers, one after the
    /// other.
    #[must_use]
    pub fn new(me: PeerName, max_attempts: u32) -> Self {
        Self {
            me,
            max_attempts,
            speaks: Protocols { libp2p: true, wormhole: false },
            joined: false,
            moved: false,
            settling: Timestamp::default(),
            hello_due: Timestamp::default(),
            posted: 0,
            postings: BTreeMap::new(),
            counters: Counters::new(),
        }
    }

    /// The same client with other transfers.
    #[must_use]
    pub fn speaking(self, speaks: Protocols) -> Self {
        Self { speaks, ..self }
    }

    /// Takes an event; the actions are to be done in their order.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Joined => {
                self.joined = true;
                self.hello_due = now;
                self.say_again(now, &mut actions);
                self.ask_for_results(&mut actions);
            }
            Event::Lost => {
                self.joined = false;
                self.postings.values_mut().for_each(|posting| posting.second_best = None);
            }
            Event::Moved => {
                self.moved = true;
                if self.joined {
                    self.tell_addresses(now, &mut actions);
                }
            }
            Event::Line(line) => match Received::read(&line, now) {
                Ok(received) => self.hear(received.message, now, &mut actions),
                Err(_) => self.count("unreadable line"),
            },
            Event::Skipped(lines) => {
                *self.counters.entry("skipped line").or_default() += lines;
                self.ask_for_results(&mut actions);
            }
            Event::Post { future, size, deadline } => {
                self.posted += 1;
                let posting = Posting::new(self.posted, size, deadline, self.max_attempts);
                self.postings.entry(future).or_insert(posting);
            }
            Event::Came(future) => self.came(&future, &mut actions),
            Event::Silent(future) => {
                let posting = self.postings.get_mut(&future).filter(|posting| posting.worker.is_some());
                let due = self.settling.max(now + ABSENCE);
                posting.into_iter().for_each(|posting| posting.due = Some(due));
            }
            Event::Failed { future, came } => self.post_again(future, came, true, now, &mut actions),
            Event::CodeSpoilt(future) => self.post_again(future, false, false, now, &mut actions),
            Event::Done(future) => drop(self.postings.remove(&future)),
            Event::Withdraw(future) => self.withdraw(future, now, &mut actions),
            Event::Tick => {}
        }
        self.time_out(now, &mut actions);
        if self.joined {
            self.take_second_best(now, &mut actions);
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
        let second_best = self.postings.values().filter_map(|posting| Some(posting.second_best.as_ref()?.1));
        let deadlines = self.postings.values().filter_map(|posting| posting.deadline);
        due.chain(second_best).filter(|_| self.joined).chain(deadlines).min()
    }

    /// The line that answers an offer of a worker that comes by libp2p.
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

    /// The line that answers an offer of a worker that comes by wormhole, with this code.
    #[must_use]
    pub fn accept_by_wormhole(&self, future: FutureId, worker: PeerName, code: ClaimCode, now: Timestamp) -> Action {
        let (via, at) = (Via::Wormhole { code }, Vec::new());
        Action::Say(Message::Accept { from: self.me.clone(), to: worker, future, via, at }, now + ACCEPT_VALIDITY)
    }

    /// What was passed over, by reason.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The board is here, for the first time or again; what was said while it was away is lost.
    fn say_again(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.moved) {
            self.tell_addresses(now, actions);
        }
        for posting in self.postings.values_mut().filter(|posting| posting.due.is_some()) {
            let on_its_way = posting.worker.as_ref().is_some_and(|taker| taker.came && !taker.in_doubt);
            posting.due = if on_its_way { posting.due.max(Some(self.settling)) } else { Some(now) };
        }
    }

    /// Tells the workers that have futures by libp2p where this client is now.
    fn tell_addresses(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.settling = now + DOUBT;
        for (future, posting) in &self.postings {
            if let Some(taker) = posting.worker.as_ref().filter(|taker| !taker.is_by_wormhole()) {
                actions.push(Action::Confirm { future: future.clone(), worker: taker.who.name.clone() });
            }
        }
    }

    fn count(&mut self, reason: &'static str) {
        *self.counters.entry(reason).or_default() += 1;
    }

    fn hear(&mut self, message: Message, now: Timestamp, actions: &mut Vec<Action>) {
        match message {
            Message::Offer { from, to, future, protocols, peer } if to == self.me => {
                match self.route(protocols, peer) {
                    Some(route) => self.offered(future, Offerer { name: from, route }, now, actions),
                    None => self.count("offer by no transfer of ours"),
                }
            }
            Message::Result { from, to, future, .. } if to == self.me => self.result_said(future, &from, actions),
            _ => {}
        }
    }

    /// How a worker that offers this would come; libp2p if both sides speak it.
    fn route(&self, protocols: Protocols, peer: Option<NodeId>) -> Option<Route> {
        match peer.filter(|_| protocols.libp2p && self.speaks.libp2p) {
            Some(node) => Some(Route::Libp2p(node)),
            None if protocols.wormhole && self.speaks.wormhole => Some(Route::Wormhole),
            None => None,
        }
    }

    fn offered(&mut self, future: FutureId, who: Offerer, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(posting) = self.postings.get_mut(&future) else {
            return self.count("offer for a future that is not posted");
        };
        if posting.distrusts(&who, now) {
            return self.count("offer of a worker that failed");
        }
        if !posting.is_open() {
            return self.count("offer that came too late");
        }
        if who.route == Route::Wormhole && self.speaks.libp2p {
            match posting.second_best {
                None => posting.second_best = Some((who.name, now + PREFERENCE)),
                Some(_) => self.count("offer by wormhole after another"),
            }
            return;
        }
        actions.push(Action::Grant { future, worker: who.name.clone(), route: who.route.clone() });
        posting.give(who, now);
    }

    /// Offers by wormhole that no better one came after.
    fn take_second_best(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for (future, posting) in &mut self.postings {
            let Some((name, _)) = posting.second_best.take_if(|(_, at)| *at <= now) else { continue };
            let who = Offerer { name, route: Route::Wormhole };
            // The worker that was in doubt may have come back meanwhile.
            if posting.is_open() && !posting.distrusts(&who, now) {
                actions.push(Action::Grant {
                    future: future.clone(),
                    worker: who.name.clone(),
                    route: Route::Wormhole,
                });
                posting.give(who, now);
            }
        }
    }

    /// The line can be anybody's; who else than the worker has the code, nobody knows.
    fn result_said(&mut self, future: FutureId, from: &PeerName, actions: &mut Vec<Action>) {
        let worker = self.postings.get(&future).and_then(|posting| posting.worker.as_ref());
        if worker.is_some_and(|taker| taker.is_by_wormhole() && taker.who.name == *from) {
            actions.push(Action::Fetch { future, said: true });
        } else {
            self.count("result of a worker that does not have the future");
        }
    }

    /// Results may have been announced in lines that did not get here.
    fn ask_for_results(&self, actions: &mut Vec<Action>) {
        for (future, posting) in &self.postings {
            if posting.worker.as_ref().is_some_and(|taker| taker.is_by_wormhole() && taker.came) {
                actions.push(Action::Fetch { future: future.clone(), said: false });
            }
        }
    }

    /// The worker is here: nobody else is wanted.
    fn came(&mut self, future: &FutureId, actions: &mut Vec<Action>) {
        let Some(posting) = self.postings.get_mut(future) else { return };
        let Some(taker) = &mut posting.worker else { return };
        posting.due = None;
        taker.came = true;
        // A peer of future.p2p is told once: it is busy with the future, and nobody knows what it makes of a second accept.
        if std::mem::take(&mut taker.in_doubt) && !taker.is_by_wormhole() {
            // Those who offered meanwhile drop the future when they see whose it is.
            actions.push(Action::Confirm { future: future.clone(), worker: taker.who.name.clone() });
        }
    }

    fn post_again(&mut self, future: FutureId, came: bool, at_fault: bool, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(posting) = self.postings.get_mut(&future) else { return };
        let Some(worker) = posting.worker.take() else { return };
        let is_last = posting.is_last(came);
        if at_fault {
            posting.failed(worker, came, now);
        } else {
            posting.count(came);
        }
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
                protocols: self.speaks,
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
                if !taker.came && !taker.is_by_wormhole() {
                    // The accept may have been lost.
                    actions.push(Action::Confirm { future: future.clone(), worker: taker.who.name.clone() });
                }
            }
            let (from, future) = (self.me.clone(), future.clone());
            let request = Message::Request { from, future, size: posting.size, protocols: self.speaks };
            actions.push(Action::Say(request, now + REQUEST_VALIDITY));
        }
    }
}
