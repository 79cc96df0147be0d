//! `p2p-jail sweep PATH...`: removes the folders of a worker's control groups when the worker has died.
//!
//! The monitors remove the groups of their tasks, but not the folders around them: where root started them, they have become
//! an ordinary user by then. This process keeps the rights that it was started with, has no part in any task, and takes no
//! orders but the paths that it is started with: it waits for the end of its standard input, which comes with the end of
//! whoever holds the other end, however that may be.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::poll::{PollTimeout, poll};
use nix::unistd::setsid;

/// How often it is tried, and how long between two tries, in milliseconds: the monitors have to see the end too.
const MOST_TRIES: u32 = 3_000;
const BETWEEN_MS: u8 = 10;

/// Always succeeds: what cannot be removed, the next start removes.
pub(crate) fn sweep(mut folders: Vec<PathBuf>) -> ExitCode {
    // A signal to the worker and its like at a terminal must not end this first.
    let _ = setsid();
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    for _ in 0..MOST_TRIES {
        folders.retain(|folder| !is_gone_after(folder));
        if folders.is_empty() {
            break;
        }
        let _ = poll(&mut [], PollTimeout::from(BETWEEN_MS));
    }
    ExitCode::SUCCESS
}

/// Removes the folder and the groups in it as far as nothing is in them: whether it is gone.
fn is_gone_after(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder) else { return !folder.exists() };
    // The worker holds the lock for as long as it lives; another one may be removing the folder at this moment.
    if lock.try_lock().is_err() {
        return false;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
    !folder.exists()
}
