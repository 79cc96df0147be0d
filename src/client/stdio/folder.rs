//! The folder through which the bytes of futures and results pass: ours alone, held open, files in it named plainly.

use std::{
    fs::File,
    io::{self, Read},
    ops::RangeInclusive,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat},
    sys::stat::{Mode, fstatat},
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};

use super::{following::Following, orders::FileName};
use crate::spool::{SpoolError, Spooled};

/// Why the folder, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be opened.
    #[error("cannot open the folder {}", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Others may look into it, or it is theirs.
    #[error("the folder {} is not ours alone (owner {owner}, mode {mode:o}); make one with mode 0700", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// A file cannot be read.
    #[error("cannot read the file {name}")]
    Read {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is no plain file of ours.
    #[error("{name} is not a plain file of ours")]
    NoFile {
        /// Its name.
        name: String,
    },
    /// A file cannot be written.
    #[error("cannot write into the folder {}", path.display())]
    Write {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The bytes cannot be had.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// The folder. Files are opened relative to it and never through a symbolic link.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    written: AtomicU64,
    /// The last file that was taken of those that are [alike](ALIKE), kept though it has no name any more.
    last: Mutex<Option<Arc<Spooled>>>,
    /// The file that is being written now, if that was told: R writes one at a time.
    following: Mutex<Option<Following>>,
}

/// The sizes of files that may have large objects in common, in bytes: less is taken in hand in no time, and of more none is kept.
const ALIKE: RangeInclusive<u64> = 1 << 20..=256 << 20;

const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);
const WRITE: OFlag =
    OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Folder {
    /// Opens a folder that belongs to this user, and that nobody else can enter.
    ///
    /// # Errors
    /// [`FolderError::Open`] and [`FolderError::NotOurs`].
    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        let failed = |source: io::Error| FolderError::Open { path: path.to_owned(), source };
        let flags = READ | OFlag::O_DIRECTORY;
        let fd = openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let file = File::from(fd);
        let found = file.metadata().map_err(failed)?;
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        if owner != geteuid().as_raw() || mode & 0o777 != 0o700 {
            return Err(FolderError::NotOurs { path: path.to_owned(), owner, mode });
        }
        Ok(Self {
            fd: file.into(),
            path: path.to_owned(),
            written: AtomicU64::new(0),
            last: Mutex::default(),
            following: Mutex::default(),
        })
    }

    /// Where it is.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a file out of the folder: measures and digests it, and removes its name. What it has in common with the last large
    /// one is only compared. Blocking.
    ///
    /// # Errors
    /// [`FolderError::Read`], [`FolderError::NoFile`] and [`FolderError::Spool`], which is [`SpoolError::TooLarge`] over
    /// the limit. The file is removed in any case.
    pub(super) fn take(&self, name: &FileName, limit: u64) -> Result<Arc<Spooled>, FolderError> {
        let opened = self.open_file(name);
        self.remove(name.as_str());
        let (file, size) = opened?;
        let large = ALIKE.contains(&size);
        let followed = self.following().take_if(|following| following.is_of(&file)).and_then(Following::end);
        let last = followed.or_else(|| Some((self.last().clone()?, 0))).filter(|_| large);
        let last = last.as_ref().map(|(last, same)| (&**last, *same));
        let taken = Arc::new(Spooled::from_file(file, name.as_str(), limit, last)?);
        if large {
            let before = self.last().replace(Arc::clone(&taken));
            // To give back the room of a large file takes as long as to compare it.
            drop(thread::spawn(move || drop(before)));
        }
        Ok(taken)
    }

    /// Hears that a file is about to be written, which may have something in common with the last large one.
    pub(super) fn follow(&self, name: &FileName) {
        let following = self.last().clone().and_then(|last| {
            let (file, _) = self.open_file(name).ok()?;
            Following::start(file, last).ok()
        });
        let before = std::mem::replace(&mut *self.following(), following);
        before.into_iter().for_each(Following::abandon);
    }

    /// A file to be read, and its size in bytes.
    fn open_file(&self, name: &FileName) -> Result<(File, u64), FolderError> {
        let failed = |source: io::Error| FolderError::Read { name: name.as_str().to_owned(), source };
        let opened = openat(&self.fd, name.as_str(), READ, Mode::empty());
        let file = File::from(opened.map_err(|error| failed(error.into()))?);
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() || found.uid() != geteuid().as_raw() {
            return Err(FolderError::NoFile { name: name.as_str().to_owned() });
        }
        Ok((file, found.len()))
    }

    /// Whether it is the file with which the next one is compared.
    pub(super) fn keeps(&self, file: &Arc<Spooled>) -> bool {
        self.last().as_ref().is_some_and(|last| Arc::ptr_eq(last, file))
    }

    /// Keeps a file no longer.
    pub(super) fn forget(&self, file: &Arc<Spooled>) {
        let compared = self.following().take_if(|following| following.compares_with(file));
        compared.into_iter().for_each(Following::abandon);
        let mut last = self.last();
        if last.as_ref().is_some_and(|last| Arc::ptr_eq(last, file)) {
            let forgotten = last.take();
            drop(last);
            drop(thread::spawn(move || drop(forgotten)));
        }
    }

    fn following(&self) -> MutexGuard<'_, Option<Following>> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Option<Arc<Spooled>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a file. That it is gone already is fine.
    pub(super) fn remove(&self, name: &str) {
        let _ = unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir);
    }

    /// Whether there is a file of this name.
    #[must_use]
    pub(super) fn has(&self, name: &str) -> bool {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Writes a file under a name of its own, whole or not at all. Blocking.
    ///
    /// # Errors
    /// [`FolderError::Write`], when the disk is full for instance; nothing is left then.
    pub(super) fn write(&self, ending: &str, mut bytes: impl Read) -> Result<String, FolderError> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let name = format!("{number}.{ending}");
        let hidden = format!(".{name}");
        let written = self.write_as(&hidden, &name, &mut bytes);
        if written.is_err() {
            self.remove(&hidden);
        }
        written.map_err(|source| FolderError::Write { path: self.path.clone(), source })?;
        Ok(name)
    }

    fn write_as(&self, hidden: &str, name: &str, bytes: &mut impl Read) -> io::Result<()> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut file = File::from(openat(&self.fd, hidden, WRITE, mode)?);
        io::copy(bytes, &mut file)?;
        Ok(renameat(&self.fd, hidden, &self.fd, name)?)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn folder(mode: u32) -> (tempfile::TempDir, Result<Folder, FolderError>) {
        let made = tempfile::tempdir().unwrap();
        fs::set_permissions(made.path(), fs::Permissions::from_mode(mode)).unwrap();
        let opened = Folder::open(made.path());
        (made, opened)
    }

    fn named(name: &str) -> FileName {
        name.parse().unwrap()
    }

    #[test]
    fn only_a_folder_of_ours_alone_is_taken() {
        for mode in [0o755, 0o750, 0o1777, 0o500] {
            assert!(matches!(folder(mode).1, Err(FolderError::NotOurs { .. })), "{mode:o}");
        }
        let (made, opened) = folder(0o700);
        assert_eq!(opened.unwrap().path(), made.path());
        let (link, file) = (made.path().join("link"), made.path().join("file"));
        std::os::unix::fs::symlink(made.path(), &link).unwrap();
        fs::write(&file, "").unwrap();
        for path in [link, file, made.path().join("none")] {
            assert!(matches!(Folder::open(&path), Err(FolderError::Open { .. })), "{}", path.display());
        }
    }

    #[test]
    fn a_file_is_taken_out_and_nothing_else_is() {
        let (made, folder) = folder(0o700);
        let folder = folder.unwrap();
        fs::write(made.path().join("f.rds"), "bytes").unwrap();
        assert_eq!(folder.take(&named("f.rds"), 5).unwrap().size(), 5);
        assert_eq!(fs::read_dir(made.path()).unwrap().count(), 0);
        assert!(matches!(folder.take(&named("f.rds"), 5), Err(FolderError::Read { .. })));
        fs::write(made.path().join("f.rds"), "bytes").unwrap();
        assert!(matches!(folder.take(&named("f.rds"), 4), Err(FolderError::Spool(SpoolError::TooLarge { .. }))));
        std::os::unix::fs::symlink("/etc/passwd", made.path().join("link")).unwrap();
        assert!(matches!(folder.take(&named("link"), 1 << 20), Err(FolderError::Read { .. })));
        nix::unistd::mkfifo(&made.path().join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(matches!(folder.take(&named("fifo"), 1 << 20), Err(FolderError::NoFile { .. })), "and without waiting");
    }

    #[test]
    fn the_last_large_file_is_kept_until_the_next_one_comes_or_nobody_wants_it() {
        let (made, folder) = folder(0o700);
        let folder = folder.unwrap();
        let take = |bytes: &[u8]| {
            fs::write(made.path().join("f.rds"), bytes).unwrap();
            folder.take(&named("f.rds"), u64::MAX).unwrap()
        };
        let small = take(b"small");
        let first = take(&vec![1; 1 << 20]);
        assert!(!folder.keeps(&small) && folder.keeps(&first));
        let other = take(b"small too");
        assert!(!folder.keeps(&other) && folder.keeps(&first), "a small one takes nobody's place");
        let second = take(&[vec![1; 1 << 20], vec![2; 9]].concat());
        assert!(!folder.keeps(&first) && folder.keeps(&second));
        folder.forget(&first);
        assert!(folder.keeps(&second));
        folder.forget(&second);
        assert!(!folder.keeps(&second));
    }

    #[test]
    fn a_file_that_was_followed_while_it_grew_is_taken_as_it_is() {
        let (made, folder) = folder(0o700);
        let folder = folder.unwrap();
        let (path, other) = (made.path().join("f.rds"), made.path().join("other"));
        let taken_is = |bytes: &[u8]| {
            let taken = folder.take(&named("f.rds"), u64::MAX).unwrap();
            assert_eq!((taken.size(), taken.digest().0), (bytes.len() as u64, *blake3::hash(bytes).as_bytes()));
            assert!(folder.following().is_none());
        };
        let large: Vec<u8> = (0..9_000_000_u32).map(|at| u8::try_from(at % 253).unwrap()).collect();
        // The first one has nothing to be compared with.
        for end in [&b"one"[..], b"the other", b"", &large] {
            fs::write(&path, "").unwrap();
            folder.follow(&named("f.rds"));
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            for part in [&large, end] {
                std::io::Write::write_all(&mut file, part).unwrap();
            }
            taken_is(&[&large, end].concat());
        }
        // Another file has taken its name.
        fs::write(&path, &large).unwrap();
        folder.follow(&named("f.rds"));
        let different = [&large[1..], b"x"].concat();
        fs::write(&other, &different).unwrap();
        fs::rename(&other, &path).unwrap();
        let taken = folder.take(&named("f.rds"), u64::MAX).unwrap();
        assert_eq!(taken.digest().0, *blake3::hash(&different).as_bytes());
        // What is not there is not followed, nor is anything any more that was before it.
        folder.follow(&named("f.rds"));
        assert!(folder.following().is_none());
        fs::write(&path, "small").unwrap();
        folder.follow(&named("f.rds"));
        taken_is(b"small");
        // One that is not posted does not keep what it is compared with.
        fs::write(&path, &large).unwrap();
        let last = folder.take(&named("f.rds"), u64::MAX).unwrap();
        fs::write(&path, "").unwrap();
        folder.follow(&named("f.rds"));
        folder.forget(&last);
        assert!(folder.following().is_none() && !folder.keeps(&last));
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let (made, folder) = folder(0o700);
        let folder = folder.unwrap();
        let name = folder.write("rds", &b"bytes"[..]).unwrap();
        assert_eq!(fs::read(made.path().join(&name)).unwrap(), b"bytes");
        assert_ne!(folder.write("rds", &b"bytes"[..]).unwrap(), name);
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        assert!(matches!(folder.write("rds", Broken), Err(FolderError::Write { .. })));
        assert_eq!(fs::read_dir(made.path()).unwrap().count(), 2, "nothing half is left");
    }
}
