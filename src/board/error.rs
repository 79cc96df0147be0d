//! Why a board cannot be used, or not be served.

use std::{io, path::PathBuf};

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
    /// Nothing is known about this host, so that its key cannot be checked.
    #[error("the board {host} is not known here; it shows the host key {fingerprint}")]
    UnknownHost {
        /// The host as known_hosts files write it.
        host: String,
        /// SHA-256 of the key that it showed.
        fingerprint: String,
    },
    /// The host shows another key than before.
    #[error(
        "THE HOST KEY OF THE BOARD {host} HAS CHANGED: it shows {fingerprint}, which is not the key in {}; \
         somebody may be listening in, or the board was set up anew", known.display()
    )]
    HostKeyChanged {
        /// The host as known_hosts files write it.
        host: String,
        /// SHA-256 of the key that it showed.
        fingerprint: String,
        /// The file that has another one.
        known: PathBuf,
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
    /// A key file has a passphrase, and no agent holds the key.
    #[error("the SSH key {} has a passphrase, and no ssh-agent holds the key", path.display())]
    KeyFileEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// There is no key to sign in with.
    #[error("there is no SSH key to sign in with")]
    NoKey,
    /// The board knows none of our keys.
    #[error("the board {host} refused the sign-in with {}", tried.join(", "))]
    SignInRefused {
        /// The host.
        host: String,
        /// Each key that was tried: its file and SHA-256 fingerprint.
        tried: Vec<String>,
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

impl BoardError {
    /// What the user can do about it, as a full sentence, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoAccess { .. } => {
                "Ask the owner to host the cluster and to put you on its list (p2p-worker host --cluster … --users …)."
            }
            Self::Unreachable { .. } => "Check the host name, the port and the network.",
            Self::UnknownHost { .. } => {
                "Compare the fingerprint with the one that the board's owner tells you; if they are the same, \
                 accept it once with --accept-new."
            }
            Self::HostKeyChanged { known, host, .. } => {
                return Some(format!(
                    "Ask the board's owner. If the new key is right, remove the old one: ssh-keygen -f {} -R '{host}'",
                    known.display()
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
        matches!(self, Self::UnknownHost { .. } | Self::HostKeyChanged { .. })
    }
}

/// Why a board cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file of the board's state cannot be read or written.
    #[error("cannot {act} {}", path.display())]
    File {
        /// `read`, `write`, ….
        act: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file of accounts is not as it should be.
    #[error("{}, line {line}: {why}", path.display())]
    Accounts {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The host key cannot be used.
    #[error("cannot use the host key {}", path.display())]
    HostKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: russh::keys::Error,
    },
    /// Others can read the host key.
    #[error("the host key {} can be read by others (mode {mode:03o})", path.display())]
    HostKeyMode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// This is no public key.
    #[error("this is not an OpenSSH public key: {why}")]
    PublicKey {
        /// What is wrong.
        why: String,
    },
    /// A private key was given where a public one is wanted.
    #[error("this is a private key, which must never leave its owner")]
    PrivateKey,
    /// A key with options as in an authorized_keys file.
    #[error(
        "there is something before the key: options of authorized_keys files are not known here, and never ignored"
    )]
    KeyOptions,
    /// An account has no such key.
    #[error("{name} has no key {fingerprint}")]
    NoSuchKey {
        /// The account.
        name: String,
        /// What was asked for.
        fingerprint: String,
    },
    /// An account without a key could never sign in.
    #[error("this is the last key of {name}")]
    LastKey {
        /// The account.
        name: String,
    },
    /// There is no invitation to an account.
    #[error("nobody is invited to {name}")]
    NoInvite {
        /// The account.
        name: String,
    },
    /// There are too many invitations that can still be used.
    #[error("there are {most} invitations already")]
    TooManyInvites {
        /// The bound.
        most: usize,
    },
    /// A code that was never given, was used, or has expired. Which of them is nobody's business.
    #[error("this code is not valid, or not any more")]
    Code,
    /// Another board serves this state.
    #[error("another board serves {} already", path.display())]
    Serving {
        /// The state folder.
        path: PathBuf,
    },
    /// No board serves this state.
    #[error("no board serves {}", path.display())]
    NotServing {
        /// The state folder.
        path: PathBuf,
    },
    /// The board that serves does not answer as it should.
    #[error("the board that serves {} gave no answer that can be understood", path.display())]
    Control {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Such an account cannot be made.
    #[error("cannot add {name}: {why}")]
    Account {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// There is no such account.
    #[error("there is no account {name}")]
    NoAccount {
        /// Its name.
        name: String,
    },
}

impl ServeError {
    /// What the user can do about it, as a full sentence, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("Another program listens there: stop it, or choose another address with --listen.".to_owned())
            }
            Self::Accounts { .. } => Some("Repair or delete that line; nothing was changed.".to_owned()),
            Self::HostKeyMode { path, .. } => Some(format!("Close it: chmod 600 {}", path.display())),
            Self::KeyOptions => Some(
                "Take the options away: an account may do on the board what it may, whichever key signs in.".to_owned(),
            ),
            Self::NoSuchKey { .. } => Some("See them: p2p-worker board user list".to_owned()),
            Self::LastKey { name } => {
                Some(format!("Add another key first, or remove the account: p2p-worker board user remove {name}"))
            }
            Self::TooManyInvites { .. } => {
                Some("See them: p2p-worker board invite --list; take some back with --revoke NAME.".to_owned())
            }
            Self::Serving { .. } => Some(
                "Stop it first (p2p-worker board status tells of it), or give this one another folder with --state."
                    .to_owned(),
            ),
            Self::NotServing { .. } => Some(
                "Start one with p2p-worker board, or name the folder of the one that runs with --state.".to_owned(),
            ),
            Self::PublicKey { .. } | Self::PrivateKey => {
                Some("Give the file that ends in .pub, for instance ~/.ssh/id_ed25519.pub.".to_owned())
            }
            _ => None,
        }
    }
}
