//! Tests of the parts with the real R, the real `p2p-jail` and real files; one program, so that it is linked once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails; clippy knows only functions that carry #[test]"
)]

mod runner;
mod runner_code;
mod runner_world;
