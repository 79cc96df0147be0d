//! A future from two sources: pieces that were kept, and those that its client sends.

use std::{io, sync::Arc};

use crate::{
    proto::{manifest::Manifest, refusal::Payload},
    spool::SpoolWriter,
    transfer::{TransferError, cache::Supply},
};

/// The way of a future through its pieces. The one that is next begins before the end of what was written, or at it.
pub(super) struct Assembly {
    manifest: Arc<Manifest>,
    supply: Supply,
    /// The next piece, and where it begins.
    index: usize,
    at: u64,
}

impl Assembly {
    pub(super) fn new(manifest: Arc<Manifest>, supply: Supply) -> Self {
        Self { manifest, supply, index: 0, at: 0 }
    }

    /// Writes kept pieces up to the next one that has to come, after everything that came was written; those that came are
    /// kept. Blocking.
    ///
    /// # Errors
    /// [`TransferError::Digest`] when a piece is not the one of its name or cannot be read where it was kept, and
    /// [`TransferError::Spool`].
    pub(super) fn go_on(&mut self, writer: &mut SpoolWriter) -> Result<(), TransferError> {
        while let Some(name) = self.manifest.names().get(self.index) {
            let (from, end) = (self.at, self.at + u64::from(name.length));
            let kept = self.supply.pieces.get_mut(self.index).and_then(Option::take);
            match kept {
                // A part of it came before the stream broke.
                Some(piece) if writer.size() < end => {
                    let bytes = piece.read().map_err(|error| spoiled(&error))?;
                    let skipped = usize::try_from(writer.size().saturating_sub(from)).unwrap_or(usize::MAX);
                    writer.write(bytes.get(skipped..).unwrap_or_default())?;
                }
                None if writer.size() < end => return Ok(()),
                None if self.supply.claim.wants(name) => {
                    let mut bytes = vec![0; name.length as usize];
                    writer.read_back(from, &mut bytes)?;
                    if blake3::hash(&bytes) != name.digest.0 {
                        return Err(TransferError::Digest { what: Payload::Future });
                    }
                    self.supply.claim.keep(name, &bytes);
                }
                _ => {}
            }
            (self.index, self.at) = (self.index + 1, end);
        }
        Ok(())
    }
}

/// Bytes that were kept and cannot be had: they are as good as wrong ones, and the future begins anew without them.
fn spoiled(error: &io::Error) -> TransferError {
    tracing::warn!(%error, "cannot read a piece that was kept");
    TransferError::Digest { what: Payload::Future }
}
