//! Errors of the library and texts of strangers, as failures.

use std::error::Error;

use magic_wormhole::{WormholeError, rendezvous::RendezvousError};
use p2p_wormhole_contract::message::{Failure, MAX_TEXT};

/// The text, cut after [`MAX_TEXT`] characters.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// An error and its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    bounded(&text)
}

/// What the library's error means to the owner.
pub(crate) fn of_library(error: &WormholeError) -> Failure {
    match error {
        WormholeError::PakeFailed => Failure::Password,
        WormholeError::Crypto => Failure::Protocol("a message that cannot be decrypted".to_owned()),
        WormholeError::ProtocolJson(error) => Failure::Protocol(chain(error)),
        WormholeError::ServerError(RendezvousError::Server(said)) if said.contains("crowded") => {
            Failure::Mailbox("two others use this code already".to_owned())
        }
        WormholeError::ServerError(RendezvousError::Server(said)) => {
            Failure::Mailbox(bounded(&format!("it says: {said}")))
        }
        WormholeError::ServerError(error) => Failure::Mailbox(chain(error)),
        other => Failure::Protocol(chain(other)),
    }
}
