//! The times of the transfer, in one place.

use std::time::Duration;

/// How long is waited for what. The defaults are for the open internet; tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferConfig {
    /// For an accepted worker to dial, from the grant on: 30 s.
    pub nobody_came: Duration,
    /// For the first frame of a stream and for its answer: 10 s.
    pub hello: Duration,
    /// Between two heartbeats of either side: 1 s.
    pub heartbeat: Duration,
    /// Without a byte from the other side, after which a stream counts as broken: 3.5 s, which is three heartbeats and a
    /// half. A time in which this side did not run itself is forgiven.
    pub silence: Duration,
    /// Without a byte of a payload that is due, or without a byte taken by the other side: 30 s.
    pub stall: Duration,
    /// For a worker to dial again after a broken stream, on both sides: 30 s.
    pub grace: Duration,
    /// For one payload from its beginning to its acknowledgement, over all streams that it takes, so that nobody
    /// trickles for ever: 1 h.
    pub payload: Duration,
    /// For how long a ticket whose run is over is still known, so that a late worker learns what became of it: 60 s.
    pub linger: Duration,
    /// How often in a row one run may be dialled again: 20 times. It begins to count anew after a stream that lasted for
    /// [`TransferConfig::grace`] or brought a payload on by [`TransferConfig::headway`].
    pub redials: u32,
    /// Bytes of a payload after which a broken stream was not for nothing: 1 MiB.
    pub headway: u64,
}

impl Default for TransferConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            nobody_came: seconds(30),
            hello: seconds(10),
            heartbeat: seconds(1),
            silence: Duration::from_millis(3500),
            stall: seconds(30),
            grace: seconds(30),
            payload: seconds(60 * 60),
            linger: seconds(60),
            redials: 20,
            headway: 1 << 20,
        }
    }
}
