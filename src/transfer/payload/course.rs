//! Which bytes of a payload travel, and how far both sides are with them: all from a position on, or those of the pieces
//! that a worker lacks. Sender and receiver follow the same course, each on its own.

use std::{collections::VecDeque, ops::Range};

use crate::proto::manifest::{Manifest, PieceSet};

/// What is still to travel, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::transfer) struct Course {
    size: u64,
    /// Ranges of the payload that do not touch one another; none is empty.
    ranges: VecDeque<Range<u64>>,
    left: u64,
}

impl Course {
    /// Everything from a position on.
    pub(in crate::transfer) fn from(start: u64, size: u64) -> Self {
        Self::over(size, std::iter::once(start..size))
    }

    /// The bytes of these pieces from a position on.
    pub(in crate::transfer) fn of(manifest: &Manifest, lacking: &PieceSet, start: u64) -> Self {
        let pieces = manifest.pieces().enumerate().filter(|(index, _)| lacking.has(*index));
        Self::over(manifest.size(), pieces.map(|(_, (range, _))| range.start.max(start)..range.end))
    }

    fn over(size: u64, pieces: impl Iterator<Item = Range<u64>>) -> Self {
        let mut ranges: VecDeque<Range<u64>> = VecDeque::new();
        for range in pieces.filter(|range| !range.is_empty()) {
            match ranges.back_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push_back(range),
            }
        }
        let left = ranges.iter().map(|range| range.end - range.start).sum();
        Self { size, ranges, left }
    }

    /// What travels next without a gap: nothing when all of it has.
    pub(in crate::transfer) fn next(&self) -> Range<u64> {
        self.ranges.front().cloned().unwrap_or(self.size..self.size)
    }

    /// So many bytes more have travelled; `false` if that is beyond the next gap.
    pub(in crate::transfer) fn advance(&mut self, bytes: u64) -> bool {
        let next = self.next();
        if bytes > next.end - next.start {
            return false;
        }
        self.left = self.left.saturating_sub(bytes);
        match self.ranges.front_mut() {
            Some(range) if range.end - range.start > bytes => range.start += bytes,
            _ => drop(self.ranges.pop_front()),
        }
        true
    }

    /// How far the payload is without a gap, if what does not travel is there.
    pub(in crate::transfer) fn position(&self) -> u64 {
        self.next().start
    }

    /// How many bytes are still to travel.
    pub(in crate::transfer) fn left(&self) -> u64 {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ids::Digest,
        proto::manifest::{MAX_PIECE, MIN_PIECE, PieceName},
    };

    proptest! {
        /// Whatever is lacking, from wherever: exactly the lacking bytes travel, in their order.
        #[test]
        fn exactly_what_is_lacking_travels(
            pieces in prop::collection::vec((MIN_PIECE..=MAX_PIECE, any::<bool>()), 1..30),
            start in any::<prop::sample::Index>(),
            step in 1u64..300_000,
        ) {
            let names = pieces.iter().map(|(length, _)| PieceName { length: *length, digest: Digest([0; 32]) }).collect();
            let size: u64 = pieces.iter().map(|(length, _)| u64::from(*length)).sum();
            let start = start.index(usize::try_from(size).unwrap() + 1) as u64;
            let manifest = Manifest::new(size, names).unwrap();
            let lacking: PieceSet = pieces.iter().map(|(_, lacking)| *lacking).collect();
            let mut course = Course::of(&manifest, &lacking, start);
            let mut travelled = vec![false; usize::try_from(size).unwrap()];
            while course.left() > 0 {
                let next = course.next();
                prop_assert_eq!(next.start, course.position());
                prop_assert!(!course.clone().advance(next.end - next.start + 1));
                let bytes = step.min(next.end - next.start);
                for at in next.start..next.start + bytes {
                    prop_assert!(!std::mem::replace(&mut travelled[usize::try_from(at).unwrap()], true));
                }
                prop_assert!(course.advance(bytes));
            }
            prop_assert_eq!(course.position(), size);
            prop_assert!(!course.advance(1));
            for (range, (_, lacking)) in manifest.pieces().map(|(range, _)| range).zip(&pieces) {
                for at in range {
                    prop_assert_eq!(travelled[usize::try_from(at).unwrap()], *lacking && at >= start);
                }
            }
        }
    }

    #[test]
    fn a_whole_payload_is_one_range() {
        let mut course = Course::from(3, 10);
        assert_eq!((course.next(), course.left()), (3..10, 7));
        assert!(course.advance(7) && course.left() == 0 && course.position() == 10);
        assert_eq!(Course::from(0, 0).left(), 0);
    }
}
