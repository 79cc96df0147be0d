//! Waiting no longer than allowed.

use std::time::Duration;

use async_io::Timer;
use p2p_wormhole_contract::message::{Failure, Phase};

/// What the future yields, or `None` after so long.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(limit).await;
        None
    };
    futures_lite::future::or(async { Some(future.await) }, late).await
}

/// What the future yields, or that its phase took too long.
pub(crate) async fn bounded<T>(
    phase: Phase,
    after_ms: u64,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let result = within(Duration::from_millis(after_ms), future).await;
    result.unwrap_or(Err(Failure::TimedOut { phase, after_ms }))
}
