//! One posting: who has it, who failed with it, and whether an offer can be taken.

use std::time::Duration;

use super::{DOUBT, Route};
use crate::{
    clock::Timestamp,
    ids::{NodeId, PeerName},
};

/// How many accepted workers may fail to come. More than workers that came and failed, because offers can be forged; but a
/// client that nobody can reach must not wait for ever.
pub(super) const MAX_UNREACHED: u32 = 12;

/// For how long the offers of a worker that failed are passed over.
const DISTRUST: Duration = Duration::from_secs(20);

/// For how long an accepted worker may stay away that comes by wormhole: a peer of future.p2p reads a line in 0.1 s and
/// starts another program, and waits 15 s itself for the answer to an offer.
const DOUBT_BY_WORMHOLE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Posting {
    /// Which was posted before which.
    pub(super) number: u64,
    pub(super) size: u64,
    pub(super) deadline: Option<Timestamp>,
    /// How many workers get it, one after the other.
    pub(super) max_attempts: u32,
    /// When the request is due (again); `None` while it waits for room on the board, or is in good hands.
    pub(super) due: Option<Timestamp>,
    pub(super) worker: Option<Taker>,
    /// The first offer by wormhole, and when it is taken unless a better one comes.
    pub(super) second_best: Option<(PeerName, Timestamp)>,
    /// Workers that came and failed.
    pub(super) attempts: u32,
    /// How many workers were accepted and never came.
    pub(super) unreached: u32,
    /// Who failed, and until when its offers are passed over.
    pub(super) distrusted: Vec<(Offerer, Timestamp)>,
}

/// The worker that has a future.
#[derive(Debug)]
pub(super) struct Taker {
    pub(super) who: Offerer,
    /// It was here: with the node that its offer named, or with the code.
    pub(super) came: bool,
    /// The future is posted again.
    pub(super) in_doubt: bool,
}

/// Who an offer says it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offerer {
    pub(super) name: PeerName,
    pub(super) route: Route,
}

impl Offerer {
    fn node(&self) -> Option<&NodeId> {
        match &self.route {
            Route::Libp2p(node) => Some(node),
            Route::Wormhole => None,
        }
    }
}

impl Taker {
    pub(super) fn is_by_wormhole(&self) -> bool {
        self.who.route == Route::Wormhole
    }
}

impl Posting {
    pub(super) fn new(number: u64, size: u64, deadline: Option<Timestamp>, max_attempts: u32) -> Self {
        let (due, worker, second_best, distrusted) = (None, None, None, Vec::new());
        Self { number, size, deadline, max_attempts, due, worker, second_best, attempts: 0, unreached: 0, distrusted }
    }

    pub(super) fn distrusts(&self, one: &Offerer, now: Timestamp) -> bool {
        let same = |other: &Offerer| other.name == one.name || (other.node().is_some() && other.node() == one.node());
        self.distrusted.iter().any(|(other, until)| *until > now && same(other))
    }

    /// It belongs to this worker now. One that had it and was not faster is counted as one that failed.
    pub(super) fn give(&mut self, who: Offerer, now: Timestamp) {
        if let Some(before) = self.worker.take() {
            let came = before.came;
            self.failed(before, came, now);
        }
        self.second_best = None;
        self.due = Some(now + if who.route == Route::Wormhole { DOUBT_BY_WORMHOLE } else { DOUBT });
        self.worker = Some(Taker { who, came: false, in_doubt: false });
    }

    /// Counts a worker that failed or was replaced, and passes over it for a while.
    pub(super) fn failed(&mut self, worker: Taker, came: bool, now: Timestamp) {
        self.count(came);
        self.distrusted.retain(|(_, until)| *until > now);
        self.distrusted.push((worker.who, now + DISTRUST));
    }

    /// One more failure.
    pub(super) fn count(&mut self, came: bool) {
        let failures = if came { &mut self.attempts } else { &mut self.unreached };
        *failures = failures.saturating_add(1);
    }

    /// Whether one more failure would be the last.
    pub(super) fn is_last(&self, came: bool) -> bool {
        if came { self.attempts.saturating_add(1) >= self.max_attempts } else { self.unreached + 1 >= MAX_UNREACHED }
    }

    /// Whether an offer can be taken: nobody has the future, or it is in doubt, and one more may fail.
    pub(super) fn is_open(&self) -> bool {
        let replaceable = |taker: &Taker| taker.in_doubt && !self.is_last(taker.came);
        self.worker.as_ref().is_none_or(replaceable)
    }

    /// Whether its request is on the board, with nobody accepted.
    pub(super) fn is_wanting(&self) -> bool {
        self.worker.is_none() && self.due.is_some()
    }
}
