//! Running a plan to its end and waiting for it: for probes, which run before anything else does. Tasks are run by
//! [`crate::runner`], which does not block.

use std::{
    fs::File,
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
    unistd::pipe2,
};
use p2p_jail::{
    message::{self, MessageError},
    spec::{Ahead, Exit, Report, Stage, Stop, Usage},
};

use super::LaunchPlan;

/// How much of each pipe is kept, in bytes.
const MOST_OUTPUT: u64 = 1 << 20;

/// What to do about a `p2p-jail` that does not understand us.
pub(super) const SAME_BUILD: &str =
    "p2p-worker and p2p-jail must come from the same build: install both again, side by side";

/// How one run ended.
#[derive(Debug)]
pub struct Finished {
    /// The stages that were reported in force, with their details.
    pub stages: Vec<(Stage, String)>,
    /// When they were: since the start of the monotonic clock.
    pub reached: Vec<(Stage, Duration)>,
    /// How the command ended, and why it was stopped, if it was.
    pub exit: Exit,
    /// Why it was stopped, if it was.
    pub stopped: Option<Stop>,
    /// What it used.
    pub usage: Usage,
    /// What it wrote to its fd 1 and 2.
    pub text: String,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A stage failed; nothing was executed.
    #[error("{what}{}{}", errno_in_words(*errno), said(text))]
    Refused {
        /// Which stage.
        stage: Stage,
        /// What was tried.
        what: String,
        /// The error number, or 0.
        errno: i32,
        /// What was written to fd 2 until then: by the program that makes the container, nobody else has run.
        text: String,
    },
    /// `p2p-jail` could not be started, or a pipe could not be made.
    #[error("cannot start p2p-jail")]
    Start(#[source] io::Error),
    /// `p2p-jail` said something else than it should, or nothing.
    #[error("p2p-jail did not report how it went; {SAME_BUILD}")]
    Report(#[source] MessageError),
}

/// Runs the plan and waits for its end; each report must come within `patience`. The command's fd 0 is empty, and what it
/// writes as frames is thrown away. Of its text the first MiB is kept, whatever the profile says.
///
/// # Errors
/// [`LaunchError`]: nothing was executed, or nobody knows how it ended. In any case nothing is left of it.
pub fn run_to_end(plan: &LaunchPlan, patience: Duration) -> Result<Finished, LaunchError> {
    Waiting::start(&plan.jail).map_err(LaunchError::Start)?.run_to_end(plan, patience)
}

/// A `p2p-jail run` that waits for its one spec, for measurements: the runner has its own. Dropped, it ends.
#[derive(Debug)]
pub struct Waiting {
    socket: Option<UnixStream>,
    child: Child,
}

impl Waiting {
    /// Starts the program.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(jail: &Path) -> io::Result<Self> {
        Self::start_mode(jail, "run")
    }

    /// Starts the program, which makes what it can before it has a spec.
    ///
    /// # Errors
    /// [`LaunchError::Start`], [`LaunchError::Report`].
    pub fn start_ahead(jail: &Path, ahead: &Ahead) -> Result<Self, LaunchError> {
        let started = Self::start_mode(jail, "ahead").map_err(LaunchError::Start)?;
        let bytes = message::encode(ahead).map_err(LaunchError::Report)?;
        started.socket.iter().try_for_each(|mut socket| socket.write_all(&bytes)).map_err(LaunchError::Start)?;
        Ok(started)
    }

    fn start_mode(jail: &Path, mode: &str) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(jail)
            .arg(mode)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket: Some(ours), child })
    }

    /// As [`run_to_end`].
    ///
    /// # Errors
    /// As [`run_to_end`].
    pub fn run_to_end(mut self, plan: &LaunchPlan, patience: Duration) -> Result<Finished, LaunchError> {
        let start = LaunchError::Start;
        let socket = self.socket.as_mut().ok_or_else(|| start(io::ErrorKind::NotConnected.into()))?;
        socket.set_read_timeout(Some(patience)).map_err(start)?;
        socket.set_write_timeout(Some(patience)).map_err(start)?;
        converse(plan, socket)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Whatever happened, this stops everything and p2p-jail ends.
        self.socket = None;
        let _ = self.child.wait();
    }
}

fn converse(plan: &LaunchPlan, socket: &mut UnixStream) -> Result<Finished, LaunchError> {
    let start = LaunchError::Start;
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|errno| start(errno.into()));
    let ((frames, frames_end), (text, text_end)) = (pipe()?, pipe()?);
    let nothing = OwnedFd::from(File::open("/dev/null").map_err(start)?);
    let spec = message::encode(&plan.spec).map_err(LaunchError::Report)?;
    send(socket, &spec, [&nothing, &frames_end, &text_end]).map_err(start)?;
    drop((nothing, frames_end, text_end));
    let frames = collect(frames);
    let text = collect(text);
    let finished = reports(socket);
    let joined = text.join().unwrap_or_default();
    let _ = frames.join();
    let text = String::from_utf8_lossy(&joined).into_owned();
    match finished {
        Ok(finished) => Ok(Finished { text, ..finished }),
        Err(LaunchError::Refused { stage, what, errno, .. }) => Err(LaunchError::Refused { stage, what, errno, text }),
        Err(error) => Err(error),
    }
}

fn reports(socket: &mut UnixStream) -> Result<Finished, LaunchError> {
    let (mut stages, mut reached) = (Vec::new(), Vec::new());
    loop {
        match message::read(socket).map_err(LaunchError::Report)? {
            Report::Stage(stage, detail, since) => {
                stages.push((stage, detail));
                reached.push((stage, Duration::from_micros(since)));
            }
            Report::Refused { stage, what, errno } => {
                return Err(LaunchError::Refused { stage, what, errno, text: String::new() });
            }
            Report::Running { .. } | Report::Asks | Report::Reached(_) => {}
            Report::Ended { exit, stopped, usage } => {
                return Ok(Finished { stages, reached, exit, stopped, usage, text: String::new() });
            }
        }
    }
}

/// Sends the message with the descriptors attached to its first byte.
fn send(socket: &mut UnixStream, bytes: &[u8], descriptors: [&OwnedFd; 3]) -> io::Result<()> {
    let numbers = descriptors.map(AsRawFd::as_raw_fd);
    let rights = [ControlMessage::ScmRights(&numbers)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    socket.write_all(bytes.get(sent..).unwrap_or_default())
}

/// Reads a pipe to its end in a thread of its own, so that nobody waits for a full pipe.
fn collect(pipe: OwnedFd) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut pipe, mut bytes) = (File::from(pipe), Vec::new());
        let _ = Read::by_ref(&mut pipe).take(MOST_OUTPUT).read_to_end(&mut bytes);
        let _ = io::copy(&mut pipe, &mut io::sink());
        bytes
    })
}

fn said(text: &str) -> String {
    let first: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect();
    if first.is_empty() { String::new() } else { format!(" ({first})") }
}

fn errno_in_words(errno: i32) -> String {
    if errno == 0 { String::new() } else { format!(": {}", io::Error::from_raw_os_error(errno)) }
}
