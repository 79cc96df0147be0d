//! The catalogue, by what is attacked.

mod files;
mod files_scenarios;
mod helpers;
mod network;
mod processes;
mod processes_scenarios;
mod resources;
mod resources_scenarios;
mod results;
mod results_forged;
mod results_scenarios;

use crate::case::Case;

/// All cases in their order.
pub(crate) fn all() -> Vec<Case> {
    let mut cases: Vec<Case> =
        [files::cases(), processes::cases(), resources::cases(), network::cases(), results::cases()]
            .into_iter()
            .flatten()
            .collect();
    cases.sort_by_key(|case| case.number);
    cases
}
