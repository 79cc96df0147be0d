//! Errors and texts of strangers, as failures.

use std::error::Error;

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

/// The system's source of randomness failed.
pub(crate) fn no_random_bits() -> Failure {
    Failure::Fault("the system has no random bits".to_owned())
}

/// What a mailbox server's complaint means to the owner.
pub(crate) fn of_server(said: &str) -> Failure {
    if said.contains("crowded") {
        Failure::Mailbox("two others use this code already".to_owned())
    } else {
        Failure::Mailbox(bounded(&format!("it says: {said}")))
    }
}
