//! Cases 61 to 67: the network.

use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
