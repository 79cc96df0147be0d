//! Fail closed: one layer after the other is taken away from the real program, and what it does then is looked at.
//!
//! The rule: either every layer that the profile requires is in force, or not a byte of the future is evaluated, the layer is
//! named, and nothing is left behind. What a profile does not require is missed aloud. The programs are those that are
//! shipped; what is taken away is taken by the kernel (`saboteur.c`, namespaces, limits), as root and as an ordinary user.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy allows these inside test functions only, and a helper of a test may fail the test too"
)]

#[path = "../it/delegated.rs"]
mod delegated;
mod doctor;
mod groups;
mod kernel;
mod machine;
mod program;
mod resources;
mod scene;
mod schema;
mod worker;
#[path = "../e2e/world.rs"]
#[allow(dead_code, reason = "each of the tests that share it uses another part")]
mod world;
