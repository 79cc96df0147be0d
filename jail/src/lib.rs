//! `p2p-jail`: puts one process into namespaces, limits, Landlock and seccomp, and watches it until it ends.
//!
//! The trusted computing base of p2p-worker: a small single-threaded program with five modes, [`main`]. It knows no
//! policy: everything that it does to a task is in the [`spec`] that it is given.

#![deny(unsafe_code)]

pub mod explain;
pub mod message;
pub mod spec;

mod check;
mod clock;
mod confine;
mod control;
mod failure;
mod identity;
mod prepared;
mod run;
mod stages;
mod status;
mod sweep;
#[expect(unsafe_code, reason = "system calls that no crate wraps; the one file of this crate with unsafe code")]
mod sys;

use std::process::ExitCode;

/// The ABI version of the running kernel's Landlock; `None` without Landlock.
#[must_use]
pub fn landlock_abi() -> Option<u32> {
    sys::landlock_abi().ok().filter(|abi| *abi > 0)
}

/// Whether systemd says that it gave this control group away (`Delegate=yes`): it marks the folder with the extended
/// attribute `user.delegate` (since version 251) or `trusted.delegate`, which only root can read.
#[must_use]
pub fn is_delegated(group: &std::path::Path) -> bool {
    prepared::c_path(group).is_ok_and(|group| {
        [c"user.delegate", c"trusted.delegate"].iter().any(|name| sys::has_attribute(&group, name, b"1"))
    })
}

/// Checks a spec as `p2p-jail run` does before it makes any process: compiles its filters and its command, carries out
/// nothing.
///
/// # Errors
/// What it would refuse at [`spec::Stage::Spec`] or [`spec::Stage::Seccomp`], in words.
pub fn check_spec(spec: spec::Spec) -> Result<(), String> {
    prepared::Prepared::new(spec).map(drop).map_err(|failure| failure.to_string())
}

/// The program: `run`, `ahead`, `confine`, `check` or `sweep`; `confine` and `check` are for the sandbox drivers alone.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("run") => run::run(),
        Some("ahead") => run::ahead::ahead(),
        Some("sweep") => sweep::sweep(arguments.map(Into::into).collect()),
        Some("confine") => confine::confine(),
        Some("check") => check::check(arguments.map(Into::into).collect()),
        _ => {
            eprintln!(
                "usage: p2p-jail run|ahead|confine|check [PATH...]|sweep PATH... (started by p2p-worker, not by hand)"
            );
            ExitCode::from(2)
        }
    }
}
