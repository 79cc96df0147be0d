//! Why a board cannot be used, or not be served.

mod serve;

use std::{fmt, io, path::PathBuf};

pub use serve::ServeError;

use crate::ids::Topic;

/// A line of a file of known hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLine {
    /// The file.
    pub path: PathBuf,
    /// Counted from 1; 0 where it was written just now.
    pub line: usize,
}

impl fmt::Display for KnownLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.path.display(), self.line)
    }
}

/// Why a board cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The topic belongs to somebody who does not share it with us.
    #[error("no access to {topic}: its owner does not share it, or does not host it at the moment")]
    NoAccess {
        /// The topic as we asked for it.
        topic: Topic,
    },
    /// The board cannot be reached over the network.
    #[error("cannot reach the board {host} port {port}")]
    Unreachable {
        /// The host.
        host: String,
        /// The TCP port.
        port: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A step took longer than it may.
    #[error("the board {host} did not answer in {seconds} s: {step}")]
    TimedOut {
        /// The host.
        host: String,
        /// What was waited for.
        step: &'static str,
        /// The bound in seconds.
        seconds: u64,
    },
    /// A file of SSH's configuration is not as it should be.
    #[error("{}, line {line}: {why}", path.display())]
    SshConfig {
        /// The file.
        path: PathBuf,
        /// Counted from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// An option of SSH's configuration that would change how the board is connected to, and is not understood.
    #[error("SSH's configuration for {host} has an option that is not understood here: {why}")]
    SshOption {
        /// The keyword.
        option: String,
        /// The host.
        host: String,
        /// Where it stands, and what it says.
        why: String,
    },
    /// The system's ssh cannot be started.
    #[error("cannot start {}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The system's ssh could not connect.
    #[error("{} could not connect to {host}: {said}", program.display())]
    ProgramFailed {
        /// The program.
        program: PathBuf,
        /// The host.
        host: String,
        /// What it said, made printable.
        said: String,
    },
    /// A host on the way does not connect to the next one.
    #[error("{through} does not connect to {host}")]
    Jump {
        /// The host on the way.
        through: String,
        /// The next one.
        host: String,
        /// What the SSH library said.
        #[source]
        source: Box<russh::Error>,
    },
    /// The host shows a certificate that its authority's key signed, and that does not hold.
    #[error("the certificate that {host} shows is signed by an authority that is known ({authority}), but {why}")]
    HostCertificate {
        /// The host as known_hosts files write it.
        host: String,
        /// SHA-256 of the authority's key.
        authority: String,
        /// What is wrong.
        why: String,
    },
    /// The host shows a key that is revoked.
    #[error("{host} shows the host key {fingerprint}, which is revoked here")]
    HostKeyRevoked {
        /// The host as known_hosts files write it.
        host: String,
        /// SHA-256 of the key.
        fingerprint: String,
    },
    /// The host shows an RSA key with fewer bits than are wanted.
    #[error("{host} shows an RSA key of less than {least} bits, which RequiredRSASize asks for")]
    HostKeyShort {
        /// The host as known_hosts files write it.
        host: String,
        /// What is wanted, in bits.
        least: u32,
    },
    /// Nothing is known about this host, so that its key cannot be checked.
    #[error("the {} {host} is not known here; it shows the host key {fingerprint}", if *is_hop { "host" } else { "board" })]
    UnknownHost {
        /// The host as known_hosts files write it.
        host: String,
        /// SHA-256 of the key that it showed.
        fingerprint: String,
        /// Whether it is a host on the way.
        is_hop: bool,
    },
    /// The host shows another key than before.
    #[error(
        "THE HOST KEY OF THE BOARD {host} HAS CHANGED: it shows {fingerprint}, which is not the key in {known}; \
         somebody may be listening in, or the board was set up anew"
    )]
    HostKeyChanged {
        /// The host as known_hosts files write it.
        host: String,
        /// SHA-256 of the key that it showed.
        fingerprint: String,
        /// The line that has another one.
        known: KnownLine,
    },
    /// A file of known hosts cannot be read or written.
    #[error("cannot use the known hosts in {}", path.display())]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: russh::keys::Error,
    },
    /// A key file cannot be used.
    #[error("cannot use the SSH key {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: russh::keys::Error,
    },
    /// A key file has a passphrase, no agent holds the key, and there is no terminal to ask on.
    #[error(
        "the SSH key {} has a passphrase, no ssh-agent holds the key, and there is neither a terminal to ask for it nor SSH_ASKPASS", path.display()
    )]
    KeyFileEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// A key whose secret is elsewhere, and no agent holds it.
    #[error("{} has no secret in it (a public key, or a security key), and no ssh-agent holds the key", path.display())]
    KeyNotHeld {
        /// The file.
        path: PathBuf,
    },
    /// There is no key to sign in with.
    #[error("there is no SSH key to sign in with")]
    NoKey,
    /// The board knows none of our keys.
    #[error("{host} refused the sign-in with {}{}", tried.join(", "), not_tried(passed_over))]
    SignInRefused {
        /// The host.
        host: String,
        /// Each key that was tried: its file and SHA-256 fingerprint.
        tried: Vec<String>,
        /// Keys that were not, and why.
        passed_over: Vec<String>,
    },
    /// The key was right, and something else is wanted besides.
    #[error("{host} took the key, and wants a password or code besides")]
    MoreThanAKey {
        /// The host.
        host: String,
    },
    /// The SSH connection failed or broke.
    #[error("the connection to the board {host} failed")]
    Connection {
        /// The host.
        host: String,
        /// What the SSH library said.
        #[source]
        source: russh::Error,
    },
    /// The board does not do what a board does.
    #[error("the board {host} did not carry out {command:?}: {answer}")]
    Command {
        /// The host.
        host: String,
        /// The command.
        command: String,
        /// What it answered, made printable.
        answer: String,
    },
}

fn not_tried(passed_over: &[String]) -> String {
    if passed_over.is_empty() { String::new() } else { format!("; not tried: {}", passed_over.join(", ")) }
}

impl BoardError {
    /// With what the host said when it closed the connection.
    pub(crate) fn with_last_words(mut self, said: Option<&String>) -> Self {
        if let (Self::SignInRefused { tried, .. }, Some(said)) = (&mut self, said) {
            tried.push(format!("and said: {said}"));
        }
        self
    }

    /// Whether it is about what was configured, and not about the network.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::SshConfig { .. }
                | Self::SshOption { .. }
                | Self::Program { .. }
                | Self::KnownHosts { .. }
                | Self::KeyFile { .. }
                | Self::KeyFileEncrypted { .. }
                | Self::KeyNotHeld { .. }
                | Self::NoKey
        )
    }

    /// What the user can do about it, as a full sentence, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoAccess { .. } => {
                "Ask the owner to host the cluster and to put you on its list (p2p-worker host --cluster … --users …)."
            }
            Self::Unreachable { .. } => "Check the host name, the port and the network.",
            Self::SshConfig { .. } => {
                "Repair that line; if ssh itself takes it, let the system's ssh connect: --ssh-program ssh"
            }
            Self::SshOption { .. } | Self::MoreThanAKey { .. } => {
                "Let the system's ssh connect, which understands it: --ssh-program ssh"
            }
            Self::Program { .. } => {
                "Name the program with its path: --ssh-program /usr/bin/ssh (Debian: package openssh-client)."
            }
            Self::ProgramFailed { said, .. } if said.contains("Host key verification failed") => {
                "If the board was never seen before, compare its fingerprint with the one that its owner tells you, and \
                 accept it once with --accept-new."
            }
            Self::ProgramFailed { .. } => "Try the same by hand: it is what ssh says to: ssh HOST user",
            Self::Jump { .. } => {
                "Try the same with ssh; the host on the way must allow TCP forwarding to the next one."
            }
            Self::HostCertificate { .. } => {
                "Ask the board's owner for a certificate that holds (ssh-keygen -s CA -h -n HOST -V …)."
            }
            Self::HostKeyShort { .. } => "Ask the board's owner for a host key of another kind: ssh-keygen -t ed25519",
            Self::HostKeyRevoked { .. } => "Ask the board's owner: somebody may have that key who should not.",
            Self::UnknownHost { is_hop: true, host, .. } => {
                return Some(format!("Connect to it once with ssh, which asks whether the key is right: ssh {host}"));
            }
            Self::UnknownHost { .. } => {
                "Compare the fingerprint with the one that the board's owner tells you; if they are the same, \
                 accept it once with --accept-new."
            }
            Self::HostKeyChanged { known, host, .. } => {
                return Some(format!(
                    "Ask the board's owner. If the new key is right, remove the old one: ssh-keygen -f {} -R '{host}'",
                    known.path.display()
                ));
            }
            Self::KeyNotHeld { path } => {
                return Some(format!(
                    "Load the key into an ssh-agent: ssh-add {}",
                    path.display().to_string().trim_end_matches(".pub")
                ));
            }
            Self::KeyFileEncrypted { path } => {
                return Some(format!("Load the key into an ssh-agent: ssh-add {}", path.display()));
            }
            Self::NoKey => "Name a key with -i KEYFILE, or make one: ssh-keygen -t ed25519",
            Self::SignInRefused { .. } => {
                "Give the public key to the board's owner, who adds it by: p2p-worker board user add NAME KEYFILE.pub \
                 (on pipe.pico.sh: make an account with ssh pico.sh)."
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Whether trying again cannot help, because somebody has to decide first whether this is still the board.
    #[must_use]
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::UnknownHost { .. } | Self::HostKeyChanged { .. } | Self::HostKeyRevoked { .. })
    }
}
