//! A large file while R writes it: what it has in common with the last one is compared as it comes, so that little is left to do
//! when it is whole.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::spool::Spooled;

/// How long to wait for more: at first, and at most. A file system tells of what was written when a write(2) ends, which for
/// a large object is the only one; its size grows meanwhile.
const FIRST_WAIT: Duration = Duration::from_micros(100);
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// After how long without a byte more it is left alone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A thread that compares a file that grows with an earlier one, until it is told to stop or there is nothing more to compare.
#[derive(Debug)]
pub(super) struct Following {
    earlier: Arc<Spooled>,
    /// Which file it is: its device and its number there.
    file: (u64, u64),
    stop: Arc<Stop>,
    thread: JoinHandle<io::Result<u64>>,
}

#[derive(Debug, Default)]
struct Stop {
    said: Mutex<bool>,
    saying: Condvar,
}

impl Stop {
    fn say(&self) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.saying.notify_all();
    }

    /// Waits for so long, or until it is said; whether it is.
    fn within(&self, time: Duration) -> bool {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.saying.wait_timeout_while(said, time, |said| !*said);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Following {
    /// Begins with the first byte. The file may only grow from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn start(file: File, earlier: Arc<Spooled>) -> io::Result<Self> {
        let stop = Arc::<Stop>::default();
        let identity = identity(&file)?;
        let thread = thread::Builder::new().name("following".to_owned());
        let thread = thread.spawn({
            let (earlier, stop) = (Arc::clone(&earlier), Arc::clone(&stop));
            move || follow(&file, &earlier, &stop)
        })?;
        Ok(Self { earlier, file: identity, stop, thread })
    }

    /// Whether it is this file that is followed.
    pub(super) fn is_of(&self, file: &File) -> bool {
        identity(file).is_ok_and(|file| file == self.file)
    }

    /// Whether it is this earlier file that it is compared with.
    pub(super) fn compares_with(&self, earlier: &Arc<Spooled>) -> bool {
        Arc::ptr_eq(&self.earlier, earlier)
    }

    /// Ends it: the earlier file, and up to which byte this one is the same for sure. `None` where it could not be read. Blocking,
    /// for as long as it takes to compare a piece.
    pub(super) fn end(self) -> Option<(Arc<Spooled>, u64)> {
        self.stop.say();
        Some((self.earlier, self.thread.join().ok()?.ok()?))
    }

    /// Ends it for nothing, and waits for nothing.
    pub(super) fn abandon(self) {
        self.stop.say();
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
}

/// Up to which byte it is the same.
fn follow(file: &File, earlier: &Spooled, stop: &Stop) -> io::Result<u64> {
    let (mut same, mut wait, mut waited) = (0, FIRST_WAIT, Duration::ZERO);
    while same < earlier.size() && waited < PATIENCE {
        let found = file.metadata()?;
        let there = found.len().min(earlier.size());
        if there > same {
            same = earlier.in_common_with(file, same..there)?;
            if same < there {
                break;
            }
            (wait, waited) = (FIRST_WAIT, Duration::ZERO);
        } else if found.nlink() == 0 {
            break;
        }
        if stop.within(wait) {
            break;
        }
        waited += wait;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    Ok(same)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Writes a file piece by piece while it is followed: how much was found to be the same by then, and by now.
    fn grown(earlier: &[u8], pieces: &[&[u8]]) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let earlier = Arc::new(Spooled::from_bytes(folder.path(), earlier).unwrap());
        let mut file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        let following = Following::start(file.reopen().unwrap(), Arc::clone(&earlier)).unwrap();
        for piece in pieces {
            file.write_all(piece).unwrap();
            assert!(!following.stop.within(Duration::from_millis(3)));
        }
        let (with, same) = following.end().unwrap();
        assert!(Arc::ptr_eq(&with, &earlier));
        // What was not looked at before the end is compared by whoever takes the file.
        with.in_common_with(file.as_file(), same..file.as_file().metadata().unwrap().len()).unwrap()
    }

    #[test]
    fn what_comes_is_compared_as_it_comes() {
        let long: Vec<u8> = (0..10_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (first, rest) = long.split_at(4_567_890);
        assert_eq!(grown(&long, &[]), 0);
        assert_eq!(grown(&long, &[first, rest]), 10_000_000);
        assert_eq!(grown(&long, &[first]), 4_567_890, "less than the earlier one");
        assert_eq!(grown(&long, &[first, rest, b"and more"]), 10_000_000);
        assert_eq!(grown(&long, &[first, b"\xff", rest]), 4_567_890);
        assert_eq!(grown(&long, &[b"\xff", first]), 0);
        assert_eq!(grown(b"", &[first]), 0);
    }

    #[test]
    fn another_file_is_not_the_one_that_is_followed_and_one_that_nobody_can_have_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let earlier = Arc::new(Spooled::from_bytes(folder.path(), &[1; 9]).unwrap());
        let file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        let start = || Following::start(file.reopen().unwrap(), Arc::clone(&earlier)).unwrap();
        let other = tempfile::tempfile_in(folder.path()).unwrap();
        let following = start();
        assert!(following.is_of(&file.reopen().unwrap()) && !following.is_of(&other));
        following.abandon();
        let following = start();
        drop(file);
        assert_eq!(following.thread.join().unwrap().unwrap(), 0);
    }
}
