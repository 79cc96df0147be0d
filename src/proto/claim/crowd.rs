//! The other workers of a cluster, and how long we wait before an offer so that not all of us make it.
//!
//! Each worker waits for a time of its own, drawn by a hash of the future and of its name, and says nothing when another
//! one was faster. The times are distributed exponentially, as those of multicast receivers that all miss the same packet
//! (RFC 5401, 5.1): with `W` workers that know of one another, all of them free, the first waits for about
//! `SPREAD` round trips to the board, and on average `exp(1 / SPREAD)` offer before they hear of one another, whatever `W`
//! is; where only few of them are free, they wait for at most `SPREAD · (ln W + 1)` round trips. A request that had been open
//! for longer than that before we became free shows that the others are busy; then we wait as if there were [`FEW`]. A
//! worker that knows of no other one does not wait at all, and neither does the one that a client accepted last: it is
//! connected with that client and has what its futures have in common, and there is only one.
//!
//! How long a round trip takes is measured by our own lines, which the board sends back.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use super::{HELLO_VALIDITY, Key};
use crate::{clock::Timestamp, ids::PeerName};

/// Round trips that the first of many waits for.
const SPREAD: f64 = 2.5;

/// How many workers may become free at about the same time while all others are busy.
const FEW: f64 = 4.0;

/// A round trip to the board before one was measured, and its bounds. What is longer is not waited for.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(100);
const SHORTEST_ROUND_TRIP: Duration = Duration::from_millis(2);
const LONGEST_ROUND_TRIP: Duration = Duration::from_millis(400);

/// The most workers that are told apart. More of them wait as if there were so many.
const MAX_WORKERS: usize = 512;

/// For how long a worker that was accepted counts as busy; it says nothing when it is free again.
const BUSY: Duration = Duration::from_secs(60);

/// For how long a client that accepted us last may be expected to do so again, and of how many that is known.
const CHOSEN: Duration = Duration::from_secs(10 * 60);
const MAX_CLIENTS: usize = 512;

/// For each other worker, the time over which answers to a client's hello are spread.
const ANSWER_SPREAD: Duration = Duration::from_millis(200);

/// What is known of the other workers.
#[derive(Debug)]
pub(super) struct Crowd {
    heard: BTreeMap<PeerName, Worker>,
    round_trip: Option<Duration>,
    /// When the last line of ours was said that did not come back yet.
    said: Option<Timestamp>,
    /// Clients that accepted us last, and when.
    chosen: HashMap<PeerName, Timestamp>,
}

/// Another worker, as its lines name it.
#[derive(Debug)]
struct Worker {
    /// It counts until then.
    until: Timestamp,
    /// It was accepted for a future not long before this.
    busy_until: Timestamp,
}

impl Crowd {
    pub(super) fn new() -> Self {
        Self { heard: BTreeMap::new(), round_trip: None, said: None, chosen: HashMap::new() }
    }

    /// A worker said hello, or made an offer, which shows that it is free.
    pub(super) fn hear(&mut self, worker: PeerName, is_free: bool, now: Timestamp) {
        if self.heard.len() < MAX_WORKERS || self.heard.contains_key(&worker) {
            let fresh = Worker { until: now, busy_until: now };
            let worker = self.heard.entry(worker).or_insert(fresh);
            worker.until = now + HELLO_VALIDITY;
            if is_free {
                worker.busy_until = now;
            }
        }
    }

    /// We were accepted by a client.
    pub(super) fn chosen(&mut self, client: &PeerName, now: Timestamp) {
        if self.chosen.len() < MAX_CLIENTS || self.chosen.contains_key(client) {
            self.chosen.insert(client.clone(), now);
        }
    }

    /// Another worker was accepted by a client.
    pub(super) fn accepted(&mut self, worker: &PeerName, client: &PeerName, now: Timestamp) {
        self.chosen.remove(client);
        if let Some(worker) = self.heard.get_mut(worker) {
            worker.busy_until = now + BUSY;
        }
    }

    pub(super) fn forget_expired(&mut self, now: Timestamp) {
        self.heard.retain(|_, worker| worker.until > now);
        self.chosen.retain(|_, at| *at + CHOSEN > now);
    }

    /// We say a line that will come back.
    pub(super) fn said(&mut self, now: Timestamp) {
        self.said.get_or_insert(now);
    }

    /// A line of ours came back.
    pub(super) fn came_back(&mut self, now: Timestamp) {
        if let Some(said) = self.said.take() {
            let sample = (now - said).clamp(SHORTEST_ROUND_TRIP, LONGEST_ROUND_TRIP);
            self.round_trip = Some(self.round_trip.map_or(sample, |before| (before * 3 + sample) / 4));
        }
    }

    /// The lines under way are lost with the connection.
    pub(super) fn lost(&mut self) {
        self.said = None;
    }

    /// Of how many requests at a time one is chosen: one for each worker that may be free, so that they need not wait for
    /// one another, and few when most are busy, so that turns are kept.
    pub(super) fn breadth(&self, now: Timestamp) -> usize {
        let free = self.heard.values().filter(|worker| worker.busy_until <= now).count();
        free.max(self.heard.len() / 4).saturating_add(1)
    }

    /// How long we wait before we say hello to a client, so that not all of us do so at once: R peers read ten lines a second.
    pub(super) fn answer_delay(&self, me: &PeerName) -> Duration {
        let mut hasher = DefaultHasher::new();
        me.hash(&mut hasher);
        self.answer_spread().mul_f64(drawn(&hasher))
    }

    /// The time over which the answers of all workers to a client's hello are spread.
    pub(super) fn answer_spread(&self) -> Duration {
        ANSWER_SPREAD.saturating_mul(u32::try_from(self.heard.len()).unwrap_or(u32::MAX))
    }

    /// How long we wait before we offer.
    pub(super) fn delay(&self, me: &PeerName, bid: &Bid<'_>) -> Duration {
        let is_ours = bid.round == 0 && bid.turn == 0 && self.chosen.contains_key(&bid.key.client);
        if is_ours || self.heard.is_empty() {
            return Duration::ZERO;
        }
        let mut hasher = DefaultHasher::new();
        (me, bid.key, bid.round).hash(&mut hasher);
        let drawn = drawn(&hasher);
        let round_trip = self.round_trip.unwrap_or(USUAL_ROUND_TRIP).as_secs_f64();
        let mut size = (self.heard.len() + 1) as f64;
        if bid.open_before.as_secs_f64() > 2.0 * SPREAD * (size.ln() + 1.0) * round_trip {
            size = size.min(FEW);
        }
        let round_trips = SPREAD * (drawn * ((size.ln() + 1.0).exp() - 1.0)).ln_1p();
        let later = 1.0 + bid.turn as f64 / bid.breadth.max(1) as f64;
        Duration::try_from_secs_f64(round_trip * round_trips * later).unwrap_or(LONGEST_ROUND_TRIP)
    }
}

/// A number from 0 to 1.
fn drawn(hasher: &DefaultHasher) -> f64 {
    // 53 bits, as many as an f64 holds.
    (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64
}

/// What decides how long we wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bid<'a> {
    /// The future.
    pub(super) key: &'a Key,
    /// How often it was tried.
    pub(super) round: u32,
    /// How many have their turn before it, of how many that are looked at.
    pub(super) turn: usize,
    /// See [`Crowd::breadth`].
    pub(super) breadth: usize,
    /// For how long it could have been offered on when we became free.
    pub(super) open_before: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_795_361_280_000);

    fn name(number: usize) -> PeerName {
        format!("w@h:{number}").parse().unwrap()
    }

    fn crowd(others: usize, round_trip: u64) -> Crowd {
        let mut crowd = Crowd::new();
        (0..others).for_each(|number| crowd.hear(name(number + 1), true, T0));
        crowd.said(T0);
        crowd.came_back(T0 + Duration::from_millis(round_trip));
        crowd
    }

    fn key(number: usize) -> Key {
        Key { client: "c@h:1".parse().unwrap(), future: format!("f-{number}").parse().unwrap() }
    }

    fn bid(key: &Key) -> Bid<'_> {
        Bid { key, round: 0, turn: 0, breadth: 1, open_before: Duration::ZERO }
    }

    /// How many offer before they hear of one another, and how long the first one waits, in milliseconds; both on average.
    fn measured(workers: usize, round_trip: u64) -> (f64, f64) {
        let crowd = crowd(workers - 1, round_trip);
        let (mut offers, mut waits) = (0, 0);
        for number in 0..1000 {
            let delay =
                |worker| -> u64 { crowd.delay(&name(worker), &bid(&key(number))).as_millis().try_into().unwrap() };
            let delays: Vec<u64> = (0..workers).map(delay).collect();
            let first = *delays.iter().min().unwrap();
            waits += first;
            offers += delays.iter().filter(|delay| **delay <= first + round_trip).count();
        }
        (offers as f64 / 1000.0, waits as f64 / 1000.0)
    }

    #[test]
    fn the_worker_that_a_client_accepted_last_does_not_wait_and_all_others_do() {
        let mut crowd = crowd(9, 50);
        let waits = |crowd: &Crowd, number| {
            let key = key(number);
            [bid(&key), Bid { round: 1, ..bid(&key) }, Bid { turn: 1, ..bid(&key) }]
                .map(|bid| crowd.delay(&name(0), &bid) > Duration::ZERO)
        };
        let Key { client, .. } = key(1);
        assert_eq!(waits(&crowd, 1), [true; 3]);
        crowd.chosen(&client, T0);
        assert_eq!(
            waits(&crowd, 2),
            [false, true, true],
            "nor after an offer in vain, nor before others had their turn"
        );
        crowd.accepted(&name(1), &client, T0);
        assert_eq!(waits(&crowd, 3), [true; 3]);
        crowd.chosen(&client, T0);
        crowd.forget_expired(T0 + CHOSEN);
        assert!(crowd.chosen.is_empty());
    }

    #[test]
    fn of_many_free_workers_one_or_two_offer_and_soon() {
        for workers in [2, 3, 10, 50, 200] {
            for round_trip in [2, 20, 100, 400] {
                let (offers, wait) = measured(workers, round_trip);
                assert!(offers < 2.0, "{workers} workers, {round_trip} ms: {offers} offers");
                assert!(wait <= 4.0 * round_trip as f64, "{workers} workers, {round_trip} ms: waits {wait} ms");
            }
        }
    }

    #[test]
    fn who_is_alone_does_not_wait_and_nobody_waits_long() {
        assert_eq!(crowd(0, 400).delay(&name(0), &bid(&key(1))), Duration::ZERO);
        let many = crowd(2 * MAX_WORKERS, 10_000);
        assert_eq!(many.heard.len(), MAX_WORKERS);
        let longest = (0..1000).map(|number| many.delay(&name(0), &bid(&key(number)))).max().unwrap();
        assert!(longest < Duration::from_secs(8), "{longest:?}");
    }

    #[test]
    fn where_requests_stay_open_the_others_are_busy() {
        let (crowd, one) = (crowd(100, 100), key(1));
        let delay = |worker, open_before| crowd.delay(&name(worker), &Bid { open_before, ..bid(&one) });
        let longest = |open_before| (0..100).map(|worker| delay(worker, open_before)).max().unwrap();
        assert!(longest(Duration::ZERO) > Duration::from_secs(1));
        assert!(longest(Duration::from_secs(4)) < Duration::from_millis(600));
    }

    #[test]
    fn the_busy_are_not_reckoned_with_and_the_gone_forgotten() {
        let mut crowd = crowd(8, 10);
        assert_eq!(crowd.breadth(T0), 9);
        (1..=8).for_each(|number| crowd.accepted(&name(number), &key(1).client, T0));
        assert_eq!(crowd.breadth(T0), 3);
        crowd.hear(name(1), true, T0);
        crowd.hear(name(2), true, T0);
        crowd.hear(name(3), true, T0);
        crowd.hear(name(4), false, T0);
        assert_eq!(crowd.breadth(T0), 4);
        crowd.forget_expired(T0 + HELLO_VALIDITY);
        assert_eq!(crowd.breadth(T0), 1);
    }

    #[test]
    fn round_trips_are_averaged_within_bounds() {
        let mut crowd = crowd(1, 40);
        crowd.said(T0);
        crowd.said(T0 + Duration::from_millis(5));
        crowd.came_back(T0 + Duration::from_millis(80));
        assert_eq!(crowd.round_trip, Some(Duration::from_millis(50)));
        crowd.came_back(T0 + Duration::from_secs(9));
        assert_eq!(crowd.round_trip, Some(Duration::from_millis(50)), "nothing was under way");
    }
}
