//! How fast a future goes from a client to a worker and its result back, over loopback, by QUIC and by TCP, and how
//! long a small one takes.
//!
//! `cargo run --example transfer_rate [MEBIBYTES [FOLDER]]`, by default 256 and the folder for temporary files. One
//! process plays both sides, as `scp` over loopback has both sides on one machine too. Prints one line per transport.

use std::{error::Error, io::Write, path::PathBuf, sync::Arc};

use p2p_worker::{
    ids::Address,
    sandbox::Provenance,
    spool::{SpoolWriter, Spooled},
    transfer::{
        DeliveryEvent, Grant, Invitation, Network, Transfer, TransferConfig,
        libp2p::{Listen, Node, NodeConfig},
    },
};
use tokio::time::Instant;

type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mebibytes: u64 = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let payload = Arc::new(payload(&folder, mebibytes)?);
    let small = Arc::new(Spooled::from_bytes(&folder, b"small")?);
    for (name, address) in [("quic", "/ip4/127.0.0.1/udp/0/quic-v1"), ("tcp", "/ip4/127.0.0.1/tcp/0")] {
        let bench = Bench::new(address.parse()?, folder.clone()).await?;
        let (cold, _) = bench.run(&small).await?;
        let (there, back) = bench.run(&payload).await?;
        let (warm, _) = bench.run(&small).await?;
        writeln!(
            std::io::stdout(),
            "{name}: {mebibytes} MiB there {there:.3} s ({:.0} MiB/s), back {back:.3} s ({:.0} MiB/s); \
             a small one {:.2} ms, on a new connection {:.2} ms",
            rate(mebibytes, there),
            rate(mebibytes, back),
            warm * 1e3,
            cold * 1e3,
        )?;
    }
    Ok(())
}

fn rate(mebibytes: u64, seconds: f64) -> f64 {
    f64::from(u32::try_from(mebibytes).unwrap_or(u32::MAX)) / seconds
}

/// Bytes that nothing compresses.
fn payload(folder: &std::path::Path, mebibytes: u64) -> Result<Spooled, Failure> {
    let mut writer = SpoolWriter::new(folder, u64::MAX)?;
    let mut stream = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        stream.fill(&mut piece);
        writer.write(&piece)?;
    }
    Ok(writer.finish())
}

struct Bench {
    client: Transfer<Node>,
    worker: Transfer<Node>,
    folder: PathBuf,
}

impl Bench {
    async fn new(address: Address, folder: PathBuf) -> Result<Self, Failure> {
        let listen = Listen::On(vec![address]);
        let client = Node::start(NodeConfig { listen, ..NodeConfig::default() }).await?;
        let worker = Node::start(NodeConfig::default()).await?;
        let transfer = |node| Transfer::new(Arc::new(node), TransferConfig::default());
        Ok(Self { client: transfer(client), worker: transfer(worker), folder })
    }

    /// Seconds from the invitation to the whole future, and from there to the acknowledged result.
    async fn run(&self, payload: &Arc<Spooled>) -> Result<(f64, f64), Failure> {
        let future: p2p_worker::ids::FutureId = "bench".parse()?;
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
        let there = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let provenance = Provenance { driver: "none".into(), profile: "none".into(), layers: Vec::new() };
        session.deliver(&arrived, provenance).await?;
        let back = begin.elapsed().as_secs_f64();
        while let Some(event) = delivery.events.recv().await {
            if let DeliveryEvent::Failed(error) = event {
                return Err(error.into());
            }
        }
        Ok((there, back))
    }
}
