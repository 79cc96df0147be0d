//! Starting the first process of each kind of container.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::exit;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Pid, execve, getegid, geteuid, pipe2, setsid};

use crate::control::{TaskDescriptors, chain};
use crate::failure::{At, Failure, Outcome};
use crate::message;
use crate::prepared::{Prepared, Program};
use crate::spec::{Builtin, CONFINE_FD, Container, STATUS_FD, Spec, Stage};
use crate::stages::init::Init;
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
}

/// Starts it. The task's descriptors are closed here when this returns.
pub(crate) fn start(prepared: &Prepared, descriptors: TaskDescriptors) -> Outcome<Started> {
    let (status, notes) = status::channel().at(Stage::Namespaces, || "socketpair".into())?;
    match (&prepared.spec.container, &prepared.outer) {
        (Container::Builtin(builtin), _) => start_builtin(prepared, builtin, descriptors, status, notes),
        (Container::External(_), Some(program)) => {
            start_external(&prepared.spec, program, &descriptors, &status, notes)
        }
        _ => start_bare(prepared, &descriptors, &status, notes),
    }
}

fn start_builtin(
    prepared: &Prepared,
    builtin: &Builtin,
    descriptors: TaskDescriptors,
    status: Status,
    notes: Notes,
) -> Outcome<Started> {
    let (reader, outcome) = pipe2(OFlag::O_CLOEXEC).at(Stage::Namespaces, || "pipe".into())?;
    let host = (geteuid(), getegid());
    match sys::fork(namespaces::ALL).map_err(namespaces::refused)? {
        Forked::Child => Init { prepared, builtin, descriptors, status, outcome, host }.run(),
        Forked::Parent { pid, pidfd } => Ok(Started { pid, pidfd, notes, outcome: Some(reader.into()) }),
    }
}

fn start_external(
    spec: &Spec,
    program: &Program,
    descriptors: &TaskDescriptors,
    status: &Status,
    notes: Notes,
) -> Outcome<Started> {
    let order = order(spec)?;
    match sys::fork(CloneFlags::empty()).at(Stage::Namespaces, || "fork".into())? {
        Forked::Child => {
            status.refuse(become_external(program, descriptors, status, &order));
            exit(127)
        }
        Forked::Parent { pid, pidfd } => Ok(Started { pid, pidfd, notes, outcome: None }),
    }
}

/// The spec in a file in memory that nobody can change any more.
fn order(spec: &Spec) -> Outcome<File> {
    let stage = Stage::Namespaces;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("spec", flags).at(stage, || "memfd_create".into())?);
    let bytes = message::encode(spec).map_err(|error| Failure::new(stage, chain(&error)))?;
    file.write_all(&bytes).and_then(|()| file.rewind()).at(stage, || "writing the spec to memory".into())?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).at(stage, || "sealing the spec".into())?;
    Ok(file)
}

fn become_external(program: &Program, descriptors: &TaskDescriptors, status: &Status, order: &File) -> Failure {
    let prepare = || {
        join(descriptors, status, &[order.as_raw_fd()])?;
        let order = descriptors::move_up(order.as_fd())?;
        let inside = descriptors::arrange(descriptors, status)?;
        descriptors::place(order.as_fd(), CONFINE_FD)?;
        descriptors::place(inside.as_fd(), STATUS_FD)?;
        drop((order, inside));
        let _ = setsid();
        sys::reset_signals();
        descriptors::close_all_but(STATUS_FD + 1, &[status.as_fd().as_raw_fd()])
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

fn start_bare(prepared: &Prepared, descriptors: &TaskDescriptors, status: &Status, notes: Notes) -> Outcome<Started> {
    match sys::fork(CloneFlags::empty()).at(Stage::Init, || "fork".into())? {
        Forked::Child => {
            let arranged = join(descriptors, status, &[]).and_then(|()| descriptors::arrange(descriptors, status));
            match arranged {
                Ok(status) => tail::run(prepared, &status, false),
                Err(failure) => status.refuse(failure),
            }
            exit(127)
        }
        Forked::Parent { pid, pidfd } => Ok(Started { pid, pidfd, notes, outcome: None }),
    }
}

/// In a fresh child: closes what belongs to the monitor alone, then ties its life to the monitor's.
fn join(task: &TaskDescriptors, status: &Status, more: &[i32]) -> Outcome<()> {
    let ours = [&task.stdin, &task.frames, &task.text].map(AsRawFd::as_raw_fd);
    let kept = [&ours[..], &[status.as_fd().as_raw_fd()], more].concat();
    descriptors::close_all_but(0, &kept)?;
    namespaces::die_with_parent(status)
}
