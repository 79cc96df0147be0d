//! A large future as a list of pieces, each named by its content: what a worker needs to know to say which of them it has
//! already. Data and its checks, no I/O.
//!
//! Where pieces begin and end is the client's business, as long as they are neither too small nor too large: a worker
//! checks lengths, their sum and, when the bytes are there, their names. So how futures are cut may change without
//! another version of the protocol.

use std::{ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};

pub use crate::ids::PieceName;

/// The shortest piece but for the last one of a future, in bytes.
pub const MIN_PIECE: u32 = 16 * 1024;
/// The longest piece, in bytes.
pub const MAX_PIECE: u32 = 64 * 1024;
/// The most pieces of one future: of a typical 40 KiB, 2.5 GiB. A future of more is sent without a list.
pub const MAX_PIECES: usize = 65_536;
/// The most names in one frame, which are 72 KiB.
pub const NAMES_PER_FRAME: usize = 2048;

/// Why a list of pieces is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// No pieces, or more than a future of that size can have.
    #[error("a future of {size} bytes in {count} pieces")]
    Count {
        /// The future's bytes.
        size: u64,
        /// The pieces that were announced.
        count: usize,
    },
    /// More names than were announced, or a frame without any.
    #[error("{more} names of pieces where {left} are left")]
    Names {
        /// How many came.
        more: usize,
        /// How many could come.
        left: usize,
    },
    /// A piece that is too short or too long.
    #[error("a piece of {length} bytes")]
    Length {
        /// Its bytes.
        length: u32,
    },
    /// All pieces together are not the future.
    #[error("pieces of {sum} bytes in all for a future of {size}")]
    Sum {
        /// The bytes of those that came.
        sum: u64,
        /// The future's bytes.
        size: u64,
    },
}

/// All pieces of a future in their order, without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    size: u64,
    names: Arc<[PieceName]>,
}

impl Manifest {
    /// A list that is complete.
    ///
    /// # Errors
    /// Any of [`ManifestError`].
    pub fn new(size: u64, names: Vec<PieceName>) -> Result<Self, ManifestError> {
        let count = names.len();
        let whole = Gathering::new(size, count)?.take(names)?;
        whole.ok_or(ManifestError::Names { more: 0, left: count })
    }

    /// The future's bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The names, in their order. Cheap to clone.
    #[must_use]
    pub fn names(&self) -> &Arc<[PieceName]> {
        &self.names
    }

    /// Where each piece lies in the future, and its name.
    pub fn pieces(&self) -> impl Iterator<Item = (Range<u64>, &PieceName)> {
        let mut at = 0;
        self.names.iter().map(move |name| {
            let from = at;
            at += u64::from(name.length);
            (from..at, name)
        })
    }
}

/// A list that arrives frame by frame. It never takes more memory than its announcement allows for.
#[derive(Debug)]
pub struct Gathering {
    size: u64,
    count: usize,
    sum: u64,
    names: Vec<PieceName>,
}

impl Gathering {
    /// Begins with what was announced.
    ///
    /// # Errors
    /// [`ManifestError::Count`].
    pub fn new(size: u64, count: usize) -> Result<Self, ManifestError> {
        let most = usize::try_from(size / u64::from(MIN_PIECE)).unwrap_or(usize::MAX).saturating_add(1);
        if count == 0 || count > MAX_PIECES.min(most) {
            return Err(ManifestError::Count { size, count });
        }
        Ok(Self { size, count, sum: 0, names: Vec::new() })
    }

    /// Takes the names of one frame, and gives the list when it is complete.
    ///
    /// # Errors
    /// [`ManifestError::Names`], [`ManifestError::Length`], [`ManifestError::Sum`].
    pub fn take(&mut self, names: Vec<PieceName>) -> Result<Option<Manifest>, ManifestError> {
        let Self { size, names: taken, .. } = self;
        let (more, left) = (names.len(), self.count.saturating_sub(taken.len()));
        if more == 0 || more > left {
            return Err(ManifestError::Names { more, left });
        }
        for name in names {
            let least = if taken.len() + 1 == self.count { 1 } else { MIN_PIECE };
            if !(least..=MAX_PIECE).contains(&name.length) {
                return Err(ManifestError::Length { length: name.length });
            }
            self.sum += u64::from(name.length);
            taken.push(name);
        }
        let (sum, size, complete) = (self.sum, *size, taken.len() == self.count);
        if sum > size || (complete && sum != size) {
            return Err(ManifestError::Sum { sum, size });
        }
        Ok(complete.then(|| Manifest { size, names: std::mem::take(taken).into() }))
    }
}

/// Which pieces of a list are meant, a bit for each, the first one in the lowest bit of the first byte.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceSet(Vec<u8>);

impl FromIterator<bool> for PieceSet {
    fn from_iter<I: IntoIterator<Item = bool>>(members: I) -> Self {
        let mut bytes = Vec::new();
        for (index, member) in members.into_iter().enumerate() {
            if index % 8 == 0 {
                bytes.push(0);
            }
            if let Some(last) = bytes.last_mut().filter(|_| member) {
                *last |= 1 << (index % 8);
            }
        }
        Self(bytes)
    }
}

impl PieceSet {
    /// Whether it is about a list of so many pieces, and about no others.
    #[must_use]
    pub fn is_of(&self, count: usize) -> bool {
        self.0.len() == count.div_ceil(8) && (count..self.0.len() * 8).all(|index| !self.has(index))
    }

    /// Whether a piece is meant.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.0.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Digest;

    fn name(length: u32) -> PieceName {
        PieceName { length, digest: Digest([7; 32]) }
    }

    fn lengths() -> impl Strategy<Value = Vec<u32>> {
        (prop::collection::vec(MIN_PIECE..=MAX_PIECE, 0..40), 1..=MAX_PIECE).prop_map(|(mut lengths, last)| {
            lengths.push(last);
            lengths
        })
    }

    proptest! {
        #[test]
        fn a_list_arrives_in_frames_and_covers_its_future(lengths in lengths(), frame in 1usize..10) {
            let names: Vec<_> = lengths.into_iter().map(name).collect();
            let size = names.iter().map(|name| u64::from(name.length)).sum();
            let mut gathering = Gathering::new(size, names.len()).unwrap();
            let mut frames = names.chunks(frame).peekable();
            let manifest = loop {
                let whole = gathering.take(frames.next().unwrap().to_vec()).unwrap();
                prop_assert_eq!(whole.is_some(), frames.peek().is_none());
                if let Some(manifest) = whole {
                    break manifest;
                }
            };
            prop_assert_eq!(&manifest.names()[..], &names[..]);
            let mut end = 0;
            for (range, name) in manifest.pieces() {
                prop_assert_eq!((range.start, range.end - range.start), (end, u64::from(name.length)));
                end = range.end;
            }
            prop_assert_eq!(end, size);
            prop_assert!(Gathering::new(size, names.len()).unwrap().take(vec![]).is_err());
            prop_assert!(gathering.take(vec![name(1)]).is_err(), "nothing after the last one");
        }

        #[test]
        fn lists_that_lie_are_refused(lengths in lengths(), other in 1u64..1000) {
            let names: Vec<_> = lengths.into_iter().map(name).collect();
            let size: u64 = names.iter().map(|name| u64::from(name.length)).sum();
            for wrong in [size + other, size.saturating_sub(other)] {
                prop_assert!(Manifest::new(wrong, names.clone()).is_err());
            }
            let mut short = names.clone();
            short.insert(0, name(MIN_PIECE - 1));
            prop_assert!(Manifest::new(size + u64::from(MIN_PIECE) - 1, short).is_err());
            let mut long = names;
            long.push(name(MAX_PIECE + 1));
            prop_assert!(Manifest::new(size + u64::from(MAX_PIECE) + 1, long).is_err());
        }

        #[test]
        fn a_set_says_what_was_put_into_it(members in prop::collection::vec(any::<bool>(), 0..200), stray in 1u8..) {
            let set: PieceSet = members.iter().copied().collect();
            prop_assert!(set.is_of(members.len()));
            prop_assert!((0..members.len()).all(|index| set.has(index) == members[index]));
            prop_assert!(!set.has(members.len()));
            let more = PieceSet([set.0, vec![stray]].concat());
            prop_assert!(!more.is_of(members.len()));
        }
    }

    #[test]
    fn more_pieces_than_a_future_can_have_are_refused_before_any_of_them() {
        assert!(Gathering::new(u64::MAX, MAX_PIECES).is_ok());
        let bad = [(u64::MAX, MAX_PIECES + 1), (u64::MAX, 0), (u64::from(MIN_PIECE), 3), (0, 2)];
        for (size, count) in bad {
            let error = Gathering::new(size, count).unwrap_err();
            assert_eq!(error, ManifestError::Count { size, count });
        }
        assert!(!PieceSet(vec![0b100]).is_of(2) && PieceSet(vec![0b11]).is_of(2));
    }
}
