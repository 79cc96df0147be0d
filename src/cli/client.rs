//! `p2p-worker client --stdio`: what an R session has instead of a connection of its own.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::{
    Failure, Status,
    common::{BoardArgs, LimitArgs, PlaceArgs, cancel_on_interrupt, cluster_of},
    transfers::{ListenArgs, Listening, TransferArgs, Transfers},
};
use crate::{
    board::{Board, SshBoard},
    client::{
        Client, DEFAULT_ATTEMPTS, Setup,
        stdio::{self, Connected, End, Members, NoBoard, SessionError},
    },
    error_chain,
    ids::{ClusterName, PeerName},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Take orders on standard input and tell events on standard output (docs/client-stdio.md); there is no other way
    #[arg(long, required = true)]
    stdio: bool,
    /// A folder of mode 0700 through which the bytes of futures and results pass
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// How many workers get a future, one after the other, where an order does not say [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=101))]
    attempts: Option<u32>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    board: BoardArgs,
    #[command(flatten)]
    transfers: TransferArgs,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    // An interrupt at R's terminal is for R, and nobody is asked for a passphrase behind its back.
    let _ = nix::unistd::setsid();
    let place = args.place.resolve()?;
    let (board, cluster) = args.board.resolve_unattended(&place)?;
    let (max_future, max_result) = args.limits.resolve(&place.file)?;
    let listening = args.listen.resolve(&place.file)?;
    let transfers = args.transfers.resolve(&place.file).await?;
    let attempts = args.attempts.unwrap_or(DEFAULT_ATTEMPTS);
    let stop = CancellationToken::new();
    cancel_on_interrupt(stop.clone())?;
    let settings = stdio::Settings {
        folder: args.folder.clone(),
        max_future,
        max_result,
        board: board.address().to_string(),
        cluster: cluster.clone(),
        attempts,
    };
    let members = Members::default();
    let limits = (max_result, attempts);
    let connect = {
        let members = members.clone();
        async move { connect(&board, cluster, args.folder, limits, (transfers, listening), members).await.map_err(no_board) }
    };
    let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
    match Box::pin(stdio::serve(settings, input, output, stop, members, connect)).await {
        Ok(End::Left) => Ok(()),
        Ok(End::BoardGone) => Err(Failure::new(Status::Network, "the board is gone; R was told why")),
        Err(error @ (SessionError::Folder(_) | SessionError::Refused(_))) => Err(Failure::new(Status::Usage, error)),
    }
}

/// Signs in, joins, and begins to listen for workers.
async fn connect(
    board: &SshBoard,
    cluster: Option<ClusterName>,
    spool_directory: PathBuf,
    (max_result, max_attempts): (u64, u32),
    (transfers, listening): (Transfers, Listening),
    members: Members,
) -> Result<Connected, Failure> {
    // Listening takes no part of the time that signing in takes.
    let (user, ways) = tokio::join!(board.user(), transfers.of_client(listening));
    let (user, (transfer, wormhole)) = (user?, ways?);
    let cluster = cluster_of(cluster, &user)?;
    let topic = cluster.topic(&user).map_err(|error| Failure::new(Status::Usage, error))?;
    let me = PeerName::of_this_process(&user);
    let link = board.join(&topic).await?.tapped(move |event| members.hear(event));
    let setup = Setup { me: me.clone(), link, transfer, wormhole, spool_directory, max_result, max_attempts };
    let (client, dispatcher) = Client::start(setup);
    Ok(Connected { client, dispatcher, me, cluster })
}

fn no_board(failure: Failure) -> NoBoard {
    let reason = failure.error.as_deref().map_or_else(String::new, |error| error_chain(error));
    NoBoard { reason, hint: failure.hint }
}
