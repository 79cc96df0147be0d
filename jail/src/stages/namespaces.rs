//! Stage *Namespaces*: what a process in fresh namespaces does first, and why they could not be made.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{self, Gid, Uid, sethostname};

use crate::failure::{At, Failure, Outcome};
use crate::spec::{Identity, Stage};
use crate::status::Status;

const STAGE: Stage = Stage::Namespaces;

/// All namespaces that the init is made in. Not the time namespace, which holds nothing back, and not yet the network
/// namespace, which takes the kernel as long as all others and the fork together: see [`make_network`].
pub(crate) const FIRST: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWPID)
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
pub(crate) fn settle(inside: Identity, hostname: &str, host: (Uid, Gid)) -> Outcome<()> {
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{} {} 1", inside.uid, host.0))?;
    write("/proc/self/gid_map", &format!("{} {} 1", inside.gid, host.1))?;
    // If the machine runs out of memory, the task goes first. Not a matter of safety, so a refusal is no failure.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    sethostname(hostname).at(STAGE, || format!("sethostname {hostname:?}"))
}

/// In the task's process, while the init makes the mounts: a network namespace without an interface that is up, owned by the
/// user namespace that both are in.
pub(crate) fn make_network(init: &UnixStream) -> Outcome<()> {
    new_network()?;
    unistd::write(init, b"!").at(STAGE, || "telling the init of the network namespace".into()).map(drop)
}

/// A network namespace for this process, without an interface that is up.
pub(crate) fn new_network() -> Outcome<()> {
    unshare(CloneFlags::CLONE_NEWNET).at(STAGE, || with_hint("unshare of the network namespace"))
}

/// In the init: waits for [`make_network`] and enters the same namespace.
pub(crate) fn join_network(task: &UnixStream, pidfd: &OwnedFd) -> Outcome<()> {
    match unistd::read(task, &mut [0u8; 1]).at(STAGE, || "waiting for the network namespace".into())? {
        1 => setns(pidfd, CloneFlags::CLONE_NEWNET).at(STAGE, || "entering the network namespace (Linux 5.8)".into()),
        // It has said why.
        _ => Err(Failure::new(STAGE, "the task's process has no network namespace")),
    }
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
