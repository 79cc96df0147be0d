//! What peers say to one another, as pure state machines and data: no I/O, no clock, no randomness.

pub mod claim;
pub mod frames;
pub mod lines;
pub mod manifest;
pub mod message;
pub mod posting;
pub mod refusal;
