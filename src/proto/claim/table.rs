//! The open requests that a worker knows, and whose turn it is.
//!
//! Clients take turns: the next request is the oldest one of the client that has waited longest, however many futures
//! each of them posts. A client has waited since its oldest open request came, or since a worker was accepted for
//! another one of its futures, whichever is later. The name of a client is whatever its lines say, so that somebody who
//! uses many names gets many turns; what all of them together, and each, can make a worker remember is bounded.

use std::{collections::BTreeMap, time::Duration};

use super::{Key, REQUEST_VALIDITY};
use crate::{clock::Timestamp, ids::PeerName, proto::message::Protocols};

/// The most open requests that are remembered, and of one client.
pub(super) const MAX_REQUESTS: usize = 1024;
const MAX_REQUESTS_OF_ONE: usize = 256;

/// For how long it is remembered that a client was served, and of how many.
const SERVED_MEMORY: Duration = Duration::from_secs(15 * 60);
const MAX_SERVED: usize = 1024;

/// How long a request rests after an offer of ours that came to nothing; twice as long each time, up to the longest.
const FIRST_REST: Duration = Duration::from_secs(15);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// How often we make way for another worker's offer that came to nothing, before we offer whatever the others say: offers
/// can be forged, and nobody may keep a future from being resolved by them.
const MAX_YIELDS: u32 = 3;

/// What is known of an open request.
#[derive(Debug)]
pub(super) struct Request {
    /// Which was heard of before which; many come within the same millisecond.
    number: u64,
    first_seen: Timestamp,
    expires: Timestamp,
    protocols: Protocols,
    /// From when on we may offer; our delay counts from then.
    pub(super) ready: Timestamp,
    /// How often we offered and nobody accepted.
    in_vain: u32,
    /// How often we made way for others.
    yields: u32,
}

impl Request {
    /// A number that is another one each time that the request is tried anew.
    pub(super) fn round(&self) -> u32 {
        self.in_vain.wrapping_add(self.yields)
    }
}

/// The open requests.
#[derive(Debug, Default)]
pub(super) struct Table {
    requests: BTreeMap<Key, Request>,
    /// How many requests were remembered so far.
    heard: u64,
    /// When a worker was last accepted for a client.
    served: BTreeMap<PeerName, Timestamp>,
}

/// There is no room for this request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Table {
    /// Remembers a request, or that it is still open.
    pub(super) fn hear(
        &mut self,
        key: Key,
        protocols: Protocols,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<(), Full> {
        let expires = expires.min(now + REQUEST_VALIDITY);
        if let Some(request) = self.requests.get_mut(&key) {
            request.expires = expires;
            return Ok(());
        }
        self.make_room(&key.client)?;
        self.heard += 1;
        let number = self.heard;
        let request = Request { number, first_seen: now, expires, protocols, ready: now, in_vain: 0, yields: 0 };
        self.requests.insert(key, request);
        Ok(())
    }

    /// Room for one more request of this client. When the table is full, the newest request of the client with most of
    /// them goes, if that client has more than this one would have.
    fn make_room(&mut self, client: &PeerName) -> Result<(), Full> {
        let own = self.requests.keys().filter(|key| key.client == *client).count();
        if own >= MAX_REQUESTS_OF_ONE {
            return Err(Full);
        }
        if self.requests.len() < MAX_REQUESTS {
            return Ok(());
        }
        let mut counts: BTreeMap<&PeerName, usize> = BTreeMap::new();
        self.requests.keys().for_each(|key| *counts.entry(&key.client).or_default() += 1);
        let (greediest, count) = counts.into_iter().max_by_key(|(_, count)| *count).ok_or(Full)?;
        if count <= own.saturating_add(1) {
            return Err(Full);
        }
        let theirs = self.requests.iter().filter(|(key, _)| key.client == *greediest);
        let newest = theirs.max_by_key(|(_, request)| request.number).map(|(key, _)| key.clone()).ok_or(Full)?;
        self.requests.remove(&newest);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.requests.remove(key);
    }

    pub(super) fn forget_all(&mut self) {
        self.requests.clear();
    }

    pub(super) fn forget_expired(&mut self, now: Timestamp) {
        self.requests.retain(|_, request| request.expires > now);
        self.served.retain(|_, at| *at + SERVED_MEMORY > now);
    }

    /// A worker was accepted for this future.
    pub(super) fn accepted(&mut self, key: &Key, now: Timestamp) {
        self.requests.remove(key);
        if self.served.len() >= MAX_SERVED && !self.served.contains_key(&key.client) {
            let longest_ago = self.served.iter().min_by_key(|(_, at)| **at).map(|(client, _)| client.clone());
            longest_ago.map(|client| self.served.remove(&client));
        }
        self.served.insert(key.client.clone(), now);
    }

    /// Makes way for another worker's offer until then, if its client can take it and would not rather have ours: one that
    /// speaks libp2p waits for it a moment when it has an offer by wormhole.
    pub(super) fn make_way(&mut self, key: &Key, [by, ours]: [Protocols; 2], until: Timestamp, now: Timestamp) {
        let Some(request) = self.requests.get_mut(key) else { return };
        let Protocols { libp2p, wormhole } = request.protocols;
        let can_be_taken = (libp2p && by.libp2p) || (wormhole && by.wormhole && !(libp2p && ours.libp2p));
        if can_be_taken && request.ready <= now && request.yields < MAX_YIELDS {
            request.yields += 1;
            request.ready = until;
        }
    }

    /// An offer of ours came to nothing.
    pub(super) fn in_vain(&mut self, key: &Key, now: Timestamp) {
        if let Some(request) = self.requests.get_mut(key) {
            request.ready = now + (FIRST_REST * 2u32.saturating_pow(request.in_vain)).min(LONGEST_REST);
            request.in_vain = request.in_vain.saturating_add(1).min(8);
        }
    }

    /// When the first request that now rests may be offered on.
    pub(super) fn next_ready(&self, now: Timestamp, is_ours: impl Fn(&Key) -> bool) -> Option<Timestamp> {
        let resting = self.requests.iter().filter(|(key, request)| request.ready > now && !is_ours(key));
        resting.map(|(_, request)| request.ready).min()
    }

    /// The first requests that can be offered on now, in the order of their turns. What is offered on already counts as
    /// a turn of its client.
    pub(super) fn turns(&self, now: Timestamp, most: usize, is_ours: impl Fn(&Key) -> bool) -> Vec<(&Key, &Request)> {
        let all: Vec<(&Key, &Request)> = self.requests.iter().collect();
        let mut turns = Vec::with_capacity(all.len());
        for of_one in all.chunk_by(|(one, _), (other, _)| one.client == other.client) {
            let mut of_one = of_one.to_vec();
            of_one.sort_by_key(|(_, request)| request.number);
            let Some((key, oldest)) = of_one.first() else { continue };
            let since = self.served.get(&key.client).copied().unwrap_or_default().max(oldest.first_seen);
            for (turn, (key, request)) in of_one.into_iter().enumerate() {
                if request.ready <= now && !is_ours(key) {
                    turns.push(((turn, since), key, request));
                }
            }
        }
        turns.sort_by_key(|(turn, ..)| *turn);
        turns.into_iter().take(most).map(|(_, key, request)| (key, request)).collect()
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.requests.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_795_361_280_000);
    const OURS: Protocols = Protocols { libp2p: true, wormhole: false };
    const THEIRS: Protocols = Protocols { libp2p: false, wormhole: true };

    fn key(client: &str, future: usize) -> Key {
        Key { client: client.parse().unwrap(), future: format!("f-{future:04}").parse().unwrap() }
    }

    fn after(seconds: u64) -> Timestamp {
        T0 + Duration::from_secs(seconds)
    }

    fn hear(table: &mut Table, client: &str, future: usize, now: Timestamp) -> Result<(), Full> {
        table.hear(key(client, future), OURS, now + REQUEST_VALIDITY, now)
    }

    fn order(table: &Table, now: Timestamp) -> Vec<String> {
        let turns = table.turns(now, usize::MAX, |_| false);
        turns.iter().map(|(key, _)| format!("{} {}", &key.client.as_str()[..1], key.future)).collect()
    }

    #[test]
    fn clients_take_turns_however_many_futures_each_posts() {
        let mut table = Table::default();
        // In the order in which they are heard of, within one millisecond, whatever their names.
        for future in [3, 2, 1] {
            hear(&mut table, "a@h:1", future, after(0)).unwrap();
        }
        hear(&mut table, "b@h:1", 7, after(1)).unwrap();
        hear(&mut table, "c@h:1", 8, after(2)).unwrap();
        assert_eq!(order(&table, after(2)), ["a f-0003", "b f-0007", "c f-0008", "a f-0002", "a f-0001"]);
        table.accepted(&key("a@h:1", 3), after(3));
        assert_eq!(order(&table, after(3)), ["b f-0007", "c f-0008", "a f-0002", "a f-0001"]);
        table.accepted(&key("b@h:1", 7), after(4));
        hear(&mut table, "b@h:1", 9, after(5)).unwrap();
        assert_eq!(order(&table, after(5)), ["c f-0008", "a f-0002", "b f-0009", "a f-0001"]);
    }

    #[test]
    fn an_offer_that_is_under_way_is_a_turn_of_its_client() {
        let mut table = Table::default();
        hear(&mut table, "a@h:1", 1, after(0)).unwrap();
        hear(&mut table, "a@h:1", 2, after(0)).unwrap();
        hear(&mut table, "b@h:1", 3, after(1)).unwrap();
        table.make_way(&key("a@h:1", 1), [OURS; 2], after(9), after(1));
        assert_eq!(order(&table, after(1)), ["b f-0003", "a f-0002"]);
        assert_eq!(table.next_ready(after(1), |_| false), Some(after(9)));
    }

    #[test]
    fn others_offers_hold_us_back_only_so_often_and_only_if_they_can_be_taken() {
        let mut table = Table::default();
        let one = key("a@h:1", 1);
        hear(&mut table, "a@h:1", 1, after(0)).unwrap();
        table.make_way(&one, [THEIRS; 2], after(5), after(0));
        assert_eq!(order(&table, after(0)).len(), 1, "its client does not speak wormhole");
        for round in 0..u64::from(MAX_YIELDS) {
            table.make_way(&one, [OURS; 2], after(round + 1), after(round));
            table.make_way(&one, [OURS; 2], after(round + 99), after(round));
            assert_eq!(order(&table, after(round)).len(), 0);
            assert_eq!(order(&table, after(round + 1)).len(), 1, "a second offer does not make it longer");
        }
        table.make_way(&one, [OURS; 2], after(90), after(4));
        assert_eq!(order(&table, after(4)).len(), 1);
    }

    #[test]
    fn who_speaks_what_the_client_would_rather_have_does_not_make_way_for_less() {
        const BOTH: Protocols = Protocols { libp2p: true, wormhole: true };
        let one = key("a@h:1", 1);
        for (by, ours, makes_way) in [
            (THEIRS, BOTH, false),
            (THEIRS, OURS, false),
            (THEIRS, THEIRS, true),
            (BOTH, THEIRS, true),
            (OURS, BOTH, true),
        ] {
            let mut table = Table::default();
            table.hear(one.clone(), BOTH, after(0) + REQUEST_VALIDITY, after(0)).unwrap();
            table.make_way(&one, [by, ours], after(5), after(0));
            assert_eq!(order(&table, after(0)).is_empty(), makes_way, "{by} {ours}");
        }
    }

    #[test]
    fn offers_in_vain_rest_longer_and_longer() {
        let mut table = Table::default();
        hear(&mut table, "a@h:1", 1, T0).unwrap();
        let mut rests = Vec::new();
        for _ in 0..40 {
            table.in_vain(&key("a@h:1", 1), T0);
            rests.extend(table.next_ready(T0, |_| false).map(|at| (at - T0).as_secs()));
        }
        assert_eq!(rests[..4], [15, 30, 60, 60]);
        assert_eq!(rests[39], 60);
    }

    #[test]
    fn a_full_table_has_room_for_those_who_have_little_in_it() {
        let mut table = Table::default();
        let mut refused = 0;
        for number in 0..2000 {
            refused += usize::from(hear(&mut table, &format!("c@h:{}", number % 4), number, after(0)).is_err());
        }
        assert_eq!((table.keys().count(), refused), (MAX_REQUESTS, 2000 - MAX_REQUESTS));
        assert_eq!(hear(&mut table, "late@h:1", 1, after(1)), Ok(()));
        assert_eq!(table.keys().count(), MAX_REQUESTS);
        let mut table = Table::default();
        for number in 0..MAX_REQUESTS {
            hear(&mut table, &format!("forged@h:{number}"), number, after(0)).unwrap();
        }
        assert_eq!(hear(&mut table, "late@h:1", 1, after(1)), Err(Full), "nobody has more than it would have");
    }

    #[test]
    fn what_is_remembered_of_clients_is_bounded_and_ends() {
        let mut table = Table::default();
        for number in 0..3 * MAX_SERVED {
            table.accepted(&key(&format!("c@h:{number}"), 1), T0);
        }
        assert_eq!(table.served.len(), MAX_SERVED);
        table.forget_expired(T0 + SERVED_MEMORY);
        assert!(table.served.is_empty());
    }
}
