//! Fast tests: contracts, and real programs on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "clippy allows these inside test functions only, and a helper of a test may fail the test too"
)]

mod architecture;
mod board;
mod board_openssh;
mod board_ssh;
mod board_support;
mod control_groups;
mod runner;
mod runner_code;
mod runner_scan;
mod runner_world;
mod sandbox;
mod transfer;
mod transfer_hostile;
mod transfer_limits;
mod transfer_memory;
mod transfer_resume;
mod transfer_slow;
mod transfer_support;
