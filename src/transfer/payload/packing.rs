//! Whether pieces are packed with zstd, how hard, and how they are unpacked.
//!
//! Packing pays when the payload shrinks and the stream is slower than the packing; both are measured while the payload
//! is under way, and again and again, because the first megabytes go into buffers however slow the link is. R's own
//! payloads are compressed already (gzip), which the first pieces show, and then nothing is tried again.

use std::io;

use tokio::time::{Duration, Instant};
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::get_frame_content_size,
};

use crate::proto::frames::MAX_DATA;

/// How many pieces are tried before a payload counts as one that does not shrink: the first MiB.
const TRIED: u32 = 4;
/// What a packed payload may have of its size, in hundredths, for packing to be worth anything.
const SHRINKS: u64 = 90;
/// How many pieces are looked at together: 4 MiB.
const WINDOW: u32 = 16;
/// For how many windows sending as it is is not tried again after it lost.
const SETTLED: u32 = 16;
/// The levels of zstd: fast, and for a link that is much slower than that.
const FAST: i32 = 1;
const HARD: i32 = 3;

/// What is done with the next piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is sent as it is.
    AsItIs,
    /// It is packed at this level, if that makes it smaller.
    Packed(i32),
}

/// Decides for each piece, from how the ones before it went.
#[derive(Debug)]
pub(super) struct Judge {
    mode: Mode,
    /// Pieces, their bytes and what they were packed to, while it is open whether the payload shrinks at all.
    trial: Option<(u32, u64, u64)>,
    /// The pieces that are looked at together: how many, of these how many the stream kept waiting, their bytes.
    pieces: u32,
    waited: u32,
    bytes: u64,
    began: Instant,
    /// Bytes of the payload per second in the last window that was packed.
    packed_rate: f64,
    /// Windows to go until sending as it is is tried again.
    settled: u32,
}

impl Judge {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            mode: Mode::Packed(FAST),
            trial: Some((0, 0, 0)),
            pieces: 0,
            waited: 0,
            bytes: 0,
            began: now,
            packed_rate: 0.0,
            settled: 0,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Tells of a piece that is ready: its bytes, and what packing would have made or has made of them.
    pub(super) fn tried(&mut self, bytes: usize, packed: usize) {
        let Some((pieces, all, small)) = &mut self.trial else { return };
        *pieces += 1;
        *all += bytes as u64;
        *small += packed as u64;
        if *pieces == TRIED {
            if *small * 100 > *all * SHRINKS {
                self.mode = Mode::AsItIs;
                self.settled = u32::MAX;
            }
            self.trial = None;
        }
    }

    /// Tells of a piece that was sent: its bytes, and whether it waited for the stream rather than the stream for it.
    pub(super) fn sent(&mut self, bytes: usize, waited: bool, now: Instant) {
        self.pieces += 1;
        self.waited += u32::from(waited);
        self.bytes += bytes as u64;
        if self.pieces == WINDOW && self.settled != u32::MAX {
            self.judge(now.duration_since(self.began));
            (self.pieces, self.waited, self.bytes, self.began) = (0, 0, 0, now);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate, to be compared with another one")]
    fn judge(&mut self, took: Duration) {
        let rate = self.bytes as f64 / took.as_secs_f64().max(1e-6);
        let (waited, all) = (self.waited, self.pieces);
        self.settled = self.settled.saturating_sub(1);
        match self.mode {
            Mode::Packed(level) => {
                self.packed_rate = rate;
                if waited * 4 < all {
                    // The stream takes more than we pack.
                    self.mode = if level == HARD { Mode::Packed(FAST) } else { self.unless_settled() };
                } else if waited * 4 > all * 3 {
                    self.mode = Mode::Packed(HARD);
                }
            }
            Mode::AsItIs if rate < self.packed_rate => {
                self.mode = Mode::Packed(FAST);
                self.settled = SETTLED;
            }
            Mode::AsItIs => {}
        }
    }

    fn unless_settled(&self) -> Mode {
        if self.settled == 0 { Mode::AsItIs } else { self.mode }
    }
}

/// Packs one piece: `None` when it does not become smaller.
pub(super) fn pack(with: &mut Option<Compressor<'static>>, level: i32, piece: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let compressor = match with {
        Some(compressor) => compressor,
        None => with.insert(Compressor::new(level)?),
    };
    compressor.set_compression_level(level)?;
    let packed = compressor.compress(piece)?;
    Ok((packed.len() < piece.len()).then_some(packed))
}

/// How many bytes a packed piece claims to have; `None` when it does not say, or when that is no size of a piece.
pub(super) fn claimed(packed: &[u8]) -> Option<usize> {
    let size = get_frame_content_size(packed).ok().flatten()?;
    usize::try_from(size).ok().filter(|size| (1..=MAX_DATA).contains(size))
}

/// Unpacks a piece of `size` bytes into memory of exactly that size, and of no other: whatever its frames claim, neither
/// more bytes nor a window of its own is made for it, as zstd decodes into the result itself.
///
/// # Errors
/// When it is not zstd, or unpacks to another size.
pub(super) fn unpack(with: &mut Option<Decompressor<'static>>, packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let decompressor = match with {
        Some(decompressor) => decompressor,
        None => with.insert(Decompressor::new()?),
    };
    let mut piece = vec![0; size];
    match decompressor.decompress_to_buffer(packed, piece.as_mut_slice())? {
        length if length == size => Ok(piece),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = MAX_DATA;

    /// Sends windows over a stream and through a packer of these rates, in bytes of the payload per second; as it is,
    /// packed on the stream, and by the packer. The modes after each window.
    fn windows(count: usize, as_it_is: f64, packed: f64, packer: f64, shrinks: bool) -> Vec<Mode> {
        let mut now = Instant::now();
        let mut judge = Judge::new(now);
        let mut modes = Vec::new();
        for _ in 0..count {
            for _ in 0..WINDOW {
                let (link, work) = match judge.mode() {
                    Mode::AsItIs => (as_it_is, f64::INFINITY),
                    Mode::Packed(FAST) => (packed, packer),
                    Mode::Packed(_) => (packed * 1.1, packer / 2.0),
                };
                judge.tried(PIECE, if shrinks { PIECE / 3 } else { PIECE });
                now += Duration::from_secs_f64(PIECE as f64 / link.min(work));
                judge.sent(PIECE, link < work, now);
            }
            modes.push(judge.mode());
        }
        modes
    }

    #[tokio::test]
    async fn what_does_not_shrink_is_sent_as_it_is() {
        assert!(windows(4, 1e6, 1e6, 5e8, false).iter().all(|mode| *mode == Mode::AsItIs));
    }

    #[tokio::test]
    async fn a_slow_link_gets_packed_pieces_and_a_fast_one_does_not() {
        assert!(windows(20, 1e6, 3e6, 4e8, true).iter().all(|mode| *mode == Mode::Packed(HARD)));
        let fast = windows(40, 1e9, 3e9, 4e8, true);
        assert_eq!(fast.last(), Some(&Mode::AsItIs), "{fast:?}");
        let between = windows(40, 3e8, 9e8, 4e8, true);
        let packed = between.iter().filter(|mode| **mode != Mode::AsItIs).count();
        assert!(packed > 30, "{between:?}");
    }

    #[test]
    fn a_packed_piece_is_unpacked_and_never_beyond_its_size() {
        let piece = vec![7; PIECE];
        let packed = pack(&mut None, FAST, &piece).unwrap().unwrap();
        assert_eq!(claimed(&packed), Some(PIECE));
        assert_eq!(unpack(&mut None, &packed, PIECE).unwrap(), piece);
        assert!(unpack(&mut None, &packed, PIECE - 1).is_err());
        assert!(unpack(&mut None, &packed, PIECE + 1).is_err());
        assert!(unpack(&mut None, b"not zstd", 8).is_err());
        // Twice as much in two frames, of which the first one tells its size.
        assert!(unpack(&mut None, &[packed.clone(), packed].concat(), PIECE).is_err());
    }

    #[test]
    fn no_size_that_is_none_is_claimed() {
        let of = |length: usize| claimed(&zstd::bulk::compress(&vec![0; length], FAST).unwrap());
        assert_eq!((of(0), of(1), of(PIECE), of(PIECE + 1), of(1 << 30)), (None, Some(1), Some(PIECE), None, None));
        assert_eq!(claimed(b""), None);
    }
}
