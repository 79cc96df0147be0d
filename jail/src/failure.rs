//! The one error of this program: which stage failed, at what, and what the kernel said.

use std::io;

use nix::errno::Errno;

use crate::spec::Stage;

/// The longest description that is sent, in bytes.
const LONGEST: usize = 2048;

/// Why a stage is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    /// Which stage.
    pub(crate) stage: Stage,
    /// What was tried.
    pub(crate) what: String,
    /// The error number, or 0.
    pub(crate) errno: i32,
}

/// What a stage returns.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure without an error number.
    pub(crate) fn new(stage: Stage, what: impl Into<String>) -> Self {
        Self { stage, what: shortened(what.into()), errno: 0 }
    }
}

/// Says of an error at which stage, and at what, it happened.
pub(crate) trait At<T> {
    /// Turns the error into a [`Failure`].
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|errno: Errno| Failure { errno: errno as i32, ..Failure::new(stage, what()) })
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| match error.raw_os_error() {
            Some(errno) => Failure { errno, ..Failure::new(stage, what()) },
            None => Failure::new(stage, format!("{}: {error}", what())),
        })
    }
}

/// Cut to a length that any message has room for.
fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let boundary = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(boundary.unwrap_or(0));
        text.push('…');
    }
    text
}
