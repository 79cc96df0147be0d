//! The control socket, seen from `p2p-jail run`: the spec comes in, reports go out, its end means *stop*.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::clock;
use crate::failure::{At, Failure, Outcome};
use crate::message;
use crate::spec::{Ahead, Report, Spec, Stage};
use crate::status::receive_with_fds;

/// What becomes the task's descriptors.
pub(crate) struct TaskDescriptors {
    /// fd 0.
    pub(crate) stdin: OwnedFd,
    /// The frames pipe.
    pub(crate) frames: OwnedFd,
    /// fd 1 and fd 2.
    pub(crate) text: OwnedFd,
}

/// A message with a spec, as it came.
pub(crate) struct Order {
    header: [u8; 4],
    body: Vec<u8>,
}

impl Order {
    /// What it says.
    pub(crate) fn spec(&self) -> Outcome<Spec> {
        message::decode(&self.body).map_err(refused)
    }

    /// Passes it on to a process that reads it as this one did; waits until it is on its way.
    pub(crate) fn pass_on(&self, mut to: &UnixStream, descriptors: &TaskDescriptors) -> Outcome<()> {
        let TaskDescriptors { stdin, frames, text } = descriptors;
        let numbers = [stdin, frames, text].map(AsRawFd::as_raw_fd);
        let rights = [ControlMessage::ScmRights(&numbers)];
        let bytes = [&self.header[..], &self.body].concat();
        let failed = || "passing the spec on to the init".to_owned();
        let sent = sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None);
        let sent = sent.at(Stage::Spec, failed)?;
        to.write_all(bytes.get(sent..).unwrap_or_default()).at(Stage::Spec, failed)
    }
}

fn refused(error: message::MessageError) -> Failure {
    Failure::new(Stage::Spec, chain(&error))
}

/// What came on the control socket after the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing.
    Nothing,
    /// A byte: the task begins, where it waits for that, and anywhere else what must not be written.
    Byte,
    /// The supervisor closed its side, or does not listen.
    End,
}

/// The control socket.
pub(crate) struct Control {
    socket: File,
    deaf: bool,
    unsent: Vec<u8>,
}

impl Control {
    /// Wraps the socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket: File::from(socket), deaf: false, unsent: Vec::new() }
    }

    /// Reads the spec and the three descriptors attached to its first byte; waits for them.
    pub(crate) fn receive(&mut self) -> Outcome<(Spec, TaskDescriptors)> {
        let (order, descriptors) = self.receive_order()?;
        Ok((order.spec()?, descriptors))
    }

    /// Reads what is to be made before the spec is there; waits for it.
    pub(crate) fn receive_ahead(&mut self) -> Outcome<Ahead> {
        message::read(&mut self.socket).map_err(refused)
    }

    /// The same as [`Self::receive`], not looked at yet.
    pub(crate) fn receive_order(&mut self) -> Outcome<(Order, TaskDescriptors)> {
        let (header, descriptors) = self.receive_header()?;
        let mut body = vec![0u8; message::body_length(header).map_err(refused)?];
        self.socket.read_exact(&mut body).at(Stage::Spec, || "reading the spec".into())?;
        let [stdin, frames, text] = <[OwnedFd; 3]>::try_from(descriptors).map_err(|fds| {
            Failure::new(Stage::Spec, format!("{} descriptors came with the spec instead of three", fds.len()))
        })?;
        Ok((Order { header, body }, TaskDescriptors { stdin, frames, text }))
    }

    fn receive_header(&mut self) -> Outcome<([u8; 4], Vec<OwnedFd>)> {
        let mut header = [0u8; 4];
        // Room for more than the three that there must be, so that more are noticed.
        let mut space = cmsg_space!([RawFd; 8]);
        let (length, fds) = receive_with_fds(self.socket.as_fd(), &mut header, &mut space, MsgFlags::MSG_CMSG_CLOEXEC)
            .at(Stage::Spec, || "recvmsg on the control socket (fd 0)".into())?;
        let rest = header.get_mut(length..).unwrap_or_default();
        self.socket.read_exact(rest).at(Stage::Spec, || "reading the length of the spec".into())?;
        Ok((header, fds))
    }

    /// Takes in a report, which goes out with the next [`Self::flush`]: the supervisor is not woken up for every stage.
    pub(crate) fn report(&mut self, report: &Report) {
        match message::encode(report) {
            Ok(bytes) => self.unsent.extend(bytes),
            Err(_) => self.deaf = true,
        }
    }

    /// Takes in that a stage is in force since now.
    pub(crate) fn stage(&mut self, stage: Stage, detail: String) {
        self.report(&Report::Stage(stage, detail, clock::now_us()));
    }

    /// Sends what was reported without ever waiting: reports are few and small, so a supervisor whose buffer is full has
    /// stopped reading and counts as gone.
    pub(crate) fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.unsent);
        self.send(&bytes, &[]);
    }

    /// Sends a report at once, after those before it, with a descriptor attached to its first byte.
    pub(crate) fn hand_over(&mut self, report: &Report, descriptor: &OwnedFd) {
        self.flush();
        match message::encode(report) {
            Ok(bytes) => self.send(&bytes, &[descriptor.as_raw_fd()]),
            Err(_) => self.deaf = true,
        }
    }

    fn send(&mut self, bytes: &[u8], descriptors: &[RawFd]) {
        if bytes.is_empty() {
            return;
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let rights = [ControlMessage::ScmRights(descriptors)];
        let attached = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        let sent = sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(bytes)], attached, flags, None);
        self.deaf |= sent != Ok(bytes.len());
    }

    /// Reports a failure.
    pub(crate) fn refuse(&mut self, failure: Failure) {
        let Failure { stage, what, errno } = failure;
        self.report(&Report::Refused { stage, what, errno });
        self.flush();
    }

    /// What the supervisor wants. To be asked when poll(2) says that there is something.
    pub(crate) fn heard(&mut self) -> Heard {
        let mut byte = [0u8; 1];
        match nix::sys::socket::recv(self.socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT) {
            _ if self.deaf => Heard::End,
            Err(Errno::EAGAIN | Errno::EINTR) => Heard::Nothing,
            Ok(1..) => Heard::Byte,
            Ok(0) | Err(_) => Heard::End,
        }
    }

    /// Whether a report could not be sent.
    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
