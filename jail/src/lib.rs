//! `p2p-jail`: puts one process into namespaces, limits, Landlock and seccomp, and watches it until it ends.

pub mod message;
pub mod spec;

/// The program.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
