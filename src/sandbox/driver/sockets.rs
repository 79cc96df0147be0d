//! Sockets in folders that are shared: a read-only mount keeps nobody from connecting to them, so a task that has sockets
//! could talk to the program behind. Looked for once, when a worker starts; a socket that is made later is not seen.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use super::PlanError;
use crate::sandbox::{machine::Machine, profile::Profile, task::Share};

/// How many files are looked at, of all folders together.
const MOST: usize = 100_000;

/// The system's own folders, which only its packages write to.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib64", "etc", "var/cache/fontconfig"];

/// Refuses a profile whose tasks have sockets and find one of the host's.
pub(super) fn refuse(profile: &Profile, shares: &[Share], machine: &Machine) -> Result<(), PlanError> {
    if !profile.calls.iter().any(|group| group.names.iter().any(|name| name == "connect")) {
        return Ok(());
    }
    let shared = profile.read.iter().map(|(path, readable)| machine.shared(path, readable));
    let system = SYSTEM.map(|folder| machine.outside(&Path::new("/").join(folder)));
    let mut left = MOST;
    for path in shared.chain(shares.iter().map(|share| share.from.clone())) {
        if system.iter().any(|system| path.starts_with(system)) {
            continue;
        }
        if let Some(socket) = find(&path, &mut left) {
            let why =
                "it is a socket, and tasks of this profile have sockets: they could talk to the program behind it";
            return Err(PlanError::Unsafe { path, real: socket, why: why.to_owned() });
        }
        if left == 0 {
            tracing::warn!(folder = %path.display(), "too many files to look for sockets among them all; strict has none");
            return Ok(());
        }
    }
    Ok(())
}

/// A socket in the folder or below; links are not followed, as a task could not either.
fn find(folder: &Path, left: &mut usize) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What cannot be read here cannot be by the task.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            *left = left.checked_sub(1)?;
            match entry.file_type() {
                Ok(kind) if kind.is_socket() => return Some(entry.path()),
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Surroundings;

    #[test]
    fn a_socket_in_a_shared_folder_is_refused_where_tasks_have_sockets() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        let shares = [Share::same(folder.path(), false)];
        let check =
            |name| refuse(&Profile::load(name, &Surroundings::default()).unwrap(), &shares, &Machine::default());
        check("standard").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("deep/agent")).unwrap();
        check("strict").unwrap();
        let error = check("standard").unwrap_err().to_string();
        assert!(error.contains("deep/agent") && error.contains("socket"), "{error}");
        assert_eq!(find(folder.path(), &mut 1), None, "it stops at its bound");
    }
}
