//! How often a broken stream is replaced before a run is given up: a bound that a long run with few breaks never meets.

use tokio::time::Instant;

use super::TransferConfig;

/// Counts the streams of one run that came to nothing, one after the other.
#[derive(Debug)]
pub(super) struct Redials {
    left: u32,
    since: Instant,
    received: u64,
    config: TransferConfig,
}

impl Redials {
    /// Begins with the first stream.
    pub(super) fn new(config: TransferConfig) -> Self {
        Self { left: config.redials, since: Instant::now(), received: 0, config }
    }

    /// A stream begins, and so much of a payload is here or there.
    pub(super) fn connected(&mut self, bytes: u64) {
        (self.since, self.received) = (Instant::now(), bytes);
    }

    /// A stream broke, and so much of the payload is here or there now: one that was good for something makes all those
    /// before forgotten.
    pub(super) fn broke(&mut self, bytes: u64) {
        let headway = bytes.saturating_sub(self.received) >= self.config.headway;
        if headway || self.since.elapsed() >= self.config.grace {
            self.left = self.config.redials;
        }
    }

    /// Whether there may be another stream, which counts.
    pub(super) fn take(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(grace: Duration) -> TransferConfig {
        TransferConfig { redials: 2, grace, ..TransferConfig::default() }
    }

    #[test]
    fn a_stream_that_came_to_nothing_counts() {
        let config = config(Duration::MAX);
        let mut redials = Redials::new(config);
        for _ in 0..10 {
            redials.connected(7);
            redials.broke(7 + config.headway);
            assert!(redials.take());
        }
        redials.connected(5);
        redials.broke(5 + config.headway - 1);
        assert!(redials.take());
        redials.connected(5);
        redials.broke(0);
        assert!(!redials.take());
    }

    #[test]
    fn a_stream_that_lasted_makes_those_before_forgotten() {
        let mut redials = Redials::new(config(Duration::ZERO));
        for _ in 0..10 {
            redials.connected(0);
            redials.broke(0);
            assert!(redials.take());
        }
    }
}
