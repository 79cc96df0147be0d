//! The way back to the client of a future that is here, by either transfer.

use std::sync::Arc;

use super::by_wormhole::Claim;
use crate::{
    sandbox::Provenance,
    transfer::{self, CancelCause},
};

/// What a slot has to do with its client while a future is evaluated.
pub(super) enum Session<W> {
    /// Ours: the client hears of everything at once, and can cancel.
    Libp2p(transfer::Session),
    /// That of R peers: the client hears of the result alone, and cancels on the board.
    Wormhole(Arc<Claim<W>>),
}

impl<W> Session<W> {
    /// The largest result that the client takes, in bytes.
    pub(super) fn max_result(&self) -> u64 {
        match self {
            Self::Libp2p(session) => session.max_result(),
            Self::Wormhole(_) => u64::MAX,
        }
    }

    /// Tells the client that the task begins. That the session is over shows when the result is delivered.
    pub(super) async fn begin(&self, provenance: &Provenance) {
        if let Self::Libp2p(session) = self {
            let _ = session.begin(provenance.clone()).await;
        }
    }

    /// Waits until [`Session::progress`] finds room. Cancel-safe.
    pub(super) async fn ready_for_progress(&self) {
        if let Self::Libp2p(session) = self {
            session.ready_for_progress().await;
        }
    }

    /// Passes on one immediateCondition. By wormhole it is lost, as it is with future.p2p's own worker.
    pub(super) fn progress(&self, condition: Vec<u8>) {
        if let Self::Libp2p(session) = self {
            session.progress(condition);
        }
    }

    /// Tells the client what the task's programs printed past R.
    pub(super) async fn printed(&self, text: String) {
        if let Self::Libp2p(session) = self {
            let _ = session.printed(text).await;
        }
    }

    /// Waits until the task should be stopped. Cancel-safe.
    pub(super) async fn cancelled(&self) -> CancelCause {
        match self {
            Self::Libp2p(session) => session.cancelled().await,
            Self::Wormhole(claim) => {
                claim.withdrawn.cancelled().await;
                CancelCause::Cancelled
            }
        }
    }
}
