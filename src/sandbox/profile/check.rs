//! What no profile may say: values that contradict one another, and places that cannot be had.

use std::{
    path::{Component, Path},
    time::Duration,
};

use super::{
    Place, Profile, ProfileError, Reach,
    error::key_of,
    paths::{Surroundings, overlaps, unsafe_to_share},
};
use crate::sandbox::{
    syscalls::{self, AF_INET, Call},
    units::{show_bytes, show_duration},
};

/// A value that cannot be, and the keys that made it so.
struct Wrong {
    keys: Vec<Vec<String>>,
    what: String,
}

impl Wrong {
    fn limit(key: &str, what: String) -> Self {
        Self { keys: vec![key_of(&["limits"], Path::new(key))], what }
    }

    fn at(table: &[&str], path: &Path, what: String) -> Self {
        Self { keys: vec![key_of(table, path)], what }
    }

    /// What is wrong may be inherited, and wrong since this was changed.
    fn since(mut self, table: &str, key: &str) -> Self {
        self.keys.push(key_of(&[table], Path::new(key)));
        self
    }
}

/// Refuses what contradicts itself and what is not safe.
pub(super) fn check(profile: &Profile, surroundings: &Surroundings) -> Result<(), ProfileError> {
    let place = || Place::of(&profile.name);
    for (path, readable) in &profile.read {
        let from = readable.from.as_deref().unwrap_or(path);
        let why = unsafe_to_share(from, surroundings).or_else(|| place_inside(path, readable.from.is_some()));
        if let Some(why) = why {
            return Err(ProfileError::UnsafePath { place: place(), path: path.clone(), why });
        }
    }
    let wrong =
        limits(profile).or_else(|| scratch(profile)).or_else(|| written(profile)).or_else(|| variables(profile));
    let wrong = wrong.or_else(|| network(profile));
    match wrong {
        Some(Wrong { keys, what }) => Err(ProfileError::Contradiction { place: place(), keys, what }),
        None => Ok(()),
    }
}

/// Why nothing can be put to this place inside.
fn place_inside(path: &Path, elsewhere: bool) -> Option<String> {
    if !elsewhere {
        return None; // It has been checked as a path of the host.
    }
    let plain = path.is_absolute() && !path.components().any(|part| matches!(part, Component::ParentDir));
    let taken = ["/proc", "/dev"].iter().any(|own| overlaps(path, Path::new(own)));
    (!plain || path.parent().is_none() || taken)
        .then(|| "its place inside is an absolute path without .., outside /proc and /dev".to_owned())
}

fn limits(profile: &Profile) -> Option<Wrong> {
    too_small(profile).or_else(|| times(profile)).or_else(|| more_than_memory(profile))
}

fn too_small(profile: &Profile) -> Option<Wrong> {
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
            let (value, least) = (show_bytes(value), show_bytes(least));
            return Some(Wrong::limit(key, format!("limits.{key} = \"{value}\" is less than {least}: {why}")));
        }
    }
    let counts = [
        ("processes", limits.processes, 4, "R, its shell and a program run at once"),
        ("cpus", limits.cpus, 1, "a task without a CPU never ends"),
        (
            "open_files",
            limits.open_files,
            167,
            "R does not start: it wants 100 packages with libraries in 60 % of them",
        ),
    ];
    counts.into_iter().find(|(_, value, least, _)| value < least).map(|(key, value, least, why)| {
        Wrong::limit(key, format!("limits.{key} = {value} is less than {least}: {why}"))
    })
}

fn times(profile: &Profile) -> Option<Wrong> {
    let limits = &profile.limits;
    for (key, value) in [("wall_time", limits.wall_time), ("cpu_time", limits.cpu_time)] {
        if value < Duration::from_secs(1) {
            let what = "limits.wall_time and limits.cpu_time are at least 1 s: R needs a part of that to start";
            return Some(Wrong::limit(key, what.to_owned()));
        }
    }
    let reachable = limits.wall_time.saturating_mul(limits.cpus);
    (limits.cpu_time > reachable).then(|| {
        let (cpu, most) = (show_duration(limits.cpu_time), show_duration(reachable));
        let cpus = limits.cpus;
        Wrong::limit(
            "cpu_time",
            format!("limits.cpu_time = \"{cpu}\" can never be reached: {cpus} CPUs give {most} in wall_time"),
        )
        .since("limits", "wall_time")
        .since("limits", "cpus")
    })
}

/// What is made in memory, or is a part of an address space, cannot be larger.
fn more_than_memory(profile: &Profile) -> Option<Wrong> {
    let limits = &profile.limits;
    let (memory, space) = (show_bytes(limits.memory), show_bytes(limits.address_space));
    if limits.result > limits.memory {
        let what = format!(
            "limits.result = \"{}\" can never be reached: R makes it in limits.memory, which is {memory}",
            show_bytes(limits.result)
        );
        return Some(Wrong::limit("result", what).since("limits", "memory"));
    }
    (limits.stack > limits.address_space / 2).then(|| {
        let stack = show_bytes(limits.stack);
        Wrong::limit(
            "stack",
            format!("limits.stack = \"{stack}\" leaves no room in limits.address_space, which is {space}"),
        )
        .since("limits", "address_space")
    })
}

fn scratch(profile: &Profile) -> Option<Wrong> {
    let memory = profile.limits.memory;
    for (path, scratch) in &profile.scratch {
        let shown = path.display();
        let wrong = |what: String| Some(Wrong::at(&["scratch"], path, format!("scratch.\"{shown}\" {what}")));
        let taken = ["/proc", "/run", "/sys"].iter().any(|own| path.starts_with(own));
        let plain = path.is_absolute() && !path.components().any(|part| matches!(part, Component::ParentDir));
        if !plain || path.parent().is_none() || taken || path == Path::new("/dev") {
            return wrong("must be an absolute path outside /proc, /sys and /run, and not / or /dev itself".to_owned());
        }
        if scratch.size > memory {
            let (size, memory) = (show_bytes(scratch.size), show_bytes(memory));
            return wrong(format!("may hold {size}, but it counts as memory and limits.memory is {memory}"))
                .map(|wrong| wrong.since("limits", "memory"));
        }
        if scratch.size < 64 << 10 || scratch.files < 16 {
            return wrong("needs at least 64 KiB and 16 files to be of use".to_owned());
        }
        if let Some(read) = profile.read.keys().find(|read| path.starts_with(read)) {
            return wrong(format!("lies in {}, which is shared read-only", read.display()))
                .map(|wrong| wrong.since("files", "read"));
        }
    }
    None
}

fn written(profile: &Profile) -> Option<Wrong> {
    for (path, file) in &profile.written {
        let shown = path.display();
        let wrong =
            |what: String| Some(Wrong::at(&["files", "write"], path, format!("files.write.\"{shown}\" {what}")));
        if !path.is_absolute() || file.text.len() > 64 << 10 {
            return wrong("must be an absolute path with at most 64 KiB of text".to_owned());
        }
        let covered = profile.read.keys().chain(profile.scratch.keys()).find(|other| overlaps(path, other));
        if let Some(other) = covered {
            return wrong(format!("and {} cover one another", other.display()));
        }
    }
    None
}

/// A way to the internet that no system call could take.
fn network(profile: &Profile) -> Option<Wrong> {
    let allowed = |name: &str| profile.calls.iter().any(|group| group.names.iter().any(|call| call == name));
    let denied = |call| profile.rules.iter().any(|rule| rule.denies(call, 0, AF_INET));
    let of_inet = matches!(syscalls::call("socket"), Ok(Call::Number(call)) if !denied(call));
    let usable = allowed("socket") && allowed("connect") && of_inet;
    (profile.reach == Reach::Internet && !usable).then(|| {
        let what = "network.reach = \"internet\" without sockets for it: inherit from \"standard\", which has sockets, and \
                    add [syscalls.except.socket-family] with values = [\"AF_INET\"] and a why";
        Wrong { keys: vec![key_of(&["network"], Path::new("reach"))], what: what.to_owned() }
    })
}

fn variables(profile: &Profile) -> Option<Wrong> {
    for (name, value) in &profile.environment {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let wrong = |what: String| Some(Wrong::at(&["environment"], Path::new(name), what));
        if name.is_empty() || !plain || value.contains('\0') {
            return wrong(format!("environment.{name:?} is not a name that a variable can have"));
        }
        if name.starts_with("LD_") {
            return wrong(format!(
                "environment.{name}: variables of the loader decide what code runs; they stay unset"
            ));
        }
    }
    None
}
