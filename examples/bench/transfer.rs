//! A large future from a client to a worker and back as its result, by QUIC and by TCP, beside `scp` of the same bytes.
//!
//! One process plays client and worker. As with scp, every run makes a new connection, both sides are on this machine,
//! and the bytes end in a file; unlike scp, both sides digest them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use p2p_worker::{
    ids::{Address, FutureId},
    sandbox::Provenance,
    spool::Spooled,
    transfer::{
        DeliveryEvent, Grant, Invitation, Network, Transfer, TransferConfig,
        libp2p::{Listen, Node, NodeConfig},
    },
};
use tokio::{process::Command, time::Instant};

use crate::{
    Failure,
    figures::{Samples, Table, progress},
};

const MEBIBYTE: usize = 1 << 20;

pub(crate) async fn measure(mebibytes: u32, runs: usize, ssh_config: Option<PathBuf>) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("p2p-bench-").tempdir()?;
    let path = folder.path().join("payload");
    write_payload(&path, mebibytes)?;
    let payload = Arc::new(Spooled::from_path(&path, u64::MAX)?);
    let (mut quic, mut quic_back) = (Samples::of("libp2p, QUIC: future"), Samples::of("libp2p, QUIC: result"));
    let (mut tcp, mut tcp_back) = (Samples::of("libp2p, TCP: future"), Samples::of("libp2p, TCP: result"));
    let (mut scp, mut sign_in) = (Samples::of("scp"), Samples::of("scp of an empty file"));
    for run in 1..=runs {
        progress(&format!("{mebibytes} MiB, run {run} of {runs}"));
        for (address, there, back) in [
            ("/ip4/127.0.0.1/udp/0/quic-v1", &mut quic, &mut quic_back),
            ("/ip4/127.0.0.1/tcp/0", &mut tcp, &mut tcp_back),
        ] {
            Pair::new(address.parse()?, folder.path()).await?.run(&payload, there, back).await?;
        }
        if let Some(config) = &ssh_config {
            copy(config, &path, &mut scp).await?;
            let empty = folder.path().join("empty");
            fs::write(&empty, "")?;
            copy(config, &empty, &mut sign_in).await?;
        }
    }
    let columns = ["over loopback, each on a new connection", "median", "p95", "MiB/s", "of scp"];
    let mut table = Table::new(format!("{mebibytes} MiB, {runs} runs each, taking turns"), &columns);
    let rows = [&quic, &quic_back, &tcp, &tcp_back, &scp];
    for samples in rows.into_iter().filter(|samples| samples.len() > 0) {
        let rate = |samples: &Samples| f64::from(mebibytes) / samples.median();
        let ratio = if scp.len() > 0 { format!("{:.2} ×", rate(samples) / rate(&scp)) } else { String::new() };
        let seconds = |seconds: f64| format!("{seconds:.3} s");
        let rate = format!("{:.0}", rate(samples));
        table.row([samples.name.clone(), seconds(samples.median()), seconds(samples.p95()), rate, ratio]);
    }
    if sign_in.len() > 0 {
        table.row([sign_in.name.clone(), format!("{:.3} s", sign_in.median())]);
        let (without, name) = (scp.median() - sign_in.median(), "scp, without what it takes for an empty file");
        let ratio = format!("{:.2} ×", scp.median() / without);
        let rate = format!("{:.0}", f64::from(mebibytes) / without);
        table.row([name.to_owned(), format!("{without:.3} s"), String::new(), rate, ratio]);
    }
    Ok(table.print()?)
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

/// `scp` to the host `bench`, beside the file itself.
async fn copy(config: &Path, path: &Path, took: &mut Samples) -> Result<(), Failure> {
    let target = path.with_extension("copy");
    let begin = Instant::now();
    let mut scp = Command::new("scp");
    scp.arg("-q").arg("-F").arg(config).arg(path).arg(format!("bench:{}", target.display()));
    let status = scp.status().await?;
    took.add(begin.elapsed());
    if !status.success() || fs::metadata(&target)?.len() != fs::metadata(path)?.len() {
        return Err(format!("scp: {status}").into());
    }
    Ok(fs::remove_file(&target)?)
}

/// A client that listens and a worker that will dial.
struct Pair {
    client: Transfer<Node>,
    worker: Transfer<Node>,
    folder: PathBuf,
}

impl Pair {
    async fn new(address: Address, folder: &Path) -> Result<Self, Failure> {
        let listen = Listen::On(vec![address]);
        let client = Node::start(NodeConfig { listen, ..NodeConfig::default() }).await?;
        let worker = Node::start(NodeConfig::default()).await?;
        let transfer = |node| Transfer::new(Arc::new(node), TransferConfig::default());
        Ok(Self { client: transfer(client), worker: transfer(worker), folder: folder.to_owned() })
    }

    /// From the invitation to the whole future, and from there to the acknowledged result.
    async fn run(&self, payload: &Arc<Spooled>, there: &mut Samples, back: &mut Samples) -> Result<(), Failure> {
        let future: FutureId = "bench".parse()?;
        let mut delivery = self.client.grant(Grant {
            worker: self.worker.network().id().clone(),
            future: future.clone(),
            payload: Arc::clone(payload),
            max_result: u64::MAX,
            spool_directory: self.folder.clone(),
        })?;
        let begin = Instant::now();
        let invitation = Invitation {
            client: self.client.network().id().clone(),
            addresses: self.client.network().addresses(),
            ticket: delivery.ticket,
            future,
            max_future: u64::MAX,
            spool_directory: self.folder.clone(),
        };
        let (arrived, session) = self.worker.fetch(invitation).await?;
        there.add(begin.elapsed());
        let begin = Instant::now();
        let provenance = Provenance { driver: "none".into(), profile: "none".into(), layers: Vec::new() };
        session.deliver(&arrived, provenance).await?;
        back.add(begin.elapsed());
        while let Some(event) = delivery.events.recv().await {
            match event {
                DeliveryEvent::Failed(error) => return Err(error.into()),
                DeliveryEvent::Done { result, .. } if result.digest() != payload.digest() => {
                    return Err("the bytes that came back are others".into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}
