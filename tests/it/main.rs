//! Fast tests of real parts, one binary.

mod sandbox;
