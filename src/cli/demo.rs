//! `p2p-worker demo`: the whole thing on one machine, then the attacks.

use super::{Failure, Status};
use crate::demo;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Who makes the worker's sandbox: jail or bubblewrap
    #[arg(long, value_name = "DRIVER", default_value = "jail")]
    sandbox: String,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let all_well = demo::run(&args.sandbox).await?;
    if all_well { Ok(()) } else { Err(Failure::new(Status::Code, "the demo did not go as it should; see the table")) }
}
