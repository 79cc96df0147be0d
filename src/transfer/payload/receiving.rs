//! A payload from a stream to a file, over as many streams as it takes.

use std::path::PathBuf;

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use zstd::bulk::Decompressor;

use super::{
    Expected, Meter, ended,
    packing::{claimed, unpack},
};
use crate::{
    proto::frames::Held,
    spool::{SpoolWriter, Spooled},
    transfer::{TransferConfig, TransferError},
};

/// The file, and what unpacks pieces.
struct Store {
    writer: SpoolWriter,
    unpacker: Option<Decompressor<'static>>,
}

/// A piece as it came.
pub(in crate::transfer) enum Piece {
    AsItIs(Vec<u8>),
    Packed(Vec<u8>),
}

type Writing = JoinHandle<Result<Store, TransferError>>;

/// A payload that is being received.
pub(in crate::transfer) struct Receiving {
    expected: Expected,
    directory: PathBuf,
    received: u64,
    meter: Meter,
    writing: Writing,
    /// When the next piece must be here.
    due: Instant,
    /// When all of them must be here.
    end: Instant,
    config: TransferConfig,
}

impl Receiving {
    /// Begins an unnamed file in a folder. All of it must be here at `end`, however often the stream breaks.
    pub(in crate::transfer) fn new(
        expected: Expected,
        directory: PathBuf,
        end: Instant,
        config: TransferConfig,
    ) -> Self {
        let writing = begin(directory.clone(), expected.size);
        let due = Instant::now() + config.stall;
        Self { expected, directory, received: 0, meter: Meter::new(expected.size), writing, due, end, config }
    }

    /// What is here of it, after a stream broke.
    ///
    /// # Errors
    /// As [`Receiving::take`], for the last piece that was taken.
    pub(in crate::transfer) async fn held(&mut self) -> Result<Option<Held>, TransferError> {
        let store = (&mut self.writing).await.map_err(ended)??;
        let held = Held { size: store.writer.size(), digest: store.writer.digest() };
        self.writing = spawn_blocking(move || Ok(store));
        Ok(Some(held).filter(|held| held.size > 0))
    }

    /// Goes on with another stream, at the position that its sender names: where this side is, or from the beginning.
    ///
    /// # Errors
    /// [`TransferError::Protocol`] for any other position, and for another payload that does not begin anew.
    pub(in crate::transfer) fn resume(&mut self, expected: Expected, start: u64) -> Result<(), TransferError> {
        self.due = Instant::now() + self.config.stall;
        match start {
            0 => {
                if self.received > 0 || expected != self.expected {
                    let (directory, size) = (self.directory.clone(), expected.size);
                    (self.expected, self.received, self.meter) = (expected, 0, Meter::new(size));
                    self.writing = begin(directory, size);
                }
                Ok(())
            }
            start if start == self.received && expected == self.expected => Ok(()),
            _ => Err(TransferError::Protocol("a payload goes on at a byte that was not asked for")),
        }
    }

    /// Bytes that are expected in all.
    pub(in crate::transfer) fn size(&self) -> u64 {
        self.expected.size
    }

    /// Bytes that are here.
    pub(in crate::transfer) fn received(&self) -> u64 {
        self.received
    }

    /// Waits until the payload is late, and says so.
    pub(in crate::transfer) async fn late(&self) -> TransferError {
        sleep_until(self.due.min(self.end)).await;
        let after = if self.due < self.end { self.config.stall } else { self.config.payload };
        TransferError::Stalled { what: self.expected.what, after }
    }

    /// Does not count a time in which this side did not listen.
    pub(in crate::transfer) fn excuse(&mut self) {
        self.due = Instant::now() + self.config.stall;
    }

    /// Whether every byte is here.
    pub(in crate::transfer) fn is_whole(&self) -> bool {
        self.received == self.expected.size
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
        self.received = self.received.saturating_add(bytes as u64);
        if self.received > self.expected.size {
            return Err(TransferError::Protocol("more bytes than were announced"));
        }
        let store = (&mut self.writing).await.map_err(ended)??;
        self.writing = spawn_blocking(move || write(store, piece, bytes));
        self.due = Instant::now() + self.config.stall;
        Ok(self.meter.passed(self.received))
    }

    /// The finished file, if its bytes are those that were promised.
    pub(in crate::transfer) async fn finish(self) -> Result<Spooled, TransferError> {
        let spooled = self.writing.await.map_err(ended)??.writer.finish();
        if spooled.digest() == self.expected.digest && spooled.size() == self.expected.size {
            Ok(spooled)
        } else {
            Err(TransferError::Digest { what: self.expected.what })
        }
    }
}

const UNPACKABLE: TransferError = TransferError::Protocol("a packed piece that is none");

fn begin(directory: PathBuf, size: u64) -> Writing {
    spawn_blocking(move || Ok(Store { writer: SpoolWriter::new(&directory, size)?, unpacker: None }))
}

fn write(mut store: Store, piece: Piece, size: usize) -> Result<Store, TransferError> {
    let piece = match piece {
        Piece::AsItIs(bytes) => bytes,
        Piece::Packed(packed) => unpack(&mut store.unpacker, &packed, size).map_err(|_| UNPACKABLE)?,
    };
    store.writer.write(&piece)?;
    Ok(store)
}
