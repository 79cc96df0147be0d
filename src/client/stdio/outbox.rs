//! Events on their way to R, which may not read for as long as the user's code runs.
//!
//! What ends a future and what answers an order is kept for as long as it takes. What only tells where things are is
//! bounded, in number and in bytes: beyond that the oldest goes. The files of progress are bounded together, whether their
//! events were written already or not; R removes each when it has read it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use super::{folder::Folder, line::Line};

/// Lines that wait; when there are more, no order is read.
const MOST_LINES: usize = 20_000;

/// Lines of progress and those that only tell where things are: how many wait, and how many bytes.
const MOST_PASSING: usize = 4096;
const MOST_PASSING_BYTES: usize = 4 << 20;

/// The bytes of all files of progress that were not removed yet, and how many there are.
const MOST_PROGRESS_BYTES: u64 = 64 << 20;
const MOST_PROGRESS: usize = 4096;

/// How much is written at once, in bytes.
const AT_ONCE: usize = 32 * 1024;

/// What becomes of a line that nobody reads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    /// It waits for as long as it takes.
    Kept,
    /// It may be left out.
    Passing,
    /// It may be left out, with its file.
    Progress(String),
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<(Line, Class)>,
    /// How many lines are not kept, and their bytes.
    passing: (usize, usize),
    /// Files of progress, and their sizes, from the oldest on.
    files: VecDeque<(String, u64)>,
    closed: bool,
    dropped: u64,
}

/// The queue of events. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    room: Arc<Notify>,
    folder: Arc<Folder>,
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub(super) fn new(folder: Arc<Folder>) -> Self {
        Self { state: Arc::default(), changed: Arc::default(), room: Arc::default(), folder }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line that is never left out.
    pub(super) fn keep(&self, line: Line) {
        self.push(line, Class::Kept);
    }

    /// A line that only tells where things are.
    pub(super) fn mention(&self, line: Line) {
        self.push(line, Class::Passing);
    }

    /// A line about a file of progress of so many bytes, which is removed if the line is left out.
    pub(super) fn progress(&self, line: Line, file: String, size: u64) {
        {
            let mut state = self.state();
            state.files.push_back((file.clone(), size));
            let too_many = |state: &State| {
                state.files.len() > MOST_PROGRESS
                    || state.files.iter().map(|(_, size)| size).sum::<u64>() > MOST_PROGRESS_BYTES
            };
            if too_many(&state) {
                state.files.retain(|(name, _)| self.folder.has(name));
            }
            while too_many(&state) {
                if !state.drop_oldest(&self.folder, |class| matches!(class, Class::Progress(_))) {
                    // All that there are were told already, so it is this one that is left out.
                    state.files.pop_back();
                    state.dropped += 1;
                    self.folder.remove(&file);
                    return;
                }
            }
        }
        self.push(line, Class::Progress(file));
    }

    fn push(&self, line: Line, class: Class) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if class != Class::Kept {
            state.passing.0 += 1;
            state.passing.1 += line.as_str().len();
        }
        state.lines.push_back((line, class));
        while state.passing.0 > MOST_PASSING || state.passing.1 > MOST_PASSING_BYTES {
            if !state.drop_oldest(&self.folder, |class| *class != Class::Kept) {
                break;
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until orders may be read again. Cancel-safe.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.room.notified();
            if self.state().lines.len() <= MOST_LINES {
                return;
            }
            freed.await;
        }
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// How many lines were left out so far.
    #[must_use]
    pub(super) fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// The next lines with their ends; `None` when nothing more will come.
    async fn next(&self) -> Option<String> {
        loop {
            let changed = self.changed.notified();
            let batch = self.state().batch();
            match batch {
                Ok(text) => {
                    self.room.notify_one();
                    return Some(text);
                }
                Err(true) => return None,
                Err(false) => changed.await,
            }
        }
    }

    /// Writes what comes until nothing more will, or nobody reads any more.
    ///
    /// # Errors
    /// When the other side is gone.
    pub(super) async fn write_to(&self, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        while let Some(text) = self.next().await {
            to.write_all(text.as_bytes()).await?;
            to.flush().await?;
        }
        Ok(())
    }
}

impl State {
    /// The next lines; the error says whether none will ever come.
    fn batch(&mut self) -> Result<String, bool> {
        let mut text = String::new();
        while text.len() < AT_ONCE {
            let Some((line, class)) = self.lines.pop_front() else { break };
            if class != Class::Kept {
                self.forget(line.as_str().len());
            }
            text.push_str(line.as_str());
            text.push('\n');
        }
        if text.is_empty() { Err(self.closed) } else { Ok(text) }
    }

    fn forget(&mut self, length: usize) {
        self.passing.0 = self.passing.0.saturating_sub(1);
        self.passing.1 = self.passing.1.saturating_sub(length);
    }

    /// Leaves out the oldest line of such a class; false if there is none.
    fn drop_oldest(&mut self, folder: &Folder, which: impl Fn(&Class) -> bool) -> bool {
        let at = self.lines.iter().position(|(_, class)| which(class));
        let Some((line, class)) = at.and_then(|at| self.lines.remove(at)) else { return false };
        self.forget(line.as_str().len());
        self.dropped += 1;
        if let Class::Progress(name) = class {
            folder.remove(&name);
            self.files.retain(|(file, _)| *file != name);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn outbox() -> (tempfile::TempDir, Outbox) {
        let made = tempfile::tempdir().unwrap();
        fs::set_permissions(made.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let folder = Folder::open(made.path()).unwrap();
        (made, Outbox::new(Arc::new(folder)))
    }

    fn count(text: &str, kind: &str) -> usize {
        text.lines().filter(|line| line.split('\t').next() == Some(kind)).count()
    }

    async fn all(outbox: &Outbox) -> String {
        outbox.close();
        let mut text = Vec::new();
        outbox.write_to(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn ends_are_kept_and_the_oldest_of_the_rest_goes() {
        let (_made, outbox) = outbox();
        for number in 0..10_000 {
            outbox.mention(Line::new("running").with("n", number));
            outbox.keep(Line::new("done").with("n", number));
        }
        assert_eq!(outbox.dropped(), 10_000 - MOST_PASSING as u64);
        let text = all(&outbox).await;
        assert_eq!((count(&text, "done"), count(&text, "running")), (10_000, MOST_PASSING));
        assert!(text.lines().any(|line| line == "running\tn=9999"), "the newest stay");
        let order: Vec<usize> = text.lines().filter_map(|line| line.strip_prefix("done\tn=")?.parse().ok()).collect();
        assert!(order.is_sorted());
    }

    #[tokio::test]
    async fn the_files_of_progress_are_bounded_whether_they_were_told_or_not() {
        let (made, outbox) = outbox();
        let write = |number: usize| {
            let name = outbox.folder.write("progress", &b"x"[..]).unwrap();
            // As if they were large.
            outbox.progress(Line::new("progress").with("n", number), name.clone(), 1 << 20);
            name
        };
        let names: Vec<String> = (0..100).map(write).collect();
        assert_eq!(fs::read_dir(made.path()).unwrap().count(), 64);
        assert!(!outbox.folder.has(&names[0]) && outbox.folder.has(&names[99]));
        let told = outbox.next().await.unwrap();
        assert_eq!(count(&told, "progress"), 64);
        let late = write(100);
        assert!(!outbox.folder.has(&late), "all others were told");
        outbox.folder.remove(&names[99]);
        assert!(outbox.folder.has(&write(101)), "one was read");
        assert_eq!(all(&outbox).await, "progress\tn=101\n");
    }

    #[tokio::test]
    async fn orders_wait_while_nobody_reads() {
        let (_made, outbox) = outbox();
        (0..=MOST_LINES).for_each(|_| outbox.keep(Line::new("pong")));
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), outbox.room()).await;
        assert!(waiting.is_err());
        outbox.next().await.unwrap();
        outbox.room().await;
    }
}
