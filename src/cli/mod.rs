//! The command line: one file per subcommand, each from arguments to a [`Failure`] or success.

mod board;
mod client;
mod common;
mod demo;
mod doctor;
mod exec;
mod host;
mod profile;
mod service;
mod submit;
mod transfers;
mod worker;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

pub use crate::failure::{Failure, Status};
use crate::{config::Folders, observe};

/// Run your friends' R futures on a spare machine, each in a sandbox that you can check.
///
/// Without a subcommand: be a worker. Exit status: 0 success; 1 the R code failed; 2 wrong usage or configuration; 3
/// the sandbox cannot be enforced here and nothing was run; 4 the task was stopped by a limit or on request; 5 the board
/// or a transfer failed.
#[derive(Debug, Parser)]
#[command(name = "p2p-worker", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    worker: worker::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a message board over SSH
    Board(board::BoardArgs),
    /// Host a shared cluster: hold the list of those who may use it
    Host(host::Args),
    /// Post a future to a cluster and wait for its result
    Submit(Box<submit::Args>),
    /// Be the client of an R session, which says over a pipe what it wants
    Client(Box<client::Args>),
    /// Evaluate here, in the sandbox, with no board
    Exec(exec::Args),
    /// Show what this machine can enforce, each layer proven by a probe, and what to do about the rest
    Doctor(doctor::Args),
    /// List and show sandbox profiles
    Profile(profile::Args),
    /// Run an embedded board, a worker and a client on loopback, then attack them
    Demo(demo::Args),
}

/// Runs the command that the process's arguments name.
///
/// # Errors
/// What `main` prints and exits with.
pub async fn run() -> Result<(), Failure> {
    let cli = Cli::parse();
    // A worker and a board tell what they do; a client shows its own progress.
    observe::start(if matches!(cli.command, None | Some(Command::Board(_) | Command::Host(_))) {
        "info"
    } else {
        "warn"
    });
    match cli.command {
        None => Box::pin(worker::run(cli.worker)).await,
        Some(Command::Board(args)) => {
            // The folder of a board is its own, beside that of a worker of the same user.
            let usual = || Ok::<_, Failure>(Folders::from_environment().make_state(None)?.join("board"));
            let state = args.state.clone().map_or_else(usual, Ok)?;
            let shutdown = CancellationToken::new();
            common::cancel_on_interrupt(shutdown.clone())?;
            let service = service::Service::of_the_manager();
            Ok(board::run(args, &state, &mut std::io::stdout(), |ready| service.ready(ready), shutdown.cancelled())
                .await?)
        }
        Some(Command::Host(args)) => host::run(args).await,
        Some(Command::Submit(args)) => Box::pin(submit::run(*args)).await,
        Some(Command::Client(args)) => Box::pin(client::run(*args)).await,
        Some(Command::Exec(args)) => exec::run(args).await,
        Some(Command::Doctor(args)) => doctor::run(args).await,
        Some(Command::Profile(args)) => profile::run(args).await,
        Some(Command::Demo(args)) => demo::run(args).await,
    }
}

impl From<board::BoardCommandError> for Failure {
    fn from(error: board::BoardCommandError) -> Self {
        let hint = error.hint();
        Self { hint, ..Self::new(if error.is_usage() { Status::Usage } else { Status::Network }, error) }
    }
}
