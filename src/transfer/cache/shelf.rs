//! What is kept of one client: names, places, and when each was last of use.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use tokio::time::Instant;

use super::arena::{Arena, Piece};
use crate::{ids::Digest, proto::manifest::PieceName};

/// A piece on a shelf.
#[derive(Debug)]
struct Entry {
    piece: Arc<Piece>,
    /// When it was last of use, in the cache's own count.
    stamp: u64,
}

/// The pieces of one client.
#[derive(Debug)]
pub(super) struct Shelf {
    arena: Arc<Arena>,
    entries: HashMap<Digest, Entry>,
    /// The same pieces by their stamps, the one that was of use longest ago first.
    order: BTreeMap<u64, Digest>,
    /// Pieces that are on their way at the moment.
    pub(super) claimed: HashSet<Digest>,
    pub(super) last_used: Instant,
}

impl Shelf {
    pub(super) fn new(directory: &Path, all: Arc<AtomicU64>) -> io::Result<Self> {
        let arena = Arc::new(Arena::new(directory, all)?);
        let (entries, order, claimed) = Default::default();
        Ok(Self { arena, entries, order, claimed, last_used: Instant::now() })
    }

    /// A piece, which becomes the one that was of use last.
    pub(super) fn get(&mut self, name: &PieceName, stamp: u64) -> Option<Arc<Piece>> {
        let entry = self.entries.get_mut(&name.digest).filter(|entry| entry.piece.length() == name.length)?;
        if self.order.remove(&entry.stamp).is_some() {
            self.order.insert(stamp, name.digest);
        }
        entry.stamp = stamp;
        Some(Arc::clone(&entry.piece))
    }

    /// Room for a piece.
    pub(super) fn reserve(&self, name: &PieceName) -> Piece {
        Arena::reserve(&self.arena, name.length)
    }

    /// Takes a piece whose bytes are there, unless it was for a shelf that was here before this one.
    pub(super) fn put(&mut self, name: &PieceName, piece: Piece, stamp: u64) {
        if !piece.is_in(&self.arena) {
            return;
        }
        let piece = Arc::new(piece);
        if let Some(before) = self.entries.insert(name.digest, Entry { piece, stamp }) {
            self.order.remove(&before.stamp);
        }
        self.order.insert(stamp, name.digest);
    }

    /// The stamp of the piece that was of use longest ago.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.order.first_key_value().map(|(stamp, _)| *stamp)
    }

    /// Gives up the piece that was of use longest ago, unless somebody reads it, or there is none.
    pub(super) fn give_up_oldest(&mut self) -> Option<Arc<Piece>> {
        let (stamp, digest) = self.order.first_key_value().map(|(stamp, digest)| (*stamp, *digest))?;
        if Arc::strong_count(&self.entries.get(&digest)?.piece) > 1 {
            return None;
        }
        self.order.remove(&stamp);
        self.entries.remove(&digest).map(|entry| entry.piece)
    }

    /// Bytes on the disk.
    pub(super) fn used(&self) -> u64 {
        self.arena.used()
    }

    /// Whether what was given up still takes room.
    pub(super) fn leaks(&self) -> bool {
        self.arena.leaks()
    }

    /// Whether there is nothing here, and nothing comes.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.claimed.is_empty()
    }
}
