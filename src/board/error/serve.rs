//! Why a board cannot be served.

use std::{io, path::PathBuf};

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
