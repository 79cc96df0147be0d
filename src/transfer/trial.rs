//! Which way is the faster one, found out on a future that is large enough for it to matter.
//!
//! Which of QUIC and TCP is faster cannot be known beforehand: between two machines in one house TCP is, because the
//! kernel does more of its work, on a path that loses packets or shapes UDP it may be either. So when a future will
//! take long, the other way is connected while it flows, carries it for as long as the first one was measured, and the
//! faster one is kept, for the result too. A future goes on at its byte, so nothing is sent twice but what was in flight.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Way;
use crate::ids::NodeId;

/// The way with the head start as long as nothing is known: the handshake of QUIC takes fewer round trips.
const FIRST: Way = Way::Quic;
/// How many clients' ways are remembered; then all are forgotten.
const REMEMBERED: usize = 256;

/// A new stream is not measured for this long: its windows grow, and buffers take in the first megabytes.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long each way is measured.
const MEASURED: Duration = Duration::from_secs(1);
/// Less than this is not worth a second connection.
const WORTH: Duration = Duration::from_secs(8);
/// By how much the other way must be better, in hundredths, so that noise decides nothing.
const BETTER: u64 = 110;

/// The ways that were kept, for the next futures of the same clients.
#[derive(Debug, Default)]
pub(super) struct Ways(Mutex<HashMap<NodeId, Way>>);

impl Ways {
    fn kept(&self) -> MutexGuard<'_, HashMap<NodeId, Way>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way that is tried first.
    pub(super) fn to(&self, client: &NodeId) -> Way {
        self.kept().get(client).copied().unwrap_or(FIRST)
    }

    /// What came of a trial, if there was one.
    pub(super) fn keep(&self, client: &NodeId, trial: &Trial) {
        if trial.rival.is_some() {
            let mut kept = self.kept();
            if kept.len() >= REMEMBERED {
                kept.clear();
            }
            kept.insert(client.clone(), trial.way);
        }
    }
}

/// Follows the bytes of one future.
#[derive(Debug)]
pub(super) struct Trial {
    way: Way,
    /// Bytes per second of the way before.
    rival: Option<u64>,
    over: bool,
    /// When this stream began, and when and where its measurement did.
    began: Instant,
    measured: Option<(Instant, u64)>,
}

impl Trial {
    pub(super) fn new(way: Way, now: Instant) -> Self {
        Self { way, rival: None, over: false, began: now, measured: None }
    }

    /// A stream begins, by this way.
    pub(super) fn stream(&mut self, way: Way, now: Instant) {
        // One that broke tells nothing about the rate of the other one.
        self.over |= self.rival.is_some() && way == self.way;
        (self.way, self.began, self.measured) = (way, now, None);
    }

    /// So much is here, and so much to come: which way should be taken now, if it is another one.
    pub(super) fn note(&mut self, received: u64, left: u64, now: Instant) -> Option<Way> {
        if self.over || now < self.began + WARM_UP {
            return None;
        }
        let &mut (since, from) = self.measured.get_or_insert((now, received));
        let took = now.duration_since(since);
        if took < MEASURED {
            return None;
        }
        let rate =
            received.saturating_sub(from).saturating_mul(1000) / u64::try_from(took.as_millis()).unwrap_or(1).max(1);
        let other = match self.rival {
            None => {
                self.over = left / rate.max(1) < WORTH.as_secs();
                !self.over
            }
            Some(rival) => {
                self.over = true;
                rate.saturating_mul(100) < rival.saturating_mul(BETTER)
            }
        };
        self.rival = Some(rate);
        self.measured = Some((now, received));
        tracing::debug!(way = ?self.way, rate, other, "measured");
        other.then(|| self.way.other())
    }

    /// There is no other way.
    pub(super) fn give_up(&mut self) {
        self.over = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way that a future of so many bytes arrives by, and how often it was changed, at these rates.
    fn kept(size: u64, quic: u64, tcp: u64) -> (Way, u32) {
        let mut now = Instant::now();
        let mut trial = Trial::new(Way::Quic, now);
        let (mut way, mut changes, mut received) = (Way::Quic, 0, 0);
        while received < size {
            now += Duration::from_millis(10);
            received += if way == Way::Quic { quic } else { tcp } / 100;
            if let Some(other) = trial.note(received, size.saturating_sub(received), now) {
                (way, changes) = (other, changes + 1);
                trial.stream(way, now);
            }
        }
        (way, changes)
    }

    #[test]
    fn the_faster_way_is_kept_and_little_is_not_worth_a_trial() {
        let mib = 1 << 20;
        assert_eq!(kept(1000 * mib, 10 * mib, 30 * mib), (Way::Tcp, 1));
        assert_eq!(kept(1000 * mib, 30 * mib, 10 * mib), (Way::Quic, 2));
        assert_eq!(kept(1000 * mib, 30 * mib, 31 * mib), (Way::Quic, 2), "no better than noise");
        assert_eq!(kept(100 * mib, 30 * mib, 90 * mib), (Way::Quic, 0), "over in three seconds");
    }

    #[test]
    fn a_way_that_broke_is_not_tried_again() {
        let begin = Instant::now();
        let mut trial = Trial::new(Way::Quic, begin);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(trial.note(0, u64::MAX, at(1)), None);
        assert_eq!(trial.note(1000, u64::MAX, at(3)), Some(Way::Tcp));
        trial.stream(Way::Tcp, at(3));
        trial.stream(Way::Tcp, at(4));
        assert_eq!(trial.note(1000, u64::MAX, at(9)), None);
        assert_eq!(trial.note(1001, u64::MAX, at(12)), None);
    }
}
