//! What p2p-worker and `p2p-wormhole` say to each other over the pipes of `p2p-wormhole`'s fd 0 and fd 1.
//!
//! Both directions begin with eight bytes, [`CONTRACT`], which stand for the exact text of [`message`]: programs of two
//! builds refuse each other before either decodes a byte. Then come frames ([`frame`]): messages in postcard, and pieces
//! of the payload as they are.
//!
//! ```text
//! p2p-worker                                     p2p-wormhole
//!   | <------- Confined: its layers of sandbox      |   no byte of the network was read yet
//!   | Request ------------------------------------> |
//!   | <------- Phase, …: what it waits for          |
//!   | <------- Resolve: relays that the peer named  |   perhaps; it can resolve no name itself
//!   | Addresses ----------------------------------> |
//!   | <------- Connected                            |   directly, or through which relay
//!   | data… ------------------------------------->  |   to send;
//!   | <------------------------------------- data…  |   to receive
//!   | <------- Progress, …: bytes, when it sends    |
//!   | <------- Done or Failed, always the last one  |
//! ```
//!
//! The end of file on fd 0 is cancellation, whenever it comes before the last message. It comes also when p2p-worker
//! dies, so `p2p-wormhole` never outlives it by more than [`GRACE`].
//!
//! This crate is licensed like p2p-worker, since both sides link it. It does no I/O.

pub mod frame;
pub mod message;

use std::time::Duration;

/// How long `p2p-wormhole` has to tell its peer and the mailbox server that it goes, after its last message or after the
/// end of file on fd 0.
pub const GRACE: Duration = Duration::from_secs(3);

/// Stands for the exact text of `message.rs`: the first eight bytes of both directions, little-endian.
pub const CONTRACT: u64 = sum(include_bytes!("message.rs"));

/// FNV-1a (Fowler, Noll and Vo), 64 bits.
const fn sum(bytes: &[u8]) -> u64 {
    let (mut hash, mut rest) = (0xcbf2_9ce4_8422_2325_u64, bytes);
    while let [byte, after @ ..] = rest {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = after;
    }
    hash
}
