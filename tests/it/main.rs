//! Fast tests: contracts, and real programs on loopback.

mod architecture;
mod board;
mod board_cli;
mod board_openssh;
mod board_ssh;
mod board_support;
mod sandbox;
mod transfer;
mod transfer_hostile;
mod transfer_support;
