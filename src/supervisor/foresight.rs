//! What the next future of a slot will probably be like: one of the same client, with the same large objects before all else.
//!
//! Where two futures in a row were, the beginning of the third is made ready while nobody waits: as a file ([`Begun`]), and in
//! the R that waits for it, which reads it already. A future of another client finds neither: the file is dropped, and that R
//! ended. All of it is forgotten when an R would not wait any longer either, or when the disk is full.

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
    spool::{Beginning, Relief, Spooled},
    transfer::{Begun, Network, Transfer},
};

/// Of a larger future nothing is kept, in bytes.
const LARGEST: u64 = 256 << 20;

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
        if keep.is_zero() || future.size() > LARGEST || future.pieces().get().is_none() {
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

    /// All of it gives way to what a full disk does not take.
    pub(super) fn relief(self: &Arc<Self>) -> Relief {
        let foresight = Arc::downgrade(self);
        Relief::new(move || {
            let forgotten: Vec<_> =
                foresight.upgrade().into_iter().flat_map(|all| all.slots().drain().collect::<Vec<_>>()).collect();
            !forgotten.is_empty()
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: char) -> NodeId {
        format!("12D3KooWP9JGDXVqgtEif8emKfmPriPffaAwr26cw5SAjfVbVPL{last}").parse().unwrap()
    }

    /// One that has seen a future of this client in slot 3.
    fn seen() -> Arc<Foresight> {
        let future = Arc::new(Spooled::from_bytes(&std::env::temp_dir(), b"future").unwrap());
        let foresight = Arc::<Foresight>::default();
        let seen = Seen { number: 7, client: client('V'), future, begun: None, is_past: false };
        foresight.slots().insert(3, seen);
        foresight
    }

    #[test]
    fn what_was_seen_of_one_client_is_forgotten_when_another_one_comes() {
        let foresight = seen();
        assert!(foresight.take(3, &client('V')).is_none());
        assert!(foresight.slots()[&3].is_past, "whatever is made ready now is too late");
        foresight.take(2, &client('W'));
        assert_eq!(foresight.slots().len(), 1);
        foresight.take(3, &client('W'));
        assert!(foresight.slots().is_empty());
    }

    #[test]
    fn it_is_forgotten_in_time_and_on_a_full_disk() {
        let foresight = seen();
        foresight.forget(3, 6);
        assert_eq!(foresight.slots().len(), 1, "another one came since");
        foresight.forget(3, 7);
        assert!(foresight.slots().is_empty());
        let foresight = seen();
        let relief = foresight.relief();
        assert_eq!([relief.gives_way(), relief.gives_way()], [true, false]);
        assert!(foresight.slots().is_empty());
        drop(foresight);
        assert!(!relief.gives_way());
    }
}
