//! Cases 46 to 60: resources.

use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
