//! The other end of [`crate::spec::Explain`]: calls about which the kernel asks, and answers to them.
//!
//! For the supervisor, on behalf of an owner who wants to know what a profile denies. The caller of each question waits until it
//! is answered. What a question says comes from the kernel and cannot be changed by the task; what its arguments point to can
//! be, at any time (seccomp_unotify(2)), so it is good for telling the owner and for nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use crate::status::receive_with_fds;
use crate::sys;

/// The descriptor of [`crate::spec::Report::Asks`]. When it is closed, calls that would be asked about fail with `ENOSYS`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    id: u64,
    /// The number, on the host, of the thread that made it.
    pub thread: i32,
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Listener {
    /// Takes over the descriptor.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The next question, if one comes within the time.
    ///
    /// # Errors
    /// What poll(2) or the kernel says; `EPIPE` when no process is left that could ask (Linux 5.9).
    pub fn next(&self, patience: Duration) -> std::io::Result<Option<Question>> {
        let mut entry = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut entry, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            result => result?,
        };
        let [entry] = entry;
        let events = entry.revents().unwrap_or(PollFlags::POLLERR);
        if !events.contains(PollFlags::POLLIN) {
            return Err(Errno::EPIPE.into());
        }
        match sys::receive_question(self.0.as_fd()) {
            // Its caller was killed, or interrupted by a signal.
            Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
            result => {
                let question = result?;
                Ok(Some(Question {
                    id: question.id,
                    thread: question.pid.cast_signed(),
                    number: question.data.nr.into(),
                    arguments: question.data.args,
                }))
            }
        }
    }

    /// Whether the caller still waits: what was read of it before this was said is of it, and not of a process that was
    /// given the same number.
    #[must_use]
    pub fn waits(&self, question: &Question) -> bool {
        sys::is_waiting(self.0.as_fd(), question.id)
    }

    /// Lets the call fail with this error, which is not 0.
    pub fn deny(&self, question: &Question, error: i32) {
        let error = if error > 0 { error } else { Errno::ENOSYS as i32 };
        // A caller that has gone needs no answer.
        let _ = sys::answer_question(self.0.as_fd(), question.id, error);
    }

    /// Lets the kernel carry the call out. Only for calls in [`crate::spec::Explain::watch`].
    pub fn go_on(&self, question: &Question) {
        let _ = sys::answer_question(self.0.as_fd(), question.id, 0);
    }
}

/// Receives bytes and the descriptors attached to them, without waiting: how a [`crate::spec::Report::Asks`] comes.
///
/// # Errors
/// What recvmsg(2) says.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> std::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    Ok(receive_with_fds(socket, bytes, &mut space, flags)?)
}
