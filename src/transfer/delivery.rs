//! The client's side of one run: a task that outlives broken streams and ends in exactly one
//! [`DeliveryEvent::Done`] or [`DeliveryEvent::Failed`].

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Grant, Network, Transfer, TransferError,
    error::Interrupted,
    grants::{Attachment, Grants, State},
    link::{Link, Outbox},
    payload::{Expected, Receiving, Sending, advance},
};
use crate::{
    ids::Ticket,
    proto::{
        frames::{Frame, FromClient, FromWorker, Stage},
        refusal::{Payload, Refusal},
    },
    sandbox::Provenance,
    spool::Spooled,
};

/// Events that wait for their reader. When so many wait, [`DeliveryEvent::Sending`], [`DeliveryEvent::Receiving`],
/// [`DeliveryEvent::Progress`], [`DeliveryEvent::Connected`] and [`DeliveryEvent::Disconnected`] are dropped; the others never are.
const EVENTS: usize = 64;
/// Room that is kept for the events that are never dropped, each of which comes once.
const KEPT: usize = 4;

/// What happens to a future that was granted to a worker.
#[derive(Debug)]
pub enum DeliveryEvent {
    /// The worker is here, for the first time or again.
    Connected,
    /// The stream broke, or nothing was heard for [`super::TransferConfig::silence`], for this reason. The worker may dial
    /// again.
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
        let run = Run {
            grants: Arc::clone(&self.grants),
            grant,
            attachments,
            events: Teller(events),
            cancel: cancel.clone(),
            future_due: None,
            result_due: None,
            sent: false,
            begun: false,
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
        if self.0.capacity() > KEPT {
            self.must(event);
        }
    }

    /// For events that come once: there is room for them.
    fn must(&self, event: DeliveryEvent) {
        if self.0.try_send(event).is_err() {
            tracing::debug!("nobody reads the events of a delivery any more");
        }
    }
}

struct Run<N: Network> {
    grants: Arc<Grants<N>>,
    grant: Grant,
    attachments: mpsc::Receiver<Attachment<N::Stream>>,
    events: Teller,
    cancel: CancellationToken,
    /// When the worker must have the whole future: counted from its first stream, whatever it dials after that.
    future_due: Option<Instant>,
    /// When the whole result must be here: counted from its first announcement.
    result_due: Option<Instant>,
    /// The worker has the whole future.
    sent: bool,
    /// The task began.
    begun: bool,
}

type Outcome = (Spooled, Provenance);

/// How a conversation over one stream ended well.
enum End<S> {
    Delivered(Outcome),
    /// The worker dialled again before this side saw that the stream is broken.
    Replaced(Attachment<S>),
}

/// What is under way on one stream.
struct Talk {
    sending: Option<Sending>,
    receiving: Option<(Receiving, Provenance)>,
    /// When the worker must have the whole future.
    due: Instant,
}

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
        for _ in 0..=config.redials {
            attachment = match self.converse(attachment).await {
                Ok(End::Delivered(outcome)) => return Ok(outcome),
                Ok(End::Replaced(next)) => next,
                Err(Interrupted::Failed(error)) => return Err(error),
                Err(Interrupted::Broken(source)) => {
                    tracing::info!(worker = %self.grant.worker, future = %self.grant.future, %source, "stream broken");
                    self.events.mention(DeliveryEvent::Disconnected(source.to_string()));
                    let next = self.next(config.grace).await?;
                    next.ok_or(TransferError::WorkerSilent { after: config.grace, source })?
                }
            };
        }
        let source = io::Error::other("the stream broke too often");
        Err(TransferError::WorkerSilent { after: config.grace, source })
    }

    /// The worker's next stream, or none in this time.
    async fn next(&mut self, within: Duration) -> Result<Option<Attachment<N::Stream>>, TransferError> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(TransferError::Cancelled),
            next = timeout(within, self.attachments.recv()) => Ok(next.ok().flatten()),
        }
    }

    /// Talks over one stream and ends it with the word that belongs there.
    async fn converse(&mut self, attachment: Attachment<N::Stream>) -> Result<End<N::Stream>, Interrupted> {
        let Attachment { mut link, hello } = attachment;
        self.events.mention(DeliveryEvent::Connected);
        let end = match self.answer(&link.out, hello.stage, hello.max_future).await {
            Ok(talk) => self.talk(&mut link, talk).await,
            Err(error) => Err(error),
        };
        match &end {
            Ok(End::Delivered(_)) => link.close_with(&FromClient::Acknowledge).await,
            Err(Interrupted::Failed(TransferError::Cancelled)) => link.close_with(&FromClient::Cancel).await,
            Err(Interrupted::Failed(error)) => link.close_with(&FromClient::Refuse(error.refusal())).await,
            Ok(End::Replaced(_)) | Err(Interrupted::Broken(_)) => drop(link),
        }
        end
    }

    /// Answers the hello.
    async fn answer(&mut self, out: &Outbox, stage: Stage, max_future: u64) -> Result<Talk, Interrupted> {
        let Grant { payload, max_result, .. } = &self.grant;
        let (size, digest, max_result) = (payload.size(), payload.digest(), *max_result);
        let sending = match stage {
            Stage::Resume => {
                out.say(&FromClient::Resume).await?;
                self.note_sent();
                None
            }
            Stage::Fetch if self.sent => return Err(TransferError::Protocol("fetched twice").into()),
            Stage::Fetch => {
                Expected { what: Payload::Future, size, digest }.within(max_future)?;
                out.say(&FromClient::Future { size, digest, max_result }).await?;
                Some(Sending::new(payload.reader()?, size))
            }
        };
        let due = *self.future_due.get_or_insert_with(|| Instant::now() + self.grants.config.payload);
        Ok(Talk { sending, receiving: None, due })
    }

    async fn talk(
        &mut self,
        link: &mut Link<N::Stream, FromWorker>,
        mut talk: Talk,
    ) -> Result<End<N::Stream>, Interrupted> {
        loop {
            let sending = talk.sending.as_mut().filter(|sending| !sending.is_done());
            tokio::select! {
                () = self.cancel.cancelled() => return Err(TransferError::Cancelled.into()),
                Some(next) = self.attachments.recv() => return Ok(End::Replaced(next)),
                frame = link.frames.next() => self.hear(frame?, &link.out, &mut talk).await?,
                sent = advance(sending, &link.out) => {
                    let total = self.grant.payload.size();
                    sent?.into_iter().for_each(|bytes| self.events.mention(DeliveryEvent::Sending { bytes, total }));
                }
                error = late(&talk.receiving, talk.due, self.sent, self.grants.config.payload) => {
                    return Err(error.into());
                }
            }
            if let Some((receiving, provenance)) = talk.receiving.take_if(|(receiving, _)| receiving.is_whole()) {
                return Ok(End::Delivered((receiving.finish().await?, provenance)));
            }
        }
    }

    /// Acts on one frame.
    async fn hear(&mut self, frame: Frame<FromWorker>, out: &Outbox, talk: &mut Talk) -> Result<(), Interrupted> {
        match frame {
            Frame::Control(FromWorker::Heartbeat) => out.beat(&FromClient::Heartbeat)?,
            Frame::Control(FromWorker::Received) => match &talk.sending {
                Some(sending) if sending.is_done() => self.note_sent(),
                _ => return Err(TransferError::Protocol("received what was not sent").into()),
            },
            Frame::Control(FromWorker::Begin { provenance }) if self.sent => {
                if !std::mem::replace(&mut self.begun, true) {
                    self.events.must(DeliveryEvent::Begun(provenance));
                }
            }
            Frame::Control(FromWorker::Result { size, digest, provenance })
                if self.sent && talk.receiving.is_none() =>
            {
                let expected = Expected { what: Payload::Result, size, digest }.within(self.grant.max_result)?;
                let directory = self.grant.spool_directory.clone();
                let config = self.grants.config;
                let end = *self.result_due.get_or_insert_with(|| Instant::now() + config.payload);
                talk.receiving = Some((Receiving::new(expected, directory, end, config), provenance));
            }
            Frame::Control(FromWorker::Refuse(refusal)) => return Err(TransferError::from(refusal).into()),
            Frame::Progress(rds) if self.begun => self.events.mention(DeliveryEvent::Progress(rds)),
            Frame::Data(piece) => self.take(piece, talk).await?,
            Frame::Control(_) | Frame::Progress(_) => {
                return Err(TransferError::Protocol("a frame in the wrong place").into());
            }
        }
        Ok(())
    }

    async fn take(&self, piece: Vec<u8>, talk: &mut Talk) -> Result<(), TransferError> {
        let unasked = TransferError::Protocol("data that were not announced");
        let (receiving, _) = talk.receiving.as_mut().ok_or(unasked)?;
        let total = receiving.size();
        if let Some(bytes) = receiving.take(piece).await? {
            self.events.mention(DeliveryEvent::Receiving { bytes, total });
        }
        Ok(())
    }

    fn note_sent(&mut self) {
        if !std::mem::replace(&mut self.sent, true) {
            self.events.must(DeliveryEvent::Sent);
        }
    }
}

/// Waits until a payload is late; for ever while none is under way.
async fn late(receiving: &Option<(Receiving, Provenance)>, due: Instant, sent: bool, after: Duration) -> TransferError {
    match receiving {
        Some((receiving, _)) => receiving.late().await,
        None if sent => std::future::pending().await,
        None => {
            sleep_until(due).await;
            TransferError::Stalled { what: Payload::Future, after }
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
