//! `p2p-worker profile list` and `profile show`: the policies, and how a driver would enforce one here.

use clap::Subcommand;

use super::{
    Failure, Status,
    common::{ImageArgs, PlaceArgs, machine, print},
};
use crate::{
    error_chain,
    runner::RInstallation,
    sandbox::{Driver, Machine, Profile, SandboxError, list, show},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The profiles that come with the program
    List {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// What a profile allows, and what will really be mounted and limited by a driver on this machine
    Show {
        /// A profile's name, or the path of one
        #[arg(value_name = "NAME|FILE")]
        profile: String,
        /// Who makes the sandbox: jail, bubblewrap or none
        #[arg(long, value_name = "DRIVER", default_value = "jail")]
        sandbox: String,
        #[command(flatten)]
        image: ImageArgs,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let mut refused = None;
    let text = match args.command {
        Command::List { place } => {
            let machine = machine(&place.resolve()?)?;
            list(&machine.surroundings).map_err(|error| Failure::new(Status::Usage, error))?
        }
        Command::Show { profile, sandbox, image, place } => {
            let driver: Driver = sandbox.parse()?;
            let mut machine = Machine::discover(&image.known(&place.resolve()?)?).map_err(SandboxError::from)?;
            let profile = Profile::load(&profile, &machine.surroundings);
            let profile = profile.map_err(|error| Failure::new(Status::Usage, error))?;
            machine.look_for(&profile);
            // A machine without R has a profile all the same.
            let r = RInstallation::of(&machine);
            let shares = r.as_ref().map(|r| r.shares(&machine)).unwrap_or_default();
            machine.look(shares.iter().map(|share| share.from.as_path()));
            let note = r.map_or_else(|error| format!("\nWithout R: {}\n", error_chain(&error)), |_| String::new());
            let shown = show(&profile, driver, &machine, &shares);
            refused = shown.refused;
            shown.text + &note
        }
    };
    print(text.as_bytes(), std::io::stdout())?;
    // Why has been said; scripts see it by the exit status, which is that of a task that is to be run.
    refused.map_or(Ok(()), |error| Err(Failure::silent(Failure::from(SandboxError::from(error)).status)))
}
