//! Wormholes in memory, for tests: the clones of one [`Mailbox`] reach one another by codes.

use std::{
    collections::HashMap,
    io::Read,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p2p_wormhole_contract::message::{Failure, Phase};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Code, Progress, Wormhole, WormholeError};
use crate::spool::{Reader, SpoolWriter, Spooled};

/// Where both sides of a code meet.
#[derive(Debug, Clone)]
pub struct Mailbox {
    patience: Duration,
    places: Arc<Mutex<HashMap<Code, Place>>>,
}

/// One code: the way to the receiver, and the receiver's end.
#[derive(Debug, Clone)]
struct Place {
    to: mpsc::Sender<Offer>,
    from: Arc<AsyncMutex<mpsc::Receiver<Offer>>>,
}

/// What a sender has, and where it hears what became of it.
#[derive(Debug)]
struct Offer {
    payload: Reader,
    size: u64,
    answer: oneshot::Sender<Result<(), Failure>>,
}

impl Mailbox {
    /// An empty one, in which one side waits so long for the other.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { patience, places: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Code, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, code: &Code) -> Place {
        let new = || {
            let (to, from) = mpsc::channel(1);
            Place { to, from: Arc::new(AsyncMutex::new(from)) }
        };
        self.lock().entry(code.clone()).or_insert_with(new).clone()
    }

    /// Waits for the other side, unless cancelled; the code is used up then.
    async fn wait<T>(
        &self,
        code: &Code,
        cancel: &CancellationToken,
        other: impl Future<Output = Option<T>>,
    ) -> Result<T, WormholeError> {
        let after_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        let nobody = || WormholeError::Failed(Failure::TimedOut { phase: Phase::Peer, after_ms });
        let came = tokio::select! { biased;
            () = cancel.cancelled() => Err(WormholeError::Cancelled),
            came = timeout(self.patience, other) => came.ok().flatten().ok_or_else(nobody),
        };
        self.lock().remove(code);
        came
    }
}

impl Wormhole for Mailbox {
    async fn send(
        &self,
        code: &Code,
        payload: &Spooled,
        mut progress: impl FnMut(Progress) + Send,
        cancel: &CancellationToken,
    ) -> Result<(), WormholeError> {
        progress(Progress::Waiting(Phase::Peer));
        let (answer, answered) = oneshot::channel();
        let offer = Offer { payload: payload.reader(), size: payload.size(), answer };
        let place = self.place(code);
        let sent = async {
            place.to.send(offer).await.ok()?;
            answered.await.ok()
        };
        let answer = self.wait(code, cancel, sent).await?;
        progress(Progress::Waiting(Phase::Offer));
        answer?;
        progress(Progress::Bytes(payload.size()));
        Ok(())
    }

    async fn receive(
        &self,
        code: &Code,
        most: u64,
        directory: &Path,
        mut progress: impl FnMut(Progress) + Send,
        cancel: &CancellationToken,
    ) -> Result<Spooled, WormholeError> {
        progress(Progress::Waiting(Phase::Peer));
        let place = self.place(code);
        let came = async { place.from.lock().await.recv().await };
        let Offer { mut payload, size, answer } = self.wait(code, cancel, came).await?;
        progress(Progress::Waiting(Phase::Offer));
        if size > most {
            let failure = Failure::TooLarge { size, limit: most };
            let _ = answer.send(Err(Failure::Peer(failure.to_string())));
            return Err(failure.into());
        }
        let mut writer = SpoolWriter::new(directory, most)?;
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = payload.read(&mut piece).unwrap_or(0);
            let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else { break };
            writer.write(piece)?;
        }
        progress(Progress::Bytes(writer.size()));
        let _ = answer.send(Ok(()));
        Ok(writer.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sides_of_a_code_meet_once() {
        let (mailbox, folder) = (Mailbox::new(Duration::from_secs(60)), tempfile::tempdir().unwrap());
        let (code, cancel): (Code, _) = ("0000-a".parse().unwrap(), CancellationToken::new());
        let payload = Spooled::from_bytes(folder.path(), b"bytes").unwrap();
        let receive = mailbox.receive(&code, 5, folder.path(), |_| (), &cancel);
        let (received, sent) = tokio::join!(receive, mailbox.send(&code, &payload, |_| (), &cancel));
        sent.unwrap();
        assert_eq!(received.unwrap().digest(), payload.digest());
        let receive = mailbox.receive(&code, 4, folder.path(), |_| (), &cancel);
        let (received, sent) = tokio::join!(receive, mailbox.send(&code, &payload, |_| (), &cancel));
        assert!(matches!(received, Err(WormholeError::Failed(Failure::TooLarge { size: 5, limit: 4 }))));
        assert!(matches!(sent, Err(WormholeError::Failed(Failure::Peer(_)))));
        cancel.cancel();
        let cancelled = mailbox.receive(&code, 4, folder.path(), |_| (), &cancel).await;
        assert!(matches!(cancelled, Err(WormholeError::Cancelled)));
    }

    #[tokio::test]
    async fn nobody_comes() {
        let (mailbox, folder) = (Mailbox::new(Duration::from_millis(1)), tempfile::tempdir().unwrap());
        let code = "1-a".parse().unwrap();
        let alone = mailbox.receive(&code, 4, folder.path(), |_| (), &CancellationToken::new()).await;
        assert!(matches!(alone, Err(WormholeError::Failed(Failure::TimedOut { phase: Phase::Peer, .. }))));
    }
}
