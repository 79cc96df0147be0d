//! The files of a task: a profile, a task and this machine brought together as a list of mounts and the Landlock
//! ruleset that repeats them. Every driver that makes a container carries out this one list.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use p2p_jail::spec::{Landlock, Mount};

use super::PlanError;
use crate::sandbox::{
    machine::{HostPath, Machine, PathKind},
    profile::{Profile, unsafe_to_share},
    task::{Share, Task},
};

/// The devices that every task has. `/dev/zero` is not one of them: a shared mapping of it is anonymous shared memory, which
/// the watch does not see where it is not mapped (the profiles deny the other way to it, see `mmap-shared-anonymous`).
pub(super) const DEVICES: [&str; 4] = ["/dev/null", "/dev/full", "/dev/random", "/dev/urandom"];

/// What a task sees of files.
#[derive(Debug, Default)]
pub(super) struct World {
    /// By path inside, so that parents come before what is in them.
    mounts: BTreeMap<PathBuf, Mount>,
    /// The ruleset, without its minimum ABI.
    pub(super) landlock: Landlock,
    /// The mount points of what counts as memory.
    pub(super) tmpfs: Vec<PathBuf>,
}

impl World {
    /// Brings profile, task and machine together.
    pub(super) fn build(profile: &Profile, task: &Task, machine: &Machine) -> Result<Self, PlanError> {
        let mut world = Self::default();
        world.own();
        for (path, scratch) in &profile.scratch {
            let mount = Mount::Tmpfs { to: path.clone(), bytes: scratch.size, inodes: scratch.files };
            world.mounts.insert(path.clone(), mount);
            world.landlock.read_write.push(path.clone());
            if scratch.execute {
                world.landlock.read_execute.push(path.clone());
            }
            world.tmpfs.push(path.clone());
        }
        for (path, readable) in &profile.read {
            let share = Share { from: machine.shared(path, readable), to: path.clone(), execute: readable.execute };
            world.host(&share, readable.optional, machine)?;
        }
        for share in &task.shares {
            world.host(share, false, machine)?;
        }
        let written = profile.written.iter().map(|(path, file)| (path, file.text.as_bytes()));
        for (path, contents) in written.chain(task.files.iter().map(|(path, contents)| (path, contents.as_slice()))) {
            world.file(path, contents)?;
        }
        Ok(world)
    }

    /// The mounts in an order in which they can be made.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        self.mounts.values().cloned().collect()
    }

    /// What is the task's own whatever the profile says.
    fn own(&mut self) {
        let proc = Mount::Proc { to: "/proc".into(), only_processes: true };
        self.mounts.insert("/proc".into(), proc);
        self.mounts.insert("/dev".into(), Mount::Devices { to: "/dev".into() });
        self.landlock.list.push("/".into());
        self.landlock.read.push("/proc".into());
        self.landlock.files_read_write.extend(DEVICES.map(PathBuf::from));
    }

    /// A file or folder of the host, or the same link as there.
    fn host(&mut self, share: &Share, optional: bool, machine: &Machine) -> Result<(), PlanError> {
        let Some(found) = machine.paths.get(&share.from) else {
            let absent = || PlanError::Absent { path: share.from.clone() };
            return if optional { Ok(()) } else { Err(absent()) };
        };
        safe(share, found, machine)?;
        match self.covering(&share.to) {
            Some(Mount::Bind { from, to, .. })
                if share.to.strip_prefix(to).ok() == share.from.strip_prefix(from).ok() =>
            {
                // It is there already; only the right to execute can be new.
                self.grant(share);
                return Ok(());
            }
            Some(Mount::Symlink { .. }) if in_place(share, machine) => return Ok(()),
            Some(_) => return Err(PlanError::Covered { path: share.to.clone() }),
            None => {}
        }
        let mount = match &found.kind {
            PathKind::Symlink(target) if in_place(share, machine) => {
                Mount::Symlink { target: target.clone(), at: share.to.clone() }
            }
            _ => {
                self.grant(share);
                Mount::Bind { from: share.from.clone(), to: share.to.clone(), writable: false }
            }
        };
        self.mounts.insert(share.to.clone(), mount);
        Ok(())
    }

    fn file(&mut self, path: &Path, contents: &[u8]) -> Result<(), PlanError> {
        if self.mounts.contains_key(path) || self.covering(path).is_some() {
            return Err(PlanError::Covered { path: path.to_owned() });
        }
        self.mounts.insert(path.to_owned(), Mount::File { at: path.to_owned(), contents: contents.to_owned() });
        self.grant(&Share::same(path, false));
        Ok(())
    }

    /// The mount at this path or in the nearest of its parents that has one.
    fn covering(&self, path: &Path) -> Option<&Mount> {
        path.ancestors().find_map(|parent| self.mounts.get(parent))
    }

    /// Landlock rules: nothing is granted twice, and all that is in `/etc` is there to be read.
    fn grant(&mut self, share: &Share) {
        let path = if share.execute || !share.to.starts_with("/etc") { share.to.as_path() } else { Path::new("/etc") };
        let granted = |list: &[PathBuf]| list.iter().any(|parent| path.starts_with(parent));
        if granted(&self.landlock.read_execute) || (!share.execute && granted(&self.landlock.read)) {
            return;
        }
        let list = if share.execute { &mut self.landlock.read_execute } else { &mut self.landlock.read };
        list.push(path.to_owned());
    }
}

/// Whether the place inside is the same as outside.
fn in_place(share: &Share, machine: &Machine) -> bool {
    share.from == machine.outside(&share.to)
}

/// The path as written was checked with the profile; this checks where it leads to, and what it is.
fn safe(share: &Share, found: &HostPath, machine: &Machine) -> Result<(), PlanError> {
    let refuse = |why: String| PlanError::Unsafe { path: share.from.clone(), real: found.real.clone(), why };
    if found.kind == PathKind::Special {
        return Err(refuse("it is a socket, a pipe or a device".to_owned()));
    }
    if !share.to.is_absolute() || share.to.parent().is_none() {
        return Err(refuse("its place inside must be an absolute path".to_owned()));
    }
    // A link is not followed but repeated, so where it leads to is shared only if something else shares it.
    let repeated = matches!(found.kind, PathKind::Symlink(_)) && in_place(share, machine);
    if repeated || found.real == machine.jail_for_tasks {
        return Ok(());
    }
    if let Some(root) = machine.root.as_ref().filter(|root| share.from.starts_with(root)) {
        let within = found.real.starts_with(root);
        return if within { Ok(()) } else { Err(refuse("it leads out of the root file system".to_owned())) };
    }
    match unsafe_to_share(&share.from, &machine.surroundings)
        .or_else(|| unsafe_to_share(&found.real, &machine.surroundings))
    {
        Some(why) => Err(refuse(why)),
        None => Ok(()),
    }
}
