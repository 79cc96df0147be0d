//! The only reader of time.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since an arbitrary point; never goes back.
pub(crate) fn now() -> Duration {
    // The monotonic clock exists on every Linux; were it not so, time would stand still and the limits on processor time
    // and memory would still hold.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// The same in microseconds: enough for half a million years.
pub(crate) fn now_us() -> u64 {
    u64::try_from(now().as_micros()).unwrap_or(u64::MAX)
}
