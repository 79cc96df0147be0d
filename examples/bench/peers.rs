//! A future by wormhole, to a worker of the R package future.p2p (a script that plays it) and to ours: from the request to the
//! offer, from the accept to the first byte, from the announced result to the whole of it.
//!
//! The client's side is played here by hand, as in `way`, and is the same for both. `scripts/bench` starts the mailbox server and
//! the transit relay, on loopback; with both sides on one machine all connections go through the relay.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use p2p_worker::{
    board::{BoardEvent, Link},
    clock,
    ids::{ClaimCode, FutureId, PeerName},
    proto::message::{Message, Protocols, Received, Role, Via},
    spool::Spooled,
    wormhole::{Code, Phase, Program, Progress, Wormhole, WormholeConfig},
};
use tokio::{process::Child, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure,
    figures::{Samples, Table, milliseconds, progress},
    programs, way,
    world::{World, patiently},
};

/// How long our lines are valid.
const VALIDITY: Duration = Duration::from_secs(60);
/// The largest result that is taken, in bytes.
const MOST: u64 = 1 << 20;

/// Where the servers and programs are.
#[derive(Debug, clap::Args)]
pub(crate) struct Servers {
    /// The mailbox server
    #[arg(long)]
    mailbox: String,
    /// The transit relay
    #[arg(long)]
    relay: String,
    /// wormhole-william, for which its own relay's name means that relay
    #[arg(long)]
    william: PathBuf,
}

pub(crate) async fn measure(runs: usize, servers: &Servers) -> Result<(), Failure> {
    let (theirs, ours) = (of_theirs(runs, servers).await?, of_ours(runs, servers).await?);
    let columns = ["", "of future.p2p", "p95", "ours", "p95", "runs of each"];
    let mut table = Table::new("The way of a future by wormhole on loopback", &columns);
    for (theirs, ours) in theirs.into_iter().zip(ours) {
        let figures = [theirs.median(), theirs.p95(), ours.median(), ours.p95()].map(milliseconds);
        let runs = theirs.len().to_string();
        table.row([theirs.name].into_iter().chain(figures).chain([runs]));
    }
    Ok(table.print()?)
}

async fn of_theirs(runs: usize, servers: &Servers) -> Result<Vec<Samples>, Failure> {
    let world = World::new().await?;
    let mut client = Client::join(&world, servers).await?;
    let _worker = r_worker(&world, servers)?;
    // It hears of no request that was posted before it came.
    let is_there = |message: &Message| matches!(message, Message::Hello { role: Role::Worker, .. });
    patiently("the worker", client.hear(is_there)).await??;
    progress(&format!("{runs} futures to a worker of future.p2p"));
    client.measure(runs).await
}

async fn of_ours(runs: usize, servers: &Servers) -> Result<Vec<Samples>, Failure> {
    let world = World::new().await?;
    let mut program = world.program("worker")?;
    program.env("P2P_WORKER_WORMHOLE_MAILBOX", &servers.mailbox).env("P2P_WORKER_WORMHOLE_RELAY", &servers.relay);
    let _worker = world.started(program).await?;
    let mut client = Client::join(&world, servers).await?;
    progress(&format!("{runs} futures to ours by wormhole"));
    client.measure(runs).await
}

/// The script, through the system's ssh.
fn r_worker(world: &World, servers: &Servers) -> Result<Child, Failure> {
    let folder = world.folder.path();
    let config = folder.join("ssh_config");
    let text = format!(
        "Host board\n  HostName 127.0.0.1\n  Port {}\n  User bench\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
         BatchMode yes\n  StrictHostKeyChecking accept-new\n  UserKnownHostsFile {}\n  LogLevel ERROR\n",
        world.port,
        folder.join("key").display(),
        folder.join("known_hosts").display(),
    );
    std::fs::write(&config, text)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/peers/r_worker.R");
    let mut command = Command::new("Rscript");
    command.arg("--vanilla").arg(script).args(["board", "bench/personal"]).current_dir(folder);
    command.env("PEER_SSH_ARGS", format!("-F '{}'", config.display())).env("PEER_WORMHOLE", &servers.william);
    command.env("WORMHOLE_RELAY_URL", &servers.mailbox).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(tokio::process::Command::from(command).kill_on_drop(true).spawn()?)
}

struct Client {
    me: PeerName,
    link: Link,
    program: Program,
    folder: PathBuf,
    count: u32,
}

impl Client {
    async fn join(world: &World, servers: &Servers) -> Result<Self, Failure> {
        let (me, link) = world.link().await?;
        let mut config = WormholeConfig::new(programs()?.join("p2p-wormhole"));
        (config.mailbox, config.relay) = (servers.mailbox.parse()?, servers.relay.parse()?);
        Ok(Self { me, link, program: Program::new(config), folder: world.folder.path().to_owned(), count: 0 })
    }

    async fn measure(&mut self, runs: usize) -> Result<Vec<Samples>, Failure> {
        let mut steps = [
            "request posted → offer heard",
            "accept posted → first byte sent",
            "accept posted → result announced",
            "result announced → result here",
            "request posted → result here",
        ]
        .map(Samples::of);
        // The first one is slower, whoever resolves it.
        for run in 0..=runs {
            let times = self.run().await?;
            if run > 0 {
                steps.iter_mut().zip(times).for_each(|(samples, took)| samples.add(took));
            }
        }
        Ok(steps.into())
    }

    /// One future the whole way.
    async fn run(&mut self) -> Result<[Duration; 5], Failure> {
        let (future, payload) = way::real_future("1", &self.folder).await?;
        let begin = Instant::now();
        let worker = self.request(&future, payload.size()).await?;
        let offered = begin.elapsed();
        self.count += 1;
        let code: ClaimCode = format!("{:04}-0123456789ab", self.count).parse()?;
        let (accepted, first) = self.send(&future, &payload, worker, &code).await?;
        let is_result = |message: &Message| matches!(message, Message::Result { future: of, .. } if *of == future);
        patiently("the result's line", self.hear(is_result)).await??;
        let (announced, evaluated) = (Instant::now(), accepted.elapsed());
        let cancel = CancellationToken::new();
        let whole = Code::of_result(&code);
        let result = self.program.receive(&whole, MOST, &self.folder, |_| (), &cancel);
        patiently("the result", result).await??;
        Ok([offered, first, evaluated, announced.elapsed(), begin.elapsed()])
    }

    async fn say(&self, message: Message) -> Result<(), Failure> {
        let line = message.to_line(&clock::local_time(), clock::now() + VALIDITY);
        Ok(self.link.outgoing.send(line).await?)
    }

    async fn hear(&mut self, wanted: impl Fn(&Message) -> bool) -> Result<Message, Failure> {
        loop {
            let Some(event) = self.link.incoming.recv().await else { return Err("the board is gone".into()) };
            let BoardEvent::Line(line) = event else { continue };
            match Received::read(&line, clock::now()) {
                Ok(received) if wanted(&received.message) => return Ok(received.message),
                _ => {}
            }
        }
    }

    async fn request(&mut self, future: &FutureId, size: u64) -> Result<PeerName, Failure> {
        // As an R client's: nothing but wormhole.
        let protocols = Protocols { libp2p: false, wormhole: true };
        self.say(Message::Request { from: self.me.clone(), future: future.clone(), size, protocols }).await?;
        let is_offer = |message: &Message| matches!(message, Message::Offer { future: of, .. } if of == future);
        match patiently("an offer", self.hear(is_offer)).await?? {
            Message::Offer { from, .. } => Ok(from),
            other => Err(format!("no offer: {other:?}").into()),
        }
    }

    /// Opens the mailbox, accepts, sends: when the accept was said, and how long the first byte took from there.
    async fn send(
        &self,
        future: &FutureId,
        payload: &Spooled,
        to: PeerName,
        code: &ClaimCode,
    ) -> Result<(Instant, Duration), Failure> {
        let (told, mut steps) = mpsc::channel(64);
        let (cancel, whole) = (CancellationToken::new(), Code::of_future(code));
        let tell = move |step| {
            let _ = told.try_send((step, Instant::now()));
        };
        let sending = self.program.send(&whole, payload, tell, &cancel);
        let accepting = async {
            let (mut accepted, mut first) = (None, None);
            while let Some((step, at)) = steps.recv().await {
                if step == Progress::Waiting(Phase::Peer) {
                    let via = Via::Wormhole { code: code.clone() };
                    let (from, to, future) = (self.me.clone(), to.clone(), future.clone());
                    accepted = Some(Instant::now());
                    self.say(Message::Accept { from, to, future, via, at: Vec::new() }).await?;
                } else if let Progress::Bytes(_) = step {
                    first.get_or_insert(at);
                }
            }
            let (accepted, first) = accepted.zip(first).ok_or("nothing was sent")?;
            Ok::<_, Failure>((accepted, first - accepted))
        };
        let (sent, steps) = patiently("the future's way", async { tokio::join!(sending, accepting) }).await?;
        sent?;
        steps
    }
}
