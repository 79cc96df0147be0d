//! The files of a board's state: read whole, replaced whole, one writer at a time.
//!
//! A file is replaced by writing another one beside it, bringing that to the disk (fsync), renaming it, and bringing the
//! rename to the disk (fsync of the folder). So whenever the power goes or the process is killed, the file is the old one
//! or the new one; when the disk is full, it is the old one. What a killed writer left beside it, the next one removes.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, chown, fchown},
    path::{Path, PathBuf},
};

use crate::board::ServeError;

/// The most that a file may have, in bytes: some ten thousand keys.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// How the names of files begin that are being written.
const UNFINISHED: &str = ".unfinished-";

/// Which version of a file was read: inode, size and time of change.
pub(super) type Stamp = (u64, u64, i64, i64);

/// A text file of the state.
#[derive(Debug, Clone)]
pub(super) struct StateFile(PathBuf);

impl StateFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Which version is there; `None` when there is none.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let data = fs::metadata(&self.0).ok()?;
        Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
    }

    /// The text, which ends in a line end unless it is empty; nothing where there is no file.
    ///
    /// # Errors
    /// [`ServeError::File`], also for a file that is too large or no text.
    pub(super) fn read(&self) -> Result<String, ServeError> {
        let failed = |source| ServeError::File { act: "read", path: self.0.clone(), source };
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        if file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(failed)? as u64 > MOST_BYTES {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }

    /// Puts another text in its place. Only the holder of the folder's [`lock`] does.
    ///
    /// # Errors
    /// [`ServeError::File`]; the old text is there then.
    pub(super) fn replace(&self, text: &str) -> Result<(), ServeError> {
        // What cannot be read again must not be written.
        let fits = if text.len() as u64 > MOST_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) };
        fits.and_then(|()| write_whole(&self.0, text.as_bytes()))
            .and_then(|file| file.persist(&self.0).map_err(|error| error.error))
            .and_then(|_| sync_folder(&self.0))
            .map_err(|source| ServeError::File { act: "write", path: self.0.clone(), source })
    }
}

/// Waits for the one writer's place in a state folder, and removes what a killed one left. Released when it is dropped.
///
/// # Errors
/// [`ServeError::File`].
pub(super) fn lock(state: &Path) -> Result<File, ServeError> {
    // The name is that of the first file that needed one.
    let path = state.join("accounts.lock");
    let locked = create_lock(&path).and_then(|file| file.lock().map(|()| file));
    let file = locked.map_err(|source| ServeError::File { act: "lock", path, source })?;
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
            // It takes room and does no other harm.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(file)
}

/// Writes a temporary file beside `path`, mode 0600, and brings it to the disk.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    inherit_owner(file.as_file(), path)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes the state folder if it is not there, mode 0700.
pub(super) fn make_folder(state: &Path) -> io::Result<()> {
    if state.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    match owner_to_be(state)? {
        Some((user, group)) => chown(state, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// Makes a file to lock, empty.
pub(super) fn create_lock(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    inherit_owner(&file, path)?;
    Ok(file)
}

/// What root makes belongs to whom the folder belongs: the board may run as an account of its own, which has to read it.
fn inherit_owner(file: &File, path: &Path) -> io::Result<()> {
    match owner_to_be(path)? {
        Some((user, group)) => fchown(file, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// The owner of the folder that `path` is in, where it is not the one that makes things here anyway.
fn owner_to_be(path: &Path) -> io::Result<Option<(u32, u32)>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::metadata(folder.unwrap_or(Path::new(".")))?;
    Ok((folder.uid() != 0).then(|| (folder.uid(), folder.gid())))
}

/// Brings a rename in the folder of `path` to the disk.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_left_is_removed_and_the_rest_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("accounts"));
        file.replace("one\n").unwrap();
        std::mem::forget(write_whole(file.path(), b"half").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        drop(lock(folder.path()).unwrap());
        assert_eq!(file.read().unwrap(), "one\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the lock and the file");
    }

    /// As an ordinary user, nothing is to be given to anybody.
    #[test]
    fn what_root_makes_belongs_to_the_boards_account() {
        let folder = tempfile::tempdir().unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        let owner = if is_root { 65534 } else { nix::unistd::geteuid().as_raw() };
        if is_root {
            chown(folder.path(), Some(owner), Some(owner)).unwrap();
        }
        let state = folder.path().join("state");
        make_folder(&state).unwrap();
        drop(lock(&state).unwrap());
        StateFile::new(state.join("accounts")).replace("x\n").unwrap();
        for path in [&state, &state.join("accounts"), &state.join("accounts.lock")] {
            assert_eq!(fs::metadata(path).unwrap().uid(), owner, "{}", path.display());
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("accounts"));
        assert_eq!(file.read().unwrap(), "");
        fs::write(file.path(), [0xff, 0xfe]).unwrap();
        assert!(matches!(file.read(), Err(ServeError::File { act: "read", .. })));
        let large = "x".repeat(usize::try_from(MOST_BYTES).unwrap() + 1);
        assert!(matches!(file.replace(&large), Err(ServeError::File { act: "write", .. })));
        fs::write(file.path(), large).unwrap();
        assert!(matches!(file.read(), Err(ServeError::File { act: "read", .. })));
    }
}
