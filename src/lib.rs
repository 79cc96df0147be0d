//! p2p-worker: run your friends' R futures on a spare machine, each in a sandbox that you can check.
//!
//! A short code map; ARCHITECTURE.md has the long one and the invariants.
//!
//! - [`ids`], [`clock`]: newtypes, and the only reader of time
//! - [`proto`]: board lines, the worker's claims, the client's postings, transfer frames; no I/O, no clock
//! - [`board`]: the message board, client and server
//! - [`transfer`]: how bytes travel, over libp2p
//! - [`wormhole`]: how they travel to and from the peers of future.p2p
//! - [`sandbox`]: profiles, layers, drivers, probes
//! - [`rds`]: a look at the bytes of a result before any R reads them
//! - [`runner`]: the R side, and one attempt at one future
//! - [`supervisor`]: the worker's dispatcher and its slots
//! - [`client`]: posting futures and getting results
//! - [`config`], [`cli`], [`demo`], [`failure`], [`observe`], [`text`]: what the user types and sees

use std::{error::Error, fmt::Write as _};

pub mod board;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod demo;
pub mod failure;
pub mod ids;
pub mod observe;
pub mod proto;
pub mod rds;
pub mod runner;
pub mod sandbox;
pub mod spool;
pub mod supervisor;
pub mod text;
pub mod transfer;
pub mod wormhole;

/// An error and its causes in one line, for the log.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(chain, ": {error}");
        cause = error.source();
    }
    chain
}
