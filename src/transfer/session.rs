//! The worker's side of one run, once it has the future: a task that keeps the client informed, outlives broken
//! streams, and brings the result back.

use std::{fs::File, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, Interval, sleep_until},
};

use super::{
    Network, TransferError,
    error::Interrupted,
    link::{Outbox, heartbeat, while_beating},
    payload::{Expected, Opening, Sending, advance},
    worker::{Caller, ClientLink},
};
use crate::{
    error_chain,
    proto::{
        frames::{Frame, FromClient, FromWorker, Held, Kind, Printed, Stage, encode_body},
        refusal::{Payload, Reason, Refusal},
    },
    sandbox::Provenance,
    spool::Spooled,
};

/// Progress messages that wait, of at most 1 MiB each.
const PROGRESS_QUEUE: usize = 4;
const COMMAND_QUEUE: usize = 4;

/// Why a task should be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelCause {
    /// The client does not want the future any more.
    Cancelled,
    /// The client will not take anything more from this worker.
    Refused(Refusal),
    /// The client cannot be reached any more, or does not keep to the protocol.
    Gone(String),
}

/// A future that this worker has, and the way back to its client. Heartbeats are sent for as long as it lives.
///
/// Dropping it tells the client that the worker gave up, unless a result is on its way, which still arrives.
#[derive(Debug)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    progress: mpsc::Sender<Vec<u8>>,
    cancelled: watch::Receiver<Option<CancelCause>>,
    max_result: u64,
    /// How long a result may take.
    patience: Duration,
}

#[derive(Debug)]
enum Command {
    Begin(Provenance),
    Printed(Printed),
    Deliver(Parcel),
    Abandon(Reason),
}

/// A result on its way.
#[derive(Debug)]
struct Parcel {
    file: Arc<File>,
    expected: Expected,
    provenance: Provenance,
    /// When the client must have acknowledged it.
    due: Instant,
    reply: oneshot::Sender<Result<(), TransferError>>,
}

impl Session {
    /// Goes on over the stream by which the future came.
    pub(super) fn over<N: Network>(caller: Caller<N>, link: ClientLink<N>, max_result: u64) -> Self {
        let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
        let (progress, progress_queue) = mpsc::channel(PROGRESS_QUEUE);
        let (cancel, cancelled) = watch::channel(None);
        let patience = caller.config.payload;
        let actor = Actor {
            caller,
            commands: command_queue,
            progress: progress_queue,
            begun: None,
            printed: None,
            parcel: None,
        };
        tokio::spawn(actor.run(link, cancel));
        Self { commands, progress, cancelled, max_result, patience }
    }

    /// The largest result that the client takes, in bytes.
    #[must_use]
    pub fn max_result(&self) -> u64 {
        self.max_result
    }

    /// Tells the client that the task begins. Told again by itself after a broken stream.
    ///
    /// # Errors
    /// As [`Session::deliver`], when the session is over.
    pub async fn begin(&self, provenance: Provenance) -> Result<(), TransferError> {
        self.commands.send(Command::Begin(provenance)).await.map_err(|_| self.end())
    }

    /// Waits until [`Session::progress`] finds room, or the session is over. A task that is not listened to meanwhile is
    /// as slow as its client. Cancel-safe.
    pub async fn ready_for_progress(&self) {
        let _ = self.progress.reserve().await;
    }

    /// Passes on one immediateCondition as RDS. Never waits: when the client is so slow that 4 messages wait already,
    /// or when it is over 1 MiB, the message is lost, and `false` says so; see [`Session::ready_for_progress`].
    pub fn progress(&self, rds: Vec<u8>) -> bool {
        encode_body(Kind::Progress, &rds).is_ok_and(|frame| self.progress.try_send(frame).is_ok())
    }

    /// Waits until the task should be stopped: the client cancelled, or is gone for good. Never comes back when the
    /// session ends in another way. Cancel-safe; may be waited for several times.
    pub async fn cancelled(&self) -> CancelCause {
        let mut cancelled = self.cancelled.clone();
        let cause = cancelled.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone());
        match cause {
            Some(cause) => cause,
            None => std::future::pending().await,
        }
    }

    /// Tells the client what the task's programs printed past R, before the result.
    ///
    /// # Errors
    /// As [`Session::deliver`], when the session is over.
    pub async fn printed(&self, text: String) -> Result<(), TransferError> {
        self.commands.send(Command::Printed(text.into())).await.map_err(|_| self.end())
    }

    /// Brings the result to the client and waits until the client says that it has it. A broken stream is dialled again
    /// for [`super::TransferConfig::grace`], and the result goes on at the byte where it broke. Dropping this future does not stop the result.
    ///
    /// # Errors
    /// [`TransferError::TooLarge`] when the result is over [`Session::max_result`]: nothing was sent, and another
    /// result may still be delivered. Everything else is the end of the session: [`TransferError::Cancelled`],
    /// [`TransferError::Refused`], [`TransferError::ClientGone`], [`TransferError::Stalled`],
    /// [`TransferError::Protocol`], [`TransferError::Over`].
    pub async fn deliver(&self, result: &Spooled, provenance: Provenance) -> Result<(), TransferError> {
        let expected = Expected { what: Payload::Result, size: result.size(), digest: result.digest() };
        let expected = expected.within(self.max_result)?;
        let (reply, delivered) = oneshot::channel();
        let due = Instant::now() + self.patience;
        let parcel = Parcel { file: result.file(), expected, provenance, due, reply };
        self.commands.send(Command::Deliver(parcel)).await.map_err(|_| self.end())?;
        delivered.await.unwrap_or_else(|_| Err(self.end()))
    }

    /// Tells the client that there will be no result, and why. Comes back when that is on its way, or cannot be.
    pub async fn abandon(self, reason: &str) {
        if self.commands.send(Command::Abandon(reason.into())).await.is_ok() {
            self.commands.closed().await;
        }
    }

    /// Why the session is over.
    fn end(&self) -> TransferError {
        match &*self.cancelled.borrow() {
            Some(CancelCause::Cancelled) => TransferError::Cancelled,
            Some(CancelCause::Refused(refusal)) => refusal.clone().into(),
            Some(CancelCause::Gone(_)) | None => TransferError::Over,
        }
    }
}

struct Actor<N: Network> {
    caller: Caller<N>,
    commands: mpsc::Receiver<Command>,
    progress: mpsc::Receiver<Vec<u8>>,
    begun: Option<Provenance>,
    printed: Option<Printed>,
    parcel: Option<Parcel>,
}

/// How a session ended well.
enum End {
    Delivered,
    Abandoned(Reason),
}

impl<N: Network> Actor<N> {
    async fn run(mut self, link: ClientLink<N>, cancel: watch::Sender<Option<CancelCause>>) {
        let outcome = self.attend(link).await;
        if let Err(error) = &outcome {
            tracing::debug!(client = %self.caller.invitation.client, %error, "session ended");
            cancel.send_replace(Some(match error {
                TransferError::Cancelled => CancelCause::Cancelled,
                TransferError::Refused(refusal) => CancelCause::Refused(refusal.clone()),
                error => CancelCause::Gone(error_chain(error)),
            }));
        }
        if let Some(parcel) = self.parcel.take() {
            let _ = parcel.reply.send(outcome);
        }
    }

    /// From the first stream to the last.
    async fn attend(&mut self, mut link: ClientLink<N>) -> Result<(), TransferError> {
        let mut held = None;
        loop {
            let mut sent = held.map_or(0, |held: Held| held.size);
            self.caller.redials.connected(sent);
            let cause = match self.converse(link, held, &mut sent).await {
                Ok(()) => return Ok(()),
                Err(Interrupted::Failed(error)) => return Err(error),
                Err(Interrupted::Broken(cause)) => cause,
            };
            self.caller.redials.broke(sent);
            let (next, answer) = self.caller.again(Stage::Resume, cause).await?;
            match answer {
                FromClient::Resume { held: theirs } => (link, held) = (next, theirs),
                FromClient::Acknowledge if self.parcel.is_some() => return Ok(()),
                _ => return Err(TransferError::Protocol("a frame in the wrong place")),
            }
        }
    }

    /// Talks over one stream and ends it with the word that belongs there. The client has so much of the result already;
    /// `sent` is how far it came.
    async fn converse(
        &mut self,
        mut link: ClientLink<N>,
        held: Option<Held>,
        sent: &mut u64,
    ) -> Result<(), Interrupted> {
        let mut sending = None;
        let ended = self.talk(&mut link, held, &mut sending).await;
        *sent = sending.as_ref().map_or(*sent, Sending::sent);
        let last = match ended {
            Ok(End::Delivered) => return Ok(()),
            Ok(End::Abandoned(reason)) => (Refusal::GaveUp(reason), Ok(())),
            Err(Interrupted::Failed(error)) => (error.refusal(), Err(error.into())),
            Err(broken) => return Err(broken),
        };
        link.close_with(&FromWorker::Refuse(last.0)).await;
        last.1
    }

    async fn talk(
        &mut self,
        link: &mut ClientLink<N>,
        held: Option<Held>,
        sending: &mut Option<Sending>,
    ) -> Result<End, Interrupted> {
        if let Some(provenance) = self.begun.clone() {
            link.out.say(&FromWorker::Begin { provenance }).await?;
        }
        let mut beat = heartbeat(&self.caller.config);
        loop {
            // Progress goes behind the beginning of the task and before its result.
            let has_begun = self.begun.is_some();
            if self.parcel.is_some() && sending.is_none() && (self.progress.is_empty() || !has_begun) {
                *sending = self.announce(&link.out, held, &mut beat).await?;
            }
            let announced = sending.is_some();
            let idle = self.parcel.is_none();
            let due = self.parcel.as_ref().map(|parcel| parcel.due);
            let unsent = sending.as_mut().filter(|sending| !sending.is_done());
            tokio::select! {
                frame = link.frames.next() => match frame? {
                    Frame::Control(FromClient::Heartbeat) => {}
                    Frame::Control(FromClient::Cancel) => return Err(TransferError::Cancelled.into()),
                    Frame::Control(FromClient::Refuse(refusal)) => return Err(TransferError::from(refusal).into()),
                    Frame::Control(FromClient::Acknowledge) if !idle => return Ok(End::Delivered),
                    _ => return Err(TransferError::Protocol("a frame in the wrong place").into()),
                },
                command = self.commands.recv(), if idle => match command {
                    Some(Command::Begin(provenance)) => {
                        self.begun = Some(provenance.clone());
                        link.out.say(&FromWorker::Begin { provenance }).await?;
                    }
                    Some(Command::Printed(text)) => self.printed = Some(text),
                    Some(Command::Deliver(parcel)) => self.parcel = Some(parcel),
                    Some(Command::Abandon(reason)) => return Ok(End::Abandoned(reason)),
                    None => return Ok(End::Abandoned("the worker dropped the future".into())),
                },
                forwarded = forward(&mut self.progress, &link.out), if has_begun && !announced => forwarded?,
                sent = advance(unsent, &link.out) => drop(sent?),
                _ = beat.tick() => link.out.beat(&FromWorker::Heartbeat)?,
                () = late(due) => {
                    let after = self.caller.config.payload;
                    return Err(TransferError::Stalled { what: Payload::Result, after }.into());
                }
            }
        }
    }

    /// Announces the result, if there is one, behind the progress that came before it, and from where the client has it.
    async fn announce(
        &mut self,
        out: &Outbox,
        held: Option<Held>,
        beat: &mut Interval,
    ) -> Result<Option<Sending>, Interrupted> {
        let Some(Parcel { file, expected, provenance, .. }) = &self.parcel else { return Ok(None) };
        let Expected { size, digest, .. } = *expected;
        let opening = Opening::new(Arc::clone(file), size, held);
        let opening = while_beating(beat, &FromWorker::Heartbeat, out, opening).await??;
        let provenance = provenance.clone();
        if let Some(printed) = self.printed.clone().filter(|_| self.begun.is_some()) {
            let printed = FromWorker::Printed(printed);
            while_beating(beat, &FromWorker::Heartbeat, out, out.follow(&printed)).await??;
        }
        let (start, whole) = (opening.start, opening.whole.clone());
        let announcement = FromWorker::Result { size, digest, provenance, start, whole };
        let queued = out.follow(&announcement);
        while_beating(beat, &FromWorker::Heartbeat, out, queued).await??;
        Ok(Some(opening.rest()))
    }
}

/// Passes on the next progress message. Cancel-safe: there is room for it before it is taken from the queue.
async fn forward(progress: &mut mpsc::Receiver<Vec<u8>>, out: &Outbox) -> Result<(), Interrupted> {
    let room = out.bulk().await?;
    match progress.recv().await {
        Some(frame) => room.send(frame),
        None => std::future::pending().await,
    }
    Ok(())
}

/// Waits until a point in time, if there is one.
async fn late(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
