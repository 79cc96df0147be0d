//! The command line: one file for each subcommand. Nothing else depends on it.

pub mod board;
