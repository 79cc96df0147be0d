//! A future's file into pieces, where its content says so: the same object gives the same pieces wherever it lies in a
//! file, so a worker that keeps pieces is sent it once. FastCDC (Xia et al., IEEE TPDS 2020).
//!
//! The pieces are short, 40 KiB in the mean: around each byte that differs from one future to the next, a piece or two
//! travel again, which in a large object with a small neighbour is most of what does.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use fastcdc::v2020::FastCDC;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{ended, failed};
use crate::{
    ids::Digest,
    proto::manifest::{MAX_PIECE, MAX_PIECES, MIN_PIECE, Manifest, PieceName},
    spool::{SpoolError, Spooled},
};

/// Futures of fewer bytes are not cut.
const WORTH: u64 = 1 << 20;
/// Futures of more bytes are cut when a worker asks for it, and not while it dials.
const AHEAD: u64 = 64 << 20;
/// The size of piece that is aimed at, in bytes.
const AVERAGE: usize = 32 * 1024;
/// How much of a file is read at once, in bytes.
const WINDOW: usize = 2 << 20;

/// The pieces of a future, which are being found.
pub(in crate::transfer) struct Cutting(State);

enum State {
    Under(JoinHandle<Result<Option<Manifest>, SpoolError>>),
    Done(Option<Manifest>),
}

impl Cutting {
    /// Begins to cut before any worker asks for it, if that is soon done. A file that cannot be read shows later.
    pub(in crate::transfer) fn ahead(payload: &Spooled) -> Option<Self> {
        (WORTH..=AHEAD).contains(&payload.size()).then(|| Self::new(payload).ok()).flatten()
    }

    /// Begins to cut, in a blocking thread. The file is read by position.
    ///
    /// # Errors
    /// [`SpoolError::Read`].
    pub(in crate::transfer) fn new(payload: &Spooled) -> Result<Self, SpoolError> {
        let (file, size) = (payload.file(), payload.size());
        let possible = (WORTH..=MAX_PIECES as u64 * u64::from(MAX_PIECE)).contains(&size);
        if !possible {
            return Ok(Self(State::Done(None)));
        }
        let (first, found) = (payload.first_pieces().to_vec(), Arc::clone(payload.pieces()));
        Ok(Self(State::Under(spawn_blocking(move || {
            let manifest = match found.get() {
                Some(names) => Manifest::new(size, names.to_vec()).ok(),
                None => cut(&file, size, first)?,
            };
            manifest.iter().for_each(|manifest| drop(found.set(Arc::clone(manifest.names()))));
            Ok(manifest)
        }))))
    }

    /// The pieces, or nothing if the future is too small or too large for them. Cancel-safe.
    ///
    /// # Errors
    /// [`SpoolError::Read`].
    pub(in crate::transfer) async fn manifest(&mut self) -> Result<Option<&Manifest>, SpoolError> {
        if let State::Under(cutting) = &mut self.0 {
            let cut = cutting.await;
            self.0 = State::Done(None);
            self.0 = State::Done(cut.map_err(ended)??);
        }
        Ok(match &self.0 {
            State::Done(manifest) => manifest.as_ref(),
            State::Under(_) => None,
        })
    }
}

/// Cuts a file, of which the first pieces may be known; nothing if there are too many pieces.
fn cut(file: &File, size: u64, first: Vec<PieceName>) -> Result<Option<Manifest>, SpoolError> {
    let (least, most) = (MIN_PIECE as usize, MAX_PIECE as usize);
    let mut window = vec![0; WINDOW];
    let mut at = first.iter().map(|name| u64::from(name.length)).sum();
    let mut names = first;
    while at < size {
        let length = usize::try_from(size - at).map_or(WINDOW, |left| left.min(WINDOW));
        let bytes = window.get_mut(..length).unwrap_or_default();
        file.read_exact_at(bytes, at).map_err(failed)?;
        let is_last = at + length as u64 == size;
        let (cutter, mut from) = (FastCDC::new(bytes, least, AVERAGE, most), 0);
        // Where a piece ends depends on no more than the longest piece from its beginning.
        while from < length && (is_last || length - from >= most) {
            let (_, to) = cutter.cut(from, length - from);
            let piece = bytes.get(from..to).unwrap_or_default();
            let length = u32::try_from(piece.len()).map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))?;
            names.push(PieceName { length, digest: Digest(*blake3::hash(piece).as_bytes()) });
            from = to;
        }
        if names.len() > MAX_PIECES {
            return Ok(None);
        }
        at += from as u64;
    }
    // Pieces of the right lengths that cover the file are a manifest.
    Ok(Manifest::new(size, names).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn pieces(bytes: &[u8]) -> Manifest {
        let spooled = Spooled::from_bytes(&std::env::temp_dir(), bytes).unwrap();
        cut(&spooled.file(), spooled.size(), Vec::new()).unwrap().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_pieces_are_the_file_and_most_of_them_survive_a_change(
            seed in any::<u64>(),
            length in 1usize..6_000_000,
            head in 0usize..100_000,
            change in any::<prop::sample::Index>(),
        ) {
            let before = bytes(seed, length);
            let manifest = pieces(&before);
            for (range, name) in manifest.pieces() {
                let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                prop_assert_eq!(*blake3::hash(&before[range]).as_bytes(), name.digest.0);
            }
            let mut after = [bytes(!seed, head), before].concat();
            let at = change.index(after.len());
            after[at] ^= 1;
            let kept: HashSet<_> = manifest.names().iter().map(|name| name.digest).collect();
            let changed = pieces(&after);
            let lacking = changed.names().iter().filter(|name| !kept.contains(&name.digest));
            let lacking: usize = lacking.map(|name| name.length as usize).sum();
            // The head, and around each of two places as much as it takes to find a common end of a piece.
            prop_assert!(lacking <= head + 12 * MAX_PIECE as usize, "{} of {}", lacking, length);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// What an earlier file had is neither digested nor cut again, and nothing shows it.
        #[test]
        fn a_file_that_begins_as_an_earlier_one_is_cut_as_if_there_were_none(
            seed in any::<u64>(),
            length in 1usize..6_000_000,
            change in any::<prop::sample::Index>(),
            more in 0usize..200_000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let before = bytes(seed, length);
            let earlier = Spooled::from_bytes(folder.path(), &before).unwrap();
            earlier.pieces().set(Arc::clone(pieces(&before).names())).unwrap();
            let mut after = [before, bytes(!seed, more)].concat();
            let at = change.index(after.len());
            after[at] ^= 1;
            let path = folder.path().join("after");
            std::fs::write(&path, &after).unwrap();
            let file = File::open(&path).unwrap();
            let size = after.len() as u64;
            let alike = Spooled::from_file(file, "it", size, Some((&earlier, 0))).unwrap();
            prop_assert_eq!(alike.digest().0, *blake3::hash(&after).as_bytes());
            prop_assert_eq!(alike.size(), size);
            let known: u64 = alike.first_pieces().iter().map(|name| u64::from(name.length)).sum();
            prop_assert!(known <= at.min(length) as u64);
            prop_assert!(known + 2 * u64::from(MAX_PIECE) >= at.min(length) as u64, "{} of {}", known, at);
            let cut = cut(&alike.file(), size, alike.first_pieces().to_vec()).unwrap().unwrap();
            prop_assert_eq!(cut, pieces(&after));
        }
    }

    #[test]
    fn bytes_without_any_content_are_cut_too() {
        let manifest = pieces(&vec![0; 5 << 20]);
        assert!(manifest.names().iter().all(|name| name.length <= MAX_PIECE));
        let different: HashSet<_> = manifest.names().iter().map(|name| name.digest).collect();
        assert!(different.len() <= 2);
    }
}
