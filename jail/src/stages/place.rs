//! Finding and making places inside the new root without ever following a symbolic link: each step goes from one open
//! folder to the next name in it, with `O_NOFOLLOW`.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use crate::failure::{At, Failure, Outcome};
use crate::prepared::names;
use crate::spec::Stage;

const STAGE: Stage = Stage::Mounts;
const FOLDER: Mode = Mode::from_bits_truncate(0o755);
const FILE: Mode = Mode::from_bits_truncate(0o444);
const HANDLE: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const NEW_FILE: OFlag =
    OFlag::O_CREAT.union(OFlag::O_EXCL).union(OFlag::O_WRONLY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The root file system while it is built.
pub(crate) struct Place<'root>(pub(crate) BorrowedFd<'root>);

impl Place<'_> {
    /// The folder at `path`, made together with its parents where it is missing.
    pub(crate) fn folder(&self, path: &Path) -> Outcome<OwnedFd> {
        let start = openat(self.0, ".", HANDLE, Mode::empty()).at(STAGE, || "opening the new root".into())?;
        names(path)?.into_iter().try_fold(start, |folder, name| descend(folder.as_fd(), name, path))
    }

    /// A place for a mount of a single file: an empty file, unless there is one.
    pub(crate) fn file(&self, path: &Path) -> Outcome<OwnedFd> {
        let (folder, name) = self.parent(path)?;
        match openat(&folder, name, NEW_FILE, FILE) {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).at(STAGE, || format!("making {} in the new root", path.display())),
        }
        openat(&folder, name, HANDLE, Mode::empty()).at(STAGE, || format!("opening {} in the new root", path.display()))
    }

    /// A new file with contents.
    pub(crate) fn write(&self, path: &Path, contents: &[u8]) -> Outcome<()> {
        let (folder, name) = self.parent(path)?;
        let file = openat(folder, name, NEW_FILE, FILE);
        let mut file: std::fs::File = file.at(STAGE, || format!("making {} in the new root", path.display()))?.into();
        file.write_all(contents).at(STAGE, || format!("writing {} in the new root", path.display()))
    }

    /// A new symbolic link.
    pub(crate) fn symlink(&self, target: &Path, at: &Path) -> Outcome<()> {
        let (folder, name) = self.parent(at)?;
        symlinkat(target, folder, name)
            .at(STAGE, || format!("symlinkat {} to {} in the new root", at.display(), target.display()))
    }

    fn parent<'path>(&self, path: &'path Path) -> Outcome<(OwnedFd, &'path OsStr)> {
        let name = names(path)?.pop();
        match (path.parent(), name) {
            (Some(parent), Some(name)) => Ok((self.folder(parent)?, name)),
            _ => Err(Failure::new(STAGE, format!("{} names no file", path.display()))),
        }
    }
}

fn descend(folder: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Outcome<OwnedFd> {
    match mkdirat(folder, name, FOLDER) {
        Ok(()) | Err(Errno::EEXIST) => {}
        // A read-only mount cannot be extended, but what is there can be used; if it is not, the next call says so.
        Err(Errno::EROFS) => {}
        Err(errno) => return Err(errno).at(STAGE, || format!("mkdirat {} in the new root", path.display())),
    }
    openat(folder, name, HANDLE | OFlag::O_DIRECTORY, Mode::empty())
        .at(STAGE, || format!("opening {} (at {name:?}) in the new root", path.display()))
}
