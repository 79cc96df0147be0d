//! One accepted future, from its ticket to its acknowledged result.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error_chain,
    proto::claim::Job,
    runner::{AttemptEvent, Outcome, Workbench},
    sandbox::Provenance,
    spool::Spooled,
    transfer::{Invitation, Network, Session, Transfer, TransferError},
};

/// How long a result may still be on its way when the worker stops at once.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a slot rests when there is no room for a future.
const NO_ROOM: Duration = Duration::from_secs(30);

/// Events of the task that wait for the stream.
const EVENT_QUEUE: usize = 4;

pub(super) struct Slot<N: Network> {
    pub(super) number: usize,
    pub(super) job: Job,
    pub(super) transfer: Arc<Transfer<N>>,
    pub(super) workbench: Arc<Workbench>,
    pub(super) stop: CancellationToken,
}

/// How a slot became free again.
pub(super) enum SlotEnd {
    /// The client has the result; the text says how the task ended.
    Delivered(String),
    /// There was no future to evaluate, or nobody to take its result.
    Failed(String),
}

impl<N: Network> Slot<N> {
    pub(super) async fn serve(self) -> SlotEnd {
        let fetched = tokio::select! {
            fetched = self.transfer.fetch(self.invitation()) => fetched,
            () = self.stop.cancelled() => return SlotEnd::Failed("stopped before the future was here".to_owned()),
        };
        match fetched {
            Ok((future, session)) => self.evaluate(&future, session).await,
            Err(error) => {
                self.pause_after(&error).await;
                SlotEnd::Failed(error_chain(&error))
            }
        }
    }

    /// A worker without room for bytes takes no other future for a while: the next one would fail in the same way.
    async fn pause_after(&self, error: &TransferError) {
        if matches!(error, TransferError::Spool(_)) {
            tracing::error!(error = error_chain(error), "no room for futures; this slot takes none for half a minute");
            tokio::select! {
                () = sleep(NO_ROOM) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    fn invitation(&self) -> Invitation {
        Invitation {
            client: self.job.node.clone(),
            addresses: self.job.at.clone(),
            ticket: self.job.ticket,
            future: self.job.key.future.clone(),
            max_future: self.workbench.max_future(),
            spool_directory: self.workbench.spool_directory().to_owned(),
        }
    }

    async fn evaluate(&self, future: &Spooled, session: Session) -> SlotEnd {
        let mut provenance = self.workbench.provenance().clone();
        let cancel = self.stop.child_token();
        let (events, mut happened) = mpsc::channel(EVENT_QUEUE);
        let attempt = self.workbench.evaluate(
            self.number,
            future,
            &self.job.key.future,
            session.max_result(),
            cancel.clone(),
            events,
        );
        tokio::pin!(attempt);
        let mut listening = true;
        // Progress that the client is too slow for. Until it is gone, nothing more is taken from the task, whose pipe
        // fills then: it waits for its client, and no memory fills up.
        let mut waiting: Option<Vec<u8>> = None;
        let outcome = loop {
            tokio::select! {
                outcome = &mut attempt => break outcome,
                cause = session.cancelled(), if !cancel.is_cancelled() => {
                    tracing::info!(future = %self.job.key.future, ?cause, "stopping");
                    cancel.cancel();
                }
                () = session.ready_for_progress(), if waiting.is_some() => {
                    let _ = waiting.take().map(|condition| session.progress(condition));
                }
                event = happened.recv(), if listening && waiting.is_none() => match event {
                    Some(AttemptEvent::Progress(condition)) => waiting = Some(condition),
                    // That the session is over shows when the result is delivered.
                    Some(AttemptEvent::Begun) => drop(session.begin(provenance.clone()).await),
                    Some(AttemptEvent::Running) => {}
                    None => listening = false,
                },
            }
        };
        tokio::select! {
            () = pass_on_the_rest(&session, &provenance, waiting, happened) => {}
            _ = session.cancelled() => {}
            () = self.stop.cancelled() => {}
        }
        match outcome {
            // Another worker may have it, which is better for the client than a result that says that this one left.
            Ok(outcome) if self.stop.is_cancelled() && outcome.ended.reason().is_some() => {
                self.abandon(session, "the worker is being stopped by its owner".to_owned()).await
            }
            Ok(outcome) => {
                provenance.note_refused_processes(outcome.usage.refused_processes);
                self.deliver(&outcome, session, provenance).await
            }
            Err(error) => self.abandon(session, error_chain(&error)).await,
        }
    }

    /// Gives the future back: the client posts it again.
    async fn abandon(&self, session: Session, why: String) -> SlotEnd {
        // A client that cannot be told finds out by itself.
        let _ = timeout(LAST_WORDS, session.abandon(&why)).await;
        SlotEnd::Failed(why)
    }

    /// Some time after a stop: enough to tell a client that is there why its task ended, too little to notice.
    async fn out_of_time(&self) {
        self.stop.cancelled().await;
        sleep(LAST_WORDS).await;
    }

    async fn deliver(&self, outcome: &Outcome, session: Session, provenance: Provenance) -> SlotEnd {
        if !outcome.text.kept.is_empty() {
            // That the session is over shows when the result is delivered.
            let _ = session.printed(outcome.text.for_log()).await;
        }
        let how = outcome.ended.reason().map_or_else(|| "finished".to_owned(), ToString::to_string);
        let delivery = session.deliver(&outcome.result, provenance);
        let delivered = tokio::select! {
            delivered = delivery => delivered,
            () = self.out_of_time() => return SlotEnd::Failed(format!("{how}; stopped before it was delivered")),
        };
        match delivered {
            Ok(()) => SlotEnd::Delivered(how),
            Err(error) => SlotEnd::Failed(format!("{how}; not delivered: {}", error_chain(&error))),
        }
    }
}

/// Passes on what the task said before it ended, as fast as its client takes it.
async fn pass_on_the_rest(
    session: &Session,
    provenance: &Provenance,
    mut waiting: Option<Vec<u8>>,
    mut happened: mpsc::Receiver<AttemptEvent>,
) {
    loop {
        if let Some(condition) = waiting.take() {
            session.ready_for_progress().await;
            let _ = session.progress(condition);
        }
        match happened.try_recv() {
            Ok(AttemptEvent::Progress(condition)) => waiting = Some(condition),
            Ok(AttemptEvent::Begun) => drop(session.begin(provenance.clone()).await),
            Ok(AttemptEvent::Running) => {}
            Err(_) => return,
        }
    }
}
