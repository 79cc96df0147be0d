//! Payloads between a file and the data frames of a stream. Files are read and written in blocking threads, one piece
//! at a time and one piece ahead, so that the reactor never waits for a disk; digest and compression are made there too.

mod assembly;
mod course;
mod cutting;
mod packing;
mod receiving;
mod sending;

use std::io;

pub(super) use course::Course;
pub(super) use cutting::Cutting;
pub(super) use receiving::{Piece, Receiving};
pub(super) use sending::{Opening, Sending, advance};

use super::TransferError;
use crate::{ids::Digest, proto::refusal::Payload, spool::SpoolError};

/// What is expected of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) what: Payload,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

impl Expected {
    /// Whether it is small enough.
    pub(super) fn within(self, limit: u64) -> Result<Self, TransferError> {
        let Self { what, size, .. } = self;
        if size > limit { Err(TransferError::TooLarge { what, size, limit }) } else { Ok(self) }
    }
}

/// A blocking task that is gone: the runtime is shutting down.
pub(super) fn ended(error: tokio::task::JoinError) -> SpoolError {
    failed(io::Error::other(error))
}

fn failed(source: io::Error) -> SpoolError {
    SpoolError::Read { what: "a temporary file".to_owned(), source }
}

/// Says when another hundredth has passed.
struct Meter {
    step: u64,
    next: u64,
}

impl Meter {
    fn new(total: u64) -> Self {
        let step = (total / 100).max(1);
        Self { step, next: step }
    }

    fn passed(&mut self, bytes: u64) -> Option<u64> {
        (bytes >= self.next).then(|| {
            self.next = bytes.saturating_add(self.step);
            bytes
        })
    }
}
