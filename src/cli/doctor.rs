//! `p2p-worker doctor`: what this machine can enforce, and what to do about the rest.

use super::{
    Failure, Status,
    common::{PlaceArgs, machine, print},
};
use crate::sandbox::examine;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// For programs: everything, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let place = args.place.resolve()?;
    let machine = machine(&place)?;
    let examined = tokio::task::spawn_blocking(|| examine(machine)).await;
    let doctor = examined
        .map_err(|error| Failure::new(Status::Usage, error))?
        .map_err(|error| Failure::new(Status::Usage, error))?;
    let text =
        if args.json { doctor.to_json().map_err(|error| Failure::new(Status::Usage, error))? } else { doctor.render() };
    print(text.as_bytes(), std::io::stdout())?;
    if doctor.strict_runs() { Ok(()) } else { Err(Failure::silent(Status::Sandbox)) }
}
