//! From what was typed (flags, environment, file) to what holds.
//!
//! Flags come before the environment (`P2P_WORKER_*`, which clap reads), which comes before the file. Nothing below
//! this module looks at any of them.

pub mod file;
pub mod folders;

use std::{path::PathBuf, str::FromStr, time::Duration};

use crate::{
    ids::IdError,
    sandbox::{UnitError, parse_bytes, parse_duration},
    text,
};
pub use file::{ConfigFile, FileError};
pub use folders::Folders;

/// Bytes of the largest future and of the largest result, unless told otherwise.
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

/// The smallest limit on results: one that says why there is no other has about 2 KiB.
const LEAST_RESULT: u64 = 16 << 10;

/// Why what was typed does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name of the wrong form.
    #[error("--{flag} {value}")]
    Name {
        /// Which flag or key.
        flag: &'static str,
        /// What was typed.
        value: String,
        /// What is wrong with it.
        #[source]
        source: IdError,
    },
    /// A size or a time of the wrong form.
    #[error("--{flag} {value}")]
    Unit {
        /// Which flag or key.
        flag: &'static str,
        /// What was typed.
        value: String,
        /// What is wrong with it.
        #[source]
        source: UnitError,
    },
    /// A limit on results under which no result fits.
    #[error("--max-result of {bytes} bytes: it is at least 16 KiB, so that there is room for the reason of a failure")]
    TooSmall {
        /// What was typed.
        bytes: u64,
    },
    /// Arguments for ssh that are none.
    #[error("--ssh-args: {why}")]
    SshArguments {
        /// What is wrong.
        why: &'static str,
    },
    /// No slot at all, or absurdly many.
    #[error("--slots {value}: a worker has 1 to 1024 slots")]
    Slots {
        /// What was typed.
        value: usize,
    },
    /// No home folder and no other place for our state.
    #[error("there is no place for state: none of --state, $STATE_DIRECTORY, $XDG_STATE_HOME and $HOME is set")]
    NoState,
    /// The state folder cannot be made.
    #[error("cannot make the state folder {}", path.display())]
    State {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// Reads a name of any kind.
///
/// # Errors
/// [`ConfigError::Name`].
pub fn name<T: FromStr<Err = IdError>>(flag: &'static str, text: &str) -> Result<T, ConfigError> {
    text.parse().map_err(|source| ConfigError::Name { flag, value: text.to_owned(), source })
}

/// Reads a size such as `512 MiB`, or takes the default.
///
/// # Errors
/// [`ConfigError::Unit`].
pub fn bytes_or(flag: &'static str, text: Option<&str>, default: u64) -> Result<u64, ConfigError> {
    text.map_or(Ok(default), |text| {
        parse_bytes(text).map_err(|source| ConfigError::Unit { flag, value: text.to_owned(), source })
    })
}

/// The limit on results: as [`bytes_or`], but never so small that a result that says why there is no other is refused.
///
/// # Errors
/// [`ConfigError::Unit`] and [`ConfigError::TooSmall`].
pub fn max_result(text: Option<&str>) -> Result<u64, ConfigError> {
    let bytes = bytes_or("max-result", text, DEFAULT_MAX_BYTES)?;
    if bytes < LEAST_RESULT { Err(ConfigError::TooSmall { bytes }) } else { Ok(bytes) }
}

/// Reads a time such as `10 min`.
///
/// # Errors
/// [`ConfigError::Unit`].
pub fn duration(flag: &'static str, text: Option<&str>) -> Result<Option<Duration>, ConfigError> {
    text.map(|text| parse_duration(text).map_err(|source| ConfigError::Unit { flag, value: text.to_owned(), source }))
        .transpose()
}

/// Reads `--ssh-args`: words, with quotation marks where they have blanks.
///
/// # Errors
/// [`ConfigError::SshArguments`].
pub fn arguments(text: &str) -> Result<Vec<String>, ConfigError> {
    text::words(text).map_err(|_| ConfigError::SshArguments { why: "a quotation mark is not closed" })
}

/// Checks `--slots`.
///
/// # Errors
/// [`ConfigError::Slots`].
pub fn slots(value: usize) -> Result<usize, ConfigError> {
    if (1..=1024).contains(&value) { Ok(value) } else { Err(ConfigError::Slots { value }) }
}
