//! How fast an account may post: what it posts beyond that waits, and its own connection with it.
//!
//! A line costs one point and another one for every [`BYTES_A_POINT`] bytes. What an account has not used for a second is
//! there at once, so that a burst is free and a flood is slowed down.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many bytes of a line cost as much as the line itself.
const BYTES_A_POINT: f64 = 256.0;

/// The part of an account's points that one of its connections may use, so that no client of it can starve the others:
/// one of so many.
const CONNECTIONS_A_RATE: f64 = 4.0;

/// Points as they come in and are spent.
#[derive(Debug)]
struct Purse {
    points: f64,
    rate: f64,
    counted: Instant,
}

impl Purse {
    fn new(rate: f64, now: Instant) -> Self {
        Self { points: rate, rate, counted: now }
    }

    /// Takes points, and says how long to wait for those that were not there.
    fn spend(&mut self, cost: f64, now: Instant) -> Duration {
        let earned = now.duration_since(self.counted).as_secs_f64() * self.rate;
        self.points = (self.points + earned).min(self.rate) - cost;
        self.counted = now;
        if self.points < 0.0 { Duration::from_secs_f64(-self.points / self.rate) } else { Duration::ZERO }
    }
}

/// The pace of one account, shared by its connections; it outlives them, so that connecting again earns nothing.
#[derive(Debug, Clone)]
pub(super) struct AccountPace(Arc<Mutex<Purse>>);

impl AccountPace {
    /// `rate` is in points a second.
    pub(super) fn new(rate: u32) -> Self {
        Self(Arc::new(Mutex::new(Purse::new(f64::from(rate.max(1)), Instant::now()))))
    }

    /// The pace of a new connection.
    pub(super) fn connection(&self) -> Pace {
        let rate = lock(&self.0).rate / CONNECTIONS_A_RATE;
        Pace { account: self.clone(), own: Arc::new(Mutex::new(Purse::new(rate, Instant::now()))) }
    }
}

/// The pace of one connection, shared by its channels.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    account: AccountPace,
    own: Arc<Mutex<Purse>>,
}

impl Pace {
    /// What it costs to post so many lines that come to so many bytes; bytes that are no line, or too long for one, cost
    /// the same.
    pub(super) fn cost(lines: u32, bytes: usize) -> f64 {
        f64::from(lines) + u32::try_from(bytes).map_or(f64::from(u32::MAX), f64::from) / BYTES_A_POINT
    }

    /// Takes points of the connection and of its account, and says how long to wait before going on.
    pub(super) fn spend(&self, cost: f64, now: Instant) -> Duration {
        let (own, account) = (lock(&self.own).spend(cost, now), lock(&self.account.0).spend(cost, now));
        own.max(account)
    }
}

fn lock(purse: &Mutex<Purse>) -> std::sync::MutexGuard<'_, Purse> {
    purse.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_a_flood_is_slowed() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut purse = Purse::new(1000.0, now);
        assert_eq!(purse.spend(1000.0, now), Duration::ZERO);
        assert_eq!(purse.spend(1000.0, now), second);
        assert_eq!(purse.spend(1000.0, now + 60 * second), Duration::ZERO);
    }

    #[test]
    fn many_connections_of_an_account_are_no_faster_than_it_may_be() {
        let account = AccountPace::new(4000);
        let now = Instant::now();
        let connections: Vec<_> = (0..8).map(|_| account.connection()).collect();
        let waits: Vec<_> = connections.iter().map(|pace| pace.spend(1000.0, now)).collect();
        assert!(waits[..4].iter().all(|wait| wait.as_millis() < 100), "{waits:?}");
        assert!(waits[7].as_millis() > 800, "{waits:?}");
        // Who comes back finds what the account has left.
        assert!(account.connection().spend(1.0, now).as_millis() > 800);
    }
}
