//! End to end with real parts: the real program, OpenSSH's keys, SSH, libp2p, R and the kernel's sandboxing.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy allows these inside test functions only, and a helper of a test may fail the test too"
)]

mod attacks;
mod client_stdio;
mod command_line;
mod forged;
mod hosts;
mod internet;
mod lifecycle;
mod limits;
mod network;
mod packages;
mod public_board;
#[path = "../support/wormhole_servers.rs"]
mod servers;
mod submit;
mod task_user;
mod warm;
mod way;
mod world;
mod wormhole_client;
mod wormhole_worker;
mod wormholes;
