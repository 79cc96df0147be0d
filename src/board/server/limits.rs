//! What one client can take from the others: connections, sign-ins, lines a second. And how a connection is cut.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections in all.
pub(super) const CONNECTIONS: usize = 512;
/// Connections of one account.
pub(super) const CONNECTIONS_OF_ACCOUNT: usize = 64;
/// Channels of one connection at a time.
pub(super) const CHANNELS: usize = 8;
/// Bytes of one packet of a client.
pub(super) const PACKET: u32 = 8 * 1024;
/// Packets of one channel that wait to be posted; when they are more, the connection is not read.
pub(super) const PACKETS: usize = 32;
/// The time from opening a channel to its command.
pub(super) const COMMAND: Duration = Duration::from_secs(20);
/// Connections from one address that have not signed in yet.
const STRANGERS_OF_ADDRESS: usize = 32;
/// Connections that have not signed in yet.
const STRANGERS: usize = 128;
/// The time to sign in.
pub(super) const SIGN_IN: Duration = Duration::from_secs(20);
/// Keys that may be offered on one connection.
pub(super) const SIGN_IN_ATTEMPTS: usize = 12;

/// How many lines a connection may post at once, and then in each second; a line counts once and again for every
/// [`BYTES_A_POINT`] bytes. So a handful of connections that post as fast as they can stay below what a reader's queue
/// holds.
const POINTS: f64 = 1024.0;
const BYTES_A_POINT: f64 = 256.0;

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

/// Slows a connection down that posts faster than others can read.
#[derive(Debug)]
pub(super) struct Pace {
    points: f64,
    counted: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { points: POINTS, counted: now }
    }

    /// What a line costs.
    pub(super) fn cost(line: &[u8]) -> f64 {
        // A line is at most MAX_LINE bytes, which a float holds exactly.
        1.0 + u32::try_from(line.len()).map_or(POINTS, f64::from) / BYTES_A_POINT
    }

    /// Takes points, and says how long to wait for those that were not there.
    pub(super) fn spend(&mut self, cost: f64, now: Instant) -> Option<Duration> {
        let earned = now.duration_since(self.counted).as_secs_f64() * POINTS;
        self.points = (self.points + earned).min(POINTS) - cost;
        self.counted = now;
        (self.points < 0.0).then(|| Duration::from_secs_f64(-self.points / POINTS))
    }
}

/// A stream that fails as soon as it is cut, whatever it waits for.
pub(super) struct Cuttable<S> {
    stream: S,
    // One each, because reading and writing can be waited for by different tasks.
    cut_read: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_write: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Cuttable<S> {
    pub(super) fn new(stream: S, cut: &CancellationToken) -> Self {
        let wait = || Box::pin(cut.clone().cancelled_owned());
        Self { stream, cut_read: wait(), cut_write: wait() }
    }
}

fn check(cut: &mut Pin<Box<WaitForCancellationFutureOwned>>, context: &mut Context<'_>) -> Result<(), io::Error> {
    match cut.as_mut().poll(context) {
        Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
        Poll::Pending => Ok(()),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        check(&mut self.cut_read, context)?;
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        check(&mut self.cut_write, context)?;
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        check(&mut self.cut_write, context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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
    fn a_burst_is_free_and_a_flood_is_slowed() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.spend(POINTS, now), None);
        assert_eq!(pace.spend(POINTS, now), Some(Duration::from_secs(1)));
        assert_eq!(pace.spend(POINTS, now + Duration::from_secs(60)), None);
    }
}
