//! How the bytes of a future and of its result travel between two peers.
//!
//! The *client* listens: for each worker that it accepted it makes a [`Ticket`], good for that worker's proven peer id
//! and that future. The *worker* dials, shows the ticket, and fetches; the result goes back through the same stream.
//! Both sides spool to unnamed files, so nothing ever sits in memory whole, and both know size and BLAKE3 digest of
//! what they pass on. Everything a peer sends is bounded in size and in time.
//!
//! The stream protocol ([`crate::proto::frames`] says what is sent, `session` plays it) runs over anything that gives
//! authenticated byte streams between peer ids ([`Network`]): libp2p for real, pipes in memory for tests.
