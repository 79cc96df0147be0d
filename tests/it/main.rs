//! Fast tests: contracts, and real programs on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that fails panics; clippy sees tests in functions with #[test] alone"
)]

mod architecture;
mod board;
mod board_openssh;
mod board_ssh;
mod board_support;
mod runner;
mod sandbox;
mod transfer;
mod transfer_hostile;
mod transfer_support;
