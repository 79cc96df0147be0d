//! `p2p-worker submit`: post a future to a cluster, show where it is, return its result.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use super::{
    Failure, Status,
    common::{
        BoardArgs, LimitArgs, PlaceArgs, SandboxArgs, Source, cancel_on_interrupt, cluster_of, conclude, print_reached,
    },
};
use crate::{
    board::{Board, Link},
    client::{Client, ClientError, ClientEvent, DEFAULT_ATTEMPTS, Setup, listening_transfer},
    ids::{ClusterName, FutureId, PeerName},
    sandbox::{Provenance, show_bytes},
    spool::Spooled,
    transfer::Network,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    board: BoardArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    #[command(flatten)]
    source: Source,
    /// Write the result, an RDS of a FutureResult, here
    #[arg(short, long, value_name = "RESULT.rds")]
    output: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let place = args.place.resolve()?;
    let (board, cluster) = args.board.resolve(&place)?;
    let (max_future, max_result) = args.limits.resolve(&place.file)?;
    let workbench = args.sandbox.workbench(&place).await?.with_limits(max_future, max_result);
    let cancel = CancellationToken::new();
    cancel_on_interrupt(cancel.clone())?;
    let (id, future) = args.source.read(&workbench, &cancel).await?;

    let joining = join(&board, cluster);
    let (me, link) = tokio::select! {
        joined = joining => joined?,
        () = cancel.cancelled() => return Err(Failure::new(Status::Stopped, "interrupted")),
    };
    let setup = Setup {
        me,
        link,
        transfer: listening_transfer().await?,
        spool_directory: workbench.spool_directory().to_owned(),
        max_result,
        max_attempts: DEFAULT_ATTEMPTS,
    };
    let result = wait(setup, &id, Arc::new(future), &cancel).await?;
    conclude(&workbench, &id, &result, args.output.as_deref(), &cancel).await
}

/// Signs in and joins the cluster.
async fn join(board: &impl Board, cluster: Option<ClusterName>) -> Result<(PeerName, Link), Failure> {
    let me = board.user().await?;
    let topic = cluster_of(cluster, &me)?.topic(&me).map_err(|error| Failure::new(Status::Usage, error))?;
    Ok((PeerName::of_this_process(&me), board.join(&topic).await?))
}

/// Posts the future and waits for its result, telling where it is.
async fn wait<N: Network>(
    setup: Setup<N>,
    id: &FutureId,
    payload: Arc<Spooled>,
    cancel: &CancellationToken,
) -> Result<Spooled, Failure> {
    let (client, dispatcher) = Client::start(setup);
    let mut events = client.post(id.clone(), payload).await;
    let mut line = ProgressLine::new();
    let mut withdrawn = false;
    let end = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(ClientEvent::Done(result, provenance)) => break Ok((result, provenance)),
                Some(ClientEvent::Failed(error)) => break Err(error),
                Some(event) => line.show(&event),
                None => break Err(ClientError::BoardLost("the client ended".to_owned())),
            },
            () = cancel.cancelled(), if !withdrawn => {
                withdrawn = true;
                client.withdraw(id.clone()).await;
            }
        }
    };
    line.clear();
    drop(client);
    // The withdrawal, or nothing, is on its way when the dispatcher ends.
    let _ = dispatcher.await;
    let (result, provenance) = end.map_err(|error| {
        let status = if matches!(error, ClientError::Withdrawn) { Status::Stopped } else { Status::Network };
        Failure::new(status, error)
    })?;
    print_reached(&provenance)?;
    say_shortfalls(&provenance);
    Ok(result)
}

/// What the worker's sandbox went without, in the worker's own words.
fn say_shortfalls(provenance: &Provenance) {
    let shortfalls = provenance.shortfalls();
    if shortfalls.is_empty() {
        return;
    }
    let Provenance { driver, profile, .. } = provenance;
    let text = format!(
        "p2p-worker: the worker's sandbox ({driver}, profile {profile}) was not held in full:\n  {}",
        shortfalls.join("\n  ")
    );
    eprintln!("{}", crate::text::for_terminal(&text));
}

/// One line on a terminal that says where the future is; nothing where stderr is not a terminal.
struct ProgressLine {
    on: bool,
}

impl ProgressLine {
    fn new() -> Self {
        Self { on: io::stderr().is_terminal() }
    }

    fn show(&mut self, event: &ClientEvent) {
        let text = match event {
            ClientEvent::Posted => "posted; waiting for a worker".to_owned(),
            ClientEvent::Accepted(worker) => format!("{worker} takes it"),
            ClientEvent::Sending { bytes, total } => {
                format!("sending {} of {}", show_bytes(*bytes), show_bytes(*total))
            }
            ClientEvent::Running(provenance) => {
                format!("running under {}, profile {}", provenance.driver, provenance.profile)
            }
            ClientEvent::Receiving { bytes, total } => {
                format!("receiving {} of {}", show_bytes(*bytes), show_bytes(*total))
            }
            ClientEvent::Doubted(worker) => format!("{worker} is silent; posted again"),
            ClientEvent::Returned(worker) => format!("{worker} is back"),
            ClientEvent::PostedAgain(why) => format!("{why}; posting it again"),
            ClientEvent::Progress(_) | ClientEvent::Done(..) | ClientEvent::Failed(_) => return,
        };
        self.write(&crate::text::for_log(&text, 100));
    }

    fn clear(&mut self) {
        self.write("");
    }

    fn write(&mut self, text: &str) {
        if self.on {
            // Carriage return, text, erase to the end of the line (ECMA-48 EL). A closed terminal is no reason to stop.
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
            let _ = io::stderr().flush();
        }
    }
}
