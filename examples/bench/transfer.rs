//! A large future from a client to a worker and back as its result, by QUIC and by TCP, beside `scp` of the same bytes and
//! a plain copy over TCP.
//!
//! Client and worker are two processes, as scp and sshd are. As with scp, every run makes a new connection, both sides are
//! on this machine, and the bytes end in a file; unlike scp, both sides digest them. With a delay, everything goes
//! through a relay in a third process (`relay`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use p2p_worker::{
    ids::{Address, FutureId, NodeId, Ticket},
    sandbox::Provenance,
    spool::Spooled,
    transfer::{
        DeliveryEvent, Grant, Invitation, Network, Transfer, TransferConfig,
        libp2p::{Listen, Node, NodeConfig},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, stdin},
    process::{Child, ChildStdout, Command},
    time::Instant,
};

use crate::{
    Failure,
    figures::{Samples, Table, progress},
    plain,
    relay::Relay,
};

const MEBIBYTE: usize = 1 << 20;

/// What is measured.
pub(crate) struct Plan {
    pub(crate) mebibytes: u32,
    pub(crate) runs: usize,
    /// The whole round trip that is added, in milliseconds.
    pub(crate) delay: u32,
    /// How ssh reaches the host `bench`, if there is to be an scp.
    pub(crate) ssh_config: Option<PathBuf>,
}

pub(crate) async fn measure(plan: &Plan) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("p2p-bench-").tempdir()?;
    let path = folder.path().join("payload");
    write_payload(&path, plan.mebibytes)?;
    let payload = Arc::new(Spooled::from_path(&path, u64::MAX)?);
    let mut rows = Rows::new();
    for run in 1..=plan.runs {
        progress(&format!("{} MiB, {} ms of delay, run {run} of {}", plan.mebibytes, plan.delay, plan.runs));
        for (address, way) in [("/ip4/127.0.0.1/udp/0/quic-v1", 0), ("/ip4/127.0.0.1/tcp/0", 1)] {
            let took = once(address.parse()?, &payload, folder.path(), plan.delay).await?;
            rows.add(way, took);
        }
        rows.plain.add(plain::copy(&path, plan.delay).await?);
        if let Some(config) = &plan.ssh_config {
            let relay = Relay::tcp(ssh_port(config)?, plan.delay).await?;
            copy(config, &path, relay.port(), &mut rows.scp).await?;
            let empty = folder.path().join("empty");
            fs::write(&empty, "")?;
            copy(config, &empty, relay.port(), &mut rows.sign_in).await?;
        }
    }
    rows.print(plan)
}

/// The samples of one table.
struct Rows {
    libp2p: [[Samples; 2]; 2],
    scp: Samples,
    sign_in: Samples,
    plain: Samples,
    peak: u64,
}

impl Rows {
    fn new() -> Self {
        let of = |name: &str| [Samples::of(format!("{name}: future")), Samples::of(format!("{name}: result"))];
        Self {
            libp2p: [of("libp2p, QUIC"), of("libp2p, TCP")],
            scp: Samples::of("scp"),
            sign_in: Samples::of("scp of an empty file"),
            plain: Samples::of("plain copy over TCP"),
            peak: 0,
        }
    }

    fn add(&mut self, way: usize, Took { there, back, peak }: Took) {
        if let Some([future, result]) = self.libp2p.get_mut(way) {
            future.add(there);
            result.add(back);
        }
        self.peak = self.peak.max(peak);
    }

    fn print(&self, plan: &Plan) -> Result<(), Failure> {
        let mebibytes = f64::from(plan.mebibytes);
        let path = match plan.delay {
            0 => "over loopback".to_owned(),
            delay => format!("through a relay that adds {delay} ms to a round trip"),
        };
        let columns = [path.as_str(), "median", "p95", "MiB/s", "of scp"];
        let title = format!("{} MiB, {} runs each, taking turns, each on a new connection", plan.mebibytes, plan.runs);
        let mut table = Table::new(title, &columns);
        let rate = |samples: &Samples| mebibytes / samples.median();
        let seconds = |seconds: f64| format!("{seconds:.3} s");
        for samples in self.libp2p.iter().flatten().chain([&self.plain, &self.scp]).filter(|samples| samples.len() > 0)
        {
            let ratio =
                if self.scp.len() > 0 { format!("{:.2} ×", rate(samples) / rate(&self.scp)) } else { String::new() };
            let rate = format!("{:.0}", rate(samples));
            table.row([samples.name.clone(), seconds(samples.median()), seconds(samples.p95()), rate, ratio]);
        }
        if self.sign_in.len() > 0 {
            table.row([self.sign_in.name.clone(), seconds(self.sign_in.median())]);
            let without = self.scp.median() - self.sign_in.median();
            let ratio = format!("{:.2} ×", self.scp.median() / without);
            let name = "scp, without what it takes for an empty file".to_owned();
            table.row([name, seconds(without), String::new(), format!("{:.0}", mebibytes / without), ratio]);
        }
        table.print()?;
        progress(&format!("the largest process of these transfers had {} MiB resident", self.peak / 1024));
        Ok(())
    }
}

/// Bytes that nothing compresses.
fn write_payload(path: &Path, mebibytes: u32) -> Result<(), Failure> {
    let mut file = fs::File::create_new(path)?;
    let mut stream = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; MEBIBYTE];
    for _ in 0..mebibytes {
        stream.fill(&mut piece);
        std::io::Write::write_all(&mut file, &piece)?;
    }
    // Or the first run would share the disk with this.
    Ok(file.sync_all()?)
}

fn ssh_port(config: &Path) -> Result<u16, Failure> {
    let text = fs::read_to_string(config)?;
    let port = text.lines().find_map(|line| line.trim().strip_prefix("Port "));
    Ok(port.ok_or("the configuration of ssh names no port")?.trim().parse()?)
}

/// `scp` to the host `bench`, beside the file itself.
async fn copy(config: &Path, path: &Path, port: u16, took: &mut Samples) -> Result<(), Failure> {
    let target = path.with_extension("copy");
    let begin = Instant::now();
    let mut scp = Command::new("scp");
    scp.arg("-q").arg("-F").arg(config).arg("-P").arg(port.to_string());
    scp.arg(path).arg(format!("bench:{}", target.display()));
    let status = scp.status().await?;
    took.add(begin.elapsed());
    if !status.success() || fs::metadata(&target)?.len() != fs::metadata(path)?.len() {
        return Err(format!("scp: {status}").into());
    }
    Ok(fs::remove_file(&target)?)
}

/// One payload there and back.
struct Took {
    there: Duration,
    back: Duration,
    /// The most that either process had resident, in KiB.
    peak: u64,
}

/// This process is the client, a new one the worker.
async fn once(address: Address, payload: &Arc<Spooled>, folder: &Path, delay: u32) -> Result<Took, Failure> {
    let node = Node::start(NodeConfig { listen: Listen::On(vec![address]), ..NodeConfig::default() }).await?;
    let client = Transfer::new(Arc::new(node), TransferConfig::default());
    let told = client.network().addresses().first().ok_or("the client listens nowhere")?.clone();
    let (relay, at) = Relay::before(&told, delay).await?;
    let (mut child, mut lines) = worker_process(folder)?;
    let worker: NodeId = lines.next_line().await?.ok_or("the worker ended")?.parse()?;
    let mut delivery = client.grant(Grant {
        worker,
        future: "bench".parse()?,
        payload: Arc::clone(payload),
        max_result: u64::MAX,
        spool_directory: folder.to_owned(),
    })?;
    let order = format!("{} {at} {}\n", client.network().id(), delivery.ticket);
    let mut orders = child.stdin.take().ok_or("no way to the worker")?;
    orders.write_all(order.as_bytes()).await?;
    loop {
        match delivery.events.recv().await.ok_or("the delivery ended")? {
            DeliveryEvent::Failed(error) => return Err(error.into()),
            DeliveryEvent::Done { result, .. } if result.digest() != payload.digest() => {
                return Err("the bytes that came back are others".into());
            }
            DeliveryEvent::Done { .. } => break,
            _ => {}
        }
    }
    let line = lines.next_line().await?.ok_or("the worker ended")?;
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or("too few figures");
    let (there, back, theirs) = (word()?.parse()?, word()?.parse()?, word()?.parse()?);
    drop(orders);
    child.wait().await?;
    drop(relay);
    let peak = peak_resident()?.max(theirs);
    Ok(Took { there: Duration::from_secs_f64(there), back: Duration::from_secs_f64(back), peak })
}

fn worker_process(folder: &Path) -> Result<(Child, Lines<BufReader<ChildStdout>>), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("transfer-worker").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("no way from the worker")?).lines();
    Ok((child, lines))
}

/// The worker: says its name, takes one order (client, address, ticket), says how long future and result took, in
/// seconds, and what it had resident, in KiB.
pub(crate) async fn worker(folder: &Path) -> Result<(), Failure> {
    let node = Node::start(NodeConfig::default()).await?;
    println(node.id())?;
    let worker = Transfer::new(Arc::new(node), TransferConfig::default());
    let order = BufReader::new(stdin()).lines().next_line().await?.ok_or("no order")?;
    let mut words = order.split(' ');
    let mut word = || words.next().ok_or("too short an order");
    let (client, address, ticket): (NodeId, Address, Ticket) = (word()?.parse()?, word()?.parse()?, word()?.parse()?);
    let future: FutureId = "bench".parse()?;
    let spool_directory = folder.to_owned();
    let begin = Instant::now();
    let invitation =
        Invitation { client, addresses: vec![address], ticket, future, max_future: u64::MAX, spool_directory };
    let (arrived, session) = worker.fetch(invitation).await?;
    let there = begin.elapsed().as_secs_f64();
    // Or the way back would share the disk with the way there.
    arrived.file().sync_all()?;
    let begin = Instant::now();
    let provenance = Provenance { driver: "none".into(), profile: "none".into(), layers: Vec::new() };
    session.deliver(&arrived, provenance).await?;
    println(&format!("{there} {} {}", begin.elapsed().as_secs_f64(), peak_resident()?))
}

/// A line for the process that started this one.
pub(crate) fn println(line: &impl std::fmt::Display) -> Result<(), Failure> {
    Ok(std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes())?)
}

/// The most that this process ever had resident, in KiB.
fn peak_resident() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").parse()?)
}
