//! What no profile may say: values that contradict one another, and paths that are not safe to share.

use std::{
    ffi::OsStr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use super::{Profile, ProfileError};
use crate::sandbox::units::{show_bytes, show_duration};

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
const SYSTEM_SECRETS: [&str; 6] =
    ["/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/ssl/private", "/etc/sudoers", "/etc/machine-id"];

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
    if let Some(state) = surroundings.state.as_deref().filter(|state| overlaps(path, state)) {
        return Some(format!("the worker's own keys are in {}", state.display()));
    }
    let home = surroundings.home.as_deref().filter(|home| home.parent().is_some())?;
    if home.starts_with(path) {
        return Some("your home folder is in it; share a folder in it instead".to_owned());
    }
    let first = path.strip_prefix(home).ok()?.components().next()?;
    SECRETS.iter().any(|secret| first.as_os_str() == OsStr::new(secret)).then(|| "secrets live there".to_owned())
}

/// Whether one of the two is the other or lies in it.
fn overlaps(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Refuses what contradicts itself and what is not safe.
pub(super) fn check(profile: &Profile, surroundings: &Surroundings) -> Result<(), ProfileError> {
    for path in profile.read.keys() {
        if let Some(why) = unsafe_to_share(path, surroundings) {
            return Err(ProfileError::UnsafePath { profile: profile.name.clone(), path: path.clone(), why });
        }
    }
    let wrong =
        limits(profile).or_else(|| scratch(profile)).or_else(|| written(profile)).or_else(|| variables(profile));
    if let Some(what) = wrong {
        return Err(ProfileError::Contradiction { profile: profile.name.clone(), what });
    }
    Ok(())
}

fn limits(profile: &Profile) -> Option<String> {
    let limits = &profile.limits;
    let least = [
        ("memory", limits.memory, 256 << 20, "R itself needs that much"),
        ("address_space", limits.address_space, 512 << 20, "R and its libraries map that much"),
        ("stack", limits.stack, 1 << 20, "R stops with \"C stack usage\" below it"),
        ("file_size", limits.file_size, 1 << 20, "no package could write anything"),
        ("result", limits.result, 64 << 10, "even an error is a result"),
    ];
    for (key, value, least, why) in least {
        if value < least {
            return Some(format!("limits.{key} = \"{}\" is less than {}: {why}", show_bytes(value), show_bytes(least)));
        }
    }
    let counts = [
        ("processes", limits.processes, 4, "R, its shell and a program run at once"),
        ("cpus", limits.cpus, 1, "a task without a CPU never ends"),
        ("open_files", limits.open_files, 32, "R opens about ten files itself"),
    ];
    for (key, value, least, why) in counts {
        if value < least {
            return Some(format!("limits.{key} = {value} is less than {least}: {why}"));
        }
    }
    if limits.wall_time < Duration::from_secs(1) || limits.cpu_time < Duration::from_secs(1) {
        return Some(
            "limits.wall_time and limits.cpu_time are at least 1 s: R needs a part of that to start".to_owned(),
        );
    }
    let reachable = limits.wall_time.saturating_mul(limits.cpus);
    (limits.cpu_time > reachable).then(|| {
        let (cpu, most) = (show_duration(limits.cpu_time), show_duration(reachable));
        format!("limits.cpu_time = \"{cpu}\" can never be reached: {} CPUs give {most} in wall_time", limits.cpus)
    })
}

fn scratch(profile: &Profile) -> Option<String> {
    let memory = profile.limits.memory;
    for (path, scratch) in &profile.scratch {
        let shown = path.display();
        if !path.is_absolute() || path.parent().is_none() || path.starts_with("/proc") || path.starts_with("/run") {
            return Some(format!(
                "scratch.\"{shown}\" must be an absolute path outside /proc and /run, and not / itself"
            ));
        }
        if scratch.size > memory {
            let (size, memory) = (show_bytes(scratch.size), show_bytes(memory));
            return Some(format!(
                "scratch.\"{shown}\" may hold {size}, but it counts as memory and limits.memory is {memory}"
            ));
        }
        if scratch.size < 64 << 10 || scratch.files < 16 {
            return Some(format!("scratch.\"{shown}\" needs at least 64 KiB and 16 files to be of use"));
        }
        if let Some(read) = profile.read.keys().find(|read| path.starts_with(read)) {
            return Some(format!("scratch.\"{shown}\" lies in {}, which is shared read-only", read.display()));
        }
    }
    None
}

fn written(profile: &Profile) -> Option<String> {
    for (path, file) in &profile.written {
        let shown = path.display();
        if !path.is_absolute() || file.text.len() > 64 << 10 {
            return Some(format!("files.write.\"{shown}\" must be an absolute path with at most 64 KiB of text"));
        }
        let covered = profile.read.keys().chain(profile.scratch.keys()).find(|other| overlaps(path, other));
        if let Some(other) = covered {
            return Some(format!("files.write.\"{shown}\" and {} cover one another", other.display()));
        }
    }
    None
}

fn variables(profile: &Profile) -> Option<String> {
    for (name, value) in &profile.environment {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() || !plain || value.contains('\0') {
            return Some(format!("environment.{name:?} is not a name that a variable can have"));
        }
        if name.starts_with("LD_") {
            return Some(format!("environment.{name}: variables of the loader decide what code runs; they stay unset"));
        }
    }
    None
}
