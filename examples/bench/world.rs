//! A small world on the loopback interface: a board in this process, and workers and clients of the real program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use p2p_worker::{
    board::{
        Board, BoardEvent, Link,
        server::{BoardServer, BoardServerConfig},
        ssh::{SshBoard, SshBoardConfig},
    },
    ids::{PeerName, Topic, UserName},
    supervisor::JOINED,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{Failure, programs};

/// How long a step may take before the benchmark fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub(crate) async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
    timeout(PATIENCE, work).await.map_err(|_| format!("in vain for {} s: {what}", PATIENCE.as_secs()).into())
}

/// A board with one account, whose key everybody here has.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) port: u16,
    _board: AbortOnDropHandle<()>,
}

impl World {
    pub(crate) async fn new() -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("p2p-bench-").tempdir()?;
        let key = folder.path().join("key");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"]).arg(&key);
        if !keygen.status()?.success() {
            return Err("ssh-keygen made no key".into());
        }
        let config = BoardServerConfig { listen: "127.0.0.1:0".to_owned(), state: folder.path().join("board") };
        let board = BoardServer::bind(config).await?;
        let account: UserName = "bench".parse()?;
        board.accounts().add(&account, &fs::read_to_string(key.with_extension("pub"))?)?;
        let port = board.local_addr().port();
        let board = tokio::spawn(board.run(std::future::pending()));
        Ok(Self { folder, port, _board: AbortOnDropHandle::new(board) })
    }

    fn state(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The program, with an environment and a state folder of its own.
    pub(crate) fn program(&self, name: &str) -> Result<Command, Failure> {
        self.program_at(&programs()?.join("p2p-worker"), name)
    }

    /// The same from another place.
    pub(crate) fn program_at(&self, path: &Path, name: &str) -> Result<Command, Failure> {
        let mut command = Command::new(path);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.state("home")?);
        command.env("P2P_WORKER_STATE", self.state(name)?).env("P2P_WORKER_PROFILE", "strict");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }

    /// How to sign in to the board, as arguments.
    pub(crate) fn sign_in(&self) -> Vec<String> {
        let key = self.folder.path().join("key").display().to_string();
        ["--board", &format!("127.0.0.1:{}", self.port), "--accept-new", "--identity", &key].map(str::to_owned).into()
    }

    /// Starts a worker under strict, with one slot, and waits until it has joined.
    pub(crate) async fn worker(&self) -> Result<Child, Failure> {
        self.started(self.program("worker")?).await
    }

    /// Starts a worker of one's own making, and waits until it has joined.
    pub(crate) async fn started(&self, mut command: Command) -> Result<Child, Failure> {
        command.args(self.sign_in()).stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("the worker has no log")?).lines();
        let mut log = String::new();
        let joined = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(JOINED) {
                    return true;
                }
                log.push_str(&line);
                log.push('\n');
            }
            false
        };
        if !patiently("the worker joins", joined).await? {
            return Err(format!("the worker did not start:\n{log}").into());
        }
        // Somebody has to go on reading, or the worker would wait for room in the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(child)
    }

    /// Signs in as a client, and waits until it has joined too.
    pub(crate) async fn link(&self) -> Result<(PeerName, Link), Failure> {
        let (me, mut link) = join(self.folder.path(), self.port).await?;
        match patiently("the client joins", link.incoming.recv()).await? {
            Some(BoardEvent::Joined) => Ok((me, link)),
            other => Err(format!("the client did not join: {other:?}").into()),
        }
    }
}

/// Signs in to the board of the world that has this folder and this port, from whatever process; has not joined yet.
pub(crate) async fn join(folder: &Path, port: u16) -> Result<(PeerName, Link), Failure> {
    let state = folder.join("client");
    fs::create_dir_all(&state)?;
    let board = SshBoard::new(SshBoardConfig {
        identities: vec![folder.join("key")],
        ssh_folder: None,
        accept_new: true,
        ..SshBoardConfig::new(format!("127.0.0.1:{port}").parse()?, &state)
    });
    let me = board.user().await?;
    let topic: Topic = "personal/future.p2p".parse()?;
    Ok((PeerName::of_this_process(&me), board.join(&topic).await?))
}
