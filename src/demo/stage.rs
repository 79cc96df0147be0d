//! What the demo takes place on: folders, keys, board, worker, client; and a look at the machine from outside.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use russh::keys::{Algorithm, PrivateKey, ssh_key::LineEnding};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    board::{
        Board,
        server::{BoardServer, BoardServerConfig},
        ssh::{SshBoard, SshBoardConfig},
    },
    client::{self, Client, ClientEvent},
    config::DEFAULT_MAX_BYTES,
    failure::{Failure, Status},
    ids::{FutureId, PeerName, Topic, UserName},
    runner::{Shown, Workbench},
    sandbox::{Known, Surroundings},
    spool::Spooled,
    supervisor::JOINED,
};

/// The one account of the demo's board; worker and client have a key of it each.
const ACCOUNT: &str = "demo";

/// What an honest step may take on a slow machine before the demo calls it failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The worker's profile: strict, but nobody wants to watch a loop for half an hour.
const PROFILE: &str = "inherits = \"strict\"\n\n[limits]\nmemory = \"1 GiB\"\naddress_space = \"1 GiB\"\n\
                       cpu_time = \"5 s\"\nwall_time = \"20 s\"\n\n[scratch]\n\
                       \"/tmp\" = { size = \"128 MiB\", files = 5000, why = \"R's tempdir()\" }\n";

pub(super) struct Stage {
    folder: TempDir,
    port: u16,
    worker: Child,
    client: Client,
    dispatcher: JoinHandle<()>,
    workbench: Workbench,
    board: CancellationToken,
}

impl Stage {
    /// Sets everything up; returns when the worker is there.
    pub(super) async fn set(driver: &str, slots: usize) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("p2p-worker-demo-").tempdir().map_err(usage)?;
        let path = folder.path();
        for name in ["home", "home/.ssh", "worker", "client", "board"] {
            fs::DirBuilder::new().mode(0o700).create(path.join(name)).map_err(usage)?;
        }
        write_key(&path.join("home/.ssh/id_ed25519"))?;
        fs::write(path.join("home/thesis.txt"), "ten years of work\n").map_err(usage)?;
        fs::write(path.join("demo.toml"), PROFILE).map_err(usage)?;
        let surroundings = Surroundings { home: Some(path.join("home")), state: Some(path.join("client")) };
        // The client looks into results in a sandbox of its own.
        let search_path = std::env::var_os("PATH");
        let known = Known { surroundings, search_path, ..Known::default() };
        let workbench = Workbench::prepare(driver, "standard", known).await?;
        let board = CancellationToken::new();
        let port = serve_board(path, board.clone()).await?;
        let (client, dispatcher) = start_client(path, port).await?;
        let mut worker = start_worker(path, driver, port, slots)?;
        until_joined(&mut worker).await?;
        Ok(Self { folder, port, worker, client, dispatcher, workbench, board })
    }

    pub(super) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// A number of seconds that no other process on this machine sleeps.
    pub(super) fn marker(&self) -> u32 {
        900_000_000 + std::process::id() % 1_000_000
    }

    /// Makes a future of R code.
    pub(super) async fn make(&self, code: &str) -> Result<(FutureId, Arc<Spooled>), Failure> {
        Ok(self.workbench.make(code, &CancellationToken::new()).await?)
    }

    /// What a result printed.
    pub(super) async fn show(&self, id: &FutureId, result: &Spooled) -> Result<Shown, Failure> {
        Ok(self.workbench.show(id, result, &CancellationToken::new()).await?)
    }

    /// R code, the whole way there and back.
    pub(super) async fn evaluate(&self, code: &str) -> Result<Shown, Failure> {
        let (id, future) = self.make(code).await?;
        self.show(&id, &wait(&self.client, &id, future).await?).await
    }

    /// Every file in the worker's home folder, with its bytes.
    pub(super) fn fingerprint(&self) -> Result<String, Failure> {
        let mut hasher = blake3::Hasher::new();
        for name in [".ssh/id_ed25519", "thesis.txt"] {
            // A file that is gone has no bytes, and so another fingerprint.
            hasher.update(name.as_bytes()).update(&fs::read(self.home().join(name)).unwrap_or_default());
        }
        Ok(hasher.finalize().to_string())
    }

    /// Whether any process of this machine sleeps as long as only the demo's daemon does.
    pub(super) fn marker_lives(&self) -> Result<bool, Failure> {
        let marker = self.marker().to_string();
        let sleeps = |entry: io::Result<fs::DirEntry>| {
            let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            line.split(|byte| *byte == 0).any(|argument| argument == marker.as_bytes()).then_some(())
        };
        Ok(fs::read_dir("/proc").map_err(usage)?.any(|entry| sleeps(entry).is_some()))
    }

    /// Ends the worker as systemd would, then the board.
    pub(super) async fn strike(mut self) -> Result<ExitStatus, Failure> {
        if let Some(pid) = self.worker.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(usage)?;
        }
        let left = timeout(PATIENCE, self.worker.wait()).await.map_err(network)?.map_err(network)?;
        // The client leaves when its last handle is gone, and then the board may.
        drop(self.client);
        self.dispatcher.await.map_err(network)?;
        self.board.cancel();
        Ok(left)
    }
}

/// Posts a future and waits for its result.
pub(super) async fn wait(client: &Client, id: &FutureId, future: Arc<Spooled>) -> Result<Spooled, Failure> {
    let mut events = client.post(id.clone(), future).await;
    let result = async {
        loop {
            match events.recv().await {
                Some(ClientEvent::Done(result, _)) => return Ok(result),
                Some(ClientEvent::Failed(error)) => return Err(Failure::new(Status::Network, error)),
                Some(_) => {}
                None => return Err(Failure::new(Status::Network, "the client ended")),
            }
        }
    };
    timeout(PATIENCE, result).await.map_err(|_| Failure::new(Status::Network, "no result in two minutes"))?
}

fn usage(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Status::Usage, error)
}

fn network(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Status::Network, error)
}

/// A fresh key pair as OpenSSH writes it: the private half at `path`, the public half beside it.
fn write_key(path: &Path) -> Result<(), Failure> {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(usage)?;
    let private = key.to_openssh(LineEnding::LF).map_err(usage)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(usage)?;
    file.write_all(private.as_bytes()).map_err(usage)?;
    let public = key.public_key().to_openssh().map_err(usage)?;
    fs::write(path.with_extension("pub"), public + "\n").map_err(usage)
}

/// Starts the board on a free port of the loopback interface, with an account that has the keys of worker and client.
async fn serve_board(path: &Path, shutdown: CancellationToken) -> Result<u16, Failure> {
    let config = BoardServerConfig { listen: "127.0.0.1:0".to_owned(), state: path.join("board") };
    let board = BoardServer::bind(config).await.map_err(network)?;
    let account: UserName = ACCOUNT.parse().map_err(usage)?;
    for peer in ["worker", "client"] {
        write_key(&path.join(peer).join("key"))?;
        let public = fs::read_to_string(path.join(peer).join("key.pub")).map_err(usage)?;
        board.accounts().add(&account, &public).map_err(network)?;
    }
    let port = board.local_addr().port();
    tokio::spawn(board.run(async move { shutdown.cancelled().await }));
    Ok(port)
}

async fn start_client(path: &Path, port: u16) -> Result<(Client, JoinHandle<()>), Failure> {
    let state = path.join("client");
    let address = format!("127.0.0.1:{port}").parse().map_err(usage)?;
    let board = SshBoard::new(SshBoardConfig {
        identities: vec![state.join("key")],
        ssh_folder: None,
        accept_new: true,
        ..SshBoardConfig::new(address, &state)
    });
    let me = board.user().await?;
    let topic: Topic = "personal/future.p2p".parse().map_err(usage)?;
    let setup = client::Setup {
        me: PeerName::of_this_process(&me),
        link: board.join(&topic).await?,
        transfer: Some(client::listening_transfer(crate::transfer::libp2p::Listen::Everywhere, Vec::new()).await?),
        wormhole: None,
        spool_directory: state,
        max_result: DEFAULT_MAX_BYTES,
        max_attempts: 1,
    };
    Ok(Client::start(setup))
}

fn start_worker(path: &Path, driver: &str, port: u16, slots: usize) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(usage)?;
    Command::new(program)
        .args(["--board", &format!("127.0.0.1:{port}"), "--accept-new", "--sandbox", driver])
        .args(["--slots", &slots.to_string()])
        .arg("--profile")
        .arg(path.join("demo.toml"))
        .arg("--identity")
        .arg(path.join("worker/key"))
        .arg("--state")
        .arg(path.join("worker"))
        .env("HOME", path.join("home"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(usage)
}

/// Waits until the worker says that it has joined. One that ends before is an error with its own words.
async fn until_joined(worker: &mut Child) -> Result<(), Failure> {
    let stderr = worker.stderr.take().ok_or_else(|| Failure::new(Status::Usage, "the worker has no log"))?;
    let mut lines = BufReader::new(stderr).lines();
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
    if !timeout(PATIENCE, joined).await.unwrap_or(false) {
        return Err(Failure::new(Status::Sandbox, format!("the worker did not start:\n{log}")));
    }
    // Somebody has to go on reading, or the worker would wait for room in the pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(())
}
