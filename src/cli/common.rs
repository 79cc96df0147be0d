//! Arguments that several subcommands share, and what they resolve to.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use p2p_jail::spec::Identity;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, Status};
use crate::{
    board::ssh::{SshBoard, SshBoardConfig, SshChoice, SshProgram},
    config::{self, ConfigFile, Folders},
    ids::{ClusterName, FutureId, UserName},
    rds::Carried,
    runner::{Shown, Verdict, Workbench},
    sandbox::{Known, Machine, Provenance, SandboxError, Surroundings, show_bytes},
    spool::Spooled,
    text,
};

/// The most characters of a layer's detail that are shown.
const MOST_DETAIL: usize = 200;

/// Where configuration and state are.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlaceArgs {
    /// Configuration file [default: ~/.config/p2p-worker/config.toml, else /etc/p2p-worker/config.toml]
    #[arg(long, value_name = "FILE", env = "P2P_WORKER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder for keys, known hosts and temporary files [default: $STATE_DIRECTORY, else ~/.local/state/p2p-worker]
    #[arg(long, value_name = "DIR", env = "P2P_WORKER_STATE")]
    pub state: Option<PathBuf>,
}

/// The board and how to sign in.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BoardArgs {
    /// The message board; ~/.ssh/config may say more of the host [default: pipe.pico.sh]
    #[arg(long, value_name = "HOST[:PORT]", env = "P2P_WORKER_BOARD")]
    pub board: Option<String>,
    /// The cluster [default: the personal cluster of your account]
    #[arg(long, value_name = "OWNER/NAME", env = "P2P_WORKER_CLUSTER")]
    pub cluster: Option<String>,
    /// SSH key to sign in with, and no other; may be repeated [default: as ssh: ~/.ssh/config, ssh-agent, ~/.ssh/id_*]
    #[arg(short, long, value_name = "KEYFILE", env = "P2P_WORKER_IDENTITY")]
    pub identity: Vec<PathBuf>,
    /// SSH login name, where the board cares [default: your user name here]
    #[arg(long, value_name = "NAME", env = "P2P_WORKER_LOGIN")]
    pub login: Option<String>,
    /// Accept and remember the key of a board that was never seen before
    #[arg(long, env = "P2P_WORKER_ACCEPT_NEW")]
    pub accept_new: bool,
    /// Connect with this ssh, which reads its own configuration; "none": with none [default: ssh for pipe.pico.sh]
    #[arg(long, value_name = "PROGRAM", env = "P2P_WORKER_SSH_PROGRAM")]
    pub ssh_program: Option<String>,
    /// Arguments for that ssh, as a shell takes them: "-J jump.example.org"
    #[arg(long, value_name = "ARGS", env = "P2P_WORKER_SSH_ARGS", allow_hyphen_values = true)]
    pub ssh_args: Option<String>,
}

/// The sandbox.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SandboxArgs {
    /// Who makes the sandbox: jail, bubblewrap or none [default: jail]
    #[arg(long, value_name = "DRIVER", env = "P2P_WORKER_SANDBOX")]
    pub sandbox: Option<String>,
    /// What a task may do: strict, standard or the path of a profile [default: standard]
    #[arg(long, value_name = "NAME|FILE", env = "P2P_WORKER_PROFILE")]
    pub profile: Option<String>,
    #[command(flatten)]
    pub image: ImageArgs,
}

/// What tasks see as the system, and who they are.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ImageArgs {
    /// A root file system, with R, that tasks see in place of this machine's own (made by mmdebstrap, for instance)
    #[arg(long, value_name = "DIR", env = "P2P_WORKER_ROOT")]
    pub root: Option<PathBuf>,
    /// As whom root's tasks run: an account of their own, which no daemon shares [default: uid 65534]
    #[arg(long, value_name = "USER", env = "P2P_WORKER_TASK_USER")]
    pub task_user: Option<String>,
}

impl ImageArgs {
    /// With what the caller knows of this machine.
    pub(super) fn known(&self, place: &Place) -> Result<Known, Failure> {
        let user = self.task_user.as_deref().or(place.file.task_user.as_deref());
        Ok(Known {
            surroundings: surroundings(place),
            search_path: std::env::var_os("PATH"),
            root: self.root.clone().or_else(|| place.file.root.clone()),
            become_user: user.map(account).transpose()?,
            ..Known::default()
        })
    }
}

/// An account of this machine.
fn account(name: &str) -> Result<Identity, Failure> {
    let found = nix::unistd::User::from_name(name).map_err(|error| Failure::new(Status::Usage, error))?;
    let missing = || format!("no user is named {name}; make one: useradd --system --no-create-home {name}");
    let user = found.ok_or_else(|| Failure::new(Status::Usage, missing()))?;
    Ok(Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

/// How large futures and results may be.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LimitArgs {
    /// The largest future that is taken or posted [default: 1 GiB]
    #[arg(long, value_name = "SIZE", env = "P2P_WORKER_MAX_FUTURE")]
    max_future: Option<String>,
    /// The largest result that is returned (never more than the profile allows) or accepted [default: 1 GiB]
    #[arg(long, value_name = "SIZE", env = "P2P_WORKER_MAX_RESULT")]
    max_result: Option<String>,
}

impl LimitArgs {
    /// Futures and results, in bytes.
    pub(super) fn resolve(&self, file: &ConfigFile) -> Result<(u64, u64), Failure> {
        let max_future = self.max_future.as_deref().or(file.max_future.as_deref());
        let max_result = self.max_result.as_deref().or(file.max_result.as_deref());
        let max_future = config::bytes_or("max-future", max_future, config::DEFAULT_MAX_BYTES)?;
        Ok((max_future, config::max_result(max_result)?))
    }
}

/// Configuration file and state folder, found.
#[derive(Debug)]
pub(super) struct Place {
    pub file: ConfigFile,
    pub folders: Folders,
    pub state: PathBuf,
}

impl PlaceArgs {
    pub(super) fn resolve(&self) -> Result<Place, Failure> {
        let folders = Folders::from_environment();
        let file =
            ConfigFile::load(self.config.as_deref(), folders.config.as_deref()).map_err(config::ConfigError::from)?;
        let state = folders.make_state(self.state.as_deref().or(file.state.as_deref()))?;
        Ok(Place { file, folders, state })
    }
}

impl BoardArgs {
    /// The board and the cluster; `None` for the personal one.
    pub(super) fn resolve(&self, place: &Place) -> Result<(SshBoard, Option<ClusterName>), Failure> {
        self.resolve_for(place, true)
    }

    /// The same where nobody can be asked for a passphrase.
    pub(super) fn resolve_unattended(&self, place: &Place) -> Result<(SshBoard, Option<ClusterName>), Failure> {
        self.resolve_for(place, false)
    }

    fn resolve_for(&self, place: &Place, passphrases: bool) -> Result<(SshBoard, Option<ClusterName>), Failure> {
        let file = &place.file;
        let address = self.board.as_deref().or(file.board.as_deref());
        let address = address.map(|text| config::name("board", text)).transpose()?.unwrap_or_default();
        let cluster = self.cluster.as_deref().or(file.cluster.as_deref());
        let cluster = cluster.map(|text| config::name("cluster", text)).transpose()?;
        let named = file.identity.clone().unwrap_or_default();
        let program = self.ssh_program.as_deref().or(file.ssh_program.as_deref());
        let ssh = ssh_choice(program, self.ssh_args.as_deref().or(file.ssh_args.as_deref()))?;
        let board = SshBoard::new(SshBoardConfig {
            login: self.login.clone().or(file.login.clone()),
            identities: if self.identity.is_empty() { named } else { self.identity.clone() },
            accept_new: self.accept_new || file.accept_new.unwrap_or(false),
            passphrases,
            ssh,
            ..SshBoardConfig::new(address, &place.state)
        });
        Ok((board, cluster))
    }
}

/// Whose SSH connects.
fn ssh_choice(program: Option<&str>, arguments: Option<&str>) -> Result<SshChoice, config::ConfigError> {
    let arguments = arguments.map(config::arguments).transpose()?;
    match (program, arguments) {
        (None, None) => Ok(SshChoice::Usual),
        (Some("none"), None) => Ok(SshChoice::Own),
        (Some("none"), Some(_)) => Err(config::ConfigError::SshArguments { why: "there is no ssh that they are for" }),
        (program, arguments) => Ok(SshChoice::System(SshProgram {
            program: program.unwrap_or("ssh").into(),
            arguments: arguments.unwrap_or_default(),
        })),
    }
}

/// The cluster that was asked for, else the personal one.
pub(super) fn cluster_of(cluster: Option<ClusterName>, me: &UserName) -> Result<ClusterName, Failure> {
    Ok(cluster.map_or_else(|| config::name("cluster", &format!("{me}/personal")), Ok)?)
}

/// What is evaluated: a file, or an expression.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Source {
    /// The RDS file of a future
    #[arg(value_name = "FILE.rds")]
    file: Option<PathBuf>,
    /// R code; prints what it prints and its visible values, as Rscript -e does
    #[arg(short, long, value_name = "EXPR")]
    expression: Option<String>,
}

impl Source {
    /// The future and its name. What must be parsed of it is parsed by R, in the sandbox.
    pub(super) async fn read(
        &self,
        workbench: &Workbench,
        cancel: &CancellationToken,
    ) -> Result<(FutureId, Arc<Spooled>), Failure> {
        match (&self.file, &self.expression) {
            (Some(path), _) => future_of_file(path, workbench, cancel).await,
            (None, Some(code)) => future_of_code(code, workbench, cancel).await,
            (None, None) => Err(Failure::new(Status::Usage, "nothing to evaluate")),
        }
    }
}

/// The future in an RDS file, and its name, which R finds out in the sandbox.
pub(super) async fn future_of_file(
    path: &Path,
    workbench: &Workbench,
    cancel: &CancellationToken,
) -> Result<(FutureId, Arc<Spooled>), Failure> {
    let (path, limit) = (path.to_owned(), workbench.max_future());
    let read = tokio::task::spawn_blocking(move || Spooled::from_path(&path, limit)).await;
    let future = read
        .map_err(|error| Failure::new(Status::Usage, error))?
        .map_err(|error| Failure::new(Status::Usage, error))?;
    Ok((workbench.identify(&future, cancel).await?, Arc::new(future)))
}

/// A future that does what `Rscript -e` would do with this code.
pub(super) async fn future_of_code(
    code: &str,
    workbench: &Workbench,
    cancel: &CancellationToken,
) -> Result<(FutureId, Arc<Spooled>), Failure> {
    let (id, future) = workbench.make(code, cancel).await?;
    let limit = workbench.max_future();
    if future.size() > limit {
        let error = format!("the future of {} is over --max-future {}", show_bytes(future.size()), show_bytes(limit));
        return Err(Failure::new(Status::Usage, error));
    }
    Ok((id, future))
}

impl SandboxArgs {
    /// Finds R, reads the profile, probes the driver. Fails before anything is claimed or run.
    pub(super) async fn workbench(&self, place: &Place) -> Result<Workbench, Failure> {
        let (driver, profile) = self.resolve(place);
        Ok(Workbench::prepare(&driver, &profile, self.image.known(place)?).await?)
    }

    /// The names of the driver and of the profile: from the command line, the configuration file, or what is usual.
    pub(super) fn resolve(&self, place: &Place) -> (String, String) {
        let or = |flag: &Option<String>, file: &Option<String>, usual: &str| {
            flag.clone().or_else(|| file.clone()).unwrap_or_else(|| usual.to_owned())
        };
        let file = &place.file;
        (or(&self.sandbox, &file.sandbox, "jail"), or(&self.profile, &file.profile, "standard"))
    }
}

/// SIGINT and SIGTERM cancel whatever is under way.
pub(super) fn cancel_on_interrupt(cancel: CancellationToken) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::new(Status::Usage, error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(())
}

/// Writes a result to its file, or prints what it printed, and ends with the status that it deserves. A result is a
/// stranger's: it is R in the sandbox that looks into it.
pub(super) async fn conclude(
    workbench: &Workbench,
    id: &FutureId,
    result: &Spooled,
    output: Option<&Output>,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let shown = workbench.show(id, result, cancel).await?;
    match output {
        Some(output) => drop(output.take(result, &shown)?),
        None => print(&shown.stdout, io::stdout())?,
    }
    // What the code said on stderr goes there in either case, and is made harmless for a terminal.
    print(&shown.stderr, io::stderr())?;
    status_of(shown.verdict).map_or(Ok(()), |status| Err(Failure::silent(status)))
}

/// What the process exits with after such a result; `None` is success.
pub(super) fn status_of(verdict: Verdict) -> Option<Status> {
    match verdict {
        Verdict::Fine => None,
        Verdict::CodeFailed => Some(Status::Code),
        Verdict::Stopped => Some(Status::Stopped),
        Verdict::NoResult => Some(Status::Network),
    }
}

/// The file that a result goes to.
#[derive(Debug, Clone)]
pub(super) struct Output {
    path: PathBuf,
    /// Whether a file that is there already is replaced.
    force: bool,
}

impl Output {
    /// A file that is not there yet, or may be replaced, in a folder that is there.
    pub(super) fn new(path: PathBuf, force: bool) -> Result<Self, Failure> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let error = format!("there is no folder {} for the result", folder.display());
            let hint = format!("make it first: mkdir -p {}", folder.display());
            return Err(Failure::new(Status::Usage, error).hint(hint));
        }
        Self::in_folder(path, force)
    }

    /// The same, in a folder that is made if it is not there.
    pub(super) fn in_folder(path: PathBuf, force: bool) -> Result<Self, Failure> {
        let there = path.symlink_metadata();
        if there.as_ref().is_ok_and(std::fs::Metadata::is_dir) {
            let error = format!("{} is a folder, which cannot be replaced by a result", path.display());
            let hint = format!("name a file in it: {}", path.join("result.rds").display());
            return Err(Failure::new(Status::Usage, error).hint(hint));
        }
        if !force && there.is_ok() {
            let error = format!("{} is there already", path.display());
            return Err(Failure::new(Status::Usage, error).hint("move it away, or say --force to replace it"));
        }
        Ok(Self { path, force })
    }

    /// Saves the result, whole or not at all; where it went. What is no result, or that of another future, does not take a
    /// result's place.
    pub(super) fn take(&self, result: &Spooled, shown: &Shown) -> Result<Option<&Path>, Failure> {
        if shown.verdict == Verdict::NoResult {
            return Ok(None);
        }
        let saved = if self.force { result.save_as(&self.path) } else { result.save_as_new(&self.path) };
        saved.map_err(|error| Failure::new(Status::Usage, error))?;
        note_what_runs(&self.path, &shown.carried)?;
        Ok(Some(&self.path))
    }
}

/// Tells who saved a result what of it is code of a stranger that may run when it is looked at.
fn note_what_runs(path: &Path, carried: &Carried) -> Result<(), Failure> {
    if *carried == Carried::default() {
        return Ok(());
    }
    let path = path.display();
    let note =
        format!("p2p-worker: the result can run code when it is used ({carried}): look at {path} in a sandbox\n");
    print(note.as_bytes(), io::stderr())
}

/// Copies text of a stranger to our own stream: as it is into a file or pipe, without escapes onto a terminal.
pub(super) fn print(bytes: &[u8], mut to: impl Write + IsTerminal) -> Result<(), Failure> {
    let written = if to.is_terminal() {
        to.write_all(text::for_terminal(&String::from_utf8_lossy(bytes)).as_bytes())
    } else {
        to.write_all(bytes)
    };
    match written.and_then(|()| to.flush()) {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(Status::Usage, error)),
        _ => Ok(()),
    }
}

/// Says which limits the task reached that did not end it: its own errors may not tell.
pub(super) fn print_reached(provenance: &Provenance) -> Result<(), Failure> {
    for (layer, detail) in provenance.reached() {
        print(format!("{layer}: {}\n", text::for_log(detail, MOST_DETAIL)).as_bytes(), io::stderr())?;
    }
    Ok(())
}

/// The places that belong to the owner.
fn surroundings(place: &Place) -> Surroundings {
    Surroundings { home: place.folders.home.clone(), state: Some(place.state.clone()) }
}

/// This machine, with the places of its owner.
pub(super) fn machine(place: &Place) -> Result<Machine, Failure> {
    Ok(Machine::of(surroundings(place)).map_err(SandboxError::from)?)
}
