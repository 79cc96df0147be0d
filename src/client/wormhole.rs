//! One future by wormhole, as the clients of future.p2p do it: a code `C` is drawn, the future is sent with `C-f`, and when
//! the worker says that there is a result it is received with `C-r`.
//!
//! The code stands on the board in clear, so whoever reads the board may be the other side: what comes is a stranger's
//! bytes, of at most the size that was allowed. A worker says nothing while it works, neither that it has begun nor that it
//! still is there.

use std::{
    collections::HashSet,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::passage::{Fault, Passage, WayError};
use crate::{
    ids::ClaimCode,
    rds::{self, UnpackError},
    sandbox::Provenance,
    spool::{SpoolError, Spooled},
    wormhole::{Code, Failure, Phase, Progress, Wormhole, WormholeError},
};

/// How many codes are drawn for one worker when the mailbox server does not take them. It is not accepted before.
const MOST_CODES: u32 = 3;

/// How often a mailbox server is asked for a result that is there, and how long after one another.
const MOST_ASKED: u32 = 5;
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Events that wait for the dispatcher; those of progress leave half of the room to the others.
pub(super) const PASSAGES: usize = 32;

/// How a client comes by wormhole to workers that speak it.
#[derive(Clone)]
pub struct Wormholes {
    by: Arc<dyn Erased>,
    plates: Plates,
}

impl Wormholes {
    /// Where there is no other transfer, for all workers that speak it; else for those that speak nothing else.
    #[must_use]
    pub fn new(by: impl Wormhole) -> Self {
        Self { by: Arc::new(by), plates: Plates::default() }
    }
}

impl fmt::Debug for Wormholes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wormholes").finish_non_exhaustive()
    }
}

/// What is told while bytes flow.
type Told<'a> = Box<dyn FnMut(Progress) + Send + 'a>;
/// How a transfer ends.
type Ending<'a, T> = BoxFuture<'a, Result<T, WormholeError>>;

/// [`Wormhole`] without its types, for a run.
trait Erased: Send + Sync {
    fn send<'a>(&'a self, code: &'a Code, run: &'a Run, told: Told<'a>) -> Ending<'a, ()>;
    fn receive<'a>(&'a self, code: &'a Code, run: &'a Run, told: Told<'a>) -> Ending<'a, Spooled>;
}

impl<W: Wormhole> Erased for W {
    fn send<'a>(&'a self, code: &'a Code, run: &'a Run, told: Told<'a>) -> Ending<'a, ()> {
        Box::pin(Wormhole::send(self, code, &run.payload, told, &run.cancel))
    }

    fn receive<'a>(&'a self, code: &'a Code, run: &'a Run, told: Told<'a>) -> Ending<'a, Spooled> {
        Box::pin(Wormhole::receive(self, code, run.max_result, &run.spool_directory, told, &run.cancel))
    }
}

/// The nameplates of codes that are in use here: two of our own futures must not meet on one.
#[derive(Debug, Clone, Default)]
struct Plates(Arc<Mutex<HashSet<u16>>>);

impl Plates {
    fn lock(&self) -> MutexGuard<'_, HashSet<u16>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Four decimal digits and twelve hexadecimal ones, as the clients of future.p2p draw them.
    fn draw(&self) -> Result<Drawn, WayError> {
        loop {
            let bits = getrandom::u64().map_err(|error| WayError::Random(error.into()))?;
            // Of 65,536 numbers the first 60,000, so that each nameplate is as likely.
            let (number, secret) = (u16::try_from(bits >> 48).unwrap_or(u16::MAX), bits & 0xffff_ffff_ffff);
            let plate = number % 10_000;
            let mut used = self.lock();
            // More than half of them in use, which no window of requests comes near to, would make this long.
            if number >= 60_000 || (used.contains(&plate) && used.len() < 5_000) {
                continue;
            }
            let claim = format!("{plate:04}-{secret:012x}")
                .parse()
                .map_err(|_| WayError::Random(io::ErrorKind::Other.into()))?;
            used.insert(plate);
            return Ok(Drawn { plate, claim, plates: self.clone() });
        }
    }
}

/// A code that was drawn, without its ending. Its nameplate is free again when this is dropped.
struct Drawn {
    plate: u16,
    claim: ClaimCode,
    plates: Plates,
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.plates.lock().remove(&self.plate);
    }
}

/// One worker that was chosen for one future.
pub(super) struct Run {
    pub(super) wormholes: Wormholes,
    pub(super) payload: Arc<Spooled>,
    pub(super) max_result: u64,
    pub(super) spool_directory: PathBuf,
    /// What is told goes here.
    pub(super) passages: mpsc::Sender<Passage>,
    /// That the result is to be fetched: whether the worker said so.
    pub(super) fetches: mpsc::Receiver<bool>,
    pub(super) cancel: CancellationToken,
}

impl Run {
    /// From the first code to the result. The last event is a result or a failure; after a cancellation there is none.
    pub(super) async fn run(mut self) {
        let last = match self.make().await {
            Ok(result) => Passage::Done(result, Provenance::unknown()),
            Err(failed) => failed,
        };
        if !self.cancel.is_cancelled() {
            let _ = self.passages.send(last).await;
        }
    }

    async fn make(&mut self) -> Result<Spooled, Passage> {
        let drawn = self.send().await?;
        let _ = self.passages.send(Passage::Begun(Provenance::unknown())).await;
        loop {
            let asked = tokio::select! {
                () = self.cancel.cancelled() => return Err(cancelled()),
                asked = self.fetches.recv() => asked,
            };
            let Some(said) = asked else { return Err(cancelled()) };
            if let Some(result) = self.fetch(&drawn, said).await? {
                return Ok(result);
            }
        }
    }

    /// Sends the future, with another code if the mailbox server does not take the first.
    async fn send(&self) -> Result<Drawn, Passage> {
        let mut tried = 0;
        loop {
            let drawn = self.wormholes.plates.draw().map_err(|error| failed(Fault::Final, error))?;
            let code = Code::of_future(&drawn.claim);
            let seen = Seen::default();
            let told = Box::new(self.telling(&seen, Some(&drawn)));
            let sent = self.wormholes.by.send(&code, self, told).await;
            tried += 1;
            match sent {
                Ok(()) => {
                    self.met(&seen);
                    return Ok(drawn);
                }
                Err(WormholeError::Failed(Failure::Mailbox(_))) if !seen.is_open() && tried < MOST_CODES => {}
                Err(error) => return Err(failed(fault_of_sending(&error, &seen), WayError::Wormhole(error))),
            }
        }
    }

    /// Receives the result; `None` if nobody is there with it, or not yet.
    async fn fetch(&self, drawn: &Drawn, said: bool) -> Result<Option<Spooled>, Passage> {
        let code = Code::of_result(&drawn.claim);
        let mut asked = 0;
        loop {
            let seen = Seen::default();
            let told = Box::new(self.telling(&seen, None));
            let error = match self.wormholes.by.receive(&code, self, told).await {
                Ok(result) => return self.unpack(result).await.map(Some),
                Err(error) => error,
            };
            asked += 1;
            match fault_of_receiving(&error, &seen) {
                Some(_) if self.cancel.is_cancelled() => return Err(cancelled()),
                Some(fault) if said || seen.has_met() || fault == Fault::Final => {
                    return Err(failed(fault, WayError::Wormhole(error)));
                }
                None if is_of_the_server(&error) && asked < MOST_ASKED => sleep(ASK_AGAIN).await,
                _ => {
                    tracing::debug!(error = %crate::error_chain(&error), said, "no result by wormhole, so far");
                    if said {
                        let _ = self.passages.send(Passage::Silent).await;
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// R packs what it writes.
    async fn unpack(&self, result: Spooled) -> Result<Spooled, Passage> {
        let (most, directory) = (self.max_result, self.spool_directory.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let unpacked = rds::unpack(&result, &directory, most)?;
            Ok(unpacked.unwrap_or(result))
        });
        let panicked = |error| SpoolError::Read { what: "the result".to_owned(), source: io::Error::other(error) };
        let unpacked = unpacked.await.unwrap_or_else(|error| Err(panicked(error).into()));
        unpacked.map_err(|error| match error {
            UnpackError::Damaged { .. } => failed(Fault::Worker, error.into()),
            UnpackError::Bomb { .. } | UnpackError::Spool(_) => failed(Fault::Final, error.into()),
        })
    }

    /// What is told on the way. Nothing here may wait.
    fn telling<'a>(&'a self, seen: &'a Seen, drawn: Option<&'a Drawn>) -> impl FnMut(Progress) + Send + 'a {
        let sending = drawn.is_some();
        let mut total = self.payload.size();
        let mut hundredths = 0;
        move |progress| match progress {
            Progress::Waiting(Phase::Peer) => {
                seen.note(OPEN);
                if let Some(drawn) = drawn {
                    self.must_tell(Passage::Open(drawn.claim.clone()));
                }
            }
            Progress::Waiting(Phase::Mailbox) => {}
            Progress::Waiting(_) => self.met(seen),
            Progress::Connected { size, .. } => total = size,
            Progress::Bytes(bytes) => {
                let now = bytes.saturating_mul(100).checked_div(total).unwrap_or(100);
                if now > hundredths && self.passages.capacity() > PASSAGES / 2 {
                    hundredths = now;
                    let told =
                        if sending { Passage::Sending { bytes, total } } else { Passage::Receiving { bytes, total } };
                    self.must_tell(told);
                }
            }
        }
    }

    /// Somebody is there who knows the code; told once.
    fn met(&self, seen: &Seen) {
        if !seen.note(MET) {
            self.must_tell(Passage::Came);
        }
    }

    /// Half of the room is kept for what is not progress, of which there is little.
    fn must_tell(&self, passage: Passage) {
        let _ = self.passages.try_send(passage);
    }
}

/// How far a transfer came.
#[derive(Default)]
struct Seen(std::sync::atomic::AtomicU8);

const OPEN: u8 = 1;
const MET: u8 = 2;

impl Seen {
    /// Whether it was noted before.
    fn note(&self, what: u8) -> bool {
        self.0.fetch_or(what, std::sync::atomic::Ordering::Relaxed) & what != 0
    }

    fn has(&self, what: u8) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed) & what != 0
    }

    /// The mailbox of the code is open.
    fn is_open(&self) -> bool {
        self.has(OPEN)
    }

    /// Somebody who knows the code was there.
    fn has_met(&self) -> bool {
        self.has(MET)
    }
}

fn failed(fault: Fault, error: WayError) -> Passage {
    Passage::Failed { fault, error }
}

fn cancelled() -> Passage {
    failed(Fault::Absent, WayError::Wormhole(WormholeError::Cancelled))
}

/// Whether this machine is at fault: with another worker it would be the same.
fn is_ours(error: &WormholeError) -> bool {
    matches!(
        error,
        WormholeError::Execute { .. }
            | WormholeError::OtherBuild
            | WormholeError::Weaker { .. }
            | WormholeError::Spool(_)
            | WormholeError::Failed(Failure::TooLarge { .. })
    )
}

/// Whether the mailbox server could not be had, or did not take the code.
fn is_of_the_server(error: &WormholeError) -> bool {
    matches!(
        error,
        WormholeError::Resolve { .. }
            | WormholeError::Failed(Failure::Mailbox(_) | Failure::TimedOut { phase: Phase::Mailbox, .. })
    )
}

fn fault_of_sending(error: &WormholeError, seen: &Seen) -> Fault {
    match error {
        error if is_ours(error) => Fault::Final,
        WormholeError::Failed(Failure::Password) => Fault::Code,
        _ if seen.has_met() => Fault::Worker,
        _ => Fault::Absent,
    }
}

/// `None` if the worker may still come with the result.
fn fault_of_receiving(error: &WormholeError, seen: &Seen) -> Option<Fault> {
    match error {
        error if is_ours(error) => Some(Fault::Final),
        WormholeError::Failed(Failure::TimedOut { phase: Phase::Peer, .. }) => None,
        error if is_of_the_server(error) && !seen.has_met() => None,
        // The worker has given up as well, and the result with it.
        WormholeError::Failed(Failure::Password) => Some(Fault::Code),
        _ => Some(Fault::Worker),
    }
}
