//! The lines that wait for one client of a topic.
//!
//! A queue holds [`QUEUE_LINES`] lines and [`QUEUE_BYTES`] bytes. When all queues of a hub together hold more than
//! [`ALL_BYTES`], the hub cuts off whoever has the fullest, so that nobody who reads pays for those who do not. Putting a line
//! in never waits.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many lines wait for one client before it is cut off.
pub const QUEUE_LINES: usize = 8192;

/// How many bytes wait for one client before it is cut off.
pub const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// How many bytes wait for all clients before the slowest is cut off. A line that waits for several counts for each.
pub const ALL_BYTES: usize = 64 * 1024 * 1024;

/// Who has no more bytes waiting is not cut off for what waits for others.
pub const LEAST_BYTES: usize = 64 * 1024;

/// Why a client receives nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It left.
    #[error("the topic was left")]
    Left,
    /// Its queue overflowed.
    #[error("cut off: lines came faster than they were read")]
    TooSlow,
    /// Nobody who shared the topic with it is left.
    #[error("the owner of this topic does not share it any more")]
    AccessEnded,
}

/// The sending end of a client's queue.
#[derive(Debug)]
pub(super) struct Queue {
    lines: mpsc::Sender<Arc<[u8]>>,
    shared: Arc<QueueState>,
}

/// The lines that wait for one client.
#[derive(Debug)]
pub struct Inbox {
    lines: mpsc::Receiver<Arc<[u8]>>,
    shared: Arc<QueueState>,
}

#[derive(Debug)]
struct QueueState {
    /// Bytes that wait; `None` once the client is off the topic, whose bytes count for nobody then.
    bytes: Mutex<Option<usize>>,
    /// The same for all queues of the hub.
    all_bytes: Arc<AtomicUsize>,
    ended: OnceLock<Ended>,
    overflowed: CancellationToken,
}

/// A queue, counted in `all_bytes` with all others of its hub.
pub(super) fn queue(all_bytes: Arc<AtomicUsize>) -> (Queue, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE_LINES);
    let shared = Arc::new(QueueState {
        bytes: Mutex::new(Some(0)),
        all_bytes,
        ended: OnceLock::new(),
        overflowed: CancellationToken::new(),
    });
    (Queue { lines: sender, shared: Arc::clone(&shared) }, Inbox { lines: receiver, shared })
}

impl QueueState {
    fn bytes(&self) -> MutexGuard<'_, Option<usize>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts more bytes, if there is room for them.
    fn add(&self, more: usize) -> bool {
        let mut bytes = self.bytes();
        let Some(sum) = bytes.and_then(|bytes| bytes.checked_add(more)).filter(|&sum| sum <= QUEUE_BYTES) else {
            return false;
        };
        *bytes = Some(sum);
        self.all_bytes.fetch_add(more, Ordering::Relaxed);
        true
    }

    fn take(&self, less: usize) {
        if let Some(bytes) = &mut *self.bytes() {
            *bytes = bytes.saturating_sub(less);
            self.all_bytes.fetch_sub(less, Ordering::Relaxed);
        }
    }

    /// Counts nothing any more.
    fn forget(&self) {
        if let Some(left) = self.bytes().take() {
            self.all_bytes.fetch_sub(left, Ordering::Relaxed);
        }
    }
}

impl Drop for QueueState {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Queue {
    /// Whether there was room for the line. Called by one poster at a time.
    pub(super) fn put(&self, line: &Arc<[u8]>) -> bool {
        // Counted first, because the reader may take it at once.
        if !self.shared.add(line.len()) {
            return false;
        }
        let is_put = self.lines.try_send(Arc::clone(line)).is_ok();
        if !is_put {
            self.shared.take(line.len());
        }
        is_put
    }

    /// Says why nothing more comes.
    pub(super) fn end(self, why: Ended) {
        // A queue ends once, so that the reason cannot be there already.
        let _ = self.shared.ended.set(why);
        if why == Ended::TooSlow {
            // Its connection is cut, and what waits is gone with it.
            self.shared.forget();
            self.shared.overflowed.cancel();
        }
    }

    /// How many bytes wait.
    pub(super) fn waiting(&self) -> usize {
        self.shared.bytes().unwrap_or_default()
    }
}

impl Inbox {
    /// The next line, without its end; `None` once the client is off the topic and has read what waited. Cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<[u8]>> {
        let line = self.lines.recv().await;
        self.count(line)
    }

    /// The next line if one waits.
    pub fn try_next(&mut self) -> Option<Arc<[u8]>> {
        let line = self.lines.try_recv().ok();
        self.count(line)
    }

    /// Why nothing more comes.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.shared.ended.get().copied().unwrap_or(Ended::Left)
    }

    /// Is cancelled when the client is cut off because its queue overflowed, whether or not it reads.
    #[must_use]
    pub fn overflowed(&self) -> CancellationToken {
        self.shared.overflowed.clone()
    }

    /// How many bytes wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.shared.bytes().unwrap_or_default()
    }

    fn count(&self, line: Option<Arc<[u8]>>) -> Option<Arc<[u8]>> {
        if let Some(line) = &line {
            self.shared.take(line.len());
        }
        line
    }
}
