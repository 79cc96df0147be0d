//! The supervisor's end of `p2p-jail run`: starting it, telling it the spec, hearing its reports, asking it to stop.

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::Path,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sys::{
        socket::{ControlMessage, MsgFlags, recv, sendmsg},
        stat::{Mode, fchmod},
    },
    unistd::pipe2,
};
use p2p_jail::{
    message::{self, MessageError},
    spec::{Ahead, Reached, Report, Stage},
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::{UnixStream, unix::pipe},
    process::{Child, Command},
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::sandbox::{Denials, LaunchPlan, Witness};

/// How long `p2p-jail` may take to stop a task, and to end once the task is over.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How far beyond the wall time limit that it watches itself `p2p-jail` may go before it is given up.
const OVERDUE: Duration = Duration::from_secs(30);

/// The most stages that are remembered; there are not that many.
const MAX_STAGES: usize = 64;

/// Why `p2p-jail` could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A pipe or a socket could not be made.
    #[error("cannot make a {what}")]
    Descriptor {
        /// Which.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program is missing or cannot be executed.
    #[error("cannot execute {program} (it belongs beside p2p-worker)")]
    Execute {
        /// Its path.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The spec cannot be encoded.
    #[error("cannot encode what the sandbox is told")]
    Spec(#[source] MessageError),
    /// The program ended before it took the spec.
    #[error("p2p-jail does not listen")]
    Deaf(#[source] io::Error),
}

/// A `p2p-jail` that has been told what to do. Dropping it stops the task.
#[derive(Debug)]
pub(crate) struct Jail {
    /// The program.
    child: Child,
    /// The control socket.
    control: UnixStream,
    /// The stages in force, as far as they were heard.
    stages: Vec<(Stage, String)>,
    /// Whether it was heard that the command runs.
    runs: bool,
}

/// Our ends of the task's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// To the task's fd 0.
    pub(crate) input: pipe::Sender,
    /// From the task's frames pipe.
    pub(crate) frames: pipe::Receiver,
    /// From the task's fd 1 and fd 2.
    pub(crate) text: pipe::Receiver,
}

/// What `p2p-jail` had to say.
#[derive(Debug)]
pub(crate) struct Reports {
    /// The stages in force.
    pub(crate) stages: Vec<(Stage, String)>,
    /// The last report, or why there is none.
    pub(crate) last: Result<Report, String>,
    /// What was denied, in a run that is explained.
    pub(crate) denials: Option<Denials>,
}

/// Starts the program, and sends the spec and the task's ends of three new pipes.
///
/// # Errors
/// [`StartError`]; nothing was run.
pub(crate) async fn start(plan: &LaunchPlan) -> Result<(Jail, Pipes), StartError> {
    let (pipes, theirs) = pipes()?;
    let errors = theirs.text.try_clone().map_err(|source| StartError::Descriptor { what: "pipe", source })?;
    let mut jail = Jail::spawn(&plan.jail, "run", Stdio::from(errors), true)?;
    jail.send_spec(plan, &theirs).await?;
    Ok((jail, pipes))
}

/// A `p2p-jail ahead` that waits for the one spec that it will take. Dropped, it ends by itself, and tidies up.
#[derive(Debug)]
pub(crate) struct Waiting {
    jail: Jail,
}

impl Waiting {
    /// Starts the program and tells it what to make.
    ///
    /// # Errors
    /// [`StartError`].
    pub(crate) async fn start(program: &Path, ahead: &Ahead) -> Result<Self, StartError> {
        let mut jail = Jail::spawn(program, "ahead", Stdio::null(), false)?;
        let bytes = message::encode(ahead).map_err(StartError::Spec)?;
        jail.control.write_all(&bytes).await.map_err(StartError::Deaf)?;
        Ok(Self { jail })
    }

    /// Whether it still waits.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.jail.is_alive()
    }

    /// Hands it the task. `None` if it did not take it: then nothing of the task has run, and nothing will.
    pub(crate) async fn take(self, plan: &LaunchPlan) -> Option<(Jail, Pipes)> {
        let mut jail = self.jail;
        let taken = async {
            let (pipes, theirs) = pipes()?;
            jail.send_spec(plan, &theirs).await?;
            // It says that it took the spec before it lets anything of the task run.
            let socket = jail.control.as_raw_fd();
            let first = || Ok(recv(socket, &mut [0u8; 1], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?);
            match jail.control.async_io(Interest::READABLE, first).await {
                Ok(1..) => Ok(pipes),
                Ok(_) => Err(StartError::Deaf(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => Err(StartError::Deaf(error)),
            }
        };
        let taken = timeout(STOP_PATIENCE, taken).await;
        match taken {
            Ok(Ok(pipes)) => Some((jail, pipes)),
            failed => {
                let why = failed.err().map_or("it ended", |_| "it does not answer");
                tracing::debug!(why, "a p2p-jail that was started ahead cannot be used");
                // It may only be slow: what is dead takes no task.
                let _ = timeout(STOP_PATIENCE, jail.child.kill()).await;
                None
            }
        }
    }

    /// Asks it to end, and returns what to wait for.
    pub(crate) fn dismiss(self) -> Child {
        self.jail.dismiss()
    }
}

/// The task's ends of the pipes.
struct TaskEnds {
    input: OwnedFd,
    frames: OwnedFd,
    text: OwnedFd,
}

fn pipes() -> Result<(Pipes, TaskEnds), StartError> {
    let made = |source: io::Error| StartError::Descriptor { what: "pipe", source };
    let (input, input_writer) = pipe().map_err(made)?;
    let (frames_reader, frames) = pipe().map_err(made)?;
    let (text_reader, text) = pipe().map_err(made)?;
    let pipes = Pipes {
        input: pipe::Sender::from_owned_fd(input_writer).map_err(made)?,
        frames: pipe::Receiver::from_owned_fd(frames_reader).map_err(made)?,
        text: pipe::Receiver::from_owned_fd(text_reader).map_err(made)?,
    };
    Ok((pipes, TaskEnds { input, frames, text }))
}

/// A pipe whose ends can be opened again through `/proc/self/fd` by whoever holds them, also when that is another user
/// than we are: R opens the frames pipe so, having no other way to write to a descriptor. Nobody else can reach it.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    fchmod(writer.as_fd(), Mode::from_bits_truncate(0o666))?;
    Ok((reader, writer))
}

impl Jail {
    fn spawn(program: &Path, mode: &str, errors: Stdio, kill_on_drop: bool) -> Result<Self, StartError> {
        let made = |source| StartError::Descriptor { what: "socket pair", source };
        let (ours, its) = StdUnixStream::pair().map_err(made)?;
        ours.set_nonblocking(true).map_err(made)?;
        let control = UnixStream::from_std(ours).map_err(made)?;
        let child = Command::new(program)
            .arg(mode)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(its)))
            .stdout(Stdio::null())
            .stderr(errors)
            .kill_on_drop(kill_on_drop)
            .spawn()
            .map_err(|source| StartError::Execute { program: program.display().to_string(), source })?;
        Ok(Self { child, control, stages: Vec::new(), runs: false })
    }

    async fn send_spec(&mut self, plan: &LaunchPlan, ends: &TaskEnds) -> Result<(), StartError> {
        let bytes = message::encode(&plan.spec).map_err(StartError::Spec)?;
        let fds = [ends.input.as_raw_fd(), ends.frames.as_raw_fd(), ends.text.as_raw_fd()];
        let control = &mut self.control;
        let socket = control.as_raw_fd();
        let send = || {
            let rights = [ControlMessage::ScmRights(&fds)];
            Ok(sendmsg::<()>(socket, &[IoSlice::new(&bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?)
        };
        let sent = control.async_io(Interest::WRITABLE, send).await.map_err(StartError::Deaf)?;
        control.write_all(bytes.get(sent..).unwrap_or_default()).await.map_err(StartError::Deaf)
    }

    /// Asks it to end, and returns what to wait for.
    pub(crate) fn dismiss(self) -> Child {
        let Self { child, control, .. } = self;
        drop(control);
        child
    }

    /// Whether the program runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Hears the reports of a task that waits for what it is to do, until its command runs.
    ///
    /// # Errors
    /// That it never will, in words.
    pub(crate) async fn until_it_runs(&mut self) -> Result<(), String> {
        let mut nobody_asks = |_| Err("it asks, which nobody wants to hear".to_owned());
        match hear(&self.control, &mut self.stages, &mut nobody_asks).await? {
            Heard::Running => self.runs = true,
            Heard::Reached(_) => return Err("it says what nobody asked for".to_owned()),
            Heard::Last(report) => return Err(format!("{report:?}")),
        }
        Ok(())
    }

    /// Tells a task that waits that it begins: its times count from now on.
    ///
    /// # Errors
    /// What the socket says.
    pub(crate) async fn begin(&mut self) -> io::Result<()> {
        self.control.write_all(&[0]).await
    }

    /// Hears the reports until the last one. When `stop` is cancelled, the task is stopped; a `p2p-jail` that does not do
    /// so in time, or that lets the task go on beyond its wall time limit, is killed, and the task with it. Who inquires is told
    /// what the task has reached, or, if that ended it, nothing.
    pub(crate) async fn watch(
        self,
        plan: &LaunchPlan,
        stop: &CancellationToken,
        inquiry: oneshot::Receiver<oneshot::Sender<Reached>>,
        mut running: impl FnMut() + Send,
    ) -> Reports {
        let Self { mut child, control, mut stages, runs } = self;
        let (reader, mut writer) = control.into_split();
        let mut witness = None;
        let explains = plan.spec.confinement.seccomp.as_ref().is_some_and(|seccomp| seccomp.explain.is_some());
        let mut asks = |listener| {
            let started = explains.then(|| Witness::start(listener, &plan.spec, &plan.root)).transpose();
            witness = started.map_err(|error| format!("nobody can watch it: {error}"))?;
            Ok(())
        };
        let inquirer = Mutex::new(None);
        let inquirer = || inquirer.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Ok(who) = inquiry => {
                    *inquirer() = Some(who);
                    // One that ended meanwhile does not hear it.
                    let _ = writer.write_all(&[0]).await;
                }
            }
            stop.cancelled().await;
            let _ = writer.shutdown().await;
            sleep(STOP_PATIENCE).await;
        };
        let hearing = async {
            if runs {
                running();
            }
            loop {
                match hear(reader.as_ref(), &mut stages, &mut asks).await? {
                    Heard::Running => running(),
                    Heard::Reached(reached) => drop(inquirer().take().map(|who: oneshot::Sender<_>| who.send(reached))),
                    Heard::Last(report) => {
                        drop(inquirer().take());
                        return Ok(report);
                    }
                }
            }
        };
        let last = tokio::select! {
            last = hearing => last,
            () = asked => Err(format!("it did not stop the task within {} s", STOP_PATIENCE.as_secs())),
            () = overdue(plan.spec.watch.wall_time_ms) => Err("it did not hold the time limit".to_owned()),
        };
        if last.is_err() {
            let _ = child.start_kill();
        }
        if timeout(STOP_PATIENCE, child.wait()).await.is_err() {
            let _ = child.start_kill();
        }
        let denials = match witness {
            Some(witness) => tokio::task::spawn_blocking(|| witness.finish()).await.ok(),
            None => None,
        };
        Reports { stages, last, denials }
    }
}

async fn overdue(wall_time_ms: Option<u64>) {
    match wall_time_ms {
        Some(limit) => sleep(Duration::from_millis(limit).saturating_add(OVERDUE)).await,
        None => std::future::pending().await,
    }
}

/// A report that says how far a task is.
enum Heard {
    /// The command runs.
    Running,
    /// It has reached these limits.
    Reached(Reached),
    /// It is over, or will never be.
    Last(Report),
}

async fn hear(
    from: &UnixStream,
    stages: &mut Vec<(Stage, String)>,
    asks: &mut (impl FnMut(OwnedFd) -> Result<(), String> + Send),
) -> Result<Heard, String> {
    loop {
        let (report, descriptor) = next_report(from).await?;
        match report {
            Report::Asks => asks(descriptor.ok_or("nothing came with what it asks on")?)?,
            Report::Stage(stage, detail, _) if stages.len() < MAX_STAGES => stages.push((stage, detail)),
            Report::Stage(..) => return Err("it reports without end".to_owned()),
            Report::Running { .. } => return Ok(Heard::Running),
            Report::Reached(reached) => return Ok(Heard::Reached(reached)),
            last @ (Report::Refused { .. } | Report::Ended { .. }) => return Ok(Heard::Last(last)),
        }
    }
}

async fn next_report(from: &UnixStream) -> Result<(Report, Option<OwnedFd>), String> {
    let lost = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ended without a last report".to_owned(),
        _ => error.to_string(),
    };
    let mut header = [0u8; 4];
    let descriptor = read_exact(from, &mut header).await.map_err(lost)?;
    let length = message::body_length(header).map_err(|error| error.to_string())?;
    let mut body = vec![0u8; length];
    read_exact(from, &mut body).await.map_err(lost)?;
    Ok((message::decode(&body).map_err(|error| error.to_string())?, descriptor))
}

/// Fills the buffer; returns the descriptor that came with its bytes, if one did.
async fn read_exact(from: &UnixStream, buffer: &mut [u8]) -> io::Result<Option<OwnedFd>> {
    let (mut filled, mut descriptor) = (0, None);
    while filled < buffer.len() {
        let rest = buffer.get_mut(filled..).unwrap_or_default();
        let (read, mut fds) =
            from.async_io(Interest::READABLE, || p2p_jail::explain::receive(from.as_fd(), rest)).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        descriptor = descriptor.or_else(|| fds.pop());
    }
    Ok(descriptor)
}
