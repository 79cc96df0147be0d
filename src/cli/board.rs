//! `p2p-worker board`: serve a message board over SSH, and keep its accounts.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use crate::{
    board::{
        ServeError,
        server::{Account, Accounts, BoardServer, BoardServerConfig},
    },
    ids::UserName,
};

/// The most that a public key file may have, in bytes.
const MOST_KEY: u64 = 64 * 1024;

/// Serve a message board over SSH. Accounts are known by their public keys alone.
#[derive(Debug, Args)]
pub(super) struct BoardArgs {
    /// Where to listen, HOST:PORT; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2222")]
    pub(super) listen: String,
    /// The folder of the board's host key and accounts
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) state: Option<PathBuf>,
    /// What to do instead of serving
    #[command(subcommand)]
    pub(super) command: Option<BoardCommand>,
}

/// What `board` can do besides serving.
#[derive(Debug, Subcommand)]
pub(super) enum BoardCommand {
    /// Accounts of the board; changes hold at once, also while it serves
    #[command(subcommand)]
    User(UserCommand),
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
    /// List all accounts and keys
    List,
    /// Remove an account with all its keys, and cut its connections
    Remove {
        /// The account's name
        name: UserName,
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
            Self::Key { .. } | Self::Output(_) => None,
        }
    }

    /// Whether the command was wrong, rather than the machine or the network.
    #[must_use]
    pub(super) fn is_usage(&self) -> bool {
        !matches!(self, Self::Serve(ServeError::Listen { .. } | ServeError::File { .. }) | Self::Output(_))
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
        None => serve(BoardServerConfig { listen: args.listen, state }, out, listening, shutdown).await,
        Some(BoardCommand::User(command)) => user(&Accounts::open(&state)?, command, out),
    }
}

async fn serve(
    config: BoardServerConfig,
    out: &mut impl Write,
    listening: impl FnOnce(String),
    shutdown: impl Future<Output = ()>,
) -> Result<(), BoardCommandError> {
    let state = config.state.clone();
    let server = BoardServer::bind(config).await?;
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
        tracing::warn!("nobody can sign in yet: p2p-worker board user add NAME KEYFILE.pub");
    }
    listening(format!("listening on {}", server.local_addr()));
    server.run(shutdown).await;
    Ok(())
}

fn user(accounts: &Accounts, command: UserCommand, out: &mut impl Write) -> Result<(), BoardCommandError> {
    match command {
        UserCommand::Add { name, keyfile } => {
            let text = read_key(&keyfile).map_err(|source| BoardCommandError::Key { path: keyfile.clone(), source })?;
            let account = accounts.add(&name, &text).map_err(|error| match error {
                ServeError::PublicKey { .. } | ServeError::PrivateKey => {
                    BoardCommandError::AddKey { path: keyfile, source: Box::new(error) }
                }
                other => other.into(),
            })?;
            say(out, &describe(&account))
        }
        UserCommand::List => accounts.list()?.iter().try_for_each(|account| say(out, &describe(account))),
        UserCommand::Remove { name } => {
            accounts.remove(&name)?;
            say(out, &format!("removed {name}"))
        }
    }
}

fn describe(account: &Account) -> String {
    format!("{}  {}  {}", account.name, account.created, account.fingerprint())
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
