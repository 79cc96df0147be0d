//! Why a board cannot be used.

use crate::ids::Topic;

/// Why a board cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The topic belongs to somebody who does not share it with us.
    #[error("no access to {topic}: its owner does not share it, or does not host it at the moment")]
    NoAccess {
        /// The topic as we asked for it.
        topic: Topic,
    },
}
