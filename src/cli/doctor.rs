//! `p2p-worker doctor`: what this machine can enforce, and what to do about the rest.

use super::{
    Failure, Status,
    common::{PlaceArgs, machine, print},
};
use crate::{error_chain, runner::RInstallation, sandbox::examine};

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
    let failed = |error| Failure::new(Status::Usage, error);
    let examined = tokio::task::spawn_blocking(|| {
        let mut doctor = examine(machine).map_err(|error| Failure::new(Status::Usage, error))?;
        doctor.machine.r = Some(describe_r());
        Ok::<_, Failure>(doctor)
    });
    let doctor = examined.await.map_err(failed)??;
    let text =
        if args.json { doctor.to_json().map_err(|error| Failure::new(Status::Usage, error))? } else { doctor.render() };
    print(text.as_bytes(), std::io::stdout())?;
    if doctor.strict_runs() { Ok(()) } else { Err(Failure::silent(Status::Sandbox)) }
}

/// The R that tasks would run under, or what to do to have one.
fn describe_r() -> String {
    match RInstallation::find().and_then(RInstallation::with_future) {
        Ok(r) => format!("{}, package future {}", r.version, r.future.unwrap_or_default()),
        Err(error) => format!("cannot be used: {}", error_chain(&error)),
    }
}
