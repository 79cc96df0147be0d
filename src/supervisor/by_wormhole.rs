//! A claim by wormhole: the future comes with the code `C-f`, the result goes with `C-r`.
//!
//! The client has no other way to hear of us than the `result` line and what we send then; it waits for them for ever. So
//! whatever happens to a claim, something is sent in the end ([`Claim::deliver`]). Nobody knows who the other side of a
//! wormhole is: whoever reads the board knows the code, and can come first. Then we try again, a few times.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error_chain,
    ids::ClaimCode,
    proto::{
        claim::{Event, Key},
        message::Via,
    },
    spool::Spooled,
    wormhole::{Code, Failure, Wormhole, WormholeError},
};

/// How often a transfer is tried.
const ATTEMPTS: u32 = 3;

/// The pause before it is tried again: a mailbox server that refuses does so at once.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a client may take to come for an answer that is not what it hoped for.
const ANSWER: Duration = Duration::from_secs(60);

/// The same when it withdrew the future, or when the worker stops at once: an R client that waits comes within a second or
/// two, and most do not wait.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A claim by wormhole.
pub(super) struct Claim<W> {
    pub(super) wormhole: Arc<W>,
    pub(super) key: Key,
    pub(super) code: ClaimCode,
    /// To the dispatcher.
    pub(super) news: mpsc::Sender<Event>,
    /// The client no longer wants it.
    pub(super) withdrawn: CancellationToken,
    /// The worker stops at once.
    pub(super) stop: CancellationToken,
}

impl<W: Wormhole> Claim<W> {
    /// Receives the future, of at most so many bytes. Where all attempts fail, the first one's error says why.
    pub(super) async fn fetch(&self, most: u64, directory: &Path) -> Result<Spooled, WormholeError> {
        let code = Code::of_future(&self.code);
        let mut attempts = Attempts::default();
        loop {
            let error = match self.wormhole.receive(&code, most, directory, |_| (), &self.withdrawn).await {
                Ok(future) => return Ok(future),
                Err(error) => error,
            };
            let makes_sense = may_be_in_vain(&error);
            attempts.again(&self.key, "the future did not come", error, makes_sense).await?;
        }
    }

    /// Tells the client that there is a result, and sends it to whoever comes for it. Ends with an error when the client
    /// withdraws meanwhile.
    pub(super) async fn deliver(&self, result: &Spooled) -> Result<(), WormholeError> {
        self.announced(self.send(result, &self.withdrawn)).await
    }

    /// The same for something that the client did not hope for, within a bounded time, whatever it does.
    pub(super) async fn answer(&self, result: &Spooled) {
        let in_vain = |_| WormholeError::Cancelled;
        let patience = if self.withdrawn.is_cancelled() { LAST_WORDS } else { ANSWER };
        let never = CancellationToken::new();
        let answered = async {
            tokio::select! {
                sent = timeout(patience, self.send(result, &never)) => sent.map_err(in_vain)?,
                () = self.out_of_time() => Err(WormholeError::Cancelled),
            }
        };
        match self.announced(answered).await {
            Ok(()) => tracing::info!(future = %self.key.future, "its client knows"),
            Err(WormholeError::Cancelled) => {
                tracing::info!(future = %self.key.future, "its client did not come for the answer");
            }
            Err(error) => {
                tracing::info!(future = %self.key.future, why = error_chain(&error), "its client does not know");
            }
        }
    }

    /// Some time after a stop.
    pub(super) async fn out_of_time(&self) {
        self.stop.cancelled().await;
        sleep(LAST_WORDS).await;
    }

    /// Has the board announce the result for as long as it is on its way.
    async fn announced<T>(&self, sending: impl Future<Output = T>) -> T {
        let via = || Via::Wormhole { code: self.code.clone() };
        // Without a dispatcher there is no board either.
        let _ = self.news.send(Event::Resolved(self.key.clone(), via())).await;
        let sent = sending.await;
        let _ = self.news.send(Event::Answered(self.key.clone(), via())).await;
        sent
    }

    async fn send(&self, result: &Spooled, cancel: &CancellationToken) -> Result<(), WormholeError> {
        let code = Code::of_result(&self.code);
        let mut attempts = Attempts::default();
        loop {
            let error = match self.wormhole.send(&code, result, |_| (), cancel).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let makes_sense = may_come_again(&error);
            attempts.again(&self.key, "the result did not get through", error, makes_sense).await?;
        }
    }
}

/// The attempts at one transfer that failed.
#[derive(Default)]
struct Attempts {
    tried: u32,
    first: Option<WormholeError>,
}

impl Attempts {
    /// Waits until it is to be tried again. If it is not, the first error says why, as the others may only have met what the
    /// first attempt left; but a cancellation is one.
    async fn again(
        &mut self,
        key: &Key,
        in_vain: &str,
        error: WormholeError,
        makes_sense: bool,
    ) -> Result<(), WormholeError> {
        self.tried += 1;
        if matches!(error, WormholeError::Cancelled) {
            return Err(error);
        }
        if self.tried == ATTEMPTS || !makes_sense {
            return Err(self.first.take().unwrap_or(error));
        }
        tracing::warn!(future = %key.future, why = error_chain(&error), "{in_vain}; trying again");
        self.first.get_or_insert(error);
        sleep(PAUSE).await;
        Ok(())
    }
}

/// Whether somebody else than the client may have come with its code. Of everything else the client knows too, and does not
/// come again.
fn may_be_in_vain(error: &WormholeError) -> bool {
    matches!(error, WormholeError::Failed(Failure::Password | Failure::Mailbox(_) | Failure::Protocol(_)))
}

/// Whether the client may come again for its result. From where a connection broke nobody goes on: it has given up as well, or
/// has its future posted again.
fn may_come_again(error: &WormholeError) -> bool {
    matches!(error, WormholeError::Failed(failure) if !matches!(failure, Failure::Lost { .. }))
}
