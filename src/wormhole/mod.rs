//! One file by Magic-Wormhole, with a code that was given: how the peers of future.p2p pass on futures and results.
//!
//! The work is done by `p2p-wormhole`, a program of its own ([`Program`]): its licence is another one, and it parses what
//! strangers send, in a sandbox that it puts around itself. This module starts it, resolves names for it, hands it the
//! payload and takes what it receives into an unnamed file, and believes nothing of what it says beyond the bounds that
//! were set: sizes and times are held here too.
//!
//! What this does not do: it draws no codes, knows nothing of the board, and never looks into the bytes. Magic-Wormhole
//! proves that the other side knows the code, and the code stands on the board in clear: who the peer is, nobody knows.

mod address;
mod config;
mod conversation;
mod error;
pub mod memory;
mod names;
mod program;

use std::{fmt, net::SocketAddr, path::Path, str::FromStr};

use p2p_wormhole_contract::message::MAX_CODE;
pub use p2p_wormhole_contract::message::{Failure, Layer, Offered, Phase, Reach};
use tokio_util::sync::CancellationToken;

pub use address::{AddressError, MailboxUrl, RelayAddress};
pub use config::{Patience, WormholeConfig};
pub use error::WormholeError;
pub use program::Program;

use crate::{
    ids::{ClaimCode, IdError},
    spool::Spooled,
};

/// Sends and receives files by codes.
pub trait Wormhole: Send + Sync + 'static {
    /// Sends all bytes to whoever receives with this code, and waits until it has them. Cancelling `cancel` tells the peer
    /// that it was cancelled; dropping the future just breaks the connection.
    ///
    /// # Errors
    /// [`WormholeError`].
    fn send(
        &self,
        code: &Code,
        payload: &Spooled,
        progress: impl FnMut(Progress) + Send,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), WormholeError>> + Send;

    /// Receives one file of at most `most` bytes from whoever sends with this code, into an unnamed file in `directory`. A
    /// larger one is refused before a byte of it flows. Cancellation is as with [`Wormhole::send`].
    ///
    /// # Errors
    /// [`WormholeError`].
    fn receive(
        &self,
        code: &Code,
        most: u64,
        directory: &Path,
        progress: impl FnMut(Progress) + Send,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<Spooled, WormholeError>> + Send;
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// This is waited for now.
    Waiting(Phase),
    /// There is a connection with the peer.
    Connected {
        /// The address of the other end, which is the relay's if it is relayed.
        with: SocketAddr,
        /// Whether it goes through a relay.
        relayed: bool,
        /// Bytes that are to flow, as the sender says; within the limit.
        size: u64,
    },
    /// So many bytes have flowed.
    Bytes(u64),
}

/// A wormhole code: a nameplate of digits, which may begin with zeros, a hyphen and a password, 3 to 128 visible ASCII
/// characters. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Code(String);

impl Code {
    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The code by which an accepted future travels.
    #[must_use]
    pub fn of_future(claim: &ClaimCode) -> Self {
        // Both names are of the same form, and that of a claim leaves room for the ending.
        Self(format!("{claim}-f"))
    }

    /// The code by which its result travels.
    #[must_use]
    pub fn of_result(claim: &ClaimCode) -> Self {
        Self(format!("{claim}-r"))
    }
}

impl FromStr for Code {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let what = "a wormhole code";
        if text.len() > MAX_CODE {
            return Err(IdError::Length { what, most: MAX_CODE, length: text.chars().count() });
        }
        if let Some(character) = text.chars().find(|character| !character.is_ascii_graphic()) {
            return Err(IdError::Character { what, character });
        }
        let (nameplate, password) = text.split_once('-').unwrap_or_default();
        let digits = !nameplate.is_empty() && nameplate.bytes().all(|byte| byte.is_ascii_digit());
        if digits && !password.is_empty() {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Form { what, form: "6230-32543fbc7bc7-f" })
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::Code;
    use crate::ids::ClaimCode;

    #[test]
    fn the_codes_of_a_claim_are_codes() {
        for text in ["0000-32543fbc7bc7".to_owned(), format!("1-{}", "a".repeat(118))] {
            let claim: ClaimCode = text.parse().unwrap();
            for (code, ending) in [(Code::of_future(&claim), 'f'), (Code::of_result(&claim), 'r')] {
                assert_eq!(code.as_str(), format!("{text}-{ending}"));
                assert_eq!(code.as_str().parse::<Code>().unwrap(), code);
            }
        }
    }

    #[test]
    fn codes_are_checked_where_they_come_in() {
        for text in ["0000-32543fbc7bc7-f", "0007-a-r", "6230-x"] {
            assert_eq!(text.parse::<Code>().unwrap().as_str(), text);
        }
        for text in ["", "-", "12", "12-", "-a", "1x-a", "1-a b", "1-\u{1b}", &format!("1-{}", "a".repeat(127))] {
            assert!(text.parse::<Code>().is_err(), "{text:?}");
        }
    }
}
