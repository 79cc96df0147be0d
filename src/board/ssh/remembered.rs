//! What one process remembers about signing in, over all its connections.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use russh::keys::PrivateKey;

/// Keys whose passphrase was given, and what was said already. Clones share it; nothing of it is written anywhere.
#[derive(Clone, Default)]
pub struct Remembered(Arc<Inner>);

#[derive(Default)]
struct Inner {
    keys: Mutex<HashMap<PathBuf, Arc<PrivateKey>>>,
    notes: Mutex<BTreeSet<String>>,
    asking: tokio::sync::Mutex<()>,
}

impl Remembered {
    pub(super) fn unlocked(&self, path: &Path) -> Option<Arc<PrivateKey>> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    pub(super) fn remember(&self, path: PathBuf, key: PrivateKey) -> Arc<PrivateKey> {
        let key = Arc::new(key);
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(path, Arc::clone(&key));
        key
    }

    /// How many keys are open.
    pub(super) fn count(&self) -> usize {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// One question on the terminal at a time.
    pub(super) async fn turn_to_ask(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.asking.lock().await
    }

    /// Says something that was not said yet.
    pub(super) fn note_once(&self, note: &str, say: impl FnOnce(&str)) {
        if self.0.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(note.to_owned()) {
            say(note);
        }
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("keys", &self.count()).finish_non_exhaustive()
    }
}
