//! `p2p-jail check [PATH...]`: runs inside a finished jail, as its command, and prints what it finds, one `key value` in each line on
//! standard output. `doctor` proves by it that a layer is in force; the tests of this crate do too.
//!
//! It judges nothing. An act that must be denied is tried, and the name of the error is the value, `ok` if it succeeded: for
//! each such act the caller knows what a denial looks like, and what the act gives without one.

mod acts;
mod facts;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// One line: what was looked at, and what was found.
pub(crate) type Line = (String, String);

/// Prints everything.
pub(crate) fn check(paths: Vec<PathBuf>) -> ExitCode {
    let reads = paths.iter().map(|path| (format!("read {}", path.display()), read(path)));
    let lines = facts::all().into_iter().chain(acts::all()).chain(reads);
    let mut text = String::new();
    for (key, value) in lines {
        text.extend([key.as_str(), " ", value.as_str(), "\n"]);
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}

fn read(path: &Path) -> String {
    let opened = if path.is_dir() { std::fs::read_dir(path).map(drop) } else { std::fs::File::open(path).map(drop) };
    said(opened)
}

/// `ok`, or the name of the error number.
pub(crate) fn said<T>(result: std::io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
            None => error.to_string(),
        },
    }
}
