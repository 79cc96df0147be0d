//! A board over SSH: pipe.pico.sh, or our own server.
//!
//! Speaks SSH itself (russh), so no `ssh` program is needed and `~/.ssh/config` is not read. One connection for each
//! joined topic, kept up by [`link`]; one for each question about the account. Everything that the board sends is taken
//! for bytes of a stranger: bounded, and made printable before anybody sees it.

mod access;
mod connect;
mod identity;
mod known_hosts;
mod link;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{Board, BoardError, Link};
use crate::ids::{IdError, Topic, UserName};

/// The public board.
pub const PUBLIC_BOARD: &str = "pipe.pico.sh";

/// Where a board is: `HOST` or `HOST:PORT`, `[ADDRESS]:PORT` for IPv6; port 22 if none is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardAddress {
    host: String,
    port: u16,
}

impl BoardAddress {
    /// The host, in lower case and without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whom to ask about one's account: for a host `pipe.X` that is `X`, else the host itself.
    fn account_host(&self) -> Self {
        let host = self.host.strip_prefix("pipe.").unwrap_or(&self.host);
        Self { host: host.to_owned(), port: self.port }
    }
}

impl Default for BoardAddress {
    fn default() -> Self {
        Self { host: PUBLIC_BOARD.to_owned(), port: 22 }
    }
}

impl FromStr for BoardAddress {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        const WHAT: &str = "a board's address";
        let form = || IdError::Form { what: WHAT, form: "HOST or HOST:PORT" };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(form)?,
            // More than one colon is a bare IPv6 address.
            None if text.matches(':').count() == 1 => text.split_at(text.find(':').unwrap_or_default()),
            None => (text, ""),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or_else(form)?,
            None if port.is_empty() => 22,
            None => return Err(form()),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || host.len() > 255 || host.starts_with('-') {
            return Err(form());
        }
        match host.chars().find(|&c| !allowed(c)) {
            Some(character) => Err(IdError::Character { what: WHAT, character }),
            None => Ok(Self { host: host.to_ascii_lowercase(), port }),
        }
    }
}

impl fmt::Display for BoardAddress {
    /// As known_hosts files write it: the bare host for port 22, else `[host]:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            22 => f.write_str(&self.host),
            port => write!(f, "[{}]:{port}", self.host),
        }
    }
}

/// How to sign in to a board.
#[derive(Debug, Clone)]
pub struct SshBoardConfig {
    /// Where it is.
    pub address: BoardAddress,
    /// The SSH login name; the operating system's user name if there is none. Boards know an account by its key.
    pub login: Option<String>,
    /// Key files that the user named. If there are any, nothing else is tried.
    pub identities: Vec<PathBuf>,
    /// The folder of the user's keys and known hosts, `~/.ssh`.
    pub ssh_folder: Option<PathBuf>,
    /// The socket of an ssh-agent.
    pub agent: Option<PathBuf>,
    /// Our own file of known hosts, where new ones are written.
    pub known_hosts: PathBuf,
    /// Whether the key of a host that is not known yet is accepted and remembered. A changed key never is.
    pub accept_new: bool,
    /// Who else may use the topics of our own that we join, for as long as we stay.
    pub shares_with: Vec<UserName>,
}

impl SshBoardConfig {
    /// The usual way: keys of `~/.ssh` and the agent of `SSH_AUTH_SOCK`; new hosts are kept in our state folder.
    #[must_use]
    pub fn new(address: BoardAddress, state: &Path) -> Self {
        Self {
            address,
            login: None,
            identities: Vec::new(),
            ssh_folder: env::home_dir().map(|home| home.join(".ssh")),
            agent: env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from),
            known_hosts: state.join("known_hosts"),
            accept_new: false,
            shares_with: Vec::new(),
        }
    }

    fn login(&self) -> String {
        let from_system = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
        self.login.clone().or_else(from_system).unwrap_or_else(|| "p2p-worker".to_owned())
    }
}

/// A board over SSH.
#[derive(Debug, Clone)]
pub struct SshBoard {
    config: SshBoardConfig,
}

impl SshBoard {
    /// A board that is connected to when it is used.
    #[must_use]
    pub fn new(config: SshBoardConfig) -> Self {
        Self { config }
    }

    /// The same account; topics of its own that it joins from now on are shared with `guests`.
    #[must_use]
    pub fn sharing_with(&self, guests: Vec<UserName>) -> Self {
        Self { config: SshBoardConfig { shares_with: guests, ..self.config.clone() } }
    }
}

impl Board for SshBoard {
    async fn user(&self) -> Result<UserName, BoardError> {
        access::user(&self.config).await
    }

    async fn join(&self, topic: &Topic) -> Result<Link, BoardError> {
        link::start(self.config.clone(), topic.clone()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_their_usual_forms() {
        for (text, host, port, known) in [
            ("pipe.pico.sh", "pipe.pico.sh", 22, "pipe.pico.sh"),
            ("Board.example:2222", "board.example", 2222, "[board.example]:2222"),
            ("[::1]:2222", "::1", 2222, "[::1]:2222"),
            ("[::1]", "::1", 22, "::1"),
            ("fe80::1%eth0", "fe80::1%eth0", 22, "fe80::1%eth0"),
        ] {
            let address: BoardAddress = text.parse().unwrap();
            assert_eq!((address.host(), address.port(), address.to_string().as_str()), (host, port, known));
        }
        for text in ["", ":22", "host:", "host:0", "host:70000", "a b", "-oProxyCommand=x", "[::1", "[::1]x", "h\n"] {
            assert!(text.parse::<BoardAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_account_is_asked_for_without_the_pipe() {
        assert_eq!(BoardAddress::default().account_host().host(), "pico.sh");
        assert_eq!("localhost:1".parse::<BoardAddress>().unwrap().account_host().host(), "localhost");
    }
}
