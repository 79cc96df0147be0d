//! The transit protocol (magic-wormhole-protocols, `transit.md`): a TCP connection with the peer, directly or through a
//! relay, and encrypted records on it.

mod connect;
mod handshake;
mod records;
mod road;

pub(crate) use connect::{Connection, connect};
pub(crate) use handshake::Words;
pub(crate) use records::{RecordError, Records};
pub(crate) use road::{Listening, Road};

/// Which end of a transfer this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Has the file; chooses among the connections that come about.
    Sender,
    /// Gets it.
    Receiver,
}
