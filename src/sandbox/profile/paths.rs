//! Paths of the host that are not safe to share with tasks, not even read-only.

use std::{
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

/// The places that belong to the owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The owner's home folder.
    pub home: Option<PathBuf>,
    /// The folder in which the worker keeps its keys and results.
    pub state: Option<PathBuf>,
}

/// Folders of the host that are never shared, nor anything in them, and why.
const NEVER: [(&str, &str); 6] = [
    ("/proc", "it shows the host's processes; a task gets its own"),
    ("/sys", "it shows and controls the host's devices"),
    ("/dev", "it holds the host's devices; a task gets its own few"),
    ("/run", "sockets live there (D-Bus, Docker, agents)"),
    ("/var/run", "sockets live there (D-Bus, Docker, agents)"),
    ("/boot", "no R code needs the kernel's files"),
];

/// Folders that are not shared whole, though one in them may be.
const NOT_WHOLE: [&str; 2] = ["/tmp", "/var/tmp"];

/// Entries of a home folder in which secrets live.
const SECRETS: [&str; 18] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".config",
    ".docker",
    ".kube",
    ".mozilla",
    ".netrc",
    ".pgpass",
    ".password-store",
    ".git-credentials",
    ".gitconfig",
    ".Renviron",
    ".Rprofile",
    ".bash_history",
    ".Rhistory",
    ".thunderbird",
];

/// Single places of the system in which secrets live.
const SYSTEM_SECRETS: [&str; 17] = [
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/machine-id",
    "/etc/krb5.keytab",
    "/etc/wireguard",
    "/etc/NetworkManager",
    "/etc/p2p-worker",
    "/var/lib/NetworkManager",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/private",
    "/var/spool/cron",
];

/// Folders in which homes are.
const HOMES: [&str; 2] = ["/home", "/var/home"];

/// Why a path of the host must not be shared with a task, not even read-only; `None` when it may.
#[must_use]
pub fn unsafe_to_share(path: &Path, surroundings: &Surroundings) -> Option<String> {
    if !path.is_absolute() || path.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir)) {
        return Some("give an absolute path without . and ..".to_owned());
    }
    if path.parent().is_none() {
        return Some("it is everything".to_owned());
    }
    if let Some((_, why)) = NEVER.iter().find(|(never, _)| overlaps(path, Path::new(never))) {
        return Some((*why).to_owned());
    }
    if NOT_WHOLE.iter().any(|folder| Path::new(folder).starts_with(path)) {
        return Some("other programs' files and sockets live there; share one folder in it instead".to_owned());
    }
    if SYSTEM_SECRETS.iter().any(|secret| overlaps(path, Path::new(secret))) {
        return Some("keys and accounts of this machine are there".to_owned());
    }
    let state = surroundings.state.as_deref().filter(|state| overlaps(path, state));
    in_home(path, surroundings.home.as_deref().filter(|home| home.parent().is_some()))
        .or_else(|| state.map(|state| format!("the worker's own keys are in {}", state.display())))
}

/// What of a home must not be shared: none whole, no secret of any, and of another user's nothing, unless the owner is the
/// system's (root, a service) rather than one of those who have homes there.
fn in_home(path: &Path, own: Option<&Path>) -> Option<String> {
    let of_others = || HOMES.iter().find_map(|homes| home_in(path, homes)).or_else(|| root_home(path));
    let (home, is_own) = match own.filter(|own| path.starts_with(own) || own.starts_with(path)) {
        Some(own) => (own.to_owned(), true),
        None if HOMES.iter().any(|homes| Path::new(homes).starts_with(path)) => {
            return Some("all home folders are in it; share a folder in one instead".to_owned());
        }
        None => (of_others()?, false),
    };
    if home.starts_with(path) {
        let whose = match (is_own, home == path) {
            (true, true) => "it is your home folder",
            (true, false) => "your home folder is in it",
            (false, _) => "it is a home folder",
        };
        return Some(format!("{whose}; share a folder in it instead"));
    }
    let first = path.strip_prefix(&home).ok()?.components().next()?;
    if SECRETS.iter().any(|secret| first.as_os_str() == OsStr::new(secret)) {
        return Some("secrets live there".to_owned());
    }
    let among_homes = own.is_some_and(|own| HOMES.iter().any(|homes| own.starts_with(homes)));
    (!is_own && among_homes).then(|| format!("it is in the home folder of another user, {}", home.display()))
}

/// The home folder in `homes` that the path leads into.
fn home_in(path: &Path, homes: &str) -> Option<PathBuf> {
    let user = path.strip_prefix(homes).ok()?.components().next()?;
    Some(Path::new(homes).join(user))
}

fn root_home(path: &Path) -> Option<PathBuf> {
    path.starts_with("/root").then(|| PathBuf::from("/root"))
}

/// Whether one of the two is the other or lies in it.
pub(super) fn overlaps(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}
