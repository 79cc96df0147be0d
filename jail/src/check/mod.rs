//! `p2p-jail check`
use std::path::PathBuf;
use std::process::ExitCode;
pub(crate) fn check(_paths: Vec<PathBuf>) -> ExitCode {
    ExitCode::SUCCESS
}
