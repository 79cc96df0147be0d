//! Control groups of version 2: one hierarchy, of which systemd gives a part to those who ask for it (`Delegate=yes`).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use p2p_jail::spec::{CgroupVersion, Controller, Hierarchy, Identity};

use super::{
    ControlGroups, Obstacle,
    folders::{Folders, remove_stale, writable},
    view::View,
};

/// The leaf into which this process moves, away from the groups with limits. The unit of this repository asks systemd for
/// the same name (`DelegateSubgroup=`, systemd 254), so that there is nothing to move.
const LEAF: &str = "p2p-supervisor";

/// How often the processes of a group are moved out of it: more may be born meanwhile.
const MOST_ROUNDS: u32 = 10;

/// The controllers, and whether there must be one: processors are held by affinity as well.
const CONTROLLERS: [(Controller, &str, bool); 3] =
    [(Controller::Memory, "memory", true), (Controller::Processes, "pids", true), (Controller::Cpu, "cpu", false)];

/// What gives a user delegated groups.
const FIX: &str = "run the worker as a systemd service with Delegate=yes, or with: \
                   systemd-run --user --scope -p Delegate=yes p2p-worker";

pub(super) fn find(view: &View, become_user: Option<Identity>) -> Result<ControlGroups, Obstacle> {
    let own = view.second().ok_or("cgroup v2 is not mounted here")?;
    let base = base_of(own)?;
    let controllers = controllers(&base)?;
    if !is_root_group(&base) && base == own {
        move_out(&base).map_err(|error| format!("{}: {error}", base.join(LEAF).display()))?;
    }
    remove_stale(&base);
    let mut folders = Folders::default();
    let made = enable(&base, &controllers).and_then(|()| {
        let parent = folders.make(&base, become_user)?;
        enable(&parent, &controllers)?;
        Ok(parent)
    });
    let parent = made.map_err(|error| format!("{}: {error}", base.display()))?;
    let controllers = controllers.iter().map(|(controller, _)| *controller).collect();
    Ok(ControlGroups::new(CgroupVersion::V2, vec![Hierarchy { parent, controllers }], folders))
}

/// The group that is ours to divide: our own, or the one around the leaf that we are in already.
fn base_of(own: &Path) -> Result<PathBuf, Obstacle> {
    let around = own.parent().filter(|_| own.file_name().is_some_and(|name| name == LEAF));
    let base = around.filter(|base| is_ours(base)).unwrap_or(own);
    if is_ours(base) {
        return Ok(base.to_owned());
    }
    Err(if usable(base) {
        format!("{} belongs to systemd; {FIX}", base.display())
    } else {
        format!("{} is not writable; {FIX}", base.display())
    })
}

fn usable(base: &Path) -> bool {
    writable(base) && ["cgroup.procs", "cgroup.subtree_control"].iter().all(|file| writable(&base.join(file)))
}

/// Where systemd runs the machine, a group may only be divided by others if it was delegated. It marks those, for all to see
/// since version 251; before, an ordinary user's group with nobody else in it counts as one.
fn is_ours(base: &Path) -> bool {
    let systemd = Path::new("/run/systemd/system").exists();
    usable(base) && (!systemd || p2p_jail::is_delegated(base) || (!geteuid().is_root() && is_alone(base)))
}

/// Whether this process is the only one in the group.
fn is_alone(base: &Path) -> bool {
    fs::read_to_string(base.join("cgroup.procs")).is_ok_and(|pids| pids.trim() == std::process::id().to_string())
}

/// The group at the top of everything, which may have processes as well as divided children, is the only one without this.
fn is_root_group(base: &Path) -> bool {
    !base.join("cgroup.events").exists()
}

fn controllers(base: &Path) -> Result<Vec<(Controller, &'static str)>, Obstacle> {
    let file = base.join("cgroup.controllers");
    let there = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let has = |name: &str| there.split_whitespace().any(|known| known == name);
    if let Some((_, name, _)) = CONTROLLERS.iter().find(|(_, name, needed)| *needed && !has(name)) {
        return Err(format!("{} has no {name} controller; {FIX}", base.display()));
    }
    Ok(CONTROLLERS.iter().filter(|(_, name, _)| has(name)).map(|(controller, name, _)| (*controller, *name)).collect())
}

fn enable(group: &Path, controllers: &[(Controller, &str)]) -> io::Result<()> {
    let wanted: Vec<String> = controllers.iter().map(|(_, name)| format!("+{name}")).collect();
    fs::write(group.join("cgroup.subtree_control"), wanted.join(" "))
}

/// Moves this process, and whoever else is in the group (a shell that started it), into a leaf.
fn move_out(base: &Path) -> io::Result<()> {
    let leaf = base.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let join = leaf.join("cgroup.procs");
    for _ in 0..MOST_ROUNDS {
        let pids = fs::read_to_string(base.join("cgroup.procs"))?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids.lines() {
            match fs::write(&join, pid) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => {}
                result => result?,
            }
        }
    }
    Err(io::Error::other("its processes cannot be moved: there are always new ones"))
}
