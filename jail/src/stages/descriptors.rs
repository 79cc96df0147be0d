//! Stage *Descriptors*: 0, 1, 2 and the frames pipe, and nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};

use crate::control::TaskDescriptors;
use crate::failure::{At, Outcome};
use crate::spec::{FILES_FD, FRAMES_FD, Stage};
use crate::status::Status;
use crate::sys;

const STAGE: Stage = Stage::Descriptors;

/// Above every number that has a meaning.
const ABOVE: RawFd = 64;

/// The most files that an external program can be given.
pub(crate) const MAX_FILES: usize = (ABOVE - FILES_FD) as usize;

/// Puts the task's descriptors where it expects them. Returns the status socket, which had to move out of their way.
pub(crate) fn arrange(descriptors: &TaskDescriptors, status: &Status) -> Outcome<Status> {
    let TaskDescriptors { stdin, frames, text } = descriptors;
    // All of them first go to numbers that none of them is about to be given.
    let status = Status::from(move_up(status.as_fd())?);
    let [stdin, frames, text] = [move_up(stdin.as_fd())?, move_up(frames.as_fd())?, move_up(text.as_fd())?];
    for (fd, number) in [(&stdin, 0), (&text, 1), (&text, 2), (&frames, FRAMES_FD)] {
        place(fd.as_fd(), number)?;
    }
    Ok(status)
}

/// Makes `fd` also known as `number`, across exec.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> Outcome<()> {
    sys::place(fd, number).at(STAGE, || format!("dup2 to {number}"))
}

/// A copy of the descriptor with a high number, closed on exec.
pub(crate) fn move_up(fd: BorrowedFd<'_>) -> Outcome<OwnedFd> {
    // EINVAL: RLIMIT_NOFILE is not above ABOVE (fcntl(2)), which comes to the same as a descriptor too many.
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE))
        .map_err(|errno| if errno == Errno::EINVAL { Errno::EMFILE } else { errno })
        .at(STAGE, || "fcntl F_DUPFD_CLOEXEC".into())?;
    sys::adopt(number).at(STAGE, || format!("fcntl F_SETFD {number}"))
}

/// Closes every descriptor from `first` on, except those.
pub(crate) fn close_all_but(first: RawFd, kept: &[RawFd]) -> Outcome<()> {
    let mut kept: Vec<RawFd> = kept.iter().copied().filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut next = first;
    for fd in kept {
        if next < fd {
            close(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close(next, sys::LAST_FD)
}

fn close(first: RawFd, last: RawFd) -> Outcome<()> {
    sys::close_range(first, last).at(STAGE, || format!("close_range {first} to {last} (Linux 5.9)"))
}
