//! From what was typed (flags, environment, file) to what holds.
//!
//! Flags come before the environment (`P2P_WORKER_*`, which clap reads), which comes before the file. Nothing below
//! this module looks at any of them.

pub mod file;
pub mod folders;

use std::{path::PathBuf, time::Duration};

use crate::{
    ids::{ClusterName, IdError},
    sandbox::units::{UnitError, parse_bytes, parse_duration},
};
pub use file::{ConfigFile, FileError};
pub use folders::Folders;

/// The public board.
pub const DEFAULT_BOARD: &str = "pipe.pico.sh";

/// Bytes of the largest future and of the largest result, unless told otherwise.
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

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
    /// A board that is not `HOST[:PORT]`.
    #[error("--board {value}: a board is HOST or HOST:PORT")]
    Board {
        /// What was typed.
        value: String,
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

/// A board and how to sign in to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardAccess {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The SSH login name, if it matters to the board.
    pub login: Option<String>,
    /// The key files that were named; without any, those of ssh.
    pub identities: Vec<PathBuf>,
    /// Whether the key of a host that nobody knows is accepted and remembered.
    pub accept_new: bool,
    /// The cluster; the personal one of the account without it.
    pub cluster: Option<ClusterName>,
}

/// Splits `HOST[:PORT]`, also `[::1]:2222`.
///
/// # Errors
/// [`ConfigError::Board`].
pub fn parse_board(text: &str) -> Result<(String, u16), ConfigError> {
    let wrong = || ConfigError::Board { value: text.to_owned() };
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(22), |port| port.parse().map_err(|_| wrong()))?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || host.starts_with('-') || !host.chars().all(valid) || port == 0 {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

/// Reads `--cluster`.
///
/// # Errors
/// [`ConfigError::Name`].
pub fn parse_cluster(text: &str) -> Result<ClusterName, ConfigError> {
    text.parse().map_err(|source| ConfigError::Name { flag: "cluster", value: text.to_owned(), source })
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

/// Reads a time such as `10 min`.
///
/// # Errors
/// [`ConfigError::Unit`].
pub fn duration(flag: &'static str, text: Option<&str>) -> Result<Option<Duration>, ConfigError> {
    text.map(|text| parse_duration(text).map_err(|source| ConfigError::Unit { flag, value: text.to_owned(), source }))
        .transpose()
}

/// Checks `--slots`.
///
/// # Errors
/// [`ConfigError::Slots`].
pub fn slots(value: usize) -> Result<usize, ConfigError> {
    if (1..=1024).contains(&value) { Ok(value) } else { Err(ConfigError::Slots { value }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_hosts_with_or_without_a_port() {
        for (text, host, port) in [
            ("pipe.pico.sh", "pipe.pico.sh", 22),
            ("localhost:2222", "localhost", 2222),
            ("[::1]:2222", "::1", 2222),
            ("[::1]", "::1", 22),
            ("::1", "::1", 22),
        ] {
            assert_eq!(parse_board(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        for text in ["", ":22", "host:", "host:x", "host:0", "host:70000", "-oProxyCommand=x", "a b", "[::1]x"] {
            assert!(parse_board(text).is_err(), "{text}");
        }
    }
}
