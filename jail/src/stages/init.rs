//! Stage *Init*: process 1 of the task's process namespace.
//!
//! It makes the root file system, forks the task's own process, gives up every right that it has, then reaps whatever
//! ends. When the command has ended it says how and ends too, upon which the kernel kills all that is left in the namespace.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::exit;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::unistd::{Gid, Pid, Uid, read, write};

use crate::control::{Control, TaskDescriptors};
use crate::failure::{At, Failure, Outcome};
use crate::prepared::Prepared;
use crate::spec::{Ahead, Builtin, Container, Exit, Ipv4Block, Spec, Stage};
use crate::stages::{descriptors, landlock, mounts, namespaces, network, privileges, seccomp, tail};
use crate::status::{Note, Status};
use crate::sys::{self, Forked};

const STAGE: Stage = Stage::Init;

/// What is reported of the namespaces.
const NAMESPACES: &str = "user, mount, pid, net, ipc, uts, cgroup";

/// The task's process as the init knows it.
struct TaskProcess {
    pid: Pid,
    pidfd: OwnedFd,
    /// Over which the two wait for each other.
    socket: UnixStream,
}

/// What the init starts with.
pub(crate) struct Init<'a> {
    /// The whole order.
    pub(crate) spec: &'a Spec,
    /// The same, checked and compiled; otherwise the task's process does that, while the init makes the mounts.
    pub(crate) prepared: Option<&'a Prepared>,
    /// The container.
    pub(crate) builtin: &'a Builtin,
    /// For the task's process.
    pub(crate) descriptors: TaskDescriptors,
    /// To the monitor, until the init has locked itself up.
    pub(crate) status: Status,
    /// To the monitor: how the command ended, see [`parse_exit`].
    pub(crate) outcome: OwnedFd,
    /// For a task with a way to the internet: told when pasta can come, and what is closed to the task.
    pub(crate) uplink: Option<(UnixStream, Vec<Ipv4Block>)>,
}

/// An init that is started before there is a task: what it starts with.
pub(crate) struct Early<'a> {
    /// What can be made by now.
    pub(crate) ahead: &'a Ahead,
    /// To the monitor.
    pub(crate) status: Status,
    /// To the monitor: how the command ended.
    pub(crate) outcome: OwnedFd,
    /// User and group on the host.
    pub(crate) host: (Uid, Gid),
    /// From the monitor: the one order.
    pub(crate) orders: UnixStream,
}

impl Early<'_> {
    /// Everything that process 1 does.
    pub(crate) fn run(self) -> ! {
        match self.wait() {
            Ok((spec, descriptors)) => match &spec.container {
                Container::Builtin(builtin) => {
                    let Self { status, outcome, orders, .. } = self;
                    drop(orders);
                    let init =
                        Init { spec: &spec, prepared: None, builtin, descriptors, status, outcome, uplink: None };
                    let started = init.fork_task();
                    init.go_on(started)
                }
                _ => self.status.refuse(Failure::new(Stage::Spec, "the container is not what was made ahead")),
            },
            Err(failure) => self.status.refuse(failure),
        }
        exit(1)
    }

    /// Makes what can be made, and waits for the order. Until then no other process of this user can look into this one.
    fn wait(&self) -> Outcome<(Spec, TaskDescriptors)> {
        let Self { ahead, status, outcome, host, orders } = self;
        descriptors::close_all_but(0, &[status.as_fd().as_raw_fd(), outcome.as_raw_fd(), orders.as_raw_fd()])?;
        namespaces::die_with_parent(status)?;
        namespaces::settle(ahead.inside, &ahead.hostname, *host)?;
        namespaces::new_network()?;
        set_dumpable(false).at(STAGE, || "prctl PR_SET_DUMPABLE in the init".into())?;
        status.stage(Stage::Namespaces, NAMESPACES)?;
        let orders = orders.try_clone().at(Stage::Spec, || "dup of the socket for orders".into())?;
        Control::new(orders.into()).receive()
    }
}

impl Init<'_> {
    /// Everything that process 1 does. `host` are user and group on the host.
    pub(crate) fn run(self, host: (Uid, Gid)) -> ! {
        let uplink = self.uplink.as_ref().map(|(ready, _)| ready.as_raw_fd());
        let kept = [
            self.descriptors.stdin.as_raw_fd(),
            self.descriptors.frames.as_raw_fd(),
            self.descriptors.text.as_raw_fd(),
            self.status.as_fd().as_raw_fd(),
            self.outcome.as_raw_fd(),
        ];
        let kept: Vec<_> = kept.into_iter().chain(uplink).collect();
        let started = descriptors::close_all_but(0, &kept).and_then(|()| {
            namespaces::die_with_parent(&self.status)?;
            namespaces::settle(self.builtin.inside, &self.builtin.hostname, host)?;
            if let Some((ready, closed)) = &self.uplink {
                write(ready, b"!").at(STAGE, || "telling the monitor of the network namespace".into())?;
                network::connect(closed)?;
            }
            self.fork_task()
        });
        self.go_on(started)
    }

    fn go_on(self, started: Outcome<TaskProcess>) -> ! {
        // When the task is to be killed, it is this process that has to do it.
        let _ = sys::ask_for_short_turns();
        match &started {
            Ok(task) => match self.finish(task) {
                Ok(()) => reap(task.pid, &self.outcome),
                // What the task's process waits on is still open, or it would make a refusal of its own.
                Err(failure) => self.status.refuse(failure),
            },
            Err(failure) => self.status.refuse(failure.clone()),
        }
        exit(1)
    }

    /// Forks the task's process, which makes the network namespace (or, where there is one, compiles the filters): that takes
    /// the kernel almost as long as all mounts, which this process makes meanwhile. Then it waits until the init has locked
    /// itself up.
    fn fork_task(&self) -> Outcome<TaskProcess> {
        let (ours, its) = UnixStream::pair().at(STAGE, || "socketpair".into())?;
        match sys::fork(CloneFlags::empty()).at(STAGE, || "forking the task's process".into())? {
            Forked::Child => {
                drop(ours);
                self.run_task(its)
            }
            Forked::Parent { pid, pidfd } => Ok(TaskProcess { pid, pidfd, socket: ours }),
        }
    }

    fn finish(&self, task: &TaskProcess) -> Outcome<()> {
        let mounted = mounts::build(&self.builtin.mounts);
        if self.prepared.is_some() {
            if self.uplink.is_none() {
                namespaces::join_network(&task.socket, &task.pidfd)?;
            }
            self.status.stage(Stage::Namespaces, NAMESPACES)?;
        }
        let processes = mounted?;
        if self.spec.confinement.no_nested_user_namespaces {
            mounts::forbid_user_namespaces(processes.as_fd())?;
        }
        self.status.send(&Note::Processes, &[processes.as_raw_fd()]).at(Stage::Mounts, || "sending /proc".into())?;
        self.status.stage(Stage::Mounts, format!("{} mounts", self.builtin.mounts.len()))?;
        let status = self.status.as_fd().as_raw_fd();
        drop(processes);
        let kept = [status, self.outcome.as_raw_fd(), task.socket.as_raw_fd(), task.pidfd.as_raw_fd()];
        descriptors::close_all_but(0, &kept)?;
        lock_up()?;
        sys::close_range(status, status).at(STAGE, || "closing the status socket".into())?;
        write(&task.socket, b"!").at(STAGE, || "letting the task go on".into()).map(drop)
    }

    fn run_task(&self, init: UnixStream) -> ! {
        // The socket stays open until after the refusal: were it to close before, the init would make one of its own.
        let own;
        let prepared = match self.prepared {
            Some(prepared) if self.uplink.is_some() => Ok(prepared),
            Some(prepared) => namespaces::make_network(&init).map(|()| prepared),
            None => match Prepared::new(self.spec.clone()) {
                Ok(compiled) => {
                    own = compiled;
                    Ok(&own)
                }
                Err(failure) => Err(failure),
            },
        };
        match prepared.and_then(|prepared| Ok((prepared, self.join(&init)?))) {
            Ok((prepared, status)) => tail::run(prepared, &status, true),
            Err(failure) => self.status.refuse(failure),
        }
        exit(127)
    }

    fn join(&self, init: &UnixStream) -> Outcome<Status> {
        match read(init, &mut [0u8; 1]).at(STAGE, || "waiting for the init".into())? {
            1 => self.status.stage(STAGE, "process 1 reaps and has no rights; the task is process 2")?,
            _ => return Err(Failure::new(STAGE, "the init ended")),
        }
        descriptors::arrange(&self.descriptors, &self.status)
    }
}

/// From here on the init can do nothing but wait, write to the descriptors that it holds, and end.
fn lock_up() -> Outcome<()> {
    privileges::give_up_capabilities(true)?;
    set_no_new_privs().at(STAGE, || "prctl PR_SET_NO_NEW_PRIVS in the init".into())?;
    // The task, which has the same user, can then neither trace it nor look into its /proc folder.
    set_dumpable(false).at(STAGE, || "prctl PR_SET_DUMPABLE in the init".into())?;
    landlock::deny_all_files()?;
    seccomp::only_reap()
}

/// Reaps until the command itself has ended, says how, and ends.
fn reap(task: Pid, outcome: &OwnedFd) -> ! {
    loop {
        match sys::wait(None, false) {
            Ok(Some((pid, ended))) if pid == task => {
                // If nobody listens, the monitor is dead, and this process will be in a moment.
                let _ = write(outcome, &format_exit(ended));
                exit(0);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => exit(1),
        }
    }
}

/// How the command ended, in five bytes: an init that may hardly do anything should not have to allocate.
fn format_exit(exit: Exit) -> [u8; 5] {
    let (kind, value) = match exit {
        Exit::Code(code) => (0, code),
        Exit::Signal(signal) => (1, signal),
        Exit::Unknown => (2, 0),
    };
    let [a, b, c, d] = value.to_le_bytes();
    [kind, a, b, c, d]
}

/// The reverse of [`format_exit`]; anything else, such as nothing at all from an init that was killed, is unknown.
pub(crate) fn parse_exit(bytes: &[u8]) -> Exit {
    match *bytes {
        [0, a, b, c, d] => Exit::Code(i32::from_le_bytes([a, b, c, d])),
        [1, a, b, c, d] => Exit::Signal(i32::from_le_bytes([a, b, c, d])),
        _ => Exit::Unknown,
    }
}
