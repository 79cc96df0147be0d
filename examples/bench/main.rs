//! The figures of docs/BENCHMARKS.md: p2p-worker beside its peers, always in one run. Called by `./scripts/bench`.
//!
//! Everything stays on this machine and on its loopback interface. Each part prints a table; times are medians and
//! 95th percentiles. It measures the programs of the build that it belongs to.

mod board;
mod figures;
mod globals;
mod idle;
mod jail;
mod peers;
mod plain;
mod relay;
mod soak;
mod start;
mod transfer;
mod way;
mod world;

use std::{error::Error, path::PathBuf};

use clap::Parser;

/// Whatever goes wrong ends the benchmark.
type Failure = Box<dyn Error + Send + Sync>;

/// Figures beside those of real peers.
#[derive(Debug, Parser)]
enum Part {
    /// `p2p-jail` around /bin/true, beside bubblewrap and beside nothing
    Jail {
        /// How often each
        #[arg(long, default_value_t = 200)]
        runs: usize,
    },
    /// From board line to offer, from accept to the future's bytes
    Way {
        /// How many offers
        #[arg(long, default_value_t = 50)]
        offers: usize,
        /// How many futures over a connection that is there, and half as many over new ones
        #[arg(long, default_value_t = 20)]
        futures: usize,
    },
    /// A future by wormhole, to a worker of the R package future.p2p and to ours
    Peers {
        /// How many futures to each
        #[arg(long, default_value_t = 20)]
        runs: usize,
        #[command(flatten)]
        servers: peers::Servers,
    },
    /// A large future over libp2p, beside scp and a plain copy over TCP
    Transfer {
        /// Its size in MiB
        #[arg(long, default_value_t = 256)]
        mebibytes: u32,
        /// How often each
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// What a relay adds to a round trip, in ms
        #[arg(long, default_value_t = 0)]
        delay: u32,
        /// A configuration of ssh that knows how to reach the host `bench`; without it, there is no scp
        #[arg(long)]
        ssh_config: Option<PathBuf>,
    },
    /// The same large object in ten futures: the first one, and those after it
    Globals {
        /// Its size in MiB
        #[arg(long, default_value_t = 20)]
        mebibytes: u32,
        /// How often each, with a worker of its own
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// The worker's side of these
    #[command(hide = true)]
    GlobalsWorker {
        /// Where its files are
        folder: PathBuf,
    },
    /// The worker's side of a large future
    #[command(hide = true)]
    TransferWorker {
        /// Where its files are
        folder: PathBuf,
    },
    /// A relay that holds everything back
    #[command(hide = true)]
    Relay {
        /// tcp or udp
        kind: String,
        /// Where to, on loopback
        port: u16,
        /// What it adds to a round trip, in ms
        delay: u32,
    },
    /// One client's lines to many readers of a board, beside sshd with tail -f
    Board {
        /// How many readers
        #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
        readers: Vec<usize>,
        /// How many thousand lines
        #[arg(long, default_value_t = 3)]
        batches: usize,
        #[command(flatten)]
        sshd: board::Sshd,
    },
    /// What a worker costs that has nothing to do
    Idle {
        /// For how long it is watched, in seconds
        #[arg(long, default_value_t = 30)]
        seconds: u32,
    },
    /// A worker under good and bad tasks, and killed among them: what is left afterwards (see `scripts/soak`)
    Soak {
        /// How many tasks
        #[arg(long, default_value_t = 1000)]
        tasks: usize,
        /// How often the worker is killed afterwards, in the middle of as many tasks as it has slots
        #[arg(long, default_value_t = 20)]
        kills: usize,
    },
    /// A client that posts a future and waits to be killed: a part of the soak
    #[command(hide = true)]
    SoakVictim {
        /// The world's folder
        folder: PathBuf,
        /// The board's port
        port: u16,
        /// The name of the future
        name: String,
    },
    /// `p2p-worker exec` and `submit`, beside Rscript
    Start {
        /// How often each
        #[arg(long, default_value_t = 10)]
        runs: usize,
    },
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match Part::parse() {
        Part::Jail { runs } => jail::measure(runs),
        Part::Way { offers, futures } => way::measure(offers, futures).await,
        Part::Peers { runs, servers } => peers::measure(runs, &servers).await,
        Part::Transfer { mebibytes, runs, delay, ssh_config } => {
            transfer::measure(&transfer::Plan { mebibytes, runs, delay, ssh_config }).await
        }
        Part::Globals { mebibytes, runs } => globals::measure(mebibytes, runs).await,
        Part::GlobalsWorker { folder } => globals::worker(&folder).await,
        Part::TransferWorker { folder } => transfer::worker(&folder).await,
        Part::Relay { kind, port, delay } => relay::run(&kind, port, delay).await,
        Part::Board { readers, batches, sshd } => board::measure(&readers, batches, &sshd).await,
        Part::Idle { seconds } => idle::measure(seconds).await,
        Part::Soak { tasks, kills } => soak::measure(tasks, kills).await,
        Part::SoakVictim { folder, port, name } => soak::victim(&folder, port, &name).await,
        Part::Start { runs } => start::measure(runs).await,
    }
}

/// The folder of the programs that are measured: this one is in `examples` below it.
fn programs() -> Result<PathBuf, Failure> {
    let here = std::env::current_exe()?;
    Ok(here.ancestors().nth(2).ok_or("an example has two folders above it")?.to_owned())
}
