//! The same large object in ten futures, one after the other, from a client to a worker that keeps pieces: what the first
//! one takes and what the others take. Client and worker are two processes; the bytes are checked and end in a file.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use p2p_worker::{
    ids::{Address, FutureId, NodeId, Ticket},
    sandbox::Provenance,
    spool::Spooled,
    transfer::{
        Cache, DeliveryEvent, Grant, Invitation, Network, Transfer, TransferConfig,
        libp2p::{Listen, Node, NodeConfig},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, stdin},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::Instant,
};

use crate::{
    Failure,
    figures::{Samples, Table, progress},
    transfer::println,
};

/// Futures with the same object.
const FUTURES: u32 = 10;
/// Bytes before the object that each future has for itself.
const OWN: usize = 2000;

pub(crate) async fn measure(mebibytes: u32, runs: usize) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("p2p-bench-").tempdir()?;
    let mut payload = vec![0; OWN + ((mebibytes as usize) << 20)];
    blake3::Hasher::new().finalize_xof().fill(&mut payload);
    let ways = [("QUIC", "/ip4/127.0.0.1/udp/0/quic-v1"), ("TCP", "/ip4/127.0.0.1/tcp/0")];
    let mut table = Table::new(
        format!("{mebibytes} MiB in {FUTURES} futures, {runs} runs"),
        &["over loopback", "median", "p95", "futures"],
    );
    for (name, address) in ways {
        let of = |which: &str| Samples::of(format!("libp2p, {name}: {which}"));
        let mut samples = [of("the first future"), of("the second to the ninth"), of("the tenth")];
        for run in 1..=runs {
            progress(&format!("{mebibytes} MiB by {name}, run {run} of {runs}"));
            let mut pair = Pair::new(address.parse()?, folder.path()).await?;
            for number in 0..FUTURES {
                payload
                    .iter_mut()
                    .take(OWN)
                    .zip(number.to_le_bytes().iter().cycle())
                    .for_each(|(to, from)| *to = *from);
                let took = pair.once(&Arc::new(Spooled::from_bytes(folder.path(), &payload)?), folder.path()).await?;
                let [first, between, last] = &mut samples;
                match number {
                    0 => first.add(took),
                    number if number + 1 == FUTURES => last.add(took),
                    _ => between.add(took),
                }
            }
        }
        samples.iter().for_each(|samples| table.samples(samples));
    }
    Ok(table.print()?)
}

/// This process is the client, a new one the worker.
struct Pair {
    client: Transfer<Node>,
    at: Address,
    worker: NodeId,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Pair {
    async fn new(address: Address, folder: &Path) -> Result<Self, Failure> {
        let node = Node::start(NodeConfig { listen: Listen::On(vec![address]), ..NodeConfig::default() }).await?;
        let client = Transfer::new(Arc::new(node), TransferConfig::default());
        let at = client.network().addresses().first().ok_or("the client listens nowhere")?.clone();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("globals-worker").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no way from the worker")?).lines();
        let orders = child.stdin.take().ok_or("no way to the worker")?;
        let worker = lines.next_line().await?.ok_or("the worker ended")?.parse()?;
        Ok(Self { client, at, worker, orders, lines, _child: child })
    }

    /// One future: how long it took until the worker had all of it, from the dial on.
    async fn once(&mut self, payload: &Arc<Spooled>, folder: &Path) -> Result<Duration, Failure> {
        let mut delivery = self.client.grant(Grant {
            worker: self.worker.clone(),
            future: "bench".parse()?,
            payload: Arc::clone(payload),
            max_result: u64::MAX,
            spool_directory: folder.to_owned(),
        })?;
        let order = format!("{} {} {}\n", self.client.network().id(), self.at, delivery.ticket);
        self.orders.write_all(order.as_bytes()).await?;
        loop {
            match delivery.events.recv().await.ok_or("the delivery ended")? {
                DeliveryEvent::Failed(error) => return Err(error.into()),
                DeliveryEvent::Done { .. } => break,
                _ => {}
            }
        }
        let took = self.lines.next_line().await?.ok_or("the worker ended")?;
        Ok(Duration::from_secs_f64(took.parse()?))
    }
}

/// The worker: says its name, takes orders (client, address, ticket), says of each how long the future took, in seconds.
pub(crate) async fn worker(folder: &Path) -> Result<(), Failure> {
    let node = Node::start(NodeConfig::default()).await?;
    println(node.id())?;
    let cache = Cache::new(folder.to_owned(), 1 << 30);
    let worker = Transfer::new(Arc::new(node), TransferConfig::default()).keeping(cache);
    let mut orders = BufReader::new(stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        let mut words = order.split(' ');
        let mut word = || words.next().ok_or("too short an order");
        let (client, address, ticket): (NodeId, Address, Ticket) =
            (word()?.parse()?, word()?.parse()?, word()?.parse()?);
        let (future, spool_directory): (FutureId, _) = ("bench".parse()?, folder.to_owned());
        let invitation =
            Invitation { client, addresses: vec![address], ticket, future, max_future: u64::MAX, spool_directory };
        let begin = Instant::now();
        let (_, session) = worker.fetch(invitation).await?;
        let took = begin.elapsed();
        let provenance = Provenance { driver: "none".into(), profile: "none".into(), layers: Vec::new() };
        session.deliver(&Spooled::from_bytes(folder, b"result")?, provenance).await?;
        println(&took.as_secs_f64())?;
    }
    Ok(())
}
