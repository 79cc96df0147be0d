//! Fast tests: contracts, and real programs on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "clippy allows these inside test functions only, and a helper of a test may fail the test too"
)]

mod architecture;
mod board;
mod board_access;
mod board_accounts;
mod board_broken;
mod board_flood;
mod board_host;
mod board_openssh;
mod board_pico;
mod board_program;
mod board_raw;
mod board_signin;
mod board_ssh;
mod board_ssh_program;
mod board_support;
mod board_terminal;
mod client;
mod client_stdio;
mod client_wormhole;
mod control_groups;
mod delegated;
mod openssh_support;
mod rds;
mod runner;
mod runner_code;

mod runner_world;
mod sandbox;
mod simulation;
mod transfer;
mod transfer_begun;
mod transfer_cache;
mod transfer_cache_hostile;
mod transfer_hostile;
mod transfer_limits;
mod transfer_memory;
mod transfer_resume;
mod transfer_slow;
mod transfer_support;
mod wormhole_transcripts;
mod wormhole_worker;
