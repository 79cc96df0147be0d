//! The groups below which `p2p-jail` makes one for each task, named after this process; and those of others that are gone.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::{
        fd::IntoRawFd,
        unix::fs::{MetadataExt, chown},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::unistd::{AccessFlags, access};
use p2p_jail::spec::Identity;

/// What the names of these groups begin with; the number of a process and a number follow.
const PREFIX: &str = "p2p-tasks-";

/// How often a name is tried that somebody else takes away before it is locked.
const ATTEMPTS: usize = 8;

/// Groups made by this process, removed when this is dropped.
///
/// Each is locked (flock(2)) for as long: that tells others that somebody uses it, whether or not they see this process
/// (another process namespace, a covered `/proc`).
#[derive(Debug, Default)]
pub(super) struct Folders(Vec<(PathBuf, File)>);

impl PartialEq for Folders {
    fn eq(&self, other: &Self) -> bool {
        self.paths().eq(other.paths())
    }
}

impl Eq for Folders {}

impl Folders {
    /// Makes a group in `base`. Those who run as `become_user` can remove what is in it, and nothing else: limits and
    /// processes of the groups inside are root's.
    pub(super) fn make(&mut self, base: &Path, become_user: Option<Identity>) -> io::Result<PathBuf> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        for _ in 0..ATTEMPTS {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = base.join(format!("{PREFIX}{}-{number}", std::process::id()));
            fs::create_dir(&folder)?;
            // Until it is locked, another program that starts may take it for a stale one.
            let Some(lock) = locked(&folder)? else { continue };
            self.0.push((folder.clone(), lock));
            if let Some(user) = become_user {
                chown(&folder, Some(user.uid), Some(user.gid))?;
            }
            return Ok(folder);
        }
        Err(io::Error::other(format!("groups in {} are taken away as soon as they are made", base.display())))
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        self.paths().for_each(remove);
    }
}

/// Starts a process that removes these folders when this one has ended, however it does, as soon as nothing is in them.
pub(super) fn sweep_after_death<'path>(jail: &Path, folders: impl Iterator<Item = &'path Path>) -> io::Result<()> {
    let mut sweeper = Command::new(jail)
        .arg("sweep")
        .args(folders)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // The pipe closes with this process, which is what the other one waits for; it is closed on exec, so nobody else has it.
    if let Some(pipe) = sweeper.stdin.take() {
        let _ = pipe.into_raw_fd();
    }
    Ok(())
}

/// The lock of a group that was just made, unless somebody else has it or the group is gone already.
fn locked(folder: &Path) -> io::Result<Option<File>> {
    let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
    let lock = match File::open(folder) {
        Ok(lock) => lock,
        Err(error) => return gone(error),
    };
    // Without waiting: whoever can list the folder can lock it too, and must not hold up the start.
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    match fs::metadata(folder) {
        Ok(there) => Ok((there.ino() == lock.metadata()?.ino()).then_some(lock)),
        Err(error) => gone(error),
    }
}

/// Removes what processes that are gone have left in `base`. A group in which something still runs stays.
pub(super) fn remove_stale(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(is_ours) {
            continue;
        }
        // Held until it is removed, so that nobody begins to use it meanwhile.
        if let Ok(lock) = File::open(entry.path())
            && lock.try_lock().is_ok()
        {
            tracing::debug!(group = %entry.path().display(), "left by a process that is gone");
            remove(&entry.path());
        }
    }
}

fn is_ours(name: &str) -> bool {
    let numbers = name.strip_prefix(PREFIX).and_then(|numbers| numbers.split_once('-'));
    numbers.is_some_and(|(pid, number)| pid.parse::<u32>().is_ok() && number.parse::<u64>().is_ok())
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
