//! Why a peer would not go on with a transfer, in words that are safe to show.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::for_log;

/// The longest text of a peer that is kept, in characters.
pub const MAX_TEXT: usize = 240;

/// Makes a text from a peer safe for a terminal and for a log: one line, with nothing in it that acts on either, cut
/// after [`MAX_TEXT`] characters.
#[must_use]
pub fn sanitise(text: &str) -> String {
    for_log(text, MAX_TEXT)
}

/// A text for a peer or from a peer. It went through [`sanitise`], wherever it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Reason(String);

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(sanitise(&text))
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self(sanitise(text))
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// From the client to the worker.
    Future,
    /// From the worker to the client.
    Result,
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Future => "future",
            Self::Result => "result",
        })
    }
}

/// Why a peer will not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It speaks another version.
    #[error("it speaks version {theirs} of the protocol")]
    Version {
        /// The version of the one that refuses.
        theirs: u16,
    },
    /// There is no such ticket for that peer and that future; which of the three is wrong is not told.
    #[error("it has no such ticket for this peer and this future")]
    Ticket,
    /// The run that the ticket was good for is over.
    #[error("the ticket was used already")]
    Used,
    /// Another stream with this ticket is being taken over.
    #[error("the ticket is in use")]
    Busy,
    /// More bytes than the one that refuses takes.
    #[error("the {what} of {size} bytes is over its limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: Payload,
        /// Its bytes.
        size: u64,
        /// The limit of the one that refuses.
        limit: u64,
    },
    /// The bytes that came are not those that were promised.
    #[error("the {0} that arrived is not the one that was sent")]
    Digest(Payload),
    /// It cannot store the bytes.
    #[error("it cannot store the bytes: {0}")]
    Storage(Reason),
    /// The client cancelled the future, or nobody waits for it any more.
    #[error("the future was cancelled")]
    Cancelled,
    /// The other side did what the protocol does not allow.
    #[error("it saw a breach of the protocol: {0}")]
    Protocol(Reason),
    /// It gives up on this future for a reason of its own.
    #[error("it gave up: {0}")]
    GaveUp(Reason),
}
