//! Starting the first process of each kind of container.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::exit;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Gid, Pid, Uid, execve, getegid, geteuid, pipe2, setsid};

use crate::control::{TaskDescriptors, chain};
use crate::failure::{At, Failure, Outcome};
use crate::message;
use crate::prepared::{Prepared, Program};
use crate::run::group::Group;
use crate::run::uplink::Pasta;
use crate::spec::{Ahead, Builtin, CONFINE_FD, Container, PROGRAM_FD, STATUS_FD, Spec, Stage};
use crate::stages::init::{Early, Init};
use crate::stages::rtnetlink::Routing;
use crate::stages::{descriptors, namespaces, tail};
use crate::status::{self, Notes, Status};
use crate::sys::{self, Forked};

/// The first process of a container, and how to hear of it.
pub(crate) struct Started {
    /// Its number.
    pub(crate) pid: Pid,
    /// Readable when it has ended.
    pub(crate) pidfd: OwnedFd,
    /// What it and its children tell before the command runs.
    pub(crate) notes: Notes,
    /// Where our own init says how the command ended; without one, the first process's own end says it.
    pub(crate) outcome: Option<File>,
    /// What carries its packets, where it has a way to the internet.
    pub(crate) pasta: Option<Pasta>,
}

/// Starts it. The task's descriptors are closed here when this returns.
pub(crate) fn start(prepared: &Prepared, group: Option<&Group>, descriptors: TaskDescriptors) -> Outcome<Started> {
    let (status, notes) = status::channel().at(Stage::Namespaces, || "socketpair".into())?;
    // Out of the way of what is put in place for the task: until the exec it tells what failed.
    let status = Status::from(descriptors::move_up(status.as_fd())?);
    match (&prepared.spec.container, &prepared.outer) {
        (Container::Builtin(builtin), _) => start_builtin(prepared, builtin, group, descriptors, status, notes),
        (Container::External(external), Some(program)) => {
            start_external(&prepared.spec, &external.files, program, group, &descriptors, &status, notes)
        }
        _ => start_bare(prepared, group, &descriptors, &status, notes),
    }
}

/// Starts the init of a task that nobody knows yet, and returns the socket on which it waits for the order.
pub(crate) fn start_ahead(ahead: &Ahead, group: Option<&Group>) -> Outcome<(Started, UnixStream)> {
    let (status, notes) = status::channel().at(Stage::Namespaces, || "socketpair".into())?;
    let status = Status::from(descriptors::move_up(status.as_fd())?);
    let (orders, its) = UnixStream::pair().at(Stage::Namespaces, || "socketpair".into())?;
    let started = start_init(group, CloneFlags::empty(), status, notes, |status, outcome, host| {
        Early { ahead, status, outcome, host, orders: its }.run()
    })?;
    Ok((started, orders))
}

fn start_builtin(
    prepared: &Prepared,
    builtin: &Builtin,
    group: Option<&Group>,
    descriptors: TaskDescriptors,
    status: Status,
    notes: Notes,
) -> Outcome<Started> {
    let Some(uplink) = &builtin.uplink else {
        return start_init(group, CloneFlags::empty(), status, notes, |status, outcome, host| {
            let (spec, prepared) = (&prepared.spec, Some(prepared));
            Init { spec, prepared, builtin, descriptors, status, outcome, uplink: None }.run(host)
        });
    };
    let (ready, its) = UnixStream::pair().at(Stage::Namespaces, || "socketpair".into())?;
    let own = Routing::here().and_then(|routing| routing.own_blocks());
    let own = own.at(Stage::Namespaces, || "rtnetlink, the addresses and routes of this machine".into())?;
    let closed = [&uplink.closed[..], &own].concat();
    let mut started = start_init(group, CloneFlags::CLONE_NEWNET, status, notes, |status, outcome, host| {
        let (spec, prepared) = (&prepared.spec, Some(prepared));
        Init { spec, prepared, builtin, descriptors, status, outcome, uplink: Some((its, closed)) }.run(host)
    })?;
    started.pasta = Some(Pasta::start(uplink, started.pid, &ready, group)?);
    Ok(started)
}

/// Starts process 1 of fresh namespaces, and of those more, which does that work and ends.
fn start_init(
    group: Option<&Group>,
    more: CloneFlags,
    status: Status,
    notes: Notes,
    work: impl FnOnce(Status, OwnedFd, (Uid, Gid)),
) -> Outcome<Started> {
    let (reader, outcome) = pipe2(OFlag::O_CLOEXEC).at(Stage::Namespaces, || "pipe".into())?;
    let host = (geteuid(), getegid());
    // The root of the cgroup namespace is the group in which it is made, so that comes after entering the group.
    let later = if group.is_some() { CloneFlags::CLONE_NEWCGROUP } else { CloneFlags::empty() };
    match sys::fork(namespaces::FIRST.union(more).difference(later)).map_err(namespaces::refused)? {
        Forked::Child => {
            if let Err(failure) = enter(group).and_then(|()| namespaces::add(later)) {
                status.refuse(failure);
                exit(1)
            }
            work(status, outcome, host);
            exit(1)
        }
        Forked::Parent { pid, pidfd } => Ok(Started { pid, pidfd, notes, outcome: Some(reader.into()), pasta: None }),
    }
}

fn start_external(
    spec: &Spec,
    files: &[Vec<u8>],
    program: &Program,
    group: Option<&Group>,
    descriptors: &TaskDescriptors,
    status: &Status,
    notes: Notes,
) -> Outcome<Started> {
    let order = order(spec)?;
    let own =
        File::open("/proc/self/exe").at(Stage::Namespaces, || "opening /proc/self/exe, p2p-jail itself".into())?;
    let contents = files.iter().map(|contents| in_memory(c"file", contents));
    // In the order of their descriptors, from PROGRAM_FD on.
    let files = std::iter::once(Ok(own)).chain(contents).collect::<Outcome<Vec<_>>>()?;
    match sys::fork(CloneFlags::empty()).at(Stage::Namespaces, || "fork".into())? {
        Forked::Child => {
            status.refuse(match enter(group) {
                Ok(()) => become_external(program, descriptors, status, &order, &files),
                Err(failure) => failure,
            });
            exit(127)
        }
        Forked::Parent { pid, pidfd } => Ok(Started { pid, pidfd, notes, outcome: None, pasta: None }),
    }
}

/// What the confinement inside is to do.
fn order(spec: &Spec) -> Outcome<File> {
    let bytes = message::encode(spec).map_err(|error| Failure::new(Stage::Namespaces, chain(&error)))?;
    in_memory(c"spec", &bytes)
}

/// A file in memory that nobody can change any more.
fn in_memory(name: &CStr, bytes: &[u8]) -> Outcome<File> {
    let stage = Stage::Namespaces;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags).at(stage, || "memfd_create".into())?);
    file.write_all(bytes).and_then(|()| file.rewind()).at(stage, || "writing to memory".into())?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).at(stage, || "sealing memory".into())?;
    Ok(file)
}

fn become_external(
    program: &Program,
    descriptors: &TaskDescriptors,
    status: &Status,
    order: &File,
    files: &[File],
) -> Failure {
    let prepare = || {
        let ours: Vec<_> = files.iter().chain([order]).map(AsRawFd::as_raw_fd).collect();
        join(descriptors, status, &ours)?;
        let order = descriptors::move_up(order.as_fd())?;
        let files = files.iter().map(|file| descriptors::move_up(file.as_fd())).collect::<Outcome<Vec<_>>>()?;
        let inside = descriptors::arrange(descriptors, status)?;
        descriptors::place(order.as_fd(), CONFINE_FD)?;
        descriptors::place(inside.as_fd(), STATUS_FD)?;
        let mut next = PROGRAM_FD;
        for file in &files {
            descriptors::place(file.as_fd(), next)?;
            next += 1;
        }
        drop((order, inside, files));
        let _ = setsid();
        sys::reset_signals();
        descriptors::close_all_but(next, &[status.as_fd().as_raw_fd()])
    };
    let execute = |()| {
        execve(&program.path, &program.arguments, &program.environment)
            .at(Stage::Namespaces, || format!("execve {}", program.path.to_string_lossy()))
    };
    match prepare().and_then(execute) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn start_bare(
    prepared: &Prepared,
    group: Option<&Group>,
    descriptors: &TaskDescriptors,
    status: &Status,
    notes: Notes,
) -> Outcome<Started> {
    match sys::fork(CloneFlags::empty()).at(Stage::Init, || "fork".into())? {
        Forked::Child => {
            let joined = enter(group).and_then(|()| join(descriptors, status, &[]));
            let arranged = joined.and_then(|()| descriptors::arrange(descriptors, status));
            match arranged {
                Ok(status) => tail::run(prepared, &status, false),
                Err(failure) => status.refuse(failure),
            }
            exit(127)
        }
        Forked::Parent { pid, pidfd } => Ok(Started { pid, pidfd, notes, outcome: None, pasta: None }),
    }
}

/// In a fresh child: joins the task's control groups, if there are any.
fn enter(group: Option<&Group>) -> Outcome<()> {
    group.map_or(Ok(()), Group::enter)
}

/// In a fresh child: closes what belongs to the monitor alone, then ties its life to the monitor's.
fn join(task: &TaskDescriptors, status: &Status, more: &[i32]) -> Outcome<()> {
    let ours = [&task.stdin, &task.frames, &task.text].map(AsRawFd::as_raw_fd);
    let kept = [&ours[..], &[status.as_fd().as_raw_fd()], more].concat();
    descriptors::close_all_but(0, &kept)?;
    namespaces::die_with_parent(status)
}
