//! The driver `none`: no sandbox. The task has all rights of the user that it runs as; only its time and its output have
//! limits. It must be asked for by name, the profile must allow it, and every result says so.
//!
//! There is no place that only the task sees, so what others mount is in a folder of the host ([`super::Ready`] makes
//! it), and the command's paths are translated to it.

use std::path::{Path, PathBuf};

use p2p_jail::spec::{Command, Confinement, Container, Spec, Watch};

use super::{
    PlanError,
    confinement::{command, milliseconds},
};
use crate::sandbox::{machine::Machine, profile::Profile, task::Task};

pub(super) fn spec(profile: &Profile, task: &Task, machine: &Machine) -> Result<Spec, PlanError> {
    if machine.root.is_some() {
        return Err(PlanError::RootWithoutSandbox);
    }
    let folder = machine.bare_folder.as_deref().ok_or(PlanError::NoFolder)?;
    Ok(Spec {
        // Root's tasks never run as uid 0, not even here.
        container: Container::None { become_user: machine.become_user },
        confinement: Confinement::default(),
        control_group: None,
        watch: Watch { wall_time_ms: Some(milliseconds(profile.limits.wall_time)), ..Watch::default() },
        command: translate(command(profile, task), &places(profile, task, folder)),
    })
}

/// The files that must be in the folder: path on the host and contents.
pub(super) fn files<'task>(task: &'task Task, folder: &Path) -> Vec<(PathBuf, &'task [u8])> {
    task.files.iter().map(|(path, contents)| (below(folder, path), contents.as_slice())).collect()
}

/// The folders that must be there and belong to the task's user.
pub(super) fn folders(profile: &Profile, folder: &Path) -> Vec<PathBuf> {
    profile.scratch.keys().map(|path| below(folder, path)).collect()
}

/// Where each place inside is on the host.
fn places(profile: &Profile, task: &Task, folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let here = |path: &PathBuf| (path.clone(), below(folder, path));
    let shares = task.shares.iter().map(|share| (share.to.clone(), share.from.clone()));
    profile.scratch.keys().map(here).chain(task.files.iter().map(|(path, _)| here(path))).chain(shares).collect()
}

fn below(folder: &Path, inside: &Path) -> PathBuf {
    folder.join(inside.strip_prefix("/").unwrap_or(inside))
}

fn translate(command: Command, places: &[(PathBuf, PathBuf)]) -> Command {
    let path = |path: &Path| {
        let found = places.iter().find_map(|(inside, outside)| Some(outside.join(path.strip_prefix(inside).ok()?)));
        found.map_or_else(|| path.to_owned(), |found| found.components().collect())
    };
    let list = |text: &str| {
        let parts = text.split(':').map(|part| path(Path::new(part)).to_string_lossy().into_owned());
        if text.is_empty() { String::new() } else { parts.collect::<Vec<_>>().join(":") }
    };
    // `PATH` or `--option=PATH`.
    let argument = |argument: &String| match argument.split_once('=') {
        Some((option, value)) if option.starts_with('-') => format!("{option}={}", list(value)),
        _ => path(Path::new(argument)).to_string_lossy().into_owned(),
    };
    Command {
        argv: command.argv.iter().map(argument).collect(),
        environment: command.environment.iter().map(|(name, value)| (name.clone(), list(value))).collect(),
        directory: path(&command.directory),
    }
}
