//! One future on its way: from its file or code to a worker, and from the result to a file or to the terminal.

use std::{convert::Infallible, iter, path::PathBuf, sync::Arc};

use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Patience,
    json::{Event, Worker},
    tell::{Teller, Traveller},
};
use crate::{
    cli::{
        Failure, Status,
        common::{Output, future_of_code, future_of_file, status_of},
    },
    client::{Client, ClientError, ClientEvent},
    ids::{FutureId, PeerName},
    runner::Workbench,
    sandbox::Provenance,
    spool::Spooled,
};

/// Where a future comes from.
#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Code(String),
}

/// What all futures of one command share.
pub(super) struct Journey<'a> {
    pub(super) workbench: &'a Workbench,
    pub(super) client: Client,
    pub(super) teller: &'a Teller,
    /// Few R processes of our own at a time.
    pub(super) local_r: &'a Semaphore,
    pub(super) cancel: &'a CancellationToken,
    pub(super) patience: Patience,
}

/// A future's place in the order in which futures are posted: that in which they were named, whichever is read first.
pub(super) struct Turn {
    before: Option<oneshot::Receiver<Infallible>>,
    _after: oneshot::Sender<Infallible>,
}

impl Turn {
    /// One turn after the other.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let mut before = None;
        iter::repeat_with(move || {
            let (after, next) = oneshot::channel();
            Self { before: before.replace(next), _after: after }
        })
    }

    /// Waits until everybody before is posted, or will never be. Dropping the turn lets the next one go.
    async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = before.await;
        }
    }
}

/// A result, and whose it is.
struct Returned {
    result: Spooled,
    provenance: Provenance,
    worker: Option<PeerName>,
}

impl Journey<'_> {
    /// The whole way. Everything is told before this comes back; the error is what the process may exit with.
    pub(super) async fn make(&self, source: Source, output: Option<Output>, turn: Turn) -> Result<(), Failure> {
        let mut traveller = Traveller::of(match &source {
            Source::File(path) => Some(path.display().to_string()),
            Source::Code(_) => None,
        });
        let end = self.travel(source, output, turn, &mut traveller).await;
        self.teller.ended(&traveller, &end);
        end
    }

    async fn travel(
        &self,
        source: Source,
        output: Option<Output>,
        turn: Turn,
        traveller: &mut Traveller,
    ) -> Result<(), Failure> {
        let (id, future) = self.read(source).await?;
        traveller.future = Some(id.clone());
        self.teller.tell(traveller, &Event::Read { bytes: future.size() });
        let returned = self.wait(&id, future, turn, traveller).await?;
        let Returned { result, provenance, worker } = &returned;
        let shown = {
            let _permit = self.permit().await?;
            self.workbench.show(&id, result, self.cancel).await?
        };
        let saved = output.as_ref().map(|output| output.take(result, &shown)).transpose()?.flatten();
        let status = status_of(shown.verdict);
        let event = Event::Done {
            status: shown.verdict.into(),
            exit: status.map_or(0, |status| status as u8),
            bytes: result.size(),
            saved: saved.map(|path| path.display().to_string()),
            stdout: String::from_utf8_lossy(&shown.stdout),
            stderr: String::from_utf8_lossy(&shown.stderr),
            worker: Worker::new(worker.as_ref(), provenance),
        };
        self.teller.done(traveller, &event, &shown, output.is_some(), (worker.as_ref(), provenance))?;
        status.map_or(Ok(()), |status| Err(Failure::silent(status)))
    }

    async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
        tokio::select! {
            permit = self.local_r.acquire() => permit.map_err(|error| Failure::new(Status::Usage, error)),
            () = self.cancel.cancelled() => Err(interrupted()),
        }
    }

    async fn read(&self, source: Source) -> Result<(FutureId, Arc<Spooled>), Failure> {
        let _permit = self.permit().await?;
        if self.cancel.is_cancelled() {
            return Err(interrupted());
        }
        match source {
            Source::File(path) => future_of_file(&path, self.workbench, self.cancel).await,
            Source::Code(code) => future_of_code(&code, self.workbench, self.cancel).await,
        }
    }

    /// Posts the future when it is its turn, and waits for its result, telling where it is.
    async fn wait(
        &self,
        id: &FutureId,
        payload: Arc<Spooled>,
        mut turn: Turn,
        traveller: &Traveller,
    ) -> Result<Returned, Failure> {
        turn.come().await;
        let mut events = self.client.post_within(id.clone(), payload, self.patience).await;
        drop(turn);
        let (mut worker, mut withdrawn) = (None, false);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(ClientEvent::Done(result, provenance)) => return Ok(Returned { result, provenance, worker }),
                    Some(ClientEvent::Failed(error)) => return Err(failure(error)),
                    Some(event) => {
                        if let ClientEvent::Accepted(name) = &event {
                            worker = Some(name.clone());
                        }
                        self.teller.happened(traveller, &event, worker.as_ref());
                    }
                    None => return Err(failure(ClientError::BoardLost("the client ended".to_owned()))),
                },
                () = self.cancel.cancelled(), if !withdrawn => {
                    withdrawn = true;
                    self.client.withdraw(id.clone()).await;
                }
            }
        }
    }
}

fn interrupted() -> Failure {
    failure(ClientError::Withdrawn)
}

fn failure(error: ClientError) -> Failure {
    let status = match &error {
        ClientError::Withdrawn | ClientError::TimedOut => Status::Stopped,
        ClientError::Twice => Status::Usage,
        ClientError::GaveUp { .. } | ClientError::Refused(_) | ClientError::BoardLost(_) => Status::Network,
    };
    Failure::new(status, error)
}
