//! The system's ssh as the transport: one process for each command and each topic, as a user would start it.
//!
//! It reads its own configuration and asks its own questions, so whatever works on the command line works here. It ends
//! with us: dropping kills it, and `setpriv` (util-linux) has the kernel end it where we are killed.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::oneshot,
    time::timeout,
};

use super::{
    SshBoardConfig,
    connect::within_of,
    prompt,
    session::{Answer, Channel, Reading, Said, Writing},
    settings::{self, Target},
};
use crate::board::BoardError;

/// How long ssh may take where nobody can be asked anything, and where somebody may be.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_WITH_A_TERMINAL: Duration = Duration::from_secs(180);
/// What ssh exits with when it could not do what it was asked to.
const FAILED: u32 = 255;
/// How many bytes are read at once.
const PIECE: usize = 16 * 1024;

/// An ssh to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshProgram {
    /// The program, looked for in `$PATH`.
    pub program: PathBuf,
    /// Its arguments before ours: those win.
    pub arguments: Vec<String>,
}

impl Default for SshProgram {
    fn default() -> Self {
        Self { program: "ssh".into(), arguments: Vec::new() }
    }
}

/// Whether the system's ssh is what is usual for a host: for the public board, where there is an ssh.
///
/// That board sends requests which no answer is wanted to (`ping@pico.sh`); our SSH library answers them all the same, and
/// servers made with Go's `x/crypto` before 0.52 stop reading after the second unasked answer (CVE-2026-39830).
pub(super) async fn is_usual_for(config: &SshBoardConfig, target: &Target) -> bool {
    let is_public = |host: &str| host == "pico.sh" || host.ends_with(".pico.sh");
    let (config, target) = (config.clone(), target.clone());
    let look = move || {
        // If the configuration cannot be read, that is said elsewhere.
        let resolved = settings::route(&config, &target).ok().and_then(|mut route| route.pop());
        let is_it = is_public(&target.host.to_ascii_lowercase()) || resolved.is_some_and(|host| is_public(&host.name));
        if is_it && find("ssh").is_none() {
            config.memory.note_once("no ssh", |_| {
                tracing::warn!(
                    "there is no ssh in $PATH; the connection to the public board may break every half minute"
                );
            });
        }
        is_it && find("ssh").is_some()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or(false)
}

/// A program in `$PATH`, or at its path if that is what the name is.
fn find(name: impl AsRef<Path>) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    let name = name.as_ref();
    if name.components().nth(1).is_some() || name.is_absolute() {
        return Some(name.to_owned()).filter(is_program);
    }
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(is_program)
}

/// How to start ssh for one board.
pub(super) struct Program {
    program: PathBuf,
    arguments: Vec<String>,
    host: String,
    patience: Duration,
}

impl Program {
    pub(super) fn new(config: &SshBoardConfig, ssh: &SshProgram, target: &Target) -> Self {
        let can_ask = config.passphrases && prompt::is_possible();
        let mut arguments = ssh.arguments.clone();
        let mut option = |option: &str| arguments.extend(["-o".to_owned(), option.to_owned()]);
        for usual in ["ServerAliveInterval=8", "ServerAliveCountMax=2", "ControlMaster=no", "ClearAllForwardings=yes"] {
            option(usual);
        }
        if !can_ask {
            option("BatchMode=yes");
        }
        if config.accept_new {
            option("StrictHostKeyChecking=accept-new");
        }
        if !config.identities.is_empty() {
            option("IdentitiesOnly=yes");
        }
        for identity in &config.identities {
            arguments.extend(["-i".to_owned(), identity.to_string_lossy().into_owned()]);
        }
        if let Some(port) = target.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(login) = &target.login {
            arguments.extend(["-l".to_owned(), login.clone()]);
        }
        // No terminal there, and nothing behind the host is an option.
        arguments.extend(["-T".to_owned(), "--".to_owned(), target.host.clone()]);
        let patience = if can_ask { PATIENCE_WITH_A_TERMINAL } else { PATIENCE };
        Self {
            program: ssh.program.clone(),
            arguments,
            host: settings::with_port(&target.host, target.port.unwrap_or(22)),
            patience,
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`BoardError::Program`] if ssh cannot be started, [`BoardError::ProgramFailed`] if it cannot connect,
    /// [`BoardError::TimedOut`].
    pub(super) async fn command(&self, command: &str) -> Result<Answer, BoardError> {
        within_of(&self.host, "the answer to a command", self.patience, async {
            let Channel { mut read, write } = self.channel(command).await?;
            // Commands read nothing.
            drop(write);
            let mut answer = Answer::default();
            while let Some(said) = read.next().await {
                if !answer.take(&said) {
                    break;
                }
            }
            self.failure(&answer).map_or(Ok(answer), Err)
        })
        .await?
    }

    /// That ssh itself failed, as opposed to what it was to do there.
    pub(super) fn failure(&self, answer: &Answer) -> Option<BoardError> {
        let said = || answer.complaint();
        let error =
            || BoardError::ProgramFailed { program: self.program.clone(), host: self.host.clone(), said: said() };
        (answer.status == Some(FAILED)).then(error)
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// A process that runs a command there.
    ///
    /// # Errors
    /// [`BoardError::Program`].
    pub(super) async fn channel(&self, command: &str) -> Result<Channel, BoardError> {
        let failed = |source| BoardError::Program { program: self.program.clone(), source };
        let child = self.spawn(command).await.map_err(failed)?;
        let (input, output) = child.pipes().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Channel { read: Reading::System(Box::new(output)), write: Writing::System(input) })
    }

    /// The kernel ends the child when the thread that started it ends, so that thread waits for the child.
    async fn spawn(&self, command: &str) -> io::Result<Started> {
        if find(&self.program).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut to_start = match guard() {
            Some(guard) => {
                let mut to_start = Command::new(guard);
                to_start.args(["--pdeathsig", "TERM", "--"]).arg(&self.program);
                to_start
            }
            None => Command::new(&self.program),
        };
        to_start.args(&self.arguments).arg(command);
        to_start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let runtime = tokio::runtime::Handle::current();
        let (started, starting) = oneshot::channel();
        let (alive, dead) = oneshot::channel::<()>();
        std::thread::Builder::new().name("ssh".to_owned()).spawn(move || {
            let _runtime = runtime.enter();
            if started.send(to_start.spawn()).is_ok() {
                // Ends when the other end is dropped with the child.
                let _ = dead.blocking_recv();
            }
        })?;
        let child = starting.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))?;
        Ok(Started { child, alive })
    }
}

/// util-linux's setpriv, without which an ssh may outlive a p2p-worker that is killed.
fn guard() -> Option<&'static Path> {
    static GUARD: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    let look = || {
        let found = find("setpriv");
        if found.is_none() {
            tracing::warn!("there is no setpriv (util-linux) in $PATH; an ssh may outlive a p2p-worker that is killed");
        }
        found
    };
    GUARD.get_or_init(look).as_deref()
}

struct Started {
    child: Child,
    alive: oneshot::Sender<()>,
}

impl Started {
    fn pipes(mut self) -> Option<(Input, Output)> {
        let (stdin, stdout, stderr) = (self.child.stdin.take()?, self.child.stdout.take()?, self.child.stderr.take()?);
        let output = Output {
            child: self.child,
            _alive: self.alive,
            stdout: Some(stdout),
            stderr: Some(stderr),
            is_over: false,
            piece: vec![0; PIECE],
            errors: vec![0; PIECE],
        };
        Some((Input(stdin), output))
    }
}

/// The standard input of an ssh.
pub(super) struct Input(ChildStdin);

impl Input {
    /// # Errors
    /// When ssh has ended.
    pub(super) async fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.write_all(data).await?;
        self.0.flush().await
    }
}

/// What an ssh prints, and how it ends. Dropping it kills ssh.
pub(super) struct Output {
    child: Child,
    _alive: oneshot::Sender<()>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    is_over: bool,
    piece: Vec<u8>,
    errors: Vec<u8>,
}

fn taken(from: &[u8], count: usize) -> Vec<u8> {
    from.iter().take(count).copied().collect()
}

/// How long what ssh said last may take to come once its output has ended: a process that it left may hold the pipe.
const LAST_ERRORS: Duration = Duration::from_secs(2);

impl Output {
    /// The next thing that it said; the status is the last but one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Said> {
        loop {
            let Self { stdout, stderr, piece, errors, .. } = self;
            match (stdout.as_mut(), stderr.as_mut()) {
                (Some(out), Some(err)) => tokio::select! {
                    read = out.read(piece) => match read {
                        Ok(count) if count > 0 => return Some(Said::Output(taken(piece, count))),
                        _ => *stdout = None,
                    },
                    read = err.read(errors) => match read {
                        Ok(count) if count > 0 => return Some(Said::Errors(taken(errors, count))),
                        _ => *stderr = None,
                    },
                },
                (Some(out), None) => match out.read(piece).await {
                    Ok(count) if count > 0 => return Some(Said::Output(taken(piece, count))),
                    _ => *stdout = None,
                },
                (None, Some(err)) => match timeout(LAST_ERRORS, err.read(errors)).await {
                    Ok(Ok(count)) if count > 0 => return Some(Said::Errors(taken(errors, count))),
                    _ => *stderr = None,
                },
                (None, None) => break,
            }
        }
        if self.is_over {
            return Some(Said::Closed);
        }
        let status = self.child.wait().await.ok().and_then(|status| status.code());
        self.is_over = true;
        Some(status.and_then(|code| u32::try_from(code).ok()).map_or(Said::Closed, Said::Status))
    }
}
