//! p2p-worker's own way to `p2p-wormhole`, and the real peers, mailbox server and transit relay of Magic-Wormhole, on
//! loopback. `scripts/test` installs them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "clippy allows these inside test functions only, and a helper of a test may fail the test too"
)]

mod endings;
mod hostile;
mod licence;
mod matrix;
mod pipes;
#[path = "../../../tests/support/wormhole_servers.rs"]
mod servers;
mod tidy;
mod world;
