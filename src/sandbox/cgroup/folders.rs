//! The groups below which `p2p-jail` makes one for each task, named after this process; and those of others that are gone.

use std::{
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::unistd::{AccessFlags, access};
use p2p_jail::spec::Identity;

/// What the names of these groups begin with; the number of a process and a number follow.
const PREFIX: &str = "p2p-tasks-";

/// Groups made by this process, removed when this is dropped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Folders(Vec<PathBuf>);

impl Folders {
    /// Makes a group in `base`. Those who run as `become_user` can remove what is in it, and nothing else: limits and
    /// processes of the groups inside are root's.
    pub(super) fn make(&mut self, base: &Path, become_user: Option<Identity>) -> io::Result<PathBuf> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = base.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&folder)?;
        self.0.push(folder.clone());
        if let Some(user) = become_user {
            chown(&folder, Some(user.uid), Some(user.gid))?;
        }
        Ok(folder)
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        self.0.iter().for_each(|folder| remove(folder));
    }
}

/// Removes what processes that are gone have left in `base`. A group in which something still runs stays.
pub(super) fn remove_stale(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            tracing::debug!(group = %entry.path().display(), "left by a process that is gone");
            remove(&entry.path());
        }
    }
}

/// A group and those in it, as far as they are empty. The files in a group cannot be removed, and need not be.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(group = %folder.display(), %error, "a control group stays");
    }
}

/// Whether this process may write to it.
pub(super) fn writable(path: &Path) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
}
