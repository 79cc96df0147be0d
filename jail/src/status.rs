//! The status socket: what the processes on their way into the jail tell the monitor outside.
//!
//! A sequenced-packet socket pair, one [`Note`] in each packet, descriptors attached where a note has any. Only code of this
//! crate ever holds the sending end: it is closed or close-on-exec before the command runs, so nothing that the task
//! does can be taken for a note.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::unistd::write;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::failure::{At, Failure, Outcome};
use crate::spec::Stage;
use crate::sys;

/// The most descriptors in one note.
pub(crate) const MAX_DESCRIPTORS: usize = 64;
/// The largest packet, in bytes; above the longest description of a failure.
const MAX_PACKET: usize = 8192;

/// One message of a process inside.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// This stage is in force, since that many microseconds on the monotonic clock.
    Stage(Stage, String, u64),
    /// A stage failed; the sender ends now.
    Refused {
        /// Which.
        stage: Stage,
        /// What was tried.
        what: String,
        /// The error number, or 0.
        errno: i32,
    },
    /// Attached: `/proc` of the task's own process namespace.
    Processes,
    /// Attached: the reading end of a pipe whose writing end closes on exec, then the tmpfs to be watched.
    Handover,
    /// Attached: the descriptor on which the kernel asks, see [`crate::spec::Explain`].
    Asks,
    /// The next thing to happen is the exec.
    Executing,
}

/// The end that sends.
pub(crate) struct Status(OwnedFd);

/// The monitor's end.
pub(crate) struct Notes(OwnedFd);

/// A new status socket.
pub(crate) fn channel() -> nix::Result<(Status, Notes)> {
    let (inside, outside) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((Status(inside), Notes(outside)))
}

impl From<OwnedFd> for Status {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Status {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Notes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Status {
    /// Says that a stage is in force.
    pub(crate) fn stage(&self, stage: Stage, detail: impl Into<String>) -> Outcome<()> {
        self.send(&Note::Stage(stage, detail.into(), clock::now_us()), &[]).at(stage, || "reporting the stage".into())
    }

    /// Says that a stage failed. If nobody listens any more, there is nobody to tell.
    pub(crate) fn refuse(&self, failure: Failure) {
        let Failure { stage, what, errno } = failure;
        let _ = self.send(&Note::Refused { stage, what, errno }, &[]);
    }

    /// Sends a note. Without descriptors it needs no system call but write(2), which every seccomp filter allows.
    pub(crate) fn send(&self, note: &Note, descriptors: &[RawFd]) -> nix::Result<()> {
        let bytes = postcard::to_stdvec(note).map_err(|_| Errno::EINVAL)?;
        if descriptors.is_empty() {
            return write(&self.0, &bytes).map(drop);
        }
        let rights = [ControlMessage::ScmRights(descriptors)];
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None).map(drop)
    }

    /// Whether the monitor has gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl Notes {
    /// The next note without waiting; `EAGAIN` if there is none, `Ok(None)` at the end.
    pub(crate) fn receive(&self) -> nix::Result<Option<(Note, Vec<OwnedFd>)>> {
        let mut bytes = vec![0u8; MAX_PACKET];
        let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (length, fds) = receive_with_fds(self.0.as_fd(), &mut bytes, &mut space, flags)?;
        if length == 0 {
            return Ok(None);
        }
        let note = postcard::from_bytes(bytes.get(..length).unwrap_or_default()).map_err(|_| Errno::EBADMSG)?;
        Ok(Some((note, fds)))
    }
}

/// Receives bytes and the descriptors attached to them, which are owned from the first moment on.
pub(crate) fn receive_with_fds(
    from: BorrowedFd<'_>,
    bytes: &mut [u8],
    space: &mut [u8],
    flags: MsgFlags,
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut slices, Some(space), flags)?;
    let mut fds = Vec::new();
    for attached in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = attached {
            fds.extend(received.into_iter().flat_map(sys::adopt));
        }
    }
    Ok((message.bytes, fds))
}
