//! Why a file did not get through.

use std::{io, time::Duration};

use p2p_wormhole_contract::{
    frame::FrameError,
    message::{Failure, Phase},
};

use crate::spool::SpoolError;

/// Why a file did not get through.
#[derive(Debug, thiserror::Error)]
pub enum WormholeError {
    /// The program is missing or cannot be executed.
    #[error("cannot execute {program} (it belongs beside p2p-worker; without it, only libp2p transfers work)")]
    Execute {
        /// Its path.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program is of another build.
    #[error("p2p-worker and p2p-wormhole are not of the same build; after an upgrade, restart p2p-worker")]
    OtherBuild,
    /// A layer of the program's sandbox is missing on this machine.
    #[error("p2p-wormhole is not wholly confined here: {missing}")]
    Weaker {
        /// The layers that are missing, each with its reason.
        missing: String,
    },
    /// A name means nothing.
    #[error("cannot find the address of {host}")]
    Resolve {
        /// Name and port.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The program ended without a last word.
    #[error("p2p-wormhole died: {how}")]
    Died {
        /// Its status, and what it printed.
        how: String,
    },
    /// The program did not give up in time by itself.
    #[error("p2p-wormhole got stuck for {} s ({})", after.as_secs(), phase.map_or_else(|| "it did not start".to_owned(), |phase| phase.to_string()))]
    Stuck {
        /// What it waited for, if it had begun.
        phase: Option<Phase>,
        /// The bound that was broken.
        after: Duration,
    },
    /// The program said what is no frame.
    #[error("p2p-wormhole does not keep to its contract")]
    Frame(#[from] FrameError),
    /// The program said something where it does not belong.
    #[error("p2p-wormhole does not keep to its contract: {0}")]
    Contract(&'static str),
    /// This side cannot store or read the bytes.
    #[error("cannot spool")]
    Spool(#[from] SpoolError),
    /// The transfer was cancelled.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// The transfer failed.
    #[error("no transfer by wormhole")]
    Failed(#[from] Failure),
}
