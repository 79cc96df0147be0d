//! `p2p-worker profile list` and `profile show`: the policies, and how a driver would enforce one here.

use clap::Subcommand;

use super::{
    Failure, Status,
    common::{PlaceArgs, machine, print},
};
use crate::sandbox::{Driver, Profile, list, show};

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
        place: PlaceArgs,
    },
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let text = match args.command {
        Command::List { place } => {
            let machine = machine(&place.resolve()?)?;
            list(&machine.surroundings).map_err(|error| Failure::new(Status::Usage, error))?
        }
        Command::Show { profile, sandbox, place } => {
            let driver: Driver = sandbox.parse()?;
            let mut machine = machine(&place.resolve()?)?;
            let profile = Profile::load(&profile, &machine.surroundings);
            let profile = profile.map_err(|error| Failure::new(Status::Usage, error))?;
            machine.look(profile.read.keys().map(std::path::PathBuf::as_path));
            show(&profile, driver, &machine)
        }
    };
    print(text.as_bytes(), std::io::stdout())
}
