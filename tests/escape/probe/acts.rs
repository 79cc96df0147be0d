//! What the probe can do.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    process::Command,
};

use nix::errno::Errno;
use syscalls::Sysno;

use crate::{
    bombs, inet, others, raw,
    words::{call, number},
};

pub(crate) type Outcome = Result<String, Errno>;

/// Tries an act: what it comes to, in a word.
pub(crate) fn attempt(act: &str, arguments: &[&str]) -> Outcome {
    match (act, arguments) {
        ("open", [path]) => open(path, "r"),
        ("open", [path, how]) => open(path, how),
        ("stat", [path]) => done(fs::symlink_metadata(path)),
        ("list", [path]) => list(path),
        ("read", [path]) => read(path),
        ("find", [text]) => Ok(if tells(text) { "found" } else { "clean" }.to_owned()),
        ("link", [from, to]) => link(from, to),
        ("fds", []) => descriptors(),
        ("call", [name, words @ ..]) => call(name, words).map(|_| ok()),
        ("value", [name, words @ ..]) => call(name, words).map(|value| value.to_string()),
        ("x32", [name]) => raw::call(0x4000_0000 | number(name)?, [0; 6]).map(|_| ok()),
        #[cfg(target_arch = "x86_64")]
        ("int80", [name]) => raw::int80(u32::try_from(number(name)?).unwrap_or(u32::MAX), [0; 3]).map(|_| ok()),
        ("env", [name]) => Ok(std::env::var(name).unwrap_or_else(|_| "unset".to_owned())),
        ("cwd", []) => std::env::current_dir().map(|path| path.display().to_string()).map_err(|error| errno(&error)),
        ("status", keys) => status(keys),
        ("tty", []) => terminal(),
        ("run", [program, arguments @ ..]) => run(program, arguments),
        ("run_from_memory", [program]) => others::run_from_memory(program),
        ("setuid", [program]) => others::setuid(program),
        ("bystander", []) => others::bystander(),
        ("vm_read", [pid, address]) => others::read_memory(pid, address),
        ("mem_read", [pid, address]) => others::read_memory_file(pid, address),
        ("steal_fd", [pid]) => others::steal_descriptor(pid),
        ("connect", [path]) => done(std::os::unix::net::UnixStream::connect(path)),
        ("abstract", [name]) => others::connect_abstract(name),
        ("bomb", [what, arguments @ ..]) => bombs::attempt(what, arguments),
        ("inet", [what, arguments @ ..]) => inet::attempt(what, arguments),
        _ => Ok(format!("no such act: {act} {arguments:?}")),
    }
}

pub(crate) fn ok() -> String {
    "ok".to_owned()
}

pub(crate) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

pub(crate) fn done<T>(result: io::Result<T>) -> Outcome {
    result.map(|_| ok()).map_err(|error| errno(&error))
}

/// Whether anything in `/proc` about this process and process 1 has this text. (The text itself came by standard input.)
fn tells(text: &str) -> bool {
    let names =
        ["environ", "cmdline", "mountinfo", "mounts", "mountstats", "cgroup", "maps", "comm", "stack", "limits"];
    let files = ["self", "1"].into_iter().flat_map(|process| names.map(|name| format!("/proc/{process}/{name}")));
    let has = |bytes: Vec<u8>| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    files.filter_map(|path| fs::read(path).ok()).any(has)
}

/// `r`, `w`, `rw`, `c` (create), `t` (truncate), never following a FIFO into a wait.
fn open(path: &str, how: &str) -> Outcome {
    let mut options = OpenOptions::new();
    options
        .read(how.contains('r'))
        .write(how.contains(['w', 'c']))
        .create(how.contains('c'))
        .truncate(how.contains('t'));
    done(options.custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path))
}

/// A hard link, removed at once.
fn link(from: &str, to: &str) -> Outcome {
    done(fs::hard_link(from, to).and_then(|()| fs::remove_file(to)))
}

/// The names in a folder, in order.
fn list(path: &str) -> Outcome {
    let entries = fs::read_dir(path).map_err(|error| errno(&error))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(if names.is_empty() { "empty".to_owned() } else { names.join(" ") })
}

/// At most 4 KiB of a file, NULs as spaces.
fn read(path: &str) -> Outcome {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| errno(&error))?;
    file.take(4096).read_to_end(&mut bytes).map_err(|error| errno(&error))?;
    Ok(format!("read {}", String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end()))
}

/// The open descriptors, found by trying all that there can be (`/proc` need not be there).
fn descriptors() -> Outcome {
    let open = (0..4096).filter(|&fd| raw::call(Sysno::fcntl as usize, [fd, 1, 0, 0, 0, 0]).is_ok());
    Ok(open.map(|fd| fd.to_string()).collect::<Vec<_>>().join(","))
}

/// Lines of `/proc/self/status`, their values only.
fn status(keys: &[&str]) -> Outcome {
    let text = fs::read_to_string("/proc/self/status").map_err(|error| errno(&error))?;
    let value = |key: &&str| text.lines().find_map(|line| line.strip_prefix(*key)?.strip_prefix(':')).map(str::trim);
    Ok(keys.iter().map(|key| value(key).unwrap_or("absent")).collect::<Vec<_>>().join(" "))
}

/// Whether there is a controlling terminal: the seventh field of proc_pid_stat(5), the fifth after the name.
fn terminal() -> Outcome {
    let text = fs::read_to_string("/proc/self/stat").map_err(|error| errno(&error))?;
    let number = text.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(4));
    Ok(if number == Some("0") { "no terminal" } else { "a terminal" }.to_owned())
}

/// A program by execve(2): "ok" if it started and succeeded.
fn run(program: &str, arguments: &[&str]) -> Outcome {
    let status = Command::new(program).args(arguments).status().map_err(|error| errno(&error))?;
    Ok(if status.success() { ok() } else { status.to_string() })
}
