//! A payload from a stream to a file, over as many streams as it takes.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use zstd::bulk::Decompressor;

use super::{
    Course, Expected, Meter,
    assembly::Assembly,
    ended,
    packing::{claimed, unpack},
};
use crate::{
    ids::PieceName,
    proto::{
        frames::Held,
        manifest::{Manifest, PieceSet},
    },
    spool::{SpoolWriter, Spooled},
    transfer::{
        Begun, TransferConfig, TransferError,
        cache::{Cache, Supply},
    },
};

/// The file, what unpacks pieces, and what is known of those that need not come.
struct Store {
    writer: SpoolWriter,
    unpacker: Option<Decompressor<'static>>,
    assembly: Option<Assembly>,
}

/// A piece as it came.
pub(in crate::transfer) enum Piece {
    AsItIs(Vec<u8>),
    Packed(Vec<u8>),
}

/// What happens to the file.
enum Writing {
    /// What came last is being written.
    Busy(JoinHandle<Result<Store, TransferError>>),
    /// All that came is written; nothing is left of it after an error.
    Idle(Option<Box<Store>>),
}

impl Writing {
    fn begin(work: impl FnOnce() -> Result<Store, TransferError> + Send + 'static) -> Self {
        Self::Busy(spawn_blocking(work))
    }

    /// Waits until all that came is written. Cancel-safe.
    async fn settle(&mut self) -> Result<(), TransferError> {
        if let Self::Busy(work) = self {
            let done = work.await;
            *self = Self::Idle(None);
            *self = Self::Idle(Some(Box::new(done.map_err(ended)??)));
        }
        Ok(())
    }

    /// The same, and hands out the file. Cancel-safe.
    async fn store(&mut self) -> Result<Box<Store>, TransferError> {
        self.settle().await?;
        match self {
            Self::Idle(store) => store.take().ok_or(TransferError::Over),
            Self::Busy(_) => Err(TransferError::Over),
        }
    }
}

/// A payload that is being received.
pub(in crate::transfer) struct Receiving {
    expected: Expected,
    directory: PathBuf,
    cache: Option<Cache>,
    course: Course,
    /// Bytes that came, of all streams.
    arrived: u64,
    meter: Meter,
    writing: Writing,
    /// The names of all pieces, if they were said.
    pieces: Option<Arc<[PieceName]>>,
    /// When the next piece must be here.
    due: Instant,
    /// When all of them must be here.
    end: Instant,
    config: TransferConfig,
}

impl Receiving {
    /// Begins an unnamed file in a folder. All of it must be here at `end`, however often the stream breaks. What is in the
    /// cache gives way to it on a full disk.
    pub(in crate::transfer) fn new(
        expected: Expected,
        directory: PathBuf,
        cache: Option<Cache>,
        end: Instant,
        config: TransferConfig,
    ) -> Self {
        let writing = begin(directory.clone(), expected.size, cache.clone());
        let (due, meter) = (Instant::now() + config.stall, Meter::new(expected.size));
        let course = Course::from(0, expected.size);
        Self { expected, directory, cache, course, arrived: 0, meter, writing, pieces: None, due, end, config }
    }

    /// What is here of it, after a stream broke. The pieces that were to come are not claimed any more.
    ///
    /// # Errors
    /// As [`Receiving::take`], for the last piece that was taken.
    pub(in crate::transfer) async fn held(&mut self) -> Result<Option<Held>, TransferError> {
        let mut store = self.writing.store().await?;
        store.assembly = None;
        let held = Held { size: store.writer.size(), digest: store.writer.digest() };
        self.writing = Writing::Idle(Some(store));
        Ok(Some(held).filter(|held| held.size > 0))
    }

    /// Goes on with another stream, at the position that its sender names: where this side is, or from the beginning.
    ///
    /// # Errors
    /// [`TransferError::Protocol`] for any other position, and for another payload that does not begin anew.
    pub(in crate::transfer) fn resume(&mut self, expected: Expected, start: u64) -> Result<(), TransferError> {
        self.excuse();
        match start {
            0 => {
                if self.received() > 0 || expected != self.expected {
                    let (directory, size) = (self.directory.clone(), expected.size);
                    (self.expected, self.meter, self.pieces) = (expected, Meter::new(size), None);
                    self.writing = begin(directory, size, self.cache.clone());
                }
            }
            start if start == self.received() && expected == self.expected => {}
            _ => return Err(TransferError::Protocol("a payload goes on at a byte that was not asked for")),
        }
        self.course = Course::from(start, expected.size);
        Ok(())
    }

    /// Takes from now on only what is lacking, and the rest from where it was kept; the beginning is here already, if nothing
    /// has come yet and it was made ready.
    ///
    /// # Errors
    /// As [`Receiving::take`].
    pub(in crate::transfer) async fn assemble(
        &mut self,
        manifest: Arc<Manifest>,
        supply: Supply,
        begun: Option<Begun>,
        lacking: &PieceSet,
    ) -> Result<(), TransferError> {
        let mut store = self.writing.store().await?;
        if let Some(begun) = begun {
            let relief = self.cache.as_ref().map(Cache::relief);
            store.writer = begun.into_writer(self.expected.size).relieved_by(relief);
        }
        self.course = Course::of(&manifest, lacking, store.writer.size());
        self.pieces = Some(Arc::clone(manifest.names()));
        self.writing = Writing::begin(move || {
            store.assembly = Some(Assembly::new(manifest, supply));
            go_on(*store)
        });
        self.excuse();
        Ok(())
    }

    /// Bytes that are expected in all.
    pub(in crate::transfer) fn size(&self) -> u64 {
        self.expected.size
    }

    /// Bytes that are here, from the first one on without a gap.
    pub(in crate::transfer) fn received(&self) -> u64 {
        self.course.position()
    }

    /// Bytes that came, of all streams, and those that still have to.
    pub(in crate::transfer) fn way(&self) -> (u64, u64) {
        (self.arrived, self.course.left())
    }

    /// Waits until all of it is late, whoever is waited for.
    pub(in crate::transfer) async fn over(&self) -> TransferError {
        sleep_until(self.end).await;
        TransferError::Stalled { what: self.expected.what, after: self.config.payload }
    }

    /// Waits until the payload is late, and says so.
    pub(in crate::transfer) fn late(&self) -> impl Future<Output = TransferError> + Send + use<> {
        let after = if self.due < self.end { self.config.stall } else { self.config.payload };
        let (due, error) = (self.due.min(self.end), TransferError::Stalled { what: self.expected.what, after });
        async move {
            sleep_until(due).await;
            error
        }
    }

    /// Waits until what came turns out to be wrong or cannot be stored, which is known before the next piece comes, if
    /// one comes at all. Cancel-safe.
    pub(in crate::transfer) async fn failed(&mut self) -> TransferError {
        match self.writing.settle().await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    }

    /// Does not count a time in which this side did not listen.
    pub(in crate::transfer) fn excuse(&mut self) {
        self.due = Instant::now() + self.config.stall;
    }

    /// Whether every byte is here.
    pub(in crate::transfer) fn is_whole(&self) -> bool {
        self.course.left() == 0
    }

    /// Takes a piece while the one before is being written; says how many bytes came so far, each time that a hundredth
    /// more did.
    ///
    /// # Errors
    /// [`TransferError::Protocol`] when it is too much or not what it claims to be, [`TransferError::Spool`]; each for
    /// this piece or for the one before.
    pub(in crate::transfer) async fn take(&mut self, piece: Piece) -> Result<Option<u64>, TransferError> {
        let bytes = match &piece {
            Piece::AsItIs(bytes) => bytes.len(),
            Piece::Packed(packed) => claimed(packed).ok_or(UNPACKABLE)?,
        };
        self.arrived = self.arrived.saturating_add(bytes as u64);
        if !self.course.advance(bytes as u64) {
            return Err(TransferError::Protocol("more bytes than were announced"));
        }
        let store = self.writing.store().await?;
        self.writing = Writing::begin(move || take(*store, piece, bytes));
        self.excuse();
        Ok(self.meter.passed(self.received()))
    }

    /// The finished file, if its bytes are those that were promised.
    pub(in crate::transfer) async fn finish(mut self) -> Result<Spooled, TransferError> {
        let spooled = self.writing.store().await?.writer.finish();
        if spooled.digest() == self.expected.digest && spooled.size() == self.expected.size {
            self.pieces.into_iter().for_each(|pieces| drop(spooled.pieces().set(pieces)));
            Ok(spooled)
        } else {
            Err(TransferError::Digest { what: self.expected.what })
        }
    }
}

const UNPACKABLE: TransferError = TransferError::Protocol("a packed piece that is none");

fn begin(directory: PathBuf, size: u64, cache: Option<Cache>) -> Writing {
    Writing::begin(move || {
        let writer = SpoolWriter::new(&directory, size)?.relieved_by(cache.map(|cache| cache.relief()));
        Ok(Store { writer, unpacker: None, assembly: None })
    })
}

fn take(mut store: Store, piece: Piece, size: usize) -> Result<Store, TransferError> {
    let piece = match piece {
        Piece::AsItIs(bytes) => bytes,
        Piece::Packed(packed) => unpack(&mut store.unpacker, &packed, size).map_err(|_| UNPACKABLE)?,
    };
    store.writer.write(&piece)?;
    go_on(store)
}

fn go_on(mut store: Store) -> Result<Store, TransferError> {
    if let Some(assembly) = &mut store.assembly {
        assembly.go_on(&mut store.writer)?;
    }
    Ok(store)
}
