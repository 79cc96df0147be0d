//! Cases 68 to 84: the result and the protocol.

use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
