//! The default command: be a worker.

use std::{sync::Arc, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Failure, Status,
    common::{BoardArgs, LimitArgs, Place, PlaceArgs, SandboxArgs, cluster_of},
    service::Service,
    transfers::TransferArgs,
};
use crate::{
    board::Board,
    config,
    ids::{NodeId, PeerName},
    proto::{claim::Settings, message::About},
    runner::Workbench,
    sandbox::Provenance,
    supervisor::{self, Routes, Setup, Shutdown, Summary},
    transfer::{
        Cache, Network, Transfer, TransferConfig, TransferError,
        libp2p::{Node, NodeConfig, NodeKey},
    },
    wormhole::Program,
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
    transfers: TransferArgs,
    /// Futures at a time [default: 1]
    #[arg(long, value_name = "N", env = "P2P_WORKER_SLOTS")]
    slots: Option<usize>,
    /// Leave after this time, as after SIGTERM: "8 h", "90 min" [default: stay]
    #[arg(long, value_name = "TIME", env = "P2P_WORKER_DURATION")]
    duration: Option<String>,
    /// How long what runs may still take after the first SIGTERM or Ctrl-C; then it is stopped and its client posts it
    /// again [default: 5 min]
    #[arg(long, value_name = "TIME", env = "P2P_WORKER_DRAIN_TIME")]
    drain_time: Option<String>,
    /// How long an R waits for the next future after one, each slot's its own, in its sandbox and used once; 0 starts R only
    /// when a future is here [default: 1 min]
    #[arg(long, value_name = "TIME", env = "P2P_WORKER_KEEP_WARM")]
    keep_warm: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
    /// How much of the futures that came is kept, on the disk of the state folder, so that the same objects are not sent
    /// again by the same client; 0 keeps nothing [default: 1 GiB]
    #[arg(long, value_name = "SIZE", env = "P2P_WORKER_CACHE")]
    cache: Option<String>,
}

/// What is kept of futures, in bytes, unless the owner says otherwise.
const CACHE: u64 = 1 << 30;

/// How long an R waits for the next future, unless the owner says otherwise.
const KEEP_WARM: Duration = Duration::from_secs(60);

/// How long what runs may still take when the worker leaves, unless the owner says otherwise.
const DRAIN_TIME: Duration = Duration::from_secs(300);

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let place = args.place.resolve()?;
    let file = &place.file;
    let slots = config::slots(args.slots.or(file.slots).unwrap_or(1))?;
    let duration = config::duration("duration", args.duration.as_deref().or(file.duration.as_deref()))?;
    let drain_time = config::duration("drain-time", args.drain_time.as_deref().or(file.drain_time.as_deref()))?;
    let drain_time = drain_time.unwrap_or(DRAIN_TIME);
    let keep_warm = config::duration("keep-warm", args.keep_warm.as_deref().or(file.keep_warm.as_deref()))?;
    let keep_warm = keep_warm.unwrap_or(KEEP_WARM);
    let service = Service::of_the_manager();
    service.starting("looking whether the sandbox holds");
    let (board, cluster) = args.board.resolve(&place)?;
    let (max_future, max_result) = args.limits.resolve(file)?;
    let cache = config::bytes_or("cache", args.cache.as_deref().or(file.cache.as_deref()), CACHE)?;
    let workbench =
        args.sandbox.workbench(&place).await?.with_limits(max_future, max_result).kept_ready(slots, keep_warm).await?;
    workbench.warn_of_shortfalls();
    let cache = Cache::new(workbench.spool_directory().to_owned(), cache);
    let workbench = Arc::new(workbench.relieved_by(cache.relief()));
    let transfers = args.transfers.resolve(file).await?;

    service.starting("signing in to the board");
    let me = board.user().await?;
    let cluster = cluster_of(cluster, &me)?;
    let topic = cluster.topic(&me).map_err(|error| Failure::new(Status::Usage, error))?;
    let name = PeerName::of_this_process(&me);
    let shutdown = Shutdown::default();
    watch_signals(shutdown.clone(), duration, drain_time)?;
    let libp2p = if transfers.libp2p { Some(libp2p(&place, cache).await?) } else { None };
    let wormhole = transfers.wormhole.map(|config| Arc::new(Program::new(config)));
    let node = libp2p.as_ref().map(|transfer| transfer.network().id().clone());
    let (max_future, about) = (workbench.max_future(), about(&workbench));
    let settings = Settings { me: name, node, wormhole: wormhole.is_some(), slots, max_future, about };
    let link = board.join(&topic).await?;
    let (me, via, sandbox) = (&settings.me, settings.protocols(), workbench.describe());
    tracing::info!(%cluster, as = %me, %via, node = settings.node.as_ref().map(NodeId::as_str), slots, %sandbox, "signed in");

    let routes = Routes { libp2p, wormhole };
    let status = service.watch(cluster, slots, drain_time);
    let summary = supervisor::run(Setup { settings, link, routes, workbench, status }, shutdown).await;
    finish(&summary)
}

/// Our own transfer, with the key of this state folder.
async fn libp2p(place: &Place, cache: Cache) -> Result<Transfer<Node>, Failure> {
    let key = NodeKey::File(place.state.join("node.key"));
    let node = Node::start(NodeConfig { key, ..NodeConfig::default() }).await.map_err(TransferError::from)?;
    Ok(Transfer::new(Arc::new(node), TransferConfig::default()).keeping(cache))
}

/// The first SIGTERM or SIGINT, and the end of the duration, drain; the second signal stops, and so does the end of the
/// time that what runs still has.
fn watch_signals(shutdown: Shutdown, duration: Option<Duration>, drain_time: Duration) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::new(Status::Usage, error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let time_is_up = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(time_is_up);
        tokio::select! {
            () = next(&mut terminate, &mut interrupt) => {}
            () = &mut time_is_up => {}
        }
        shutdown.drain.cancel();
        tokio::select! {
            () = next(&mut terminate, &mut interrupt) => tracing::warn!("stopping at once"),
            () = tokio::time::sleep(drain_time) => tracing::warn!("stopping: the time for what runs is up"),
        }
        shutdown.stop.cancel();
    });
    Ok(())
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What we say of ourselves on the board. A name that no line can carry is not said.
fn about(workbench: &Workbench) -> About {
    let Provenance { driver, profile, .. } = workbench.provenance();
    About { r: workbench.r_version().parse().ok(), driver: driver.parse().ok(), profile: profile.parse().ok() }
}

fn finish(summary: &Summary) -> Result<(), Failure> {
    tracing::info!(delivered = summary.delivered, failed = summary.failed, ignored = ?summary.ignored, "left");
    match &summary.board_lost {
        Some(reason) => Err(Failure::new(Status::Network, format!("the board was lost: {reason}"))),
        None => Ok(()),
    }
}
