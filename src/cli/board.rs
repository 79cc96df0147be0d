//! `p2p-worker board`: serve a message board over SSH, keep its accounts, look at it.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    board::{
        ServeError,
        server::{self, Account, Accounts, BoardLimits, BoardServer, BoardServerConfig, rfc3339},
    },
    clock,
    config::{self, ConfigError},
    ids::UserName,
};

/// The most that a public key file may have, in bytes.
const MOST_KEY: u64 = 64 * 1024;

/// Descriptors that a board needs besides those of its connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// The longest that an invitation can be valid.
const LONGEST_INVITATION: Duration = Duration::from_secs(31 * 24 * 3600);

/// Serve a message board over SSH. Accounts are known by their public keys alone.
#[derive(Debug, Args)]
pub(super) struct BoardArgs {
    /// Where to listen, HOST:PORT; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2222")]
    pub(super) listen: String,
    /// The folder of the board's host key, accounts and invitations
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) state: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArgs,
    /// What to do instead of serving
    #[command(subcommand)]
    pub(super) command: Option<BoardCommand>,
}

/// What the members of a board can take from each other.
#[derive(Debug, Args)]
struct LimitArgs {
    /// Connections in all [default: 512]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Connections of one account [default: 64]
    #[arg(long, value_name = "N")]
    max_connections_per_account: Option<usize>,
    /// Topics that one account is on at a time [default: 64]
    #[arg(long, value_name = "N")]
    max_topics_per_account: Option<usize>,
    /// Lines that one account may post in a second, each counted again for every 256 bytes; one connection may have a
    /// quarter of it [default: 4096]
    #[arg(long, value_name = "N")]
    max_lines_per_second: Option<u32>,
    /// The time to sign in [default: 60 s]
    #[arg(long, value_name = "TIME")]
    sign_in_time: Option<String>,
}

/// What `board` can do besides serving.
#[derive(Debug, Subcommand)]
pub(super) enum BoardCommand {
    /// Accounts of the board; changes hold at once, also while it serves
    #[command(subcommand)]
    User(UserCommand),
    /// Make a code with which a friend has an account by their own key: ssh HOST join CODE
    Invite(InviteArgs),
    /// Show the board that serves: accounts, topics, connections, lines a second, what was refused
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Whom to invite.
#[derive(Debug, Args)]
pub(super) struct InviteArgs {
    /// The account: a new one, or one that gets another key
    #[arg(required_unless_present_any = ["list", "revoke"], conflicts_with_all = ["list", "revoke"])]
    name: Option<UserName>,
    /// How long the code can be used, at most 31 d
    #[arg(long, value_name = "TIME", default_value = "1 d")]
    valid: String,
    /// List the invitations that can still be used
    #[arg(long, conflicts_with = "revoke")]
    list: bool,
    /// Take back all invitations to an account
    #[arg(long, value_name = "NAME")]
    revoke: Option<UserName>,
}

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make an account, or give one another key
    Add {
        /// The account's name
        name: UserName,
        /// An OpenSSH public key file, as ssh-keygen makes it (….pub); - reads standard input
        keyfile: PathBuf,
    },
    /// List all accounts and keys: name, time of creation, fingerprint, type and comment of the key
    List,
    /// Remove an account with all its keys, or one key, and cut its connections
    Remove {
        /// The account's name
        name: UserName,
        /// Only the key with this fingerprint, as `list` shows it
        #[arg(long, value_name = "SHA256:…")]
        key: Option<String>,
    },
}

/// Why `board` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum BoardCommandError {
    /// The board or its accounts.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A key file cannot be read.
    #[error("cannot read the public key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A key file has a key that cannot be added.
    #[error("cannot add the key {}", path.display())]
    AddKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<ServeError>,
    },
    /// A time that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An invitation that would hold for too long, or not at all.
    #[error("--valid {valid}: an invitation holds for some time, and for 31 d at most")]
    Valid {
        /// What was typed.
        valid: String,
    },
    /// More connections than descriptors.
    #[error("--max-connections {wanted}: this process may open {may} files, which is too few")]
    Descriptors {
        /// What was typed, or the default.
        wanted: usize,
        /// The kernel's hard limit.
        may: u64,
    },
    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
}

impl BoardCommandError {
    /// What the user can do about it, as a full sentence, where there is something.
    #[must_use]
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Serve(error) => error.hint(),
            Self::AddKey { source, .. } => source.hint(),
            Self::Descriptors { .. } => {
                Some("Allow more: ulimit -n 4096, or LimitNOFILE=4096 in a unit of systemd.".to_owned())
            }
            Self::Key { .. } | Self::Config(_) | Self::Valid { .. } | Self::Output(_) => None,
        }
    }

    /// Whether the command was wrong, rather than the machine or the network.
    #[must_use]
    pub(super) fn is_usage(&self) -> bool {
        !matches!(
            self,
            Self::Serve(
                ServeError::Listen { .. }
                    | ServeError::File { .. }
                    | ServeError::Control { .. }
                    | ServeError::NotServing { .. }
            ) | Self::Output(_)
        )
    }
}

/// Runs the command; serving ends when `shutdown` does, and `listening` is told when it has begun. `default_state` holds
/// where `--state` is not given.
///
/// # Errors
/// [`BoardCommandError`].
pub(super) async fn run(
    args: BoardArgs,
    default_state: &Path,
    out: &mut impl Write,
    listening: impl FnOnce(String),
    shutdown: impl Future<Output = ()>,
) -> Result<(), BoardCommandError> {
    let state = args.state.unwrap_or_else(|| default_state.to_owned());
    match args.command {
        None => {
            serve(BoardServerConfig { listen: args.listen, state }, args.limits.resolve()?, out, listening, shutdown)
                .await
        }
        Some(BoardCommand::User(command)) => {
            let accounts = Accounts::open(&state)?;
            if user(&accounts, command, out)? {
                look(&state).await;
            }
            Ok(())
        }
        Some(BoardCommand::Invite(command)) => invite(&state, command, out).await,
        Some(BoardCommand::Status { json }) => {
            let status = server::status(&state).await?;
            let json = if json { serde_json::to_string(&status).ok() } else { None };
            say(out, json.unwrap_or_else(|| status.to_string()).trim_end())
        }
    }
}

impl LimitArgs {
    fn resolve(&self) -> Result<BoardLimits, ConfigError> {
        let usual = BoardLimits::default();
        Ok(BoardLimits {
            connections: self.max_connections.unwrap_or(usual.connections),
            connections_of_account: self.max_connections_per_account.unwrap_or(usual.connections_of_account),
            topics_of_account: self.max_topics_per_account.unwrap_or(usual.topics_of_account),
            lines_a_second: self.max_lines_per_second.unwrap_or(usual.lines_a_second),
            sign_in: config::duration("sign-in-time", self.sign_in_time.as_deref())?.unwrap_or(usual.sign_in),
        })
    }
}

async fn serve(
    config: BoardServerConfig,
    limits: BoardLimits,
    out: &mut impl Write,
    listening: impl FnOnce(String),
    shutdown: impl Future<Output = ()>,
) -> Result<(), BoardCommandError> {
    allow_descriptors(limits.connections)?;
    let state = config.state.clone();
    let server = BoardServer::bind_within(config, limits).await?;
    let accounts = server.accounts().list()?.len();
    write!(
        out,
        "board:    {}\nhost key: {}\nstate:    {} ({accounts} keys)\n",
        server.local_addr(),
        server.fingerprint(),
        state.display()
    )
    .and_then(|()| out.flush())
    .map_err(BoardCommandError::Output)?;
    if accounts == 0 {
        tracing::warn!("nobody can sign in yet: p2p-worker board user add NAME KEYFILE.pub, or board invite NAME");
    }
    listening(format!("listening on {}", server.local_addr()));
    server.run(shutdown).await;
    Ok(())
}

/// Lets this process open as many files as it has connections, as far as it may.
fn allow_descriptors(connections: usize) -> Result<(), BoardCommandError> {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS);
    // A system that does not tell has no limit to speak of.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    if soft >= needed {
        return Ok(());
    }
    let raised = needed <= hard && setrlimit(Resource::RLIMIT_NOFILE, needed, hard).is_ok();
    if raised { Ok(()) } else { Err(BoardCommandError::Descriptors { wanted: connections, may: hard }) }
}

/// Says whether something changed that a board which serves should look at.
fn user(accounts: &Accounts, command: UserCommand, out: &mut impl Write) -> Result<bool, BoardCommandError> {
    match command {
        UserCommand::Add { name, keyfile } => {
            let text = read_key(&keyfile).map_err(|source| BoardCommandError::Key { path: keyfile.clone(), source })?;
            let account = accounts.add(&name, &text).map_err(|error| match error {
                ServeError::PublicKey { .. } | ServeError::PrivateKey | ServeError::KeyOptions => {
                    BoardCommandError::AddKey { path: keyfile, source: Box::new(error) }
                }
                other => other.into(),
            })?;
            say(out, &describe(&account))?;
        }
        UserCommand::List => {
            accounts.list()?.iter().try_for_each(|account| say(out, &describe(account)))?;
            return Ok(false);
        }
        UserCommand::Remove { name, key: Some(fingerprint) } => {
            accounts.remove_key(&name, &fingerprint)?;
            say(out, &format!("removed the key {fingerprint} of {name}"))?;
        }
        UserCommand::Remove { name, key: None } => {
            accounts.remove(&name)?;
            say(out, &format!("removed {name}"))?;
        }
    }
    Ok(true)
}

/// Lets a board that serves look at its accounts, so that the change holds when this ends.
async fn look(state: &Path) {
    match server::look(state).await {
        Ok(()) | Err(ServeError::NotServing { .. }) => {}
        Err(error) => {
            tracing::warn!(error = crate::error_chain(&error), "the board will see the change within 5 s");
        }
    }
}

async fn invite(state: &Path, args: InviteArgs, out: &mut impl Write) -> Result<(), BoardCommandError> {
    let accounts = Accounts::open(state)?;
    if let Some(name) = args.revoke {
        let revoked = accounts.revoke(&name)?;
        return say(out, &format!("took back {revoked} invitations to {name}"));
    }
    let Some(name) = args.name else {
        let describe = |invite: &server::Invite| {
            format!("{}  made {}  until {}", invite.name, rfc3339(invite.created), rfc3339(invite.expires))
        };
        return accounts.invites()?.iter().try_for_each(|invite| say(out, &describe(invite)));
    };
    let valid = config::duration("valid", Some(&args.valid))?.unwrap_or_default();
    if valid.is_zero() || valid > LONGEST_INVITATION {
        return Err(BoardCommandError::Valid { valid: args.valid });
    }
    let expires = clock::now() + valid;
    let code = accounts.invite(&name, expires)?;
    // The port and the host key are those of the board that serves; without one, the friend has to be told.
    let status = server::status(state).await.ok();
    let port = status.as_ref().and_then(|status| status.listens.rsplit(':').next().map(str::to_owned));
    let port = port.unwrap_or_else(|| "PORT".to_owned());
    say(out, &format!("code:     {code}"))?;
    say(out, &format!("account:  {name}, for the first key that comes with it, until {}", rfc3339(expires)))?;
    say(out, &format!("to type:  ssh -p {port} HOST join {code}"))?;
    match status {
        Some(status) => say(out, &format!("host key: {}  (for your friend to compare)", status.host_key)),
        None => say(out, "note:     no board serves this folder at the moment"),
    }
}

fn describe(account: &Account) -> String {
    let fingerprint = account.fingerprint();
    let (kind, comment) = (account.key.algorithm(), account.key.comment().as_str_lossy());
    let text = format!("{}  {}  {fingerprint}  {kind} {comment}", account.name, account.created);
    // The file can be edited by hand.
    crate::text::for_log(text.trim_end(), 300)
}

fn say(out: &mut impl Write, line: &str) -> Result<(), BoardCommandError> {
    writeln!(out, "{line}").map_err(BoardCommandError::Output)
}

fn read_key(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MOST_KEY).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)?.take(MOST_KEY).read_to_string(&mut text)
    };
    read.map(|_| text)
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
