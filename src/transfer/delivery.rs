//! The client's side of one run: a task that outlives broken streams and ends in exactly one
//! [`DeliveryEvent::Done`] or [`DeliveryEvent::Failed`].

mod talk;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::talk::End;
use super::{
    Grant, Network, Transfer, TransferError,
    error::Interrupted,
    grants::{Attachment, Grants, State},
    payload::{Cutting, Receiving},
    redials::Redials,
};
use crate::{ids::Ticket, proto::refusal::Refusal, sandbox::Provenance, spool::Spooled};

/// Events that wait for their reader. When so many wait, no frame is taken from the worker until some are read, so that
/// a slow reader slows down the task and fills no memory; [`DeliveryEvent::Sending`], [`DeliveryEvent::Receiving`],
/// [`DeliveryEvent::Connected`] and [`DeliveryEvent::Disconnected`] are dropped, and no other one is.
const EVENTS: usize = 32;
/// Room that events which may be dropped leave for progress, so that they alone never stop the listening.
const SPARED: usize = EVENTS / 2;
/// Room that is kept for the events that are never dropped, each of which comes once.
const KEPT: usize = 4;

/// What happens to a future that was granted to a worker.
#[derive(Debug)]
pub enum DeliveryEvent {
    /// The worker is here, for the first time or again.
    Connected,
    /// The stream broke, or nothing was heard for [`super::TransferConfig::silence`], for this reason. The worker has
    /// [`super::TransferConfig::grace`] to come back, and then goes on where it was: [`DeliveryEvent::Connected`] or
    /// [`DeliveryEvent::Failed`] follows. Who does not want to wait cancels.
    Disconnected(String),
    /// So much of the future was sent; at most one event for each hundredth.
    Sending {
        /// Bytes handed to the network.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The worker has the whole future.
    Sent,
    /// The task began.
    Begun(Provenance),
    /// What the task's programs printed past R; safe for a terminal.
    Printed(String),
    /// One immediateCondition as RDS, at most 1 MiB; never read here.
    Progress(Vec<u8>),
    /// So much of the result arrived; at most one event for each hundredth.
    Receiving {
        /// Bytes that arrived.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The result is here, and the worker was told so. The last event.
    Done {
        /// The result's bytes, of the size and digest that the worker announced.
        result: Spooled,
        /// Under what the task ran, as the worker says.
        provenance: Provenance,
    },
    /// There will be no result. The last event.
    Failed(TransferError),
}

/// One run that is under way. Dropping it cancels the run and revokes the ticket.
#[derive(Debug)]
pub struct Delivery {
    /// What the worker must show.
    pub ticket: Ticket,
    /// What happens, in its order; ends after [`DeliveryEvent::Done`] or [`DeliveryEvent::Failed`].
    pub events: mpsc::Receiver<DeliveryEvent>,
    cancel: CancellationToken,
    _guard: DropGuard,
}

impl Delivery {
    /// Tells the worker to stop and revokes the ticket; [`TransferError::Cancelled`] follows, unless the run ended
    /// before.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

impl<N: Network> Transfer<N> {
    /// Lets an accepted worker fetch a future and bring its result, once.
    ///
    /// # Errors
    /// [`TransferError::Random`] alone; everything else comes as an event.
    pub fn grant(&self, grant: Grant) -> Result<Delivery, TransferError> {
        let (attach, attachments) = mpsc::channel(1);
        let (events, receiver) = mpsc::channel(EVENTS);
        let cancel = CancellationToken::new();
        let ticket = self.grants.issue(&grant, attach)?;
        let cutting = Cutting::ahead(&grant.payload);
        let run = Run {
            grants: Arc::clone(&self.grants),
            grant,
            attachments,
            events: Teller(events),
            cancel: cancel.clone(),
            cutting,
            future_due: None,
            result_due: None,
            receiving: None,
            sent: false,
            begun: false,
            printed: false,
        };
        tokio::spawn(run.run(ticket));
        Ok(Delivery { ticket, events: receiver, _guard: cancel.clone().drop_guard(), cancel })
    }
}

/// The way to the reader of the events.
struct Teller(mpsc::Sender<DeliveryEvent>);

impl Teller {
    /// For events that may be lost on a slow reader.
    fn mention(&self, event: DeliveryEvent) {
        if self.0.capacity() > SPARED {
            self.must(event);
        }
    }

    /// For events that come once, and those for which [`Teller::has_room`]: there is room for them.
    fn must(&self, event: DeliveryEvent) {
        if self.0.try_send(event).is_err() {
            tracing::debug!("nobody reads the events of a delivery any more");
        }
    }

    fn has_room(&self) -> bool {
        self.0.capacity() > KEPT || self.0.is_closed()
    }

    /// Waits until [`Teller::has_room`]. Cancel-safe.
    async fn room(&self) {
        let _ = self.0.reserve_many(KEPT + 1).await;
    }
}

struct Run<N: Network> {
    grants: Arc<Grants<N>>,
    grant: Grant,
    attachments: mpsc::Receiver<Attachment<N::Stream>>,
    events: Teller,
    cancel: CancellationToken,
    /// The future's pieces, once they are of use.
    cutting: Option<Cutting>,
    /// When the worker must have the whole future: counted from its first stream, whatever it dials after that.
    future_due: Option<Instant>,
    /// When the whole result must be here: counted from its first announcement.
    result_due: Option<Instant>,
    /// What is here of the result, over all streams.
    receiving: Option<(Receiving, Provenance)>,
    /// The worker has the whole future.
    sent: bool,
    /// The task began.
    begun: bool,
    /// What the task printed was told.
    printed: bool,
}

type Outcome = (Spooled, Provenance);

impl<N: Network> Run<N> {
    async fn run(mut self, ticket: Ticket) {
        let outcome = self.attend().await;
        let Self { grants, grant, events: Teller(events), .. } = self;
        let (state, event) = match outcome {
            Ok((result, provenance)) => (State::Delivered, DeliveryEvent::Done { result, provenance }),
            Err(error) => (State::Over(epitaph(&error)), DeliveryEvent::Failed(error)),
        };
        tracing::debug!(worker = %grant.worker, future = %grant.future, ?event, "delivery ended");
        grants.settle(ticket, state);
        drop(grant);
        let _ = events.send(event).await;
        drop(events);
        sleep(grants.config.linger).await;
        grants.forget(ticket);
    }

    /// From the first stream to the last.
    async fn attend(&mut self) -> Result<Outcome, TransferError> {
        let config = self.grants.config;
        let first = self.next(config.nobody_came).await?;
        let mut attachment = first.ok_or(TransferError::NobodyCame { after: config.nobody_came })?;
        let mut redials = Redials::new(config);
        loop {
            let mut bytes = self.received() + attachment.hello.held();
            redials.connected(bytes);
            let end = self.converse(attachment, &mut bytes).await;
            redials.broke(bytes);
            attachment = match end {
                Ok(End::Delivered(outcome)) => return Ok(outcome),
                Ok(End::Replaced(next)) if redials.take() => next,
                Err(Interrupted::Failed(error)) => return Err(error),
                Err(Interrupted::Broken(source)) if redials.take() => {
                    tracing::info!(worker = %self.grant.worker, future = %self.grant.future, %source, "stream broken");
                    self.events.mention(DeliveryEvent::Disconnected(source.to_string()));
                    let next = self.next(config.grace).await?;
                    next.ok_or(TransferError::WorkerSilent { after: config.grace, source })?
                }
                Ok(End::Replaced(_)) | Err(Interrupted::Broken(_)) => {
                    let source = io::Error::other("the stream broke too often");
                    return Err(TransferError::WorkerSilent { after: config.grace, source });
                }
            };
        }
    }

    /// Bytes of the result that are here.
    fn received(&self) -> u64 {
        self.receiving.as_ref().map_or(0, |(receiving, _)| receiving.received())
    }

    /// The worker's next stream, or none in this time.
    async fn next(&mut self, within: Duration) -> Result<Option<Attachment<N::Stream>>, TransferError> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(TransferError::Cancelled),
            next = timeout(within, self.attachments.recv()) => Ok(next.ok().flatten()),
        }
    }
}

/// What a worker that comes late is told.
fn epitaph(error: &TransferError) -> Refusal {
    match error {
        TransferError::Refused(_) => Refusal::Used,
        error => error.refusal(),
    }
}
