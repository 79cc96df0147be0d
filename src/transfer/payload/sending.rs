//! A payload from a file to a stream.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};
use zstd::bulk::Compressor;

use super::{
    Course, Meter, ended, failed,
    packing::{Judge, Mode, pack},
};
use crate::{
    proto::{
        frames::{HEADER, Held, Kind, MAX_DATA, MAX_WHOLE},
        manifest::{Manifest, PieceSet},
    },
    spool::{SpoolError, digest_of_first},
    transfer::{error::Interrupted, link::Outbox},
};

/// How a payload is announced.
pub(in crate::transfer) struct Opening {
    file: Arc<File>,
    size: u64,
    /// The position of the first byte that is sent.
    pub(in crate::transfer) start: u64,
    /// All of it, if it is small.
    pub(in crate::transfer) whole: Option<Vec<u8>>,
}

impl Opening {
    /// Prepares to send a file to a side that holds so much of it: from there, if those are bytes of this file. The file
    /// is read by position, so several may be sent from one file. Takes as long as it takes to read what is held.
    ///
    /// # Errors
    /// [`SpoolError::Read`].
    pub(in crate::transfer) async fn new(file: Arc<File>, size: u64, held: Option<Held>) -> Result<Self, SpoolError> {
        let opening = spawn_blocking(move || {
            let start = match held.filter(|held| held.size <= size) {
                Some(held) if digest_of_first(&file, held.size)? == held.digest => held.size,
                _ => 0,
            };
            let small = usize::try_from(size).ok().filter(|size| start == 0 && *size <= MAX_WHOLE);
            let whole = small.map(|size| read(&file, 0, vec![0; size])).transpose()?;
            Ok((file, start, whole))
        });
        let (file, start, whole) = opening.await.map_err(ended)??;
        Ok(Self { file, size, start, whole })
    }

    /// What follows: everything that the announcement does not have.
    pub(in crate::transfer) fn rest(self) -> Sending {
        let from = if self.whole.is_some() { self.size } else { self.start };
        let course = Course::from(from, self.size);
        Sending::new(self.file, self.size, course)
    }

    /// What follows: the bytes of these pieces.
    pub(in crate::transfer) fn pieces(self, manifest: &Manifest, lacking: &PieceSet) -> Sending {
        let course = Course::of(manifest, lacking, self.start);
        Sending::new(self.file, self.size, course)
    }
}

/// The file with what packs its pieces, and the next one.
struct Piece {
    file: Arc<File>,
    packer: Option<Compressor<'static>>,
    frame: Vec<u8>,
    /// Bytes of the payload in it.
    bytes: usize,
    /// What packing made or would have made of them, where it was tried.
    packed: Option<usize>,
}

/// A payload that is being sent.
pub(in crate::transfer) struct Sending {
    course: Course,
    meter: Meter,
    judge: Judge,
    /// The next piece.
    piece: Option<JoinHandle<Result<Piece, SpoolError>>>,
}

impl Sending {
    fn new(file: Arc<File>, size: u64, course: Course) -> Self {
        let judge = Judge::new(Instant::now());
        let mut sending = Self { course, meter: Meter::new(size), judge, piece: None };
        sending.begin(file, None);
        sending
    }

    /// Begins to read the next piece, if there is one.
    fn begin(&mut self, file: Arc<File>, packer: Option<Compressor<'static>>) {
        let (next, mode) = (self.course.next(), self.judge.mode());
        self.piece = (!next.is_empty()).then(|| spawn_blocking(move || read_piece(file, packer, next, mode)));
    }

    /// How far this side is, which may be further than the other one.
    pub(in crate::transfer) fn sent(&self) -> u64 {
        self.course.position()
    }

    /// Whether every piece was queued.
    pub(in crate::transfer) fn is_done(&self) -> bool {
        self.piece.is_none()
    }

    /// Queues the next piece; says how many bytes went out so far, each time that a hundredth more did. Cancel-safe.
    async fn advance(&mut self, out: &Outbox) -> Result<Option<u64>, Interrupted> {
        let Some(reading) = &mut self.piece else { return Ok(None) };
        let room = out.bulk().await?;
        let waited = reading.is_finished();
        let read = reading.await;
        self.piece = None;
        let Piece { file, packer, frame, bytes, packed } = read.map_err(ended)??;
        self.course.advance(bytes as u64);
        room.send(frame);
        packed.into_iter().for_each(|packed| self.judge.tried(bytes, packed));
        self.judge.sent(bytes, waited, Instant::now());
        self.begin(file, packer);
        Ok(self.meter.passed(self.course.position()))
    }
}

/// Queues the next piece, as [`Sending::advance`]; waits for ever when there is none.
pub(in crate::transfer) async fn advance(
    sending: Option<&mut Sending>,
    out: &Outbox,
) -> Result<Option<u64>, Interrupted> {
    match sending {
        Some(sending) => sending.advance(out).await,
        None => std::future::pending().await,
    }
}

fn read(file: &File, at: u64, mut into: Vec<u8>) -> Result<Vec<u8>, SpoolError> {
    file.read_exact_at(&mut into, at).map_err(failed)?;
    Ok(into)
}

/// Reads the beginning of a range into a frame of its own.
fn read_piece(
    file: Arc<File>,
    mut packer: Option<Compressor<'static>>,
    next: Range<u64>,
    mode: Mode,
) -> Result<Piece, SpoolError> {
    let bytes = usize::try_from(next.end - next.start).map_or(MAX_DATA, |left| left.min(MAX_DATA));
    let mut frame = vec![0; HEADER + bytes];
    let (head, body) = frame.split_at_mut(HEADER);
    file.read_exact_at(body, next.start).map_err(failed)?;
    let mut packed = None;
    if let Mode::Packed(level) = mode {
        let smaller = pack(&mut packer, level, body).map_err(failed)?;
        packed = Some(smaller.as_ref().map_or(bytes, Vec::len));
        if let Some(smaller) = smaller {
            let header = Kind::Packed.header(smaller.len()).map_err(|error| failed(io::Error::other(error)))?;
            let frame = [header.as_slice(), &smaller].concat();
            return Ok(Piece { file, packer, frame, bytes, packed });
        }
    }
    head.copy_from_slice(&Kind::Data.header(bytes).map_err(|error| failed(io::Error::other(error)))?);
    Ok(Piece { file, packer, frame, bytes, packed })
}
