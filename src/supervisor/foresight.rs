//! What the next future of a slot will probably be like: one of the same client, with the same large objects before all else.
//!
//! Where two futures in a row were, the beginning of the third is made ready while nobody waits: as a file ([`Begun`]), and in
//! the R that waits for it, which reads it already. A future of another client finds neither: the file is dropped, and that R
//! ended. All of it is forgotten when an R would not wait any longer either.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    error_chain,
    ids::NodeId,
    runner::Workbench,
    spool::{Beginning, Spooled},
    transfer::{Begun, Network, Transfer},
};

/// What is known of each slot.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    slots: Mutex<HashMap<usize, Seen>>,
    next: AtomicU64,
}

/// The last future of a slot.
#[derive(Debug)]
struct Seen {
    number: u64,
    client: NodeId,
    future: Arc<Spooled>,
    begun: Option<Begun>,
    /// The next one has come.
    is_past: bool,
}

impl Foresight {
    /// What a future of this client may begin with, for the one that comes now.
    pub(super) fn take(&self, slot: usize, client: &NodeId) -> Option<Begun> {
        let mut slots = self.slots();
        let forgotten =
            if slots.get(&slot).is_some_and(|seen| seen.client != *client) { slots.remove(&slot) } else { None };
        let begun = slots.get_mut(&slot).and_then(|seen| {
            seen.is_past = true;
            seen.begun.take()
        });
        drop(slots);
        drop(forgotten);
        begun
    }

    /// Notes a future that has been evaluated, and makes ready what the next one may begin with.
    pub(super) fn note<N: Network>(
        self: &Arc<Self>,
        slot: usize,
        client: NodeId,
        future: Arc<Spooled>,
        (transfer, workbench): (Transfer<N>, Arc<Workbench>),
    ) {
        let keep = workbench.keep_warm();
        if keep.is_zero() || future.pieces().get().is_none() {
            drop(self.slots().remove(&slot));
            return;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seen = Seen { number, client: client.clone(), future: Arc::clone(&future), begun: None, is_past: false };
        let before = self.slots().insert(slot, seen).filter(|before| before.client == client);
        let foresight = Arc::downgrade(self);
        tokio::spawn(async move {
            if let Some(before) = before {
                let last = Arc::clone(&future);
                let directory = workbench.spool_directory().to_owned();
                let made = spawn_blocking(move || begin(&transfer, &before.future, &last, &directory)).await;
                if let (Ok(Some(begun)), Some(foresight)) = (made, foresight.upgrade()) {
                    foresight.keep(slot, number, begun, |beginning| workbench.feed(slot, &future, beginning));
                }
            }
            drop((future, workbench));
            sleep(keep).await;
            if let Some(foresight) = foresight.upgrade() {
                foresight.forget(slot, number);
            }
        });
    }

    /// Keeps what was made ready and has it fed, unless the next future was faster.
    fn keep(&self, slot: usize, number: u64, begun: Begun, feed: impl FnOnce(&Beginning)) {
        if let Some(seen) = self.slots().get_mut(&slot).filter(|seen| seen.number == number && !seen.is_past) {
            feed(begun.beginning());
            seen.begun = Some(begun);
        }
    }

    fn forget(&self, slot: usize, number: u64) {
        let mut slots = self.slots();
        if slots.get(&slot).is_some_and(|seen| seen.number == number) {
            let forgotten = slots.remove(&slot);
            drop(slots);
            drop(forgotten);
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<usize, Seen>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failure is none of anybody's: the next future comes as it would without.
fn begin<N: Network>(transfer: &Transfer<N>, before: &Spooled, last: &Spooled, directory: &Path) -> Option<Begun> {
    transfer.begin_alike(before, last, directory).unwrap_or_else(|error| {
        tracing::debug!(error = error_chain(&error), "nothing is made ready for the next future");
        None
    })
}
