//! The catalogue, by what is attacked.

mod files;
mod network;
mod processes;
mod resources;
mod results;

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
