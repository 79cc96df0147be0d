//! What happens to a future on its way, by whichever transfer, and why it may not get through.

use std::io;

use tokio::sync::mpsc;

use crate::{
    ids::{ClaimCode, FutureId},
    proto::refusal::Payload,
    rds::UnpackError,
    sandbox::Provenance,
    spool::Spooled,
    transfer::{Delivery, DeliveryEvent, TransferError},
    wormhole::WormholeError,
};

/// Why a future or its result did not get through.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// By libp2p.
    #[error(transparent)]
    Libp2p(#[from] TransferError),
    /// By wormhole.
    #[error(transparent)]
    Wormhole(#[from] WormholeError),
    /// It got through, and cannot be unpacked.
    #[error("the result cannot be unpacked")]
    Unpack(#[from] UnpackError),
    /// The system has no random bits for a code.
    #[error("cannot draw a wormhole code")]
    Random(#[source] io::Error),
}

/// Counts the workers that futures were granted to: what one that was replaced still says is told from what the present one does.
pub(super) type RunNumber = u64;

/// A passage of the worker that this future was granted to then.
pub(super) type Passed = (FutureId, RunNumber, Passage);

/// What happens on the way.
pub(super) enum Passage {
    /// By wormhole: the mailbox is open, and the worker can be told this code.
    Open(ClaimCode),
    /// The worker is here, for the first time or again.
    Came,
    /// Its stream broke, or it is not there with the result that it announced.
    Silent,
    Sending {
        bytes: u64,
        total: u64,
    },
    Begun(Provenance),
    Printed(String),
    Progress(Vec<u8>),
    Receiving {
        bytes: u64,
        total: u64,
    },
    /// The last one.
    Done(Spooled, Provenance),
    /// The last one.
    Failed {
        fault: Fault,
        error: WayError,
    },
}

/// Whose fault a failure is, which says what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another worker would fail in the same way.
    Final,
    /// The worker's, which was here.
    Worker,
    /// The worker never came.
    Absent,
    /// Somebody else used the code.
    Code,
}

/// Passes on what a delivery by libp2p tells. Dropping this ends the delivery, which cancels on its stream and revokes its
/// ticket.
pub(super) async fn forward_delivery(
    future: FutureId,
    run: RunNumber,
    mut delivery: Delivery,
    to: mpsc::Sender<Passed>,
) {
    while let Some(event) = delivery.events.recv().await {
        if let Some(passage) = of_delivery(event)
            && to.send((future.clone(), run, passage)).await.is_err()
        {
            return;
        }
    }
}

/// The same for a run by wormhole.
pub(super) async fn forward(
    future: FutureId,
    run: RunNumber,
    mut passages: mpsc::Receiver<Passage>,
    to: mpsc::Sender<Passed>,
) {
    while let Some(passage) = passages.recv().await {
        if to.send((future.clone(), run, passage)).await.is_err() {
            return;
        }
    }
}

fn of_delivery(event: DeliveryEvent) -> Option<Passage> {
    Some(match event {
        DeliveryEvent::Connected => Passage::Came,
        DeliveryEvent::Disconnected(_) => Passage::Silent,
        DeliveryEvent::Sent => return None,
        DeliveryEvent::Sending { bytes, total } => Passage::Sending { bytes, total },
        DeliveryEvent::Begun(provenance) => Passage::Begun(provenance),
        DeliveryEvent::Printed(text) => Passage::Printed(text),
        DeliveryEvent::Progress(condition) => Passage::Progress(condition),
        DeliveryEvent::Receiving { bytes, total } => Passage::Receiving { bytes, total },
        DeliveryEvent::Done { result, provenance } => Passage::Done(result, provenance),
        DeliveryEvent::Failed(error) => Passage::Failed { fault: fault(&error), error: error.into() },
    })
}

/// Whose fault a failure by libp2p is.
pub(super) fn fault(error: &TransferError) -> Fault {
    match error {
        TransferError::TooLarge { what: Payload::Result, .. } | TransferError::Spool(_) | TransferError::Random(_) => {
            Fault::Final
        }
        TransferError::NobodyCame { .. } => Fault::Absent,
        _ => Fault::Worker,
    }
}
