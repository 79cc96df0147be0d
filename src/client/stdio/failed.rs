//! Why there is no result, as R is told: a class, a sentence, and what to do.

use std::error::Error;

use super::{folder::FolderError, line::Line};
use crate::{
    client::{ClientError, WayError},
    error_chain,
    ids::{FutureId, PeerName},
    proto::refusal::Payload,
    rds::{Refusal, UnpackError},
    spool::SpoolError,
    text,
    transfer::TransferError,
    wormhole::{Failure, WormholeError},
};

/// The most characters of a sentence.
const MOST: usize = 1000;

/// Which kind of failure it is: `docs/client-stdio.md`, `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Interrupted,
    Withdrawn,
    Timeout,
    Refused,
    TooLarge,
    Board,
    Launch,
    Local,
}

impl Class {
    fn word(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Withdrawn => "withdrawn",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::TooLarge => "too-large",
            Self::Board => "board",
            Self::Launch => "launch",
            Self::Local => "local",
        }
    }
}

/// Why there will be no result.
#[derive(Debug)]
pub(super) struct Failed {
    class: Class,
    reason: String,
    hint: Option<&'static str>,
}

const ALLOW: &str = "return something else, or, if you trust the worker, allow it: results = \"any\"";
const RUN_AGAIN: &str = "run it again (reset() it first), or allow more workers for it with a larger retry";
const MAKE_ROOM: &str = "make room on the disk of the session's temporary folder, and run it again";
const LARGER_FUTURE: &str = "send less along with it (see its globals), or raise --max-future here and at the workers";
const LARGER_RESULT: &str = "return less, or raise --max-result here and at the workers";
const JOIN_AGAIN: &str = "see to the board, and set the plan again";

impl Failed {
    pub(super) fn new(class: Class, error: &dyn Error) -> Self {
        Self { class, reason: error_chain(error), hint: None }
    }

    fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    pub(super) fn withdrawn() -> Self {
        Self::new(Class::Withdrawn, &ClientError::Withdrawn)
    }

    pub(super) fn timed_out() -> Self {
        Self::new(Class::Timeout, &ClientError::TimedOut)
    }

    pub(super) fn no_board(reason: &str) -> Self {
        Self::new(Class::Board, &ClientError::BoardLost(reason.to_owned())).hint(JOIN_AGAIN)
    }

    /// The worker fell silent, and nobody else may have the future.
    pub(super) fn lost(worker: &PeerName) -> Self {
        let reason = format!("the worker {worker} was lost: it fell silent while it evaluated the future");
        Self { class: Class::Interrupted, reason, hint: Some(RUN_AGAIN) }
    }

    /// The future's file cannot be had.
    pub(super) fn not_taken(error: FolderError) -> Self {
        match &error {
            FolderError::Spool(SpoolError::TooLarge { limit }) => {
                let reason = format!("the future is larger than the limit of {limit} bytes");
                Self { class: Class::TooLarge, reason, hint: Some(LARGER_FUTURE) }
            }
            _ => Self::new(Class::Launch, &error),
        }
    }

    /// The result cannot be written for R.
    pub(super) fn not_written(error: &FolderError) -> Self {
        Self::new(Class::Local, error).hint(MAKE_ROOM)
    }

    /// The result is not what R should read.
    pub(super) fn refused(error: &Refusal) -> Self {
        let reason = format!("the result was refused: {}", error_chain(error));
        let hint = matches!(error, Refusal::NotAllowed { .. }).then_some(ALLOW);
        Self { class: Class::Refused, reason, hint }
    }

    pub(super) fn of_client(error: ClientError) -> Self {
        let (class, hint) = match &error {
            ClientError::GaveUp { last: Some(error), .. } | ClientError::Refused(error) => of_way(error),
            ClientError::GaveUp { last: None, .. } => (Class::Interrupted, RUN_AGAIN),
            ClientError::BoardLost(_) => (Class::Board, JOIN_AGAIN),
            ClientError::TimedOut => return Self::timed_out(),
            ClientError::Withdrawn => return Self::withdrawn(),
            ClientError::Twice => return Self::new(Class::Launch, &error),
        };
        Self::new(class, &error).hint(hint)
    }

    /// The line that ends a future.
    pub(super) fn line(self, future: &FutureId, worker: Option<&PeerName>) -> Line {
        let line = Line::new("failed").with("future", future).with("class", self.class.word());
        let line = line.with("reason", text::for_log(&self.reason, MOST));
        line.maybe("hint", self.hint).maybe("worker", worker)
    }
}

fn of_way(error: &WayError) -> (Class, &'static str) {
    match error {
        WayError::Libp2p(error) => of_transfer(error),
        WayError::Wormhole(WormholeError::Spool(error)) | WayError::Unpack(UnpackError::Spool(error)) => match error {
            SpoolError::TooLarge { .. } => (Class::TooLarge, LARGER_RESULT),
            _ => (Class::Local, MAKE_ROOM),
        },
        WayError::Wormhole(WormholeError::Failed(Failure::TooLarge { .. }))
        | WayError::Unpack(UnpackError::Bomb { .. }) => (Class::TooLarge, LARGER_RESULT),
        WayError::Wormhole(_) | WayError::Unpack(_) | WayError::Random(_) => (Class::Interrupted, RUN_AGAIN),
    }
}

fn of_transfer(error: &TransferError) -> (Class, &'static str) {
    match error {
        TransferError::TooLarge { what: Payload::Result, .. } => (Class::TooLarge, LARGER_RESULT),
        TransferError::TooLarge { what: Payload::Future, .. } => (Class::TooLarge, LARGER_FUTURE),
        TransferError::Spool(_) => (Class::Local, MAKE_ROOM),
        _ => (Class::Interrupted, RUN_AGAIN),
    }
}
