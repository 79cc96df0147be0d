//! Where the programs are that make sandboxes.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use p2p_jail::spec::Identity;

use super::{Bubblewrap, Known, MachineError, ROOT_RUNTIME, numbers};

impl Bubblewrap {
    pub(super) fn discover(search_path: Option<&std::ffi::OsStr>) -> Option<Self> {
        let path = program_on(search_path?, "bwrap")?;
        let output = std::process::Command::new(&path).arg("--version").output().ok()?;
        let version = numbers(String::from_utf8_lossy(&output.stdout).trim().strip_prefix("bubblewrap ")?)?;
        let setuid = fs::metadata(&path).is_ok_and(|file| file.mode() & 0o4000 != 0);
        Some(Self { path, version, setuid })
    }

    /// Whether it is at least this version.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor, 0)
    }
}

pub(super) fn find_jail(known: &Known) -> Result<PathBuf, MachineError> {
    let beside = || {
        let me = std::env::current_exe();
        let failed = |source| MachineError::Read { path: "/proc/self/exe".into(), source };
        me.map(|me| me.with_file_name("p2p-jail")).map_err(failed)
    };
    let path = known.jail.clone().map_or_else(beside, Ok)?;
    match fs::canonicalize(&path) {
        Ok(jail) if executable(&jail) => Ok(jail),
        _ => Err(MachineError::NoJail { path }),
    }
}

/// The first program with this name in the folders of a `$PATH`.
pub(super) fn program_on(search_path: &std::ffi::OsStr, name: &str) -> Option<PathBuf> {
    let folders = std::env::split_paths(search_path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(|path| executable(path))
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0)
}

/// `p2p-jail` where that user can execute it: where it is, if all may; otherwise a copy, named after its contents, in a
/// folder of root's.
pub(super) fn reachable_jail(jail: &Path, user: Identity) -> io::Result<PathBuf> {
    let open_to_all = |path: &Path, bits| fs::metadata(path).is_ok_and(|found| found.mode() & bits == bits);
    if open_to_all(jail, 0o005) && jail.ancestors().skip(1).all(|folder| open_to_all(folder, 0o001)) {
        return Ok(jail.to_owned());
    }
    let contents = fs::read(jail)?;
    let folder = Path::new(ROOT_RUNTIME);
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != 0 || found.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("{ROOT_RUNTIME} is not a folder of root's alone")));
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let copy = folder.join(format!("p2p-jail-{}", blake3::hash(&contents).to_hex()));
    if fs::read(&copy).is_ok_and(|there| there == contents) {
        return Ok(copy);
    }
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut fresh, &contents)?;
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755))?;
    fresh.persist(&copy).map_err(|failed| failed.error)?;
    tracing::debug!(uid = user.uid, copy = %copy.display(), "p2p-jail was copied for the tasks' user");
    Ok(copy)
}
