//! `p2p-worker doctor`: is it safe to leave this on?

use super::{
    Failure, Status,
    common::{PlaceArgs, SandboxArgs, print},
};
use crate::{
    error_chain,
    runner::RInstallation,
    sandbox::{Doctor, Interpreter, Machine, Profile, Question, SandboxError, Share, apparmor_profile, examine},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// For programs: everything, as JSON (docs/doctor.schema.json)
    #[arg(long)]
    json: bool,
    /// Print an AppArmor profile that lets p2p-jail use user namespaces, for Ubuntu from 23.10, and nothing else
    #[arg(long, conflicts_with = "json")]
    apparmor_profile: bool,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let place = args.place.resolve()?;
    let machine = Machine::discover(&args.sandbox.image.known(&place)?).map_err(SandboxError::from)?;
    if args.apparmor_profile {
        return print(apparmor_profile(&machine.jail).as_bytes(), std::io::stdout());
    }
    let (driver, profile) = args.sandbox.resolve(&place);
    let driver = driver.parse()?;
    let examined = tokio::task::spawn_blocking(move || {
        let profile = Profile::load(&profile, &machine.surroundings)?;
        let (r, shares) = find_r(&machine);
        Ok::<_, SandboxError>(examine(machine, &Question { driver, profile, shares, r })?)
    });
    let doctor = examined.await.map_err(|error| Failure::new(Status::Usage, error))??;
    let text =
        if args.json { doctor.to_json().map_err(|error| Failure::new(Status::Usage, error))? } else { doctor.render() };
    print(text.as_bytes(), std::io::stdout())?;
    conclude(&doctor)
}

/// What has been said needs no repetition: only the exit status.
fn conclude(doctor: &Doctor) -> Result<(), Failure> {
    if !doctor.is_enforced() {
        Err(Failure::silent(Status::Sandbox))
    } else if doctor.machine.r.is_none() {
        Err(Failure::silent(Status::Usage))
    } else {
        Ok(())
    }
}

/// The R that tasks would run under, or what to do to have one; and what it needs of the host.
fn find_r(machine: &Machine) -> (Result<Interpreter, String>, Vec<Share>) {
    match RInstallation::of(machine).and_then(RInstallation::with_future) {
        Ok(r) => {
            let shares = r.shares(machine);
            (Ok(Interpreter { version: r.version, future: r.future.unwrap_or_default() }), shares)
        }
        Err(error) => (Err(error_chain(&error)), Vec::new()),
    }
}
