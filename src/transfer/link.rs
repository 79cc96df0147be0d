//! Frames over one stream: a reader that can be cancelled at any point, and a task that writes.
//!
//! The writer is a task of its own because half a frame must never be left behind when somebody stops waiting. It has
//! two bounded queues: control frames go before data, so a cancellation overtakes a future that is being sent.

use std::{io, marker::PhantomData, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{TransferConfig, error::Interrupted};
use crate::proto::frames::{Frame, HEADER, Kind, encode};

/// Control frames that wait to be written.
const CONTROL_QUEUE: usize = 16;
/// Data and progress frames that wait to be written.
const BULK_QUEUE: usize = 2;
/// By how much a deadline may be seen too late. Beyond it this side did not run: its machine slept, or was busy with others,
/// and what was said meanwhile may still be on its way to here.
const LATE: Duration = Duration::from_millis(250);
/// How long a last frame is given to get out, and to be heard, at most.
pub(super) const LAST_WORD: Duration = Duration::from_secs(5);

/// Both directions of one stream on which `In` is heard.
pub(super) struct Link<S, In> {
    pub(super) frames: FrameReader<S, In>,
    pub(super) out: Outbox,
    writer: AbortOnDropHandle<()>,
}

impl<S, In> Link<S, In>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    In: DeserializeOwned,
{
    pub(super) fn new(stream: S, config: &TransferConfig) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
        let (bulk, bulk_queue) = mpsc::channel(BULK_QUEUE);
        let writer = Writer { stream: write, control: control_queue, bulk: bulk_queue, stall: config.stall };
        Self {
            frames: FrameReader::new(read, config.silence),
            out: Outbox { control, bulk },
            writer: AbortOnDropHandle::new(tokio::spawn(writer.run())),
        }
    }

    /// Says a last word before anything that still waits, and closes. A peer that does not take it in time misses it.
    pub(super) async fn close_with(self, message: &impl Serialize) {
        let Self { out, writer, .. } = self;
        if let Ok(bytes) = encode(message) {
            let said = async {
                let _ = out.control.send(Outgoing::Last(bytes)).await;
                let _ = writer.await;
            };
            let _ = timeout(LAST_WORD, said).await;
        }
    }
}

enum Outgoing {
    Frame(Vec<u8>),
    Last(Vec<u8>),
}

/// The way to the writer of a [`Link`].
pub(super) struct Outbox {
    control: mpsc::Sender<Outgoing>,
    bulk: mpsc::Sender<Vec<u8>>,
}

impl Outbox {
    /// Queues a control frame, before all data that waits. Cancel-safe.
    pub(super) async fn say(&self, message: &impl Serialize) -> Result<(), Interrupted> {
        let bytes = encode(message)?;
        self.control.send(Outgoing::Frame(bytes)).await.map_err(|_| stuck().into())
    }

    /// Queues a heartbeat, or leaves it when the queue is full: then others tell that this side is alive.
    pub(super) fn beat(&self, message: &impl Serialize) -> Result<(), Interrupted> {
        let bytes = encode(message)?;
        match self.control.try_send(Outgoing::Frame(bytes)) {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(stuck().into()),
            _ => Ok(()),
        }
    }

    /// Queues a control frame behind all data and progress that wait. Cancel-safe.
    pub(super) async fn follow(&self, message: &impl Serialize) -> Result<(), Interrupted> {
        let bytes = encode(message)?;
        self.bulk().await?.send(bytes);
        Ok(())
    }

    /// Room for one encoded data or progress frame. Cancel-safe.
    pub(super) async fn bulk(&self) -> Result<mpsc::Permit<'_, Vec<u8>>, Interrupted> {
        self.bulk.reserve().await.map_err(|_| stuck().into())
    }
}

/// Waits for something that takes long, and says meanwhile that this side is alive.
pub(super) async fn while_beating<T>(
    beat: &mut Interval,
    message: &impl Serialize,
    out: &Outbox,
    work: impl Future<Output = T>,
) -> Result<T, Interrupted> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = beat.tick() => out.beat(message)?,
        }
    }
}

/// The heartbeats of a stream.
pub(super) fn heartbeat(config: &TransferConfig) -> Interval {
    let mut beat = interval(config.heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// The writer ended, so the stream did not take our bytes.
fn stuck() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the stream does not take bytes any more")
}

struct Writer<S> {
    stream: WriteHalf<S>,
    control: mpsc::Receiver<Outgoing>,
    bulk: mpsc::Receiver<Vec<u8>>,
    stall: Duration,
}

impl<S: AsyncRead + AsyncWrite> Writer<S> {
    async fn run(mut self) {
        match self.copy().await {
            Ok(()) => drop(timeout(self.stall, self.stream.shutdown()).await),
            Err(error) => tracing::debug!(%error, "stream broken while writing"),
        }
    }

    async fn copy(&mut self) -> io::Result<()> {
        loop {
            let next = tokio::select! { biased;
                Some(next) = self.control.recv() => next,
                Some(frame) = self.bulk.recv() => Outgoing::Frame(frame),
                else => return Ok(()),
            };
            let (Outgoing::Frame(frame) | Outgoing::Last(frame)) = &next;
            self.write(frame).await?;
            if matches!(next, Outgoing::Last(_)) || (self.control.is_empty() && self.bulk.is_empty()) {
                timeout(self.stall, self.stream.flush()).await??;
            }
            if matches!(next, Outgoing::Last(_)) {
                return Ok(());
            }
        }
    }

    /// Writes all bytes, each of which may take as long as a stall.
    async fn write(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            if timeout(self.stall, self.stream.write_buf(&mut rest)).await?? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

/// Reads frames. [`FrameReader::next`] is cancel-safe: what was read of a frame stays here.
pub(super) struct FrameReader<S, In> {
    stream: ReadHalf<S>,
    /// The kind of the frame whose body is being read.
    kind: Option<Kind>,
    /// Room for the header or the body that is being read, and how much of it is filled. All of it is initialised, or
    /// every read would initialise the rest once more.
    buffer: Vec<u8>,
    filled: usize,
    silence: Duration,
    deadline: Instant,
    hears: PhantomData<fn() -> In>,
}

impl<S: AsyncRead + AsyncWrite, In: DeserializeOwned> FrameReader<S, In> {
    fn new(stream: ReadHalf<S>, silence: Duration) -> Self {
        let (buffer, deadline) = (vec![0; HEADER], Instant::now() + silence);
        Self { stream, kind: None, buffer, filled: 0, silence, deadline, hears: PhantomData }
    }

    /// The next frame; an end of the stream and too long a silence are errors.
    pub(super) async fn next(&mut self) -> Result<Frame<In>, Interrupted> {
        let kind = match self.kind {
            Some(kind) => kind,
            None => {
                let header = self.fill().await?;
                let header = header.first_chunk().copied().ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
                let (kind, length) = Kind::parse(header)?;
                self.buffer = vec![0; length];
                *self.kind.insert(kind)
            }
        };
        let body = self.fill().await?;
        (self.kind, self.buffer) = (None, vec![0; HEADER]);
        Ok(Frame::from_body(kind, body)?)
    }

    /// Does not count a time in which nobody called [`FrameReader::next`].
    pub(super) fn excuse(&mut self) {
        self.deadline = Instant::now() + self.silence;
    }

    /// Reads until the buffer is full, and hands it out.
    async fn fill(&mut self) -> Result<Vec<u8>, Interrupted> {
        while let Some(rest) = self.buffer.get_mut(self.filled..).filter(|rest| !rest.is_empty()) {
            let Ok(read) = timeout_at(self.deadline, self.stream.read(rest)).await else {
                let now = Instant::now();
                if now > self.deadline + LATE {
                    self.deadline = now + self.silence / 3;
                    continue;
                }
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was heard").into());
            };
            let count = read?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended").into());
            }
            self.filled += count;
            self.deadline = Instant::now() + self.silence;
        }
        self.filled = 0;
        Ok(std::mem::take(&mut self.buffer))
    }
}
