//! What the kernel keeps for a task beside its pages, where no control group counts it: stacks of threads, what waits in pipes
//! and FIFOs, and what waits for events. From above: what may be half empty counts as full.
//!
//! A look costs some microseconds for each open descriptor, so the watch takes it less often than those at memory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::run::census::{Processes, lines, numbers};

/// A thread: its stack in the kernel (16 KiB on most architectures) and the structures that belong to it.
const BYTES_OF_A_THREAD: u64 = 32 << 10;

/// A pipe or FIFO: 16 pages (pipe(7)), if the task may not change that (`F_SETPIPE_SZ`).
const BYTES_OF_A_PIPE: u64 = 64 << 10;

/// Anything else that is open, locks on it included that belong to the descriptor.
const BYTES_OF_A_DESCRIPTOR: u64 = 1 << 10;

/// One descriptor that an epoll instance watches, its place in the tree and in the queue of what it waits for.
const BYTES_OF_AN_EVENT: u64 = 256;

/// What the kernel keeps for one task.
pub(crate) struct Kept<'a> {
    processes: &'a Processes,
    /// Where the task can make FIFOs. What lies elsewhere is not looked at: a network file system may not answer.
    writable: &'a [PathBuf],
    pipes: BTreeSet<(u64, u64)>,
    bytes: u64,
}

impl<'a> Kept<'a> {
    /// For all of these processes together, in bytes.
    pub(crate) fn of(processes: &'a Processes, pids: &[i32], writable: &'a [PathBuf]) -> u64 {
        let mut kept = Self { processes, writable, pipes: BTreeSet::new(), bytes: 0 };
        pids.iter().for_each(|pid| kept.process(*pid));
        kept.bytes + kept.pipes.len() as u64 * BYTES_OF_A_PIPE
    }

    /// Each thread may have descriptors of its own; where they share them, they count for each.
    fn process(&mut self, pid: i32) {
        let threads = self.processes.folder().join(pid.to_string()).join("task");
        for thread in numbers(threads.clone()) {
            self.bytes += BYTES_OF_A_THREAD;
            let thread = threads.join(thread.to_string());
            let open = thread.join("fd");
            for fd in numbers(open.clone()) {
                let Ok(what) = fs::read_link(open.join(fd.to_string())) else { continue };
                self.bytes += BYTES_OF_A_DESCRIPTOR;
                self.descriptor(&thread, fd, &what);
            }
        }
    }

    fn descriptor(&mut self, thread: &Path, fd: i32, what: &Path) {
        if what == Path::new("anon_inode:[eventpoll]") {
            let watched =
                lines(&thread.join("fdinfo").join(fd.to_string()), usize::MAX, |line| line.starts_with("tfd:"));
            self.bytes += watched * BYTES_OF_AN_EVENT;
        } else if what.to_str().is_some_and(|what| what.starts_with("pipe:"))
            || self.writable.iter().any(|folder| what.starts_with(folder))
        {
            let found = fs::metadata(thread.join("fd").join(fd.to_string()));
            if let Some(pipe) = found.ok().filter(|found| found.file_type().is_fifo()) {
                self.pipes.insert((pipe.dev(), pipe.ino()));
            }
        }
    }
}
