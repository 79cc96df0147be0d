//! What one client can take from the others: connections, topics, attempts to sign in. How fast it may post is in
//! [`super::pace`], how much may wait for it in [`crate::board::hub`].

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What the owner of a board can set; everything else is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoardLimits {
    /// Connections in all, with those that have not signed in.
    pub connections: usize,
    /// Connections of one account.
    pub connections_of_account: usize,
    /// Topics that one account is on at a time.
    pub topics_of_account: usize,
    /// Lines that one account may post in a second; a line counts once and again for every 256 bytes. One connection may
    /// have a quarter of it.
    pub lines_a_second: u32,
    /// The time to sign in; somebody may have to type a passphrase.
    pub sign_in: Duration,
}

impl Default for BoardLimits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_of_account: 64,
            topics_of_account: 64,
            lines_a_second: 4096,
            sign_in: Duration::from_secs(60),
        }
    }
}

/// Channels of one connection at a time.
pub(super) const CHANNELS: usize = 8;
/// Channels that one connection may have had: the SSH library keeps some memory of each that the board has closed.
pub(super) const CHANNELS_EVER: u32 = 128;
/// Bytes of one packet of a client.
pub(super) const PACKET: u32 = 8 * 1024;
/// Packets of one channel that wait to be posted; when they are more, the connection is not read.
pub(super) const PACKETS: usize = 32;
/// The time from opening a channel to its command.
pub(super) const COMMAND: Duration = Duration::from_secs(20);
/// Keys that may be offered on one connection.
pub(super) const SIGN_IN_ATTEMPTS: usize = 12;
/// Connections from one address that have not signed in yet.
const STRANGERS_OF_ADDRESS: usize = 32;
/// Connections that have not signed in yet.
const STRANGERS: usize = 128;

/// Failures that an address may have at once, and how often it earns another one.
const FAILURES: f64 = 30.0;
const FAILURE_EARNED: f64 = 4.0;
/// Addresses whose failures are remembered; the one whose last is longest ago is forgotten first.
const FAILURES_KEPT: usize = 4096;
/// Wrong codes of all addresses together, and how often another one is earned, in seconds.
const WRONG_CODES: f64 = 60.0;
const WRONG_CODE_EARNED: f64 = 1.0;

/// Counts the connections that have not signed in yet; an address without any has no entry.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<HashMap<IpAddr, usize>>);

/// The place of one connection that has not signed in yet.
#[derive(Debug)]
pub(super) struct Stranger {
    all: Arc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    /// A place for a new connection, if there is one.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Stranger> {
        let address = neighbourhood(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let same = counts.get(&address).copied().unwrap_or_default();
        if all >= STRANGERS || same >= STRANGERS_OF_ADDRESS {
            return None;
        }
        counts.insert(address, same.saturating_add(1));
        Some(Stranger { all: Arc::clone(self), address })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// What counts as one address: an IPv4 address, also when it is written as IPv6, or the /64 that one IPv6 host has.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = counts.get(&self.address).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            counts.remove(&self.address);
        } else {
            counts.insert(self.address, left);
        }
    }
}

/// Who has failed to sign in, or to join with a code, too often lately is not let in for a while.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<FailureCounts>);

#[derive(Debug, Default)]
struct FailureCounts {
    by_address: HashMap<IpAddr, Debt>,
    wrong_codes: Option<Debt>,
}

/// Failures that were not earned back yet.
#[derive(Debug, Clone, Copy)]
struct Debt {
    failures: f64,
    counted: Instant,
}

impl Debt {
    fn at(self, now: Instant, earned: f64) -> f64 {
        (self.failures - now.duration_since(self.counted).as_secs_f64() / earned).max(0.0)
    }

    fn more(debt: Option<Self>, now: Instant, earned: f64) -> Self {
        Self { failures: debt.map_or(0.0, |debt| debt.at(now, earned)) + 1.0, counted: now }
    }
}

impl Failures {
    /// Whether this address may try.
    pub(super) fn may_try(&self, address: IpAddr, now: Instant) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let debt = counts.by_address.get(&neighbourhood(address));
        debt.is_none_or(|debt| debt.at(now, FAILURE_EARNED) < FAILURES)
    }

    /// Remembers that a sign-in failed.
    pub(super) fn add(&self, address: IpAddr, now: Instant) {
        let address = neighbourhood(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.by_address.len() >= FAILURES_KEPT && !counts.by_address.contains_key(&address) {
            let oldest = counts.by_address.iter().min_by_key(|(_, debt)| debt.counted).map(|(&address, _)| address);
            if let Some(oldest) = oldest {
                counts.by_address.remove(&oldest);
            }
        }
        let debt = counts.by_address.get(&address).copied();
        counts.by_address.insert(address, Debt::more(debt, now, FAILURE_EARNED));
    }

    /// Whether a code may be tried at all.
    pub(super) fn may_try_code(&self, now: Instant) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.wrong_codes.is_none_or(|debt| debt.at(now, WRONG_CODE_EARNED) < WRONG_CODES)
    }

    /// Remembers that a code was wrong.
    pub(super) fn add_wrong_code(&self, address: IpAddr, now: Instant) {
        self.add(address, now);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.wrong_codes = Some(Debt::more(counts.wrong_codes, now, WRONG_CODE_EARNED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places() {
        let strangers = Arc::new(Strangers::default());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut held: Vec<_> = (0..STRANGERS_OF_ADDRESS).map(|_| strangers.admit(one).unwrap()).collect();
        assert!(strangers.admit(one).is_none());
        assert!(strangers.admit(other).is_some());
        held.pop();
        assert!(strangers.admit(one).is_some());
        drop(held);
        assert!(strangers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn refused_strangers_leave_nothing_behind() {
        let strangers = Arc::new(Strangers::default());
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let held: Vec<_> = (0..1000).filter_map(|number| strangers.admit(address(number))).collect();
        assert_eq!((held.len(), strangers.0.lock().unwrap().len()), (STRANGERS, STRANGERS));
        assert_eq!(strangers.count(), STRANGERS);
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_ipv4_written_as_ipv6_is_not() {
        let strangers = Arc::new(Strangers::default());
        let of = |prefix: &str, last: usize| format!("{prefix}{last:x}").parse().unwrap();
        let held: Vec<_> = (0..40).filter_map(|last| strangers.admit(of("2001:db8::", last))).collect();
        assert_eq!(held.len(), STRANGERS_OF_ADDRESS);
        assert!(strangers.admit(of("2001:db8:0:1::", 1)).is_some());
        let mapped: Vec<_> = (0..40).filter_map(|last| strangers.admit(of("::ffff:192.0.2.", last % 10))).collect();
        assert_eq!(mapped.len(), 40);
    }

    #[test]
    fn who_fails_too_often_waits_and_delays_nobody_else() {
        let (failures, now) = (Failures::default(), Instant::now());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..30 {
            assert!(failures.may_try(one, now));
            failures.add(one, now);
        }
        assert!(!failures.may_try(one, now) && failures.may_try(other, now));
        assert!(failures.may_try(one, now + Duration::from_secs(5)));
        for number in 0..10_000u32 {
            failures.add(IpAddr::from(number.to_be_bytes()), now + Duration::from_secs(1));
        }
        assert_eq!(failures.0.lock().unwrap().by_address.len(), FAILURES_KEPT);
    }

    #[test]
    fn codes_cannot_be_guessed_from_many_addresses() {
        let (failures, now) = (Failures::default(), Instant::now());
        for number in 0..60u32 {
            assert!(failures.may_try_code(now));
            failures.add_wrong_code(IpAddr::from(number.to_be_bytes()), now);
        }
        assert!(!failures.may_try_code(now));
        assert!(failures.may_try_code(now + Duration::from_secs(2)));
    }
}
