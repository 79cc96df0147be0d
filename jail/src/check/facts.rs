//! What a process can see of itself and its surroundings.

use std::fs;
use std::io::Read;
use std::path::Path;

use nix::sched::sched_getaffinity;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::statfs;
use nix::unistd::{Pid, getegid, geteuid, gethostname, getpid};

use crate::check::{Line, said};

/// The fields of `/proc/self/status` that are of interest.
const STATUS: [&str; 7] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];

const RLIMITS: [(&str, Resource); 12] = [
    ("as", Resource::RLIMIT_AS),
    ("nproc", Resource::RLIMIT_NPROC),
    ("cpu", Resource::RLIMIT_CPU),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("core", Resource::RLIMIT_CORE),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("nice", Resource::RLIMIT_NICE),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("stack", Resource::RLIMIT_STACK),
];

/// The folders whose size is of interest.
const FILE_SYSTEMS: [&str; 2] = ["/tmp", "/dev/shm"];

/// Files of the kernel that tell of the host: its boot, its keyrings.
const HOST: [&str; 2] = ["/proc/cmdline", "/proc/keys"];

/// All of them.
pub(crate) fn all() -> Vec<Line> {
    let mut lines = vec![
        line("uid", geteuid()),
        line("gid", getegid()),
        line("pid", getpid()),
        line("processes", numbered("/proc").len()),
        line("fds", descriptors()),
        line(
            "hostname",
            gethostname().map_or_else(|error| format!("{error:?}"), |name| name.to_string_lossy().into_owned()),
        ),
        line("cpus", cpus()),
        line("entries /", names("/")),
        line("entries /dev", names("/dev")),
    ];
    lines.extend(status());
    lines.extend(RLIMITS.iter().map(|(name, resource)| (format!("rlimit {name}"), rlimit(*resource))));
    lines.extend(FILE_SYSTEMS.iter().map(|path| (format!("space {path}"), space(path))));
    lines.extend(HOST.iter().map(|path| (format!("bytes {path}"), bytes(path))));
    lines
}

fn line(key: &str, value: impl ToString) -> Line {
    (key.into(), value.to_string())
}

fn status() -> Vec<Line> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    STATUS.iter().map(|name| line(name, value(name).unwrap_or("unknown"))).collect()
}

/// The open descriptors.
fn descriptors() -> String {
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = i32::try_from(limit.min(1 << 16)).unwrap_or(1024);
    joined((0..limit).filter(|fd| crate::sys::is_open(*fd)))
}

fn cpus() -> usize {
    let set = sched_getaffinity(Pid::from_raw(0));
    set.map_or(0, |set| (0..1024).filter(|cpu| set.is_set(*cpu) == Ok(true)).count())
}

fn rlimit(resource: Resource) -> String {
    match getrlimit(resource) {
        Ok((soft, hard)) => format!("{soft} {hard}"),
        Err(errno) => format!("{errno:?}"),
    }
}

/// Bytes and inodes of a file system.
fn space(path: &str) -> String {
    match statfs(path) {
        Ok(found) => format!("{} {}", found.blocks() * u64::try_from(found.block_size()).unwrap_or(0), found.files()),
        Err(errno) => format!("{errno:?}"),
    }
}

/// How many bytes can be read there, at most a page.
fn bytes(path: &str) -> String {
    let mut found = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut found));
    read.map_or_else(|error| said::<()>(Err(error)), |length| length.to_string())
}

fn numbered(path: &str) -> Vec<i32> {
    entries(path).filter_map(|name| name.parse().ok()).collect()
}

fn names(path: &str) -> String {
    let mut names: Vec<_> = entries(path).collect();
    names.sort();
    joined(names)
}

fn entries(path: impl AsRef<Path>) -> impl Iterator<Item = String> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn joined(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}
