//! Stage *Namespaces*: what a process in fresh namespaces does first, and why they could not be made.

use std::fs;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, sethostname};

use crate::failure::{At, Failure, Outcome};
use crate::spec::{Builtin, Stage};
use crate::status::Status;

const STAGE: Stage = Stage::Namespaces;

/// All namespaces but the time namespace, which holds nothing back.
pub(crate) const ALL: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// Adds namespaces to those that this process is in.
pub(crate) fn add(namespaces: CloneFlags) -> Outcome<()> {
    if namespaces.is_empty() {
        return Ok(());
    }
    unshare(namespaces).at(STAGE, || format!("unshare {namespaces:?}"))
}

/// Files that can forbid user namespaces, and the value with which they do.
const SWITCHES: [(&str, &str); 3] = [
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ("/proc/sys/user/max_user_namespaces", "0"),
];

/// Makes the kernel kill this process when its parent dies, and makes sure that the parent has not died before.
pub(crate) fn die_with_parent(status: &Status) -> Outcome<()> {
    set_pdeathsig(Signal::SIGKILL).at(STAGE, || "prctl PR_SET_PDEATHSIG".into())?;
    if status.is_abandoned() { Err(Failure::new(STAGE, "the process outside has died")) } else { Ok(()) }
}

/// In the child: maps the one user and group, and names the host.
pub(crate) fn settle(builtin: &Builtin, host: (Uid, Gid)) -> Outcome<()> {
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{} {} 1", builtin.inside.uid, host.0))?;
    write("/proc/self/gid_map", &format!("{} {} 1", builtin.inside.gid, host.1))?;
    // If the machine runs out of memory, the task goes first. Not a matter of safety, so a refusal is no failure.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    sethostname(&builtin.hostname).at(STAGE, || format!("sethostname {:?}", builtin.hostname))
}

fn write(path: &str, value: &str) -> Outcome<()> {
    fs::write(path, value).at(STAGE, || with_hint(&format!("writing {value:?} to {path}")))
}

/// Why the namespaces could not be made, with the settings of this machine that forbid them.
pub(crate) fn refused(errno: Errno) -> Failure {
    let what = with_hint("clone with new user, mount, pid, net, ipc, uts and cgroup namespaces");
    Failure { errno: errno as i32, ..Failure::new(STAGE, what) }
}

fn with_hint(what: &str) -> String {
    let forbids = |(path, value): &(&str, &str)| {
        let found = fs::read_to_string(path).ok()?;
        (found.trim() == *value).then(|| format!("{path} is {value}"))
    };
    let hints: Vec<_> = SWITCHES.iter().filter_map(forbids).collect();
    if hints.is_empty() { what.into() } else { format!("{what} ({})", hints.join(", ")) }
}
