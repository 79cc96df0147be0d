//! What a worker owes to clients that accepted by wormhole: an R client waits for its result for ever, and the only answer
//! that it understands is a result.
//!
//! Three things are remembered for them, each bounded in number and time:
//! - offers that we gave up: the accept may be on its way, or what made us give up was forged;
//! - accepts that have to wait for a free slot, or for the end of another claim of the same future: one of the two was
//!   forged, and nobody knows which;
//! - results that their client has not come for yet. A line that is said while the board is away is lost, so they are
//!   announced again.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{Job, Key, RESULT_VALIDITY};
use crate::{clock::Timestamp, proto::message::Via};

/// For how long an accept counts that comes when the offer is given up, and for how many offers.
const LAPSED_MEMORY: Duration = Duration::from_secs(60);
const MAX_LAPSED: usize = 256;

/// The most accepts that wait, and of one future.
const MAX_WAITING: usize = 16;
const MAX_WAITING_OF_ONE: usize = 3;

/// The most results that are announced.
const MAX_RESULTS: usize = 1024;

/// What is owed.
#[derive(Debug, Default)]
pub(super) struct Debts {
    /// Until when an accept counts.
    lapsed: HashMap<Key, Timestamp>,
    waiting: VecDeque<Job>,
    /// When they are announced next.
    results: Vec<(Key, Via, Timestamp)>,
}

impl Debts {
    /// An offer was given up.
    pub(super) fn lapse(&mut self, key: Key, now: Timestamp) {
        if self.lapsed.len() >= MAX_LAPSED && !self.lapsed.contains_key(&key) {
            let oldest = self.lapsed.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone());
            oldest.map(|key| self.lapsed.remove(&key));
        }
        self.lapsed.insert(key, now + LAPSED_MEMORY);
    }

    pub(super) fn forget_expired(&mut self, now: Timestamp) {
        self.lapsed.retain(|_, until| *until > now);
    }

    /// Takes an accept that cannot be started as it comes. It counts if its future was claimed by us (`known`), or offered on
    /// not long ago.
    ///
    /// # Errors
    /// Why it does not count.
    pub(super) fn wait(&mut self, job: Job, known: bool) -> Result<(), &'static str> {
        let of_one = self.waiting.iter().filter(|other| other.key == job.key).count();
        if self.waiting.iter().any(|other| other.key == job.key && other.via == job.via) {
            Err("repeated accept")
        } else if !known && of_one == 0 && !self.lapsed.contains_key(&job.key) {
            Err("accept without an offer")
        } else if of_one >= MAX_WAITING_OF_ONE || self.waiting.len() >= MAX_WAITING {
            Err("too many accepts")
        } else {
            self.waiting.push_back(job);
            Ok(())
        }
    }

    /// The next accept that waited and may be started.
    pub(super) fn next_waiting(&mut self, may: impl Fn(&Key) -> bool) -> Option<Job> {
        let at = self.waiting.iter().position(|job| may(&job.key))?;
        let job = self.waiting.remove(at)?;
        self.lapsed.remove(&job.key);
        Some(job)
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn waits(&self, key: &Key) -> bool {
        self.waiting.iter().any(|job| job.key == *key)
    }

    /// The client no longer wants it.
    pub(super) fn forget_waiting(&mut self, key: &Key) {
        self.waiting.retain(|job| job.key != *key);
    }

    /// There is a result.
    pub(super) fn owe(&mut self, key: Key, via: Via, now: Timestamp) {
        if self.results.len() < MAX_RESULTS {
            self.results.push((key, via, now));
        }
    }

    /// The result is there, or given up.
    pub(super) fn pay(&mut self, key: &Key, via: &Via) {
        self.results.retain(|(other, by, _)| (other, by) != (key, via));
    }

    /// Lines may have been lost with the connection.
    pub(super) fn announce_all(&mut self, now: Timestamp) {
        self.results.iter_mut().for_each(|(_, _, due)| *due = now);
    }

    /// The results to announce now. They come again after half of an announcement's validity.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<(Key, Via)> {
        let due = self.results.iter_mut().filter(|(_, _, due)| *due <= now);
        due.map(|(key, via, due)| {
            *due = now + RESULT_VALIDITY / 2;
            (key.clone(), via.clone())
        })
        .collect()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.results.iter().map(|(_, _, due)| *due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_795_361_280_000);

    fn key(number: usize) -> Key {
        Key { client: "c@h:1".parse().unwrap(), future: format!("f-{number}").parse().unwrap() }
    }

    fn job(future: usize, code: usize) -> Job {
        Job { key: key(future), via: via(code), at: Vec::new() }
    }

    fn via(code: usize) -> Via {
        Via::Wormhole { code: format!("{code:04}-abc").parse().unwrap() }
    }

    #[test]
    fn an_accept_counts_for_a_while_after_its_offer_and_once() {
        let mut debts = Debts::default();
        assert_eq!(debts.wait(job(1, 1), false), Err("accept without an offer"));
        debts.lapse(key(1), T0);
        debts.wait(job(1, 1), false).unwrap();
        assert_eq!(debts.wait(job(1, 1), false), Err("repeated accept"));
        assert_eq!(debts.next_waiting(|_| false), None);
        assert_eq!(debts.next_waiting(|_| true), Some(job(1, 1)));
        assert_eq!(debts.wait(job(1, 1), false), Err("accept without an offer"));
        debts.lapse(key(2), T0);
        debts.forget_expired(T0 + LAPSED_MEMORY);
        assert_eq!(debts.wait(job(2, 1), false), Err("accept without an offer"));
    }

    #[test]
    fn what_strangers_can_make_us_remember_is_bounded() {
        let mut debts = Debts::default();
        let taken = (0..100).filter(|code| debts.wait(job(1, *code), true).is_ok()).count();
        assert_eq!(taken, MAX_WAITING_OF_ONE);
        let taken = (0..100).filter(|future| debts.wait(job(*future, 7777), true).is_ok()).count();
        assert_eq!(debts.waiting.len(), MAX_WAITING);
        assert_eq!(taken, MAX_WAITING - MAX_WAITING_OF_ONE);
        debts.forget_waiting(&key(1));
        assert!(!debts.waits(&key(1)) && debts.is_waiting());
        (0..2 * MAX_LAPSED).for_each(|future| debts.lapse(key(future), T0));
        assert_eq!(debts.lapsed.len(), MAX_LAPSED);
        (0..2 * MAX_RESULTS).for_each(|future| debts.owe(key(future), via(1), T0));
        assert_eq!(debts.results.len(), MAX_RESULTS);
    }

    #[test]
    fn a_result_is_announced_until_it_is_there() {
        let mut debts = Debts::default();
        debts.owe(key(1), via(1), T0);
        assert_eq!(debts.due(T0), [(key(1), via(1))]);
        assert_eq!(debts.due(T0), []);
        let later = debts.next_due().unwrap();
        assert_eq!(later, T0 + RESULT_VALIDITY / 2);
        assert_eq!(debts.due(later), [(key(1), via(1))]);
        debts.announce_all(later);
        assert_eq!(debts.due(later), [(key(1), via(1))], "the board was away");
        debts.pay(&key(1), &via(2));
        assert!(debts.next_due().is_some());
        debts.pay(&key(1), &via(1));
        assert_eq!(debts.next_due(), None);
    }
}
