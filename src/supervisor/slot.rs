//! One accepted future, from its ticket to its acknowledged result.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    error_chain,
    proto::claim::Job,
    runner::{AttemptEvent, Outcome, Workbench},
    sandbox::Provenance,
    spool::Spooled,
    transfer::{Invitation, Network, Session, Transfer},
};

/// Events of the task that wait for the stream.
const EVENT_QUEUE: usize = 32;

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
            Err(error) => SlotEnd::Failed(error_chain(&error)),
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
        let provenance = self.workbench.provenance().clone();
        if let Err(error) = session.begin(provenance.clone()).await {
            return SlotEnd::Failed(error_chain(&error));
        }
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
        let outcome = loop {
            tokio::select! {
                outcome = &mut attempt => break outcome,
                cause = session.cancelled(), if !cancel.is_cancelled() => {
                    tracing::info!(future = %self.job.key.future, ?cause, "stopping");
                    cancel.cancel();
                }
                event = happened.recv(), if listening => match event {
                    Some(AttemptEvent::Progress(condition)) => {
                        // A client that is too slow for progress goes without.
                        let _ = session.progress(condition);
                    }
                    Some(_) => {}
                    None => listening = false,
                },
            }
        };
        match outcome {
            Ok(outcome) => self.deliver(&outcome, session, provenance).await,
            Err(error) => {
                let why = error_chain(&error);
                session.abandon(&why).await;
                SlotEnd::Failed(why)
            }
        }
    }

    async fn deliver(&self, outcome: &Outcome, session: Session, provenance: Provenance) -> SlotEnd {
        let how = outcome.ended.reason().map_or_else(|| "finished".to_owned(), ToString::to_string);
        let delivery = session.deliver(&outcome.result, provenance);
        let delivered = tokio::select! {
            delivered = delivery => delivered,
            () = self.stop.cancelled() => return SlotEnd::Failed(format!("{how}; stopped before it was delivered")),
        };
        match delivered {
            Ok(()) => SlotEnd::Delivered(how),
            Err(error) => SlotEnd::Failed(format!("{how}; not delivered: {}", error_chain(&error))),
        }
    }
}
