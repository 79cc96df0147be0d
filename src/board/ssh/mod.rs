//! A board over SSH: pipe.pico.sh, or our own server.
//!
//! Speaks SSH itself (russh) and signs in as ssh(1) would: with its configuration ([`settings`]), known hosts, keys and
//! agent; or has the system's ssh carry the bytes ([`program`]). One connection for each joined topic, kept up by [`link`];
//! one for each question about the account. Everything that the board sends is taken for bytes of a stranger: bounded,
//! and made printable before anybody sees it.

mod access;
mod connect;
mod identity;
mod known_hosts;
mod link;
mod machine;
mod program;
mod prompt;
mod remembered;
mod session;
mod settings;
mod short_scalar;
mod sign_in;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

pub use program::SshProgram;
pub use remembered::Remembered;
use settings::Target;

use super::{Board, BoardError, Link};
use crate::ids::{IdError, Topic, UserName};

/// The public board.
pub const PUBLIC_BOARD: &str = "pipe.pico.sh";

/// Where a board is: `HOST` or `HOST:PORT`, `[ADDRESS]:PORT` for IPv6. The host may be one of `~/.ssh/config`, which then
/// also says the port if none is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardAddress {
    host: String,
    port: Option<u16>,
}

impl BoardAddress {
    /// The host as it was typed, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port that was typed.
    #[must_use]
    pub fn typed_port(&self) -> Option<u16> {
        self.port
    }

    /// Whom to ask about one's account: for a host `pipe.X` that is `X`, else the host itself.
    fn account_host(&self) -> Self {
        let is_pipe = self.host.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("pipe."));
        let host = self.host.get(5..).filter(|_| is_pipe).unwrap_or(&self.host);
        Self { host: host.to_owned(), port: self.port }
    }
}

impl Default for BoardAddress {
    fn default() -> Self {
        Self { host: PUBLIC_BOARD.to_owned(), port: None }
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
            Some(port) => Some(port.parse().ok().filter(|&port| port != 0).ok_or_else(form)?),
            None if port.is_empty() => None,
            None => return Err(form()),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || host.len() > 255 || host.starts_with('-') {
            return Err(form());
        }
        match host.chars().find(|&c| !allowed(c)) {
            Some(character) => Err(IdError::Character { what: WHAT, character }),
            None => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for BoardAddress {
    /// As known_hosts files write it: the bare host for port 22, else `[host]:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&settings::with_port(&self.host, self.port.unwrap_or(22)))
    }
}

/// Whose SSH connects to a board.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SshChoice {
    /// Ours; for pipe.pico.sh the system's, where there is one.
    #[default]
    Usual,
    /// Ours.
    Own,
    /// This program, with its own configuration.
    System(SshProgram),
}

/// How to sign in to a board.
#[derive(Debug, Clone)]
pub struct SshBoardConfig {
    /// Where it is.
    pub address: BoardAddress,
    /// The SSH login name; that of the configuration, else the operating system's, if there is none. Boards know an
    /// account by its key.
    pub login: Option<String>,
    /// Key files that the user named. If there are any, nothing else is tried.
    pub identities: Vec<PathBuf>,
    /// The folder of the user's configuration, keys and known hosts, `~/.ssh`. Without one nothing of OpenSSH's is read.
    pub ssh_folder: Option<PathBuf>,
    /// The folder of the system's configuration and known hosts, `/etc/ssh`.
    pub system_folder: PathBuf,
    /// The socket of an ssh-agent, unless the configuration names another.
    pub agent: Option<PathBuf>,
    /// Whether passphrases may be asked for on the terminal.
    pub passphrases: bool,
    /// Whose SSH connects.
    pub ssh: SshChoice,
    /// What is remembered over all connections of this process.
    pub memory: Remembered,
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
            system_folder: PathBuf::from("/etc/ssh"),
            passphrases: false,
            ssh: SshChoice::default(),
            memory: Remembered::default(),
            agent: env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from),
            known_hosts: state.join("known_hosts"),
            accept_new: false,
            shares_with: Vec::new(),
        }
    }

    /// What to connect to for an address of this board.
    fn target(&self, address: &BoardAddress) -> Target {
        Target { host: address.host.clone(), port: address.port, login: self.login.clone() }
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

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &BoardAddress {
        &self.config.address
    }

    /// The same account; topics of its own that it joins from now on are shared with `guests`.
    #[must_use]
    pub fn sharing_with(&self, guests: Vec<UserName>) -> Self {
        Self { config: SshBoardConfig { shares_with: guests, ..self.config.clone() } }
    }
}

impl Board for SshBoard {
    async fn user(&self) -> Result<UserName, BoardError> {
        Box::pin(access::user(&self.config)).await
    }

    async fn join(&self, topic: &Topic) -> Result<Link, BoardError> {
        Box::pin(link::start(self.config.clone(), topic.clone())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_their_usual_forms() {
        for (text, host, port, known) in [
            ("pipe.pico.sh", "pipe.pico.sh", None, "pipe.pico.sh"),
            ("Board.example:2222", "Board.example", Some(2222), "[Board.example]:2222"),
            ("board.example:22", "board.example", Some(22), "board.example"),
            ("[::1]:2222", "::1", Some(2222), "[::1]:2222"),
            ("[::1]", "::1", None, "::1"),
            ("fe80::1%eth0", "fe80::1%eth0", None, "fe80::1%eth0"),
        ] {
            let address: BoardAddress = text.parse().unwrap();
            assert_eq!((address.host(), address.typed_port(), address.to_string().as_str()), (host, port, known));
        }
        for text in ["", ":22", "host:", "host:0", "host:70000", "a b", "-oProxyCommand=x", "[::1", "[::1]x", "h\n"] {
            assert!(text.parse::<BoardAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_account_is_asked_for_without_the_pipe() {
        assert_eq!(BoardAddress::default().account_host().host(), "pico.sh");
        for (typed, asked) in [("localhost:1", "localhost"), ("Pipe.X", "X"), ("pipe", "pipe"), ("é.x", "")] {
            let address = typed.parse::<BoardAddress>().map(|address| address.account_host());
            assert_eq!(address.as_ref().map_or("", BoardAddress::host), asked);
        }
    }
}
