//! The bytes of one client's pieces: an unnamed file in which each piece lies at a place of its own, and which gives the
//! disk back what a piece took when the piece is dropped.
//!
//! Places are never used again; the file grows in its addresses alone and is full of holes (`fallocate(2)`,
//! `FALLOC_FL_PUNCH_HOLE`). So a piece that is still being read cannot become another one.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use nix::fcntl::{FallocateFlags, fallocate};

/// What the disk gives out at once, in bytes, for the file systems that there are. Each piece begins at a multiple of it,
/// so that all of it can be given back.
const BLOCK: u64 = 4096;

/// Bytes that a piece takes on the disk.
pub(super) fn charge(length: u32) -> u64 {
    u64::from(length).next_multiple_of(BLOCK)
}

/// The file.
#[derive(Debug)]
pub(super) struct Arena {
    file: File,
    /// The next place that nobody had.
    next: AtomicU64,
    /// Bytes on the disk, here and in all arenas.
    used: AtomicU64,
    all: Arc<AtomicU64>,
    /// This file system gives nothing back before the file is closed.
    leaks: AtomicBool,
}

impl Arena {
    /// An unnamed file in a folder.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn new(directory: &Path, all: Arc<AtomicU64>) -> io::Result<Self> {
        let file = tempfile::tempfile_in(directory)?;
        Ok(Self { file, next: 0.into(), used: 0.into(), all, leaks: false.into() })
    }

    /// Bytes that its pieces take.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether pieces that were dropped still take room.
    pub(super) fn leaks(&self) -> bool {
        self.leaks.load(Ordering::Relaxed)
    }

    /// Takes room for a piece of so many bytes, which must be [filled](Piece::fill) before anybody reads it.
    pub(super) fn reserve(arena: &Arc<Self>, length: u32) -> Piece {
        let bytes = charge(length);
        arena.used.fetch_add(bytes, Ordering::Relaxed);
        arena.all.fetch_add(bytes, Ordering::Relaxed);
        Piece { at: arena.next.fetch_add(bytes, Ordering::Relaxed), length, arena: Arc::clone(arena) }
    }
}

/// One piece in an arena, for as long as somebody needs it.
#[derive(Debug)]
pub(in crate::transfer) struct Piece {
    arena: Arc<Arena>,
    at: u64,
    length: u32,
}

impl Piece {
    /// Whether this is where it lies.
    pub(super) fn is_in(&self, arena: &Arc<Arena>) -> bool {
        Arc::ptr_eq(&self.arena, arena)
    }

    /// Its bytes.
    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// Writes its bytes. Blocking.
    ///
    /// # Errors
    /// What the kernel said: no room, above all.
    pub(super) fn fill(&self, bytes: &[u8]) -> io::Result<()> {
        self.arena.file.write_all_at(bytes, self.at)
    }

    /// Reads its bytes. Blocking.
    ///
    /// # Errors
    /// What the kernel said.
    pub(in crate::transfer) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length as usize];
        self.arena.file.read_exact_at(&mut bytes, self.at)?;
        Ok(bytes)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Arena { file, used, all, leaks, .. } = &*self.arena;
        let bytes = charge(self.length);
        used.fetch_sub(bytes, Ordering::Relaxed);
        all.fetch_sub(bytes, Ordering::Relaxed);
        // The last piece of an arena goes with the file.
        let (at, length) = (i64::try_from(self.at), i64::try_from(bytes));
        if let (Ok(at), Ok(length), true) = (at, length, Arc::strong_count(&self.arena) > 1) {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            leaks.fetch_or(fallocate(file, flags, at, length).is_err(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_piece_that_is_dropped_gives_its_room_back_and_the_others_stay() {
        let all = Arc::new(AtomicU64::new(0));
        let arena = Arc::new(Arena::new(&std::env::temp_dir(), Arc::clone(&all)).unwrap());
        let pieces: Vec<_> = (0..10u8)
            .map(|number| {
                let piece = Arena::reserve(&arena, 50_001);
                piece.fill(&vec![number; 50_001]).unwrap();
                piece
            })
            .collect();
        assert_eq!((arena.used(), all.load(Ordering::Relaxed)), (10 * charge(50_001), 10 * charge(50_001)));
        let kept: Vec<_> = pieces.into_iter().enumerate().filter(|(index, _)| index % 2 == 0).collect();
        assert_eq!(arena.used(), 5 * charge(50_001));
        for (index, piece) in &kept {
            assert_eq!(piece.read().unwrap(), vec![u8::try_from(*index).unwrap(); 50_001]);
        }
        let blocks = arena.file.metadata().unwrap().blocks() * 512;
        assert!(arena.leaks() || blocks <= 6 * charge(50_001), "{blocks}");
        drop(kept);
        assert_eq!((arena.used(), all.load(Ordering::Relaxed)), (0, 0));
    }
}
