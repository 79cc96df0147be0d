//! The driver `bubblewrap`: bwrap(1) makes the namespaces and the mounts; `p2p-jail confine`, executed inside, applies
//! the same limits, Landlock ruleset and seccomp filter as in the built-in jail, and `p2p-jail run` watches from outside.
//!
//! bubblewrap copies the files made up for the task from descriptors that `p2p-jail` gives it
//! ([`p2p_jail::spec::FILES_FD`] and following), so nothing is written to the host. What it cannot do: limit the number of
//! files of a tmpfs (the watch counts them), and mount a `/proc` without
//! the kernel's own files: those that tell most are covered, the rest is read-only; and what it shows of
//! bubblewrap's own process 1 is covered whole.

use std::path::Path;

use p2p_jail::spec::{Container, External, FILES_FD, Mount, PROGRAM_FD, Spec};

use super::{
    PlanError,
    confinement::{command, confinement, control_group, watch},
    world::{DEVICES, World},
};
use crate::sandbox::{
    machine::{Bubblewrap, KERNEL_FILES, Machine},
    profile::{Profile, TASK_HOSTNAME, TASK_ID},
    task::{Share, Task},
};

/// Where `p2p-jail` is inside.
pub(in crate::sandbox) const JAIL_INSIDE: &str = "/run/p2p-jail";

/// The oldest version that has `--perms` and `--clearenv`.
pub(in crate::sandbox) const OLDEST: (u32, u32) = (0, 5);

/// The oldest version that can limit the size of a tmpfs.
pub(in crate::sandbox) const LIMITS_SIZE: (u32, u32) = (0, 7);

/// The oldest version that can forbid user namespaces inside; a set-uid one cannot. The filter of system calls does anyway.
const FORBIDS_NESTED: (u32, u32) = (0, 8);

/// What `/proc` shows of bubblewrap's own process 1.
const INIT: &str = "/proc/1";

/// The links of `/dev`.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

pub(super) fn spec(profile: &Profile, task: &Task, machine: &Machine) -> Result<Spec, PlanError> {
    let bubblewrap = machine.bubblewrap.as_ref().ok_or(PlanError::NoBubblewrap)?;
    if !bubblewrap.at_least(OLDEST.0, OLDEST.1) {
        return Err(PlanError::OldBubblewrap { version: bubblewrap.version });
    }
    let mut with_jail = task.clone();
    if !task.shares.iter().any(|share| share.to == Path::new(JAIL_INSIDE)) {
        with_jail.shares.push(Share { from: machine.jail_for_tasks.clone(), to: JAIL_INSIDE.into(), execute: false });
    }
    let world = World::build(profile, &with_jail, machine)?;
    let mut arguments = Arguments::new(bubblewrap);
    for mount in &world.mounts() {
        arguments.mount(mount, bubblewrap);
        if let Mount::Proc { .. } = mount {
            arguments.cover_kernel_files(machine);
            arguments.cover_init();
        }
    }
    arguments.add(&["--remount-ro", "/", "--chdir", "/", "--", JAIL_INSIDE, "confine"]);
    let external = External {
        become_user: machine.become_user,
        argv: arguments.argv,
        environment: Vec::new(),
        files: arguments.files,
    };
    Ok(Spec {
        container: Container::External(external),
        confinement: confinement(profile, task, machine, &world),
        watch: watch(profile, machine, &world),
        // bwrap itself stays outside of the namespaces that it makes.
        control_group: control_group(profile, machine, 1),
        command: command(profile, task),
    })
}

/// A command line in the making.
struct Arguments {
    argv: Vec<String>,
    files: Vec<Vec<u8>>,
}

impl Arguments {
    fn new(bubblewrap: &Bubblewrap) -> Self {
        let id = TASK_ID.to_string();
        let mut arguments = Self { argv: vec![text(&bubblewrap.path)], files: Vec::new() };
        arguments.add(&["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]);
        arguments.add(&["--unshare-cgroup", "--uid", &id, "--gid", &id, "--hostname", TASK_HOSTNAME]);
        if bubblewrap.at_least(FORBIDS_NESTED.0, FORBIDS_NESTED.1) && !bubblewrap.setuid {
            arguments.add(&["--disable-userns"]);
        }
        arguments.add(&["--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv"]);
        arguments
    }

    fn add(&mut self, more: &[&str]) {
        self.argv.extend(more.iter().map(|&argument| argument.to_owned()));
    }

    fn mount(&mut self, mount: &Mount, bubblewrap: &Bubblewrap) {
        match mount {
            // A copy, as /proc/self/mountinfo tells where on the host a mount comes from.
            Mount::Bind { to, .. } if to == Path::new(JAIL_INSIDE) => {
                self.add(&["--perms", "0555", "--file", &PROGRAM_FD.to_string(), JAIL_INSIDE]);
            }
            Mount::Bind { from, to, writable } => {
                self.add(&[if *writable { "--bind" } else { "--ro-bind" }, &text(from), &text(to)]);
            }
            Mount::Tmpfs { to, bytes, .. } => {
                self.add(&["--perms", "1777"]);
                if bubblewrap.at_least(LIMITS_SIZE.0, LIMITS_SIZE.1) {
                    self.add(&["--size", &bytes.to_string()]);
                }
                self.add(&["--tmpfs", &text(to)]);
            }
            Mount::Proc { to, .. } => self.add(&["--proc", &text(to)]),
            Mount::Devices { .. } => self.devices(),
            Mount::Symlink { target, at } => self.add(&["--symlink", &text(target), &text(at)]),
            Mount::File { at, contents } => {
                let descriptor = usize::try_from(FILES_FD).unwrap_or_default() + self.files.len();
                self.add(&["--perms", "0444", "--file", &descriptor.to_string(), &text(at)]);
                self.files.push(contents.clone());
            }
            Mount::Directory { at } => self.add(&["--dir", &text(at)]),
        }
    }

    /// With `/dev/null`, which cannot even be opened there, as the mount is `nodev`.
    fn cover_kernel_files(&mut self, machine: &Machine) {
        for path in KERNEL_FILES.iter().filter(|path| machine.paths.contains_key(Path::new(path))) {
            self.add(&["--ro-bind", "/dev/null", path]);
        }
    }

    /// With an empty folder. bubblewrap's own process 1 is of the task's user and may be traced: its command line tells
    /// paths of the host, and its memory could be written to, by a task that has no Landlock domain around it. It has no
    /// filter of system calls and no limits.
    fn cover_init(&mut self) {
        self.add(&["--perms", "0555", "--tmpfs", INIT, "--remount-ro", INIT]);
    }

    /// As [`Mount::Devices`] of the built-in jail; bubblewrap's own `--dev` would add terminals.
    fn devices(&mut self) {
        for device in DEVICES {
            self.add(&["--dev-bind", device, device]);
        }
        for (target, at) in LINKS {
            self.add(&["--symlink", target, at]);
        }
    }
}

/// Paths come from the owner's profile and installation; one that is not UTF-8 cannot be named in a profile.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
