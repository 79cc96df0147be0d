//! The tail: what every process does to itself right before it becomes the task, whoever made its container.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::exit;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, execve, pipe2};

use crate::failure::{At, Outcome};
use crate::prepared::Prepared;
use crate::spec::{FRAMES_FD, Spec, Stage};
use crate::stages::{descriptors, landlock, limits, privileges, session};
use crate::status::{Note, Status};

/// Confines this process and executes the command; if a stage fails, says so and ends.
///
/// `builtin` says that the container is our own, where stages that need rights inside it must not be skipped.
pub(crate) fn run(prepared: &Prepared, status: &Status, builtin: bool) -> ! {
    match hand_over(status, &prepared.spec.watch.tmpfs) {
        Err(failure) => status.refuse(failure),
        // The pipe stays open until after the refusal: were it to close before, that would look like the exec.
        Ok(executing) => {
            let result = confine(prepared, status, &executing, builtin).and_then(|()| execute(prepared, status));
            let Err(failure) = result;
            status.refuse(failure);
        }
    }
    exit(127)
}

/// The stages from *Session* to *Seccomp*.
fn confine(prepared: &Prepared, status: &Status, executing: &OwnedFd, builtin: bool) -> Outcome<()> {
    let Spec { confinement, command, .. } = &prepared.spec;
    session::enter()?;
    status.stage(Stage::Session, "")?;
    status.stage(Stage::Limits, limits::apply(confinement)?)?;
    descriptors::close_all_but(FRAMES_FD + 1, &[status.as_fd().as_raw_fd(), executing.as_raw_fd()])?;
    status.stage(Stage::Descriptors, "0, 1, 2 and 3")?;
    if builtin && confinement.no_nested_user_namespaces {
        // The init has written and read it back: it takes a full /proc, which is not to be found inside.
        status.stage(Stage::NestedNamespaces, "max_user_namespaces is 0 since the root was made")?;
    }
    chdir(&command.directory).at(Stage::Exec, || format!("chdir {}", command.directory.display()))?;
    if confinement.drop_capabilities {
        status.stage(Stage::Capabilities, privileges::give_up_capabilities(builtin)?)?;
    }
    privileges::no_new_privileges()?;
    status.stage(Stage::NoNewPrivileges, "")?;
    if let Some(landlock) = &confinement.landlock {
        status.stage(Stage::Landlock, landlock::apply(landlock)?)?;
    }
    if let Some(filters) = &prepared.filters {
        status.stage(Stage::Seccomp, filters.apply(status)?)?;
    }
    Ok(())
}

/// Sends the monitor what it needs to see the exec and to watch the memory file systems.
fn hand_over(status: &Status, tmpfs: &[std::path::PathBuf]) -> Outcome<OwnedFd> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).at(Stage::Exec, || "pipe".into())?;
    let mut fds = vec![reader];
    for path in tmpfs {
        let handle = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        fds.push(handle.at(Stage::Watch, || format!("opening the tmpfs {} to be watched", path.display()))?);
    }
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    status.send(&Note::Handover, &numbers).at(Stage::Watch, || "sending descriptors to the monitor".into())?;
    Ok(writer)
}

fn execute(prepared: &Prepared, status: &Status) -> Outcome<Infallible> {
    let program = &prepared.command;
    status.send(&Note::Executing, &[]).at(Stage::Exec, || "reporting the stage".into())?;
    execve(&program.path, &program.arguments, &program.environment)
        .at(Stage::Exec, || format!("execve {}", program.path.to_string_lossy()))
}
