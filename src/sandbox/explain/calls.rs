//! The system calls that name a file, and what of it they want.

use p2p_jail::spec::Seccomp;

use crate::sandbox::syscalls::{self, Call};

/// What a call wants of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// To see it.
    Read,
    /// To make, change or remove it.
    Write,
    /// What the flags in this argument say (open(2)).
    Open(usize),
    /// To execute it.
    Execute,
}

/// A call that names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PathCall {
    /// The argument with the folder that a relative path begins at; the working directory otherwise.
    pub(super) folder: Option<usize>,
    /// The argument with the address of the path.
    pub(super) path: usize,
    /// What it wants.
    pub(super) want: Want,
}

const fn at(folder: usize, path: usize, want: Want) -> PathCall {
    PathCall { folder: Some(folder), path, want }
}

const fn here(path: usize, want: Want) -> PathCall {
    PathCall { folder: None, path, want }
}

/// Of calls with two paths, the one that is made.
const PATH_CALLS: [(&str, PathCall); 35] = [
    ("open", here(0, Want::Open(1))),
    ("openat", at(0, 1, Want::Open(2))),
    ("creat", here(0, Want::Write)),
    ("stat", here(0, Want::Read)),
    ("lstat", here(0, Want::Read)),
    ("newfstatat", at(0, 1, Want::Read)),
    ("statx", at(0, 1, Want::Read)),
    ("statfs", here(0, Want::Read)),
    ("access", here(0, Want::Read)),
    ("faccessat", at(0, 1, Want::Read)),
    ("faccessat2", at(0, 1, Want::Read)),
    ("readlink", here(0, Want::Read)),
    ("readlinkat", at(0, 1, Want::Read)),
    ("chdir", here(0, Want::Read)),
    ("execve", here(0, Want::Execute)),
    ("mkdir", here(0, Want::Write)),
    ("mkdirat", at(0, 1, Want::Write)),
    ("rmdir", here(0, Want::Write)),
    ("unlink", here(0, Want::Write)),
    ("unlinkat", at(0, 1, Want::Write)),
    ("rename", here(1, Want::Write)),
    ("renameat", at(2, 3, Want::Write)),
    ("renameat2", at(2, 3, Want::Write)),
    ("link", here(1, Want::Write)),
    ("linkat", at(2, 3, Want::Write)),
    ("symlink", here(1, Want::Write)),
    ("symlinkat", at(1, 2, Want::Write)),
    ("truncate", here(0, Want::Write)),
    ("chmod", here(0, Want::Write)),
    ("fchmodat", at(0, 1, Want::Write)),
    ("fchmodat2", at(0, 1, Want::Write)),
    ("utime", here(0, Want::Write)),
    ("utimes", here(0, Want::Write)),
    ("futimesat", at(0, 1, Want::Write)),
    ("utimensat", at(0, 1, Want::Write)),
];

/// The numbers of those that the filter allows whatever their arguments.
pub(super) fn watchable(seccomp: &Seccomp) -> Vec<i64> {
    let numbers = PATH_CALLS.iter().filter_map(|(name, _)| number(name));
    let ruled = |number: &i64| seccomp.deny.iter().any(|rule| rule.syscall == *number);
    numbers.filter(|number| seccomp.allow.contains(number) && !ruled(number)).collect()
}

/// What a call with that number names, if it does.
pub(super) fn path_call(wanted: i64) -> Option<PathCall> {
    let found = PATH_CALLS.iter().find(|(name, _)| number(name) == Some(wanted));
    found.map(|(_, call)| *call)
}

fn number(name: &str) -> Option<i64> {
    match syscalls::call(name) {
        Ok(Call::Number(number)) => Some(number),
        _ => None,
    }
}
