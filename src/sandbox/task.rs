//! What is to run, as the sandbox sees it: a command, the few files it needs, and nothing about R.

use std::path::{Path, PathBuf};

use p2p_jail::spec::Command;

/// One task, before a profile and a driver make a [`super::LaunchPlan`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What is executed. Its paths are those inside; of its environment, the profile's variables win.
    pub command: Command,
    /// Read-only files with these contents, by their path inside (the runner's script).
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Files and folders of the host that this command needs beside those of the profile (R's home and its libraries
    /// where they are not below `/usr`). Always read-only.
    pub shares: Vec<Share>,
    /// Which of the worker's slots runs it: tasks of different slots get different CPUs as far as there are enough.
    pub slot: u32,
}

/// A file or folder of the host that a task's program needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Path on the host.
    pub from: PathBuf,
    /// Path inside.
    pub to: PathBuf,
    /// Whether files in it may be executed.
    pub execute: bool,
}

impl Share {
    /// The same path inside as outside.
    #[must_use]
    pub fn same(path: &Path, execute: bool) -> Self {
        Self { from: path.to_owned(), to: path.to_owned(), execute }
    }
}
