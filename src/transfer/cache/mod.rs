//! What a worker keeps of the futures that it was sent: their pieces, by content, so that what many futures have in common
//! travels once.
//!
//! **By client.** Pieces are found by the proven peer id of the client that sent them, and by nobody else's: a client
//! learns of its own pieces alone whether they are here, and two clients with the same bytes both send them. A client's key
//! is one session's, so what a session sent is of use to that session only.
//!
//! **Never in the way.** Everything is in unnamed files, gone with the process. There is a limit for all clients and half
//! of it for each; what was of use longest ago makes room. Pieces are dropped when their client was not here for long, when
//! the disk gets full, and when anything is wrong with them; a future then travels as it would without a cache.
//!
//! **Once.** While a future brings pieces, another one of the same client that needs any of them waits for it.
//!
//! Tasks never see any of this: a future is assembled into a file of its own before there is a task.

mod arena;
mod shelf;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, interval},
};

pub(super) use arena::Piece;
use shelf::Shelf;

use crate::{
    ids::{Digest, NodeId},
    proto::manifest::{MAX_PIECE, MIN_PIECE, Manifest, PieceName, PieceSet},
    spool::Relief,
};

/// Clients of which pieces are kept, each of which takes a descriptor.
const CLIENTS: usize = 64;
/// Room that is left on the disk: a tenth of it, at most so many bytes.
const SPARED: u64 = 1 << 30;
/// How long the pieces of a client are kept that sends nothing, unless told otherwise.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// The pieces that a worker keeps. Cheap to clone; with the last clone all of them are gone.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    limit: u64,
    /// Bytes of all pieces on the disk.
    all: Arc<AtomicU64>,
    state: Mutex<State>,
    /// What gives way with it.
    beside: Mutex<Vec<Relief>>,
    /// Counts what may let somebody go on who waits.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    shelves: HashMap<NodeId, Shelf>,
    /// Counts uses.
    clock: u64,
}

/// What is to be done about a future whose pieces are known.
#[derive(Debug)]
pub(super) enum Plan {
    /// Another one brings some of them at the moment.
    Wait,
    /// Take what is here and ask for the rest.
    Go(Supply),
}

/// Where each piece of a future comes from.
#[derive(Debug)]
pub(super) struct Supply {
    /// In their order; nothing for those that the client has to send.
    pub(super) pieces: Vec<Option<Arc<Piece>>>,
    pub(super) claim: Claim,
}

impl Supply {
    /// What the client has to send, if the first pieces are here anyway.
    pub(super) fn lacking(&self, first: usize) -> PieceSet {
        self.pieces.iter().enumerate().map(|(index, piece)| index >= first && piece.is_none()).collect()
    }

    /// Whether any piece comes from here.
    pub(super) fn has_kept(&self) -> bool {
        self.pieces.iter().any(Option::is_some)
    }
}

impl Cache {
    /// An empty cache of at most `limit` bytes, whose unnamed files are in a folder. Nothing is touched before the first
    /// piece comes. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(directory: PathBuf, limit: u64) -> Self {
        Self::with_patience(directory, limit, IDLE)
    }

    /// The same, with another time after which the pieces of a client that sends nothing are dropped.
    #[must_use]
    pub fn with_patience(directory: PathBuf, limit: u64, idle: Duration) -> Self {
        let (all, state, beside, changes) = (Arc::default(), Mutex::default(), Mutex::default(), watch::Sender::new(0));
        let inner = Arc::new(Inner { directory, limit, all, state, beside, changes });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            let mut tick = interval((idle / 4).max(Duration::from_millis(1)));
            loop {
                tick.tick().await;
                let Some(inner) = weak.upgrade() else { return };
                let gone = inner.remove(|shelf| shelf.claimed.is_empty() && shelf.last_used.elapsed() >= idle);
                // Giving back the room may take a while.
                drop(spawn_blocking(move || drop((gone, inner))));
            }
        });
        Self(inner)
    }

    /// Bytes that are kept, as the disk counts them.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.all.load(Ordering::Relaxed)
    }

    /// The largest future whose pieces are kept, in bytes: what one client may have here. 0 for a cache that is too small
    /// for anything.
    #[must_use]
    pub fn largest(&self) -> u64 {
        Some(self.0.limit / 2).filter(|each| *each >= u64::from(MAX_PIECE)).unwrap_or(0)
    }

    /// Drops everything, to make room; says whether there was anything. Blocking.
    pub fn clear(&self) -> bool {
        let had_any = self.size() > 0;
        drop(self.0.remove(|_| true));
        let beside = self.0.beside.lock().unwrap_or_else(PoisonError::into_inner).clone();
        beside.iter().fold(had_any, |had_any, relief| relief.gives_way() || had_any)
    }

    /// All of it gives way to what a full disk does not take.
    #[must_use]
    pub fn relief(&self) -> Relief {
        let cache = self.clone();
        Relief::new(move || cache.clear())
    }

    /// Something else that gives way whenever all of this does.
    pub(super) fn with_it(&self, relief: Relief) {
        self.0.beside.lock().unwrap_or_else(PoisonError::into_inner).push(relief);
    }

    /// Drops what a client has here. Blocking.
    pub(super) fn forget(&self, client: &NodeId) {
        let shelf = self.0.state().shelves.remove(client);
        drop(shelf);
    }

    /// Follows what may turn [`Plan::Wait`] into something else.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Where the pieces of a future come from that its client sends from a position on. Blocking, for a short time.
    pub(super) fn plan(&self, client: &NodeId, manifest: &Manifest, start: u64) -> Plan {
        let has_room = self.has_room_for(manifest.size());
        if !has_room && !self.has_room_for(0) {
            self.clear();
        }
        let mut state = self.0.state();
        let (wanted, pieces) = state.find(client, manifest, start);
        if state.shelves.get(client).is_some_and(|shelf| !shelf.claimed.is_disjoint(&wanted)) {
            return Plan::Wait;
        }
        let names = if has_room && state.make_shelf(client, &self.0) { wanted } else { HashSet::new() };
        if let Some(shelf) = state.shelves.get_mut(client) {
            shelf.claimed.extend(&names);
            shelf.last_used = Instant::now();
        }
        let claim = Claim { cache: self.clone(), client: client.clone(), names };
        Plan::Go(Supply { pieces, claim })
    }

    /// Whether the disk has room for so many bytes and for what is left to others.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        let Ok(disk) = statvfs(&self.0.directory) else { return false };
        let fragment = disk.fragment_size();
        let (free, size) = (disk.blocks_available().saturating_mul(fragment), disk.blocks().saturating_mul(fragment));
        free >= bytes.saturating_add(SPARED.min(size / 10))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out shelves, which their receiver drops without the lock.
    fn remove(&self, which: impl Fn(&Shelf) -> bool) -> Vec<Shelf> {
        let mut state = self.state();
        let gone: Vec<_> =
            state.shelves.iter().filter(|(_, shelf)| which(shelf)).map(|(client, _)| client.clone()).collect();
        gone.iter().filter_map(|client| state.shelves.remove(client)).collect()
    }
}

impl State {
    fn stamp(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The pieces of a future that are here, and the names of those that are not and would be kept.
    fn find(&mut self, client: &NodeId, manifest: &Manifest, start: u64) -> (HashSet<Digest>, Vec<Option<Arc<Piece>>>) {
        let mut wanted = HashSet::new();
        let mut pieces = Vec::with_capacity(manifest.names().len());
        for (range, name) in manifest.pieces() {
            let stamp = self.stamp();
            let piece = self.shelves.get_mut(client).and_then(|shelf| shelf.get(name, stamp));
            if piece.is_none() && range.end > start && is_kept(name) {
                wanted.insert(name.digest);
            }
            pieces.push(piece);
        }
        (wanted, pieces)
    }

    /// Makes a place for a client: that of the one that was here longest ago, if there are too many.
    fn make_shelf(&mut self, client: &NodeId, cache: &Inner) -> bool {
        if self.shelves.contains_key(client) {
            return true;
        }
        if self.shelves.len() >= CLIENTS {
            let idle = self.shelves.iter().filter(|(_, shelf)| shelf.claimed.is_empty());
            let oldest = idle.min_by_key(|(_, shelf)| shelf.last_used).map(|(client, _)| client.clone());
            match oldest {
                Some(oldest) => drop(self.shelves.remove(&oldest)),
                None => return false,
            }
        }
        let shelf = Shelf::new(&cache.directory, Arc::clone(&cache.all));
        match shelf {
            Ok(shelf) => drop(self.shelves.insert(client.clone(), shelf)),
            Err(error) => {
                tracing::debug!(%error, "nothing is kept of this client's futures");
                return false;
            }
        }
        true
    }

    /// Gives up what was of use longest ago until there is room for a piece: of the same client if that is over its share,
    /// else of any. `None` if there is none to be had.
    fn reserve(&mut self, client: &NodeId, name: &PieceName, cache: &Inner) -> Option<Piece> {
        let need = arena::charge(name.length);
        if self.shelves.get(client)?.leaks() {
            // What was given up is not free before the file is, so begin with another one.
            let fresh = Shelf::new(&cache.directory, Arc::clone(&cache.all)).ok()?;
            let before = self.shelves.insert(client.clone(), fresh)?;
            self.shelves.get_mut(client)?.claimed = before.claimed.clone();
        }
        while self.shelves.get(client)?.used() + need > cache.limit / 2 {
            drop(self.shelves.get_mut(client)?.give_up_oldest()?);
        }
        while cache.all.load(Ordering::Relaxed) + need > cache.limit {
            let shelves = self.shelves.values_mut().filter(|shelf| shelf.oldest().is_some());
            drop(shelves.min_by_key(|shelf| shelf.oldest())?.give_up_oldest()?);
        }
        self.shelves.get(client).map(|shelf| shelf.reserve(name))
    }
}

/// The last piece of a future may be of any length; none is kept that would take more room for its name than it is worth.
fn is_kept(name: &PieceName) -> bool {
    name.length >= MIN_PIECE
}

/// Pieces that a future brings. Until it is dropped, other futures that need one of them wait.
#[derive(Debug)]
pub(super) struct Claim {
    cache: Cache,
    client: NodeId,
    names: HashSet<Digest>,
}

impl Claim {
    /// Whether a piece is one of them, and was not kept yet.
    pub(super) fn wants(&self, name: &PieceName) -> bool {
        self.names.contains(&name.digest)
    }

    /// Keeps a piece whose bytes are known to be those of its name, if there is room. Blocking.
    pub(super) fn keep(&mut self, name: &PieceName, bytes: &[u8]) {
        if !self.names.remove(&name.digest) {
            return;
        }
        let room = self.cache.0.state().reserve(&self.client, name, &self.cache.0);
        let filled = room.map(|piece| piece.fill(bytes).map(|()| piece)).transpose();
        let mut state = self.cache.0.state();
        let stamp = state.stamp();
        if let Some(shelf) = state.shelves.get_mut(&self.client) {
            // Whether it is kept or not, nobody has to wait for it any more.
            shelf.claimed.remove(&name.digest);
            if let Ok(Some(piece)) = filled {
                return shelf.put(name, piece, stamp);
            }
        }
        drop(state);
        if let Err(error) = filled {
            self.give_up(&error);
        }
    }

    /// A disk that takes no more, most likely: nothing more is kept of this future, and all that is kept makes room.
    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(%error, "cannot keep pieces of futures; those that were kept are dropped");
        self.release();
        self.cache.clear();
    }

    /// Does not bring what is not here yet.
    fn release(&mut self) {
        let names = std::mem::take(&mut self.names);
        let mut state = self.cache.0.state();
        if let Some(shelf) = state.shelves.get_mut(&self.client) {
            shelf.claimed.retain(|name| !names.contains(name));
            if shelf.is_idle() {
                state.shelves.remove(&self.client);
            }
        }
        drop(state);
        self.cache.0.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
