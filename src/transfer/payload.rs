//! Payloads between a file and the data frames of a stream. Files are read and written in blocking threads, one piece
//! at a time and one piece ahead, so that the reactor never waits for a disk; the digest is made in the same pass.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use super::{TransferConfig, TransferError, error::Interrupted, link::Outbox};
use crate::{
    ids::Digest,
    proto::{
        frames::{HEADER, Kind, MAX_DATA},
        refusal::Payload,
    },
    spool::{SpoolError, SpoolWriter, Spooled},
};

/// The file, and a data frame with a piece of it.
type Piece = Result<(File, Vec<u8>), SpoolError>;

/// A payload that is being sent.
pub(super) struct Sending {
    size: u64,
    sent: u64,
    meter: Meter,
    /// The next piece, with the file that it comes from.
    piece: Option<JoinHandle<Piece>>,
}

impl Sending {
    /// Begins to read. The file is read by position, so several may be sent from one file.
    pub(super) fn new(file: File, size: u64) -> Self {
        let piece = (size > 0).then(|| spawn_blocking(move || read_piece(file, 0, size)));
        Self { size, sent: 0, meter: Meter::new(size), piece }
    }

    /// Whether every piece was queued.
    pub(super) fn is_done(&self) -> bool {
        self.piece.is_none()
    }

    /// Queues the next piece; says how many bytes went out so far, each time that a hundredth more did. Cancel-safe.
    pub(super) async fn advance(&mut self, out: &Outbox) -> Result<Option<u64>, Interrupted> {
        let Some(piece) = &mut self.piece else { return Ok(None) };
        let room = out.bulk().await?;
        let read = piece.await;
        self.piece = None;
        let (file, frame) = read.map_err(ended)??;
        self.sent += frame.len().saturating_sub(HEADER) as u64;
        let (sent, left) = (self.sent, self.size.saturating_sub(self.sent));
        room.send(frame);
        if left > 0 {
            self.piece = Some(spawn_blocking(move || read_piece(file, sent, left)));
        }
        Ok(self.meter.passed(sent))
    }
}

/// Queues the next piece, as [`Sending::advance`]; waits for ever when there is none.
pub(super) async fn advance(sending: Option<&mut Sending>, out: &Outbox) -> Result<Option<u64>, Interrupted> {
    match sending {
        Some(sending) => sending.advance(out).await,
        None => std::future::pending().await,
    }
}

/// Reads one piece into a frame of its own.
fn read_piece(file: File, at: u64, left: u64) -> Piece {
    let length = usize::try_from(left).map_or(MAX_DATA, |left| left.min(MAX_DATA));
    let failed = |source| SpoolError::Read { what: "a temporary file".to_owned(), source };
    let header = Kind::Data.header(length).map_err(|error| failed(io::Error::other(error)))?;
    let mut frame = vec![0; HEADER + length];
    let (head, body) = frame.split_at_mut(HEADER);
    head.copy_from_slice(&header);
    file.read_exact_at(body, at).map_err(failed)?;
    Ok((file, frame))
}

/// A blocking task that is gone: the runtime is shutting down.
fn ended(error: tokio::task::JoinError) -> SpoolError {
    SpoolError::Read { what: "a temporary file".to_owned(), source: io::Error::other(error) }
}

/// What is expected of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) what: Payload,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

impl Expected {
    /// Whether it is small enough.
    pub(super) fn within(self, limit: u64) -> Result<Self, TransferError> {
        let Self { what, size, .. } = self;
        if size > limit { Err(TransferError::TooLarge { what, size, limit }) } else { Ok(self) }
    }
}

/// A payload that is being received.
pub(super) struct Receiving {
    expected: Expected,
    received: u64,
    meter: Meter,
    writing: JoinHandle<Result<SpoolWriter, SpoolError>>,
    /// When the next piece must be here.
    due: Instant,
    /// When all of them must be here.
    end: Instant,
    config: TransferConfig,
}

impl Receiving {
    /// Begins an unnamed file in a folder. All of it must be here at `end`, however often the stream broke before.
    pub(super) fn new(expected: Expected, directory: PathBuf, end: Instant, config: TransferConfig) -> Self {
        let writing = spawn_blocking(move || SpoolWriter::new(&directory, expected.size));
        let due = Instant::now() + config.stall;
        Self { expected, received: 0, meter: Meter::new(expected.size), writing, due, end, config }
    }

    /// Bytes that are expected in all.
    pub(super) fn size(&self) -> u64 {
        self.expected.size
    }

    /// Waits until the payload is late, and says so.
    pub(super) async fn late(&self) -> TransferError {
        sleep_until(self.due.min(self.end)).await;
        let after = if self.due < self.end { self.config.stall } else { self.config.payload };
        TransferError::Stalled { what: self.expected.what, after }
    }

    /// Whether every byte is here.
    pub(super) fn is_whole(&self) -> bool {
        self.received == self.expected.size
    }

    /// Takes a piece while the one before is being written; says how many bytes came so far, each time that a hundredth
    /// more did.
    pub(super) async fn take(&mut self, piece: Vec<u8>) -> Result<Option<u64>, TransferError> {
        self.received = self.received.saturating_add(piece.len() as u64);
        if self.received > self.expected.size {
            return Err(TransferError::Protocol("more bytes than were announced"));
        }
        let mut writer = (&mut self.writing).await.map_err(ended)??;
        self.writing = spawn_blocking(move || {
            writer.write(&piece)?;
            Ok(writer)
        });
        self.due = Instant::now() + self.config.stall;
        Ok(self.meter.passed(self.received))
    }

    /// The finished file, if its bytes are those that were promised.
    pub(super) async fn finish(self) -> Result<Spooled, TransferError> {
        let spooled = self.writing.await.map_err(ended)??.finish();
        if spooled.digest() == self.expected.digest && spooled.size() == self.expected.size {
            Ok(spooled)
        } else {
            Err(TransferError::Digest { what: self.expected.what })
        }
    }
}

/// Says when another hundredth has passed.
struct Meter {
    step: u64,
    next: u64,
}

impl Meter {
    fn new(total: u64) -> Self {
        let step = (total / 100).max(1);
        Self { step, next: step }
    }

    fn passed(&mut self, bytes: u64) -> Option<u64> {
        (bytes >= self.next).then(|| {
            self.next = bytes.saturating_add(self.step);
            bytes
        })
    }
}
