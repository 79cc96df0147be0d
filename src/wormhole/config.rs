//! What there is to choose.

use std::{path::PathBuf, time::Duration};

use p2p_wormhole_contract::message::{Reach, Times};

use super::{MailboxUrl, RelayAddress};

/// Where transfers go, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WormholeConfig {
    /// The program `p2p-wormhole`, beside p2p-worker.
    pub program: PathBuf,
    /// The mailbox server. Both peers must use the same one; wormhole-william takes it from `WORMHOLE_RELAY_URL`.
    pub mailbox: MailboxUrl,
    /// The transit relay that the peer is offered.
    pub relay: RelayAddress,
    /// Whether relays may be used, ours or the peer's.
    pub relayed: bool,
    /// How far direct connections may go. Beyond [`Reach::Public`] the peer, who may be anybody that reads the board, learns
    /// addresses of the local network, and may have addresses there dialled.
    pub reach: Reach,
    /// How long is waited for what.
    pub patience: Patience,
    /// Go on even where `p2p-wormhole` cannot put all layers of its sandbox in force.
    pub weaker: bool,
}

impl WormholeConfig {
    /// The public servers, no private address, the default times.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            mailbox: MailboxUrl::default(),
            relay: RelayAddress::default(),
            relayed: true,
            reach: Reach::Public,
            patience: Patience::default(),
            weaker: false,
        }
    }
}

/// How long is waited for what. The defaults are for the open internet; tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// To resolve the names of the mailbox server and of relays: 10 s.
    pub names: Duration,
    /// To reach the mailbox server and to open the mailbox: 30 s.
    pub mailbox: Duration,
    /// For the peer to come: 60 s.
    pub peer: Duration,
    /// From there to an offer and its answer: 30 s.
    pub offer: Duration,
    /// To connect with the peer: 30 s.
    pub connect: Duration,
    /// For one piece of the payload of at most 1 MiB, so that nobody trickles: 60 s.
    pub stall: Duration,
    /// For the whole payload: 1 h.
    pub payload: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            names: seconds(10),
            mailbox: seconds(30),
            peer: seconds(60),
            offer: seconds(30),
            connect: seconds(30),
            stall: seconds(60),
            payload: seconds(60 * 60),
        }
    }
}

impl Patience {
    pub(super) fn times(&self) -> Times {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Times {
            mailbox_ms: ms(self.mailbox),
            peer_ms: ms(self.peer),
            offer_ms: ms(self.offer),
            connect_ms: ms(self.connect),
            stall_ms: ms(self.stall),
            payload_ms: ms(self.payload),
        }
    }
}
