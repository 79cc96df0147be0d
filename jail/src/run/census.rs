//! Who belongs to a task, and what the kernel says of each: processes, memory, processor time.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc::dev_t;
use nix::unistd::{Pid, getpid};

use crate::sys;

/// The processes of a task.
pub(crate) enum Processes {
    /// All in a process namespace: its `/proc`.
    Namespace(OwnedFd),
    /// All that descend from this process, which adopts what they abandon.
    Descendants,
}

/// The memory of one process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Private memory, in RAM or in swap, and page tables.
    pub(crate) anonymous: u64,
    /// Mapped memory that has a (memory) file system behind it: shared memory, files in a tmpfs.
    pub(crate) shared: u64,
}

impl Processes {
    /// Their numbers, in the process namespace that [`Self::folder`] belongs to.
    pub(crate) fn list(&self) -> Vec<i32> {
        match self {
            Self::Namespace(_) => numbers(self.folder()),
            Self::Descendants => descendants(),
        }
    }

    /// Where the kernel tells of them.
    pub(crate) fn folder(&self) -> PathBuf {
        match self {
            Self::Namespace(proc) => PathBuf::from(format!("/proc/self/fd/{}", proc.as_raw_fd())),
            Self::Descendants => PathBuf::from("/proc"),
        }
    }

    fn read(&self, pid: i32, file: &str) -> Option<String> {
        fs::read_to_string(self.folder().join(pid.to_string()).join(file)).ok()
    }

    /// What the process has mapped. Pages that it shares with others count in full, so the sum over all is never too low.
    pub(crate) fn mapped(&self, pid: i32) -> Memory {
        let status = self.read(pid, "status").unwrap_or_default();
        let field = |name| kilobytes(&status, name);
        Memory { anonymous: field("RssAnon:") + field("VmSwap:") + field("VmPTE:"), shared: field("RssShmem:") }
    }

    /// The share of the process in what it has mapped: the sum over all is what they use. Slow: it walks the page tables.
    /// Where the kernel does not let us see it, as [`Self::mapped`].
    pub(crate) fn share(&self, pid: i32) -> Memory {
        let Some(rollup) = self.read(pid, "smaps_rollup") else { return self.mapped(pid) };
        let tables = kilobytes(&self.read(pid, "status").unwrap_or_default(), "VmPTE:");
        let field = |name| kilobytes(&rollup, name);
        Memory { anonymous: field("Pss_Anon:") + field("SwapPss:") + tables, shared: field("Pss_Shmem:") }
    }

    /// The share of the process in mapped files of these file systems. As slow as [`Self::share`].
    pub(crate) fn share_of(&self, pid: i32, devices: &[dev_t]) -> u64 {
        let smaps = self.read(pid, "smaps").unwrap_or_default();
        let mut counts = false;
        let mut sum = 0;
        for line in smaps.lines() {
            if let Some(device) = mapped_device(line) {
                counts = devices.contains(&device);
            } else if counts {
                sum += kilobytes(line, "Pss:");
            }
        }
        sum
    }

    /// How many mappings the process has. As slow as [`Self::share`] for one that has many.
    pub(crate) fn mappings(&self, pid: i32) -> u64 {
        lines(&self.folder().join(pid.to_string()).join("maps"), usize::MAX, |_| true)
    }

    /// How many locks on files these processes hold, but for those that belong to a descriptor (`F_OFD_SETLK`). Counts no
    /// further than to `most`: the kernel begins from the first lock for each page that it writes.
    pub(crate) fn file_locks(&self, pids: &[i32], most: u64) -> u64 {
        // `1: POSIX  ADVISORY  READ 3548 fe:00:394 0 EOF` (proc_locks(5)); with `->` after the number, one that waits.
        let theirs = |line: &str| {
            let mut fields = line.split_whitespace().skip(1).filter(|field| *field != "->").skip(3);
            fields.next().and_then(|pid| pid.parse().ok()).is_some_and(|pid| pids.contains(&pid))
        };
        lines(&self.folder().join("locks"), usize::try_from(most).unwrap_or(usize::MAX), theirs)
    }

    /// Processor time of the process and of those children that it has waited for, in milliseconds.
    pub(crate) fn cpu_ms(&self, pid: i32) -> u64 {
        let stat = self.read(pid, "stat").unwrap_or_default();
        // The name of the program, in parentheses, may contain anything; what follows the last one are numbers.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        // utime, stime, cutime and cstime, in ticks of 1/100 s (USER_HZ is 100 on every architecture of today).
        let ticks: u64 = fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
        ticks * 10
    }
}

/// Kills every descendant of this process that can be found. One that is born meanwhile is found the next time.
pub(crate) fn kill_descendants() {
    for pid in descendants() {
        let Ok(pidfd) = sys::pidfd_open(Pid::from_raw(pid)) else { continue };
        // Between the list and the handle the number could have been given to somebody else's process.
        if descendants().contains(&pid) {
            let _ = sys::kill(std::os::fd::AsFd::as_fd(&pidfd));
        }
    }
}

fn descendants() -> Vec<i32> {
    let mut found = children(getpid().as_raw());
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children(*pid));
        next += 1;
    }
    found
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let of_thread = |thread: i32| fs::read_to_string(tasks.join(thread.to_string()).join("children")).ok();
    let lists: Vec<String> = numbers(tasks.clone()).into_iter().filter_map(of_thread).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}

/// The entries of a folder whose names are numbers.
pub(crate) fn numbers(folder: PathBuf) -> Vec<i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// How many lines of a file are such, but no more than `most`, without having all of it in memory.
pub(crate) fn lines(path: &Path, most: usize, such: impl Fn(&str) -> bool) -> u64 {
    let Ok(file) = fs::File::open(path) else { return 0 };
    let lines = BufReader::with_capacity(1 << 16, file).lines().map_while(Result::ok);
    lines.filter(|line| such(line)).take(most).count() as u64
}

/// The value of `name` in lines such as `Pss_Anon:   12 kB`, in bytes; 0 if it is not there.
fn kilobytes(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

/// The device in the first line of a mapping in `smaps`: `address permissions offset major:minor inode path`.
fn mapped_device(line: &str) -> Option<dev_t> {
    let mut fields = line.split_whitespace();
    let (_, _) = fields.next()?.split_once('-')?;
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    Some(nix::libc::makedev(number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::{kilobytes, mapped_device};

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(kilobytes("Name:\tR\nRssAnon:\t      12 kB\n", "RssAnon:"), 12 * 1024);
        assert_eq!(kilobytes("Name:\tR\n", "RssAnon:"), 0);
        let line = "7f00-7f10 rw-s 00000000 00:2f 1234   /dev/shm/a b";
        assert_eq!(mapped_device(line), Some(nix::libc::makedev(0, 0x2f)));
        assert_eq!(mapped_device("Pss:   4 kB"), None);
    }
}
