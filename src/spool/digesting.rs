//! Digests of files, which can be taken up again from places that they passed, and what two files have in common.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt,
    thread,
};

use super::{Reader, SpoolError, cannot_read};
use crate::ids::Digest;

/// How much of a file is read at once for its digest.
pub(super) const PIECE: usize = 256 * 1024;

/// How far apart the places are from which a digest can be taken up again, in bytes, and up to where there are any: each takes
/// 2 KiB of memory.
const MARK: usize = 1 << 20;
const MARKED: usize = 256 << 20;

/// A digest under way, or at its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Digesting {
    pub(super) size: u64,
    hasher: Box<blake3::Hasher>,
    /// What it was after each [`MARK`] bytes.
    marks: Vec<blake3::Hasher>,
}

impl Digesting {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let left = MARK - usize::try_from(self.size % MARK as u64).unwrap_or_default();
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            self.hasher.update(now);
            self.size += now.len() as u64;
            if now.len() == left && self.marks.len() < MARKED / MARK {
                self.marks.push((*self.hasher).clone());
            }
            bytes = later;
        }
    }

    /// What it was at the last mark within the first bytes.
    pub(super) fn within(marks: &[blake3::Hasher], bytes: u64) -> Self {
        let count = usize::try_from(bytes / MARK as u64).map_or(marks.len(), |count| count.min(marks.len()));
        let marks = marks.get(..count).unwrap_or_default().to_vec();
        Self { size: (count * MARK) as u64, hasher: Box::new(marks.last().cloned().unwrap_or_default()), marks }
    }

    /// What it was after each [`MARK`] bytes.
    pub(super) fn into_marks(self) -> Vec<blake3::Hasher> {
        self.marks
    }

    /// Goes on with what a reader has.
    pub(super) fn read(&mut self, from: &mut impl Read) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.update(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }
}

/// From how many bytes on two threads compare faster than one.
const SHARED: u64 = 4 << 20;

/// Up to which of these bytes two files are the same: the first one that differs or that one of them does not have, or the end.
/// Blocking.
pub(super) fn in_common(one: &File, other: &File, bytes: Range<u64>) -> io::Result<u64> {
    if bytes.end - bytes.start < SHARED {
        return same_from(one, other, bytes);
    }
    let middle = bytes.start.midpoint(bytes.end);
    thread::scope(|scope| {
        let later = scope.spawn(|| same_from(one, other, middle..bytes.end));
        let first = same_from(one, other, bytes.start..middle)?;
        let later = later.join().unwrap_or(Ok(middle));
        if first < middle { Ok(first) } else { later }
    })
}

/// The same in one thread.
fn same_from(one: &File, other: &File, bytes: Range<u64>) -> io::Result<u64> {
    let (mut first, mut second) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = bytes.start;
    loop {
        let read = |file: &File, into: &mut [u8]| Reader { file, at, end: bytes.end.min(at + PIECE as u64) }.read(into);
        let (here, there) = (read(one, &mut first)?, read(other, &mut second)?);
        let both = here.min(there);
        let (first, second) = (first.get(..both).unwrap_or_default(), second.get(..both).unwrap_or_default());
        if both == 0 || first != second {
            let same = first.iter().zip(second).take_while(|(one, other)| one == other).count();
            return Ok(at + same as u64);
        }
        at += both as u64;
    }
}

/// BLAKE3 of the first bytes of a file, read by position: readers of the file are not disturbed. Blocking.
///
/// # Errors
/// [`SpoolError::Read`], also when the file has fewer bytes.
pub fn digest_of_first(file: &File, bytes: u64) -> Result<Digest, SpoolError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).map_or(PIECE, |left| left.min(PIECE));
        let piece = buffer.get_mut(..length).unwrap_or_default();
        let read = file.read_exact_at(piece, at);
        read.map_err(cannot_read)?;
        hasher.update(piece);
        at += length as u64;
    }
    Ok(Digest(*hasher.finalize().as_bytes()))
}
