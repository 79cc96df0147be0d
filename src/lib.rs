//! p2p-worker: run your friends' R futures on a spare machine, each in a sandbox that you can check.
//!
//! A short code map; ARCHITECTURE.md has the long one and the invariants.
//!
//! - [`ids`], [`clock`]: newtypes, and the only reader of time
//! - [`proto`]: board lines, the worker's claims, the client's postings, transfer frames; no I/O, no clock
//! - [`board`]: the message board, client and server
//! - [`transfer`]: libp2p
//! - [`sandbox`]: profiles, layers, drivers, probes
//! - [`runner`]: one attempt at one future

pub mod board;
pub mod clock;
pub mod ids;
pub mod proto;
pub mod runner;
pub mod sandbox;
pub mod spool;
pub mod text;
pub mod transfer;
