//! `p2p-worker submit`: post futures to a cluster, show where they are, return their results.
//!
//! `journey` takes one future from its file to its result; `tell` says what happens, to a person or, by `json`, to a
//! script.

mod journey;
mod json;
mod tell;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Status,
    common::{BoardArgs, LimitArgs, Output, PlaceArgs, SandboxArgs, cancel_on_interrupt, cluster_of},
    transfers::{ListenArgs, TransferArgs},
};
use crate::{
    board::{Board, Link},
    client::{Client, DEFAULT_ATTEMPTS, Setup},
    config,
    ids::{ClusterName, PeerName},
};
use journey::{Journey, Source, Turn};
use tell::Teller;

/// How many futures are under way at a time; the others wait in their files. Each holds a few open files.
const AT_ONCE: usize = 128;

/// How many R processes of our own make and look at futures at a time.
const LOCAL_R: usize = 2;

/// The most workers that may lose one future.
const MOST_RETRIES: u32 = 100;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["files", "expression"]))]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    board: BoardArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// RDS files of futures
    #[arg(value_name = "FILE.rds")]
    files: Vec<PathBuf>,
    /// R code; prints what it prints and its visible values, as Rscript -e does
    #[arg(short, long, value_name = "EXPR")]
    expression: Option<String>,
    /// Write the result, an RDS of a FutureResult, here
    #[arg(short, long, value_name = "RESULT.rds", conflicts_with = "out_dir")]
    output: Option<PathBuf>,
    /// Write the results into this folder: that of NAME.rds as NAME.result.rds
    #[arg(long, value_name = "DIR", conflicts_with = "expression")]
    out_dir: Option<PathBuf>,
    /// Replace files of results that are there already
    #[arg(long)]
    force: bool,
    /// Withdraw a future that has no result after this time: "90 s", "2 h" [default: wait for ever]
    #[arg(long, value_name = "TIME", env = "P2P_WORKER_TIMEOUT")]
    timeout: Option<String>,
    /// How many more workers get a future when a worker is lost or its transfer fails; errors of the R code, and limits
    /// that it reaches, are results [default: 3]
    #[arg(long, value_name = "N", env = "P2P_WORKER_RETRY")]
    retry: Option<u32>,
    /// Print events for scripts, one JSON object in a line, and nothing else on stdout (docs/submit-events.md)
    #[arg(long)]
    json: bool,
    /// Say which worker resolved each future, and under what
    #[arg(long)]
    show_worker: bool,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    transfers: TransferArgs,
    #[command(flatten)]
    listen: ListenArgs,
}

impl Args {
    /// What is to be resolved, and where the results go.
    fn sources(&self) -> Result<Vec<(Source, Option<Output>)>, Failure> {
        let output = |path: &Path| match &self.out_dir {
            Some(_) => Output::in_folder(path.to_owned(), self.force),
            None => Output::new(path.to_owned(), self.force),
        };
        if let Some(code) = &self.expression {
            return Ok(vec![(Source::Code(code.clone()), self.output.as_deref().map(output).transpose()?)]);
        }
        if self.files.len() > 1 && self.out_dir.is_none() {
            let error = "several futures need a folder for their results";
            return Err(Failure::new(Status::Usage, error).hint("say --out-dir DIR"));
        }
        let mut taken = BTreeSet::new();
        let mut sources = Vec::new();
        for file in &self.files {
            if let Err(error) = file.metadata() {
                return Err(Failure::new(Status::Usage, format!("cannot read {}: {error}", file.display())));
            }
            let to = match &self.out_dir {
                Some(folder) => Some(result_path(folder, file)?),
                None => self.output.clone(),
            };
            if let Some(to) = &to
                && !taken.insert(to.clone())
            {
                let error = format!("two results would be written to {}", to.display());
                return Err(Failure::new(Status::Usage, error).hint("give the files different names"));
            }
            sources.push((Source::File(file.clone()), to.as_deref().map(output).transpose()?));
        }
        Ok(sources)
    }

    fn retries(&self) -> Result<u32, Failure> {
        match self.retry {
            Some(retries) if retries > MOST_RETRIES => {
                let error = format!("--retry {retries}: only 0 to {MOST_RETRIES} make sense");
                Err(Failure::new(Status::Usage, error))
            }
            retries => Ok(retries.map_or(DEFAULT_ATTEMPTS, |retries| retries + 1)),
        }
    }
}

/// Where the result of a file goes.
fn result_path(folder: &Path, file: &Path) -> Result<PathBuf, Failure> {
    let name = file.file_stem().filter(|_| file.file_name().is_some());
    let mut name =
        name.ok_or_else(|| Failure::new(Status::Usage, format!("{} is no file", file.display())))?.to_owned();
    name.push(".result.rds");
    Ok(folder.join(name))
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let sources = args.sources()?;
    let attempts = args.retries()?;
    let patience = config::duration("timeout", args.timeout.as_deref())?;
    let place = args.place.resolve()?;
    let (board, cluster) = args.board.resolve(&place)?;
    let (max_future, max_result) = args.limits.resolve(&place.file)?;
    if let Some(folder) = &args.out_dir {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::new(Status::Usage, format!("cannot make {}: {error}", folder.display())))?;
    }
    let listening = args.listen.resolve(&place.file)?;
    let transfers = args.transfers.resolve(&place.file).await?;
    let workbench = args.sandbox.workbench(&place).await?.with_limits(max_future, max_result);
    let cancel = CancellationToken::new();
    cancel_on_interrupt(cancel.clone())?;

    let (me, link) = tokio::select! {
        joined = join(&board, cluster) => joined?,
        () = cancel.cancelled() => return Err(Failure::new(Status::Stopped, "interrupted")),
    };
    let spool_directory = workbench.spool_directory().to_owned();
    let (transfer, wormhole) = transfers.of_client(listening).await?;
    let (client, dispatcher) =
        Client::start(Setup { me, link, transfer, wormhole, spool_directory, max_result, max_attempts: attempts });
    let teller = Teller::new(args.json, args.show_worker, sources.len());
    let local_r = Semaphore::new(LOCAL_R);
    let journey =
        Journey { workbench: &workbench, client, teller: &teller, local_r: &local_r, cancel: &cancel, patience };
    let ends = travel(&journey, sources).await;
    drop(journey);
    // Withdrawals, or nothing, are on their way when the dispatcher ends.
    let _ = dispatcher.await;
    teller.finish(ends)
}

/// Takes all futures to their results, many at a time.
async fn travel(journey: &Journey<'_>, sources: Vec<(Source, Option<Output>)>) -> Vec<Result<(), Failure>> {
    let sources = sources.into_iter().zip(Turn::all());
    let journeys = sources.map(|((source, output), turn)| journey.make(source, output, turn));
    futures_util::stream::iter(journeys).buffer_unordered(AT_ONCE).collect().await
}

/// Signs in and joins the cluster.
async fn join(board: &impl Board, cluster: Option<ClusterName>) -> Result<(PeerName, Link), Failure> {
    let me = board.user().await?;
    let topic = cluster_of(cluster, &me)?.topic(&me).map_err(|error| Failure::new(Status::Usage, error))?;
    Ok((PeerName::of_this_process(&me), board.join(&topic).await?))
}

/// The time that a future has.
type Patience = Option<Duration>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_named_after_their_files() {
        let path = |folder: &str, file: &str| result_path(Path::new(folder), Path::new(file)).unwrap();
        assert_eq!(path("out", "in/a.rds"), Path::new("out/a.result.rds"));
        assert_eq!(path(".", "a.b.rds"), Path::new("./a.b.result.rds"));
        assert_eq!(path("out", "plain"), Path::new("out/plain.result.rds"));
        assert!(result_path(Path::new("out"), Path::new("..")).is_err());
    }
}
