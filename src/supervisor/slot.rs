//! One accepted future, from its accept to its acknowledged result.

use std::{pin::Pin, sync::Arc, time::Duration};

use p2p_jail::spec::Usage;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Routes, by_wormhole::Claim, foresight::Foresight, session::Session};
use crate::{
    error_chain,
    ids::{Address, NodeId},
    proto::{
        claim::{Event, Job},
        message::Via,
    },
    runner::{AttemptEvent, Done, Next, Outcome, Reason, Text, Workbench, WorkbenchError},
    sandbox::Provenance,
    spool::Spooled,
    transfer::{self, Begun, Invitation, Network, Transfer, TransferError},
    wormhole::{Failure, Phase, Wormhole, WormholeError},
};

/// How long a result may still be on its way when the worker stops at once.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a slot rests when the next future would fail as the last one did.
const REST: Duration = Duration::from_secs(30);

/// How long R may take to end when its result is whole: some milliseconds, and what finalizers of the user's do.
const ENDING: Duration = Duration::from_secs(5);

/// How a task ended that came to its result.
const FINISHED: &str = "finished";

/// Events of the task that wait for the stream.
const EVENT_QUEUE: usize = 4;

/// What comes first: a whole result, or the end of the task.
enum First {
    Done(Done),
    Ended(Result<Outcome, WorkbenchError>),
}

pub(super) struct Slot<N: Network, W> {
    pub(super) number: usize,
    pub(super) job: Job,
    /// Where its client is, when that changes.
    pub(super) moves: watch::Receiver<Vec<Address>>,
    pub(super) routes: Arc<Routes<N, W>>,
    pub(super) workbench: Arc<Workbench>,
    pub(super) foresight: Arc<Foresight>,
    /// To the dispatcher.
    pub(super) news: mpsc::Sender<Event>,
    /// How many farewells may be on their way.
    pub(super) farewells: Arc<Semaphore>,
    /// The client no longer wants it, as it says on the board.
    pub(super) withdrawn: CancellationToken,
    pub(super) stop: CancellationToken,
}

/// An answer that goes on its way when its slot is free again.
pub(super) type Farewell = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a slot became free again.
pub(super) enum SlotEnd {
    /// The client has the result; the text says how the task ended.
    Delivered(String),
    /// There was no future to evaluate, or nobody to take its result.
    Failed(String),
    /// The same, and there is still something to say to the client.
    Leaving(String, Farewell),
}

impl<N: Network, W: Wormhole> Slot<N, W> {
    pub(super) async fn serve(self) -> SlotEnd {
        match (&self.job.via, &self.routes.libp2p, &self.routes.wormhole) {
            (Via::Libp2p { node, ticket }, Some(transfer), _) => {
                let begun = self.foresight.take(self.number, node);
                self.workbench.expect(self.number, Next::Coming(begun.as_ref().map(Begun::beginning)));
                let invitation = Invitation {
                    client: node.clone(),
                    addresses: self.job.at.clone(),
                    ticket: *ticket,
                    future: self.job.key.future.clone(),
                    max_future: self.workbench.max_future(),
                    spool_directory: self.workbench.spool_directory().to_owned(),
                };
                self.by_libp2p(transfer, node, transfer.fetch_from(invitation, self.moves.clone(), begun)).await
            }
            (Via::Wormhole { code }, _, Some(wormhole)) => {
                self.workbench.expect(self.number, Next::Coming(None));
                let claim = Claim {
                    wormhole: Arc::clone(wormhole),
                    key: self.job.key.clone(),
                    code: code.clone(),
                    news: self.news.clone(),
                    withdrawn: self.withdrawn.clone(),
                    stop: self.stop.clone(),
                };
                self.by_wormhole(Arc::new(claim)).await
            }
            _ => SlotEnd::Failed("accepted via a transfer that was not offered".to_owned()),
        }
    }

    async fn by_libp2p(
        &self,
        transfer: &Transfer<N>,
        client: &NodeId,
        fetch: impl Future<Output = Result<(Spooled, transfer::Session), TransferError>>,
    ) -> SlotEnd {
        let fetched = tokio::select! {
            fetched = fetch => fetched,
            () = self.stop.cancelled() => return SlotEnd::Failed("stopped before the future was here".to_owned()),
        };
        match fetched {
            Ok((future, session)) => {
                let end = self.evaluate(&future, Session::Libp2p(session)).await;
                let with = (transfer.clone(), Arc::clone(&self.workbench));
                self.foresight.note(self.number, client.clone(), Arc::new(future), with);
                end
            }
            Err(error) => {
                if matches!(error, TransferError::Spool(_)) {
                    self.rest("no room for futures", &error).await;
                }
                SlotEnd::Failed(error_chain(&error))
            }
        }
    }

    async fn by_wormhole(&self, claim: Arc<Claim<W>>) -> SlotEnd {
        let fetched = tokio::select! {
            fetched = claim.fetch(self.workbench.max_future(), self.workbench.spool_directory()) => fetched,
            () = self.stop.cancelled() => return self.answer(claim, Reason::WorkerStopping).await,
        };
        match fetched {
            Ok(future) => {
                tracing::info!(future = %self.job.key.future, bytes = future.size(), "here");
                self.evaluate(&future, Session::Wormhole(claim)).await
            }
            Err(WormholeError::Cancelled) => self.answer(claim, Reason::Cancelled).await,
            Err(error) => {
                let why = error_chain(&error);
                let end = self.answer(claim, Reason::NotArrived { why }).await;
                match error {
                    WormholeError::Spool(_) => self.rest("no room for futures", &error).await,
                    _ if is_without_mailbox(&error) => self.rest("no mailbox server for wormholes", &error).await,
                    _ => {}
                }
                end
            }
        }
    }

    /// Ends a claim by wormhole with a result that says why there is no other one. It goes while the slot is free again, or,
    /// if too many are on their way, while it is not.
    async fn answer(&self, claim: Arc<Claim<W>>, reason: Reason) -> SlotEnd {
        let why = reason.to_string();
        match self.workbench.answer(&self.job.key.future, reason) {
            Ok(outcome) => self.bid_farewell(claim, outcome.result, why).await,
            Err(error) => SlotEnd::Failed(format!("{why}; not told to its client: {}", error_chain(&error))),
        }
    }

    async fn bid_farewell(&self, claim: Arc<Claim<W>>, result: Arc<Spooled>, why: String) -> SlotEnd {
        match Arc::clone(&self.farewells).try_acquire_owned() {
            Ok(permit) => {
                let farewell = async move {
                    claim.answer(&result).await;
                    drop(permit);
                };
                SlotEnd::Leaving(why, Box::pin(farewell))
            }
            Err(_) => {
                claim.answer(&result).await;
                SlotEnd::Failed(why)
            }
        }
    }

    /// Takes no other future for a while: others may have more luck with it.
    async fn rest(&self, what: &str, error: &(dyn std::error::Error + Sync)) {
        tracing::error!(error = error_chain(error), "{what}; this slot takes none for half a minute");
        tokio::select! {
            () = sleep(REST) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn evaluate(&self, future: &Spooled, session: Session<W>) -> SlotEnd {
        let provenance = self.workbench.provenance().clone();
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
        let first = loop {
            tokio::select! {
                outcome = &mut attempt => break First::Ended(outcome),
                cause = session.cancelled(), if !cancel.is_cancelled() => {
                    tracing::info!(future = %self.job.key.future, ?cause, "stopping");
                    cancel.cancel();
                }
                () = session.ready_for_progress(), if waiting.is_some() => {
                    waiting.take().into_iter().for_each(|condition| session.progress(condition));
                }
                event = happened.recv(), if listening && waiting.is_none() => match event {
                    Some(AttemptEvent::Progress(condition)) => waiting = Some(condition),
                    Some(AttemptEvent::Begun) => session.begin(&provenance).await,
                    Some(AttemptEvent::Running) => {}
                    Some(AttemptEvent::Done(done)) => break First::Done(done),
                    None => listening = false,
                },
            }
        };
        let end = match first {
            First::Done(done) => {
                let delivered = self.deliver(
                    &done.result,
                    &done.text,
                    session,
                    self.workbench.provenance_after(&done.reached),
                    FINISHED,
                );
                let (end, outcome) = tokio::join!(delivered, self.until_it_ends(attempt, &cancel));
                outcome.inspect(|outcome| self.log(&outcome.usage));
                end
            }
            First::Ended(outcome) => {
                tokio::select! {
                    () = pass_on_the_rest(&session, &provenance, waiting, happened) => {}
                    _ = session.cancelled() => {}
                    () = self.stop.cancelled() => {}
                }
                self.conclude(outcome, session).await
            }
        };
        // Not before the client has its result, as starting R takes a processor for a while; and beside the end of this slot.
        let (workbench, number) = (Arc::clone(&self.workbench), self.number);
        tokio::spawn(async move { workbench.expect(number, Next::Unknown) });
        end
    }

    /// The task has ended before its result was delivered.
    async fn conclude(&self, outcome: Result<Outcome, WorkbenchError>, session: Session<W>) -> SlotEnd {
        match outcome {
            // Another worker may have it, which is better for the client than a result that says that this one left.
            Ok(outcome) if self.stop.is_cancelled() && outcome.ended.reason().is_some() => {
                self.abandon(session, Reason::WorkerStopping).await
            }
            Ok(Outcome { result, ended, usage, text, .. }) => {
                self.log(&usage);
                let how = ended.reason().map_or_else(|| FINISHED.to_owned(), ToString::to_string);
                self.deliver(&result, &text, session, self.workbench.provenance_after(&usage.reached), &how).await
            }
            Err(error) => self.abandon(session, Reason::NoSpace { what: error_chain(&error) }).await,
        }
    }

    /// Waits for a task whose result is whole, and stops it if it does not end by itself.
    async fn until_it_ends(
        &self,
        mut attempt: Pin<&mut impl Future<Output = Result<Outcome, WorkbenchError>>>,
        cancel: &CancellationToken,
    ) -> Option<Outcome> {
        let ended = match timeout(ENDING, attempt.as_mut()).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::info!(future = %self.job.key.future, "stopped: it went on after its result");
                cancel.cancel();
                attempt.await
            }
        };
        ended.ok()
    }

    /// Gives the future back: a client of ours posts it again; an R client has to be told by a result.
    async fn abandon(&self, session: Session<W>, reason: Reason) -> SlotEnd {
        match session {
            Session::Libp2p(session) => {
                let why = reason.to_string();
                // A client that cannot be told finds out by itself.
                let _ = timeout(LAST_WORDS, session.abandon(&why)).await;
                SlotEnd::Failed(why)
            }
            Session::Wormhole(claim) => self.answer(claim, reason).await,
        }
    }

    /// Some time after a stop: enough to tell a client that is there why its task ended, too little to notice.
    async fn out_of_time(&self) {
        self.stop.cancelled().await;
        sleep(LAST_WORDS).await;
    }

    fn log(&self, usage: &Usage) {
        let Usage { wall_ms, cpu_ms, peak_memory, .. } = usage;
        tracing::info!(future = %self.job.key.future, wall_ms, cpu_ms, memory_mib = peak_memory >> 20, "evaluated");
    }

    async fn deliver(
        &self,
        result: &Arc<Spooled>,
        text: &Text,
        session: Session<W>,
        provenance: Provenance,
        how: &str,
    ) -> SlotEnd {
        if !text.kept.is_empty() {
            session.printed(text.for_log()).await;
        }
        match session {
            Session::Libp2p(session) => {
                let delivered = tokio::select! {
                    delivered = session.deliver(result, provenance) => Some(delivered),
                    () = self.out_of_time() => None,
                };
                delivered_or_not(how, delivered)
            }
            Session::Wormhole(claim) if self.withdrawn.is_cancelled() => {
                self.bid_farewell(claim, Arc::clone(result), how.to_owned()).await
            }
            Session::Wormhole(claim) => {
                let delivered = tokio::select! {
                    delivered = claim.deliver(result) => Some(delivered),
                    () = claim.out_of_time() => None,
                };
                delivered_or_not(how, delivered)
            }
        }
    }
}

/// Whether the mailbox server cannot be found, or does not answer.
fn is_without_mailbox(error: &WormholeError) -> bool {
    let of_server =
        matches!(error, WormholeError::Failed(Failure::Mailbox(_) | Failure::TimedOut { phase: Phase::Mailbox, .. }));
    of_server || matches!(error, WormholeError::Resolve { .. })
}

/// The end of a task that ended so, and of the way of its result, if there was time for it.
fn delivered_or_not<E: std::error::Error>(how: &str, delivered: Option<Result<(), E>>) -> SlotEnd {
    match delivered {
        Some(Ok(())) => SlotEnd::Delivered(how.to_owned()),
        Some(Err(error)) => SlotEnd::Failed(format!("{how}; not delivered: {}", error_chain(&error))),
        None => SlotEnd::Failed(format!("{how}; stopped before it was delivered")),
    }
}

/// Passes on what the task said before it ended, as fast as its client takes it.
async fn pass_on_the_rest<W>(
    session: &Session<W>,
    provenance: &Provenance,
    mut waiting: Option<Vec<u8>>,
    mut happened: mpsc::Receiver<AttemptEvent>,
) {
    loop {
        if let Some(condition) = waiting.take() {
            session.ready_for_progress().await;
            session.progress(condition);
        }
        match happened.try_recv() {
            Ok(AttemptEvent::Progress(condition)) => waiting = Some(condition),
            Ok(AttemptEvent::Begun) => session.begin(provenance).await,
            // The outcome has the result too.
            Ok(AttemptEvent::Running | AttemptEvent::Done(_)) => {}
            Err(_) => return,
        }
    }
}
