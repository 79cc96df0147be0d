//! What a client's next future probably begins with, made ready before it comes: a file that has those bytes already.
//!
//! Somebody who works with a large object sends it with one future after the other, and a client that puts large objects first
//! gives all these files the same beginning. Its pieces are named all the same; what is saved is the time in which they would
//! be read, written and digested once more.

use std::{ops::RangeInclusive, path::Path, sync::Arc};

use super::Cache;
use crate::{
    ids::PieceName,
    proto::manifest::Manifest,
    spool::{Beginning, SpoolError, SpoolWriter, Spooled},
};

/// How many bytes at the beginning of futures are worth it, and how many are not too many.
const WORTH: RangeInclusive<u64> = 1 << 20..=64 << 20;

/// A file with the first bytes of a future.
#[derive(Debug)]
pub struct Begun {
    names: Arc<[PieceName]>,
    writer: SpoolWriter,
    beginning: Beginning,
}

impl Begun {
    /// What two futures of a client, one after the other, begin with, in a file of its own; nothing if that is too little, or if
    /// the disk has no room to spare for it. Blocking.
    ///
    /// # Errors
    /// [`SpoolError`]: a full disk, above all.
    pub(super) fn of(
        before: &Spooled,
        last: &Spooled,
        cache: &Cache,
        directory: &Path,
    ) -> Result<Option<Self>, SpoolError> {
        let (Some(here), Some(there)) = (before.pieces().get(), last.pieces().get()) else { return Ok(None) };
        let names: Arc<[PieceName]> =
            here.iter().zip(&**there).take_while(|(here, there)| here == there).map(|(name, _)| *name).collect();
        let bytes = names.iter().map(|name| u64::from(name.length)).sum();
        if !WORTH.contains(&bytes) || !cache.has_room_for(bytes) {
            return Ok(None);
        }
        let writer = SpoolWriter::beginning_as(directory, last, bytes)?;
        Ok(writer.beginning().cloned().map(|beginning| Self { names, writer, beginning }))
    }

    /// Which beginning it is.
    #[must_use]
    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// How many pieces it has, if a future begins so.
    pub(super) fn pieces_of(&self, manifest: &Manifest) -> Option<usize> {
        manifest.names().starts_with(&self.names).then_some(self.names.len())
    }

    /// The file, for a future of so many bytes.
    pub(super) fn into_writer(self, size: u64) -> SpoolWriter {
        self.writer.limited_to(size)
    }
}
