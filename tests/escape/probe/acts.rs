//! What the probe can do.

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    str::FromStr,
};

use nix::errno::Errno;
use syscalls::Sysno;

use crate::raw;

type Outcome = Result<String, Errno>;

/// Tries an act: what it comes to, in a word.
pub(crate) fn attempt(act: &str, arguments: &[&str]) -> Outcome {
    match (act, arguments) {
        ("open", [path]) => open(path, "r"),
        ("open", [path, how]) => open(path, how),
        ("stat", [path]) => done(fs::symlink_metadata(path)),
        ("list", [path]) => list(path),
        ("read", [path]) => read(path),
        ("fds", []) => descriptors(),
        ("call", [name, words @ ..]) => call(name, words).map(|_| ok()),
        ("value", [name, words @ ..]) => call(name, words).map(|value| value.to_string()),
        ("x32", [number]) => raw::call(0x4000_0000 | self::number(number)?, [0; 6]).map(|_| ok()),
        #[cfg(target_arch = "x86_64")]
        ("int80", [number]) => {
            raw::int80(u32::try_from(self::number(number)?).unwrap_or(u32::MAX), [0; 3]).map(|_| ok())
        }
        _ => Ok(format!("no such act: {act} {arguments:?}")),
    }
}

fn ok() -> String {
    "ok".to_owned()
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

fn done<T>(result: io::Result<T>) -> Outcome {
    result.map(|_| ok()).map_err(|error| errno(&error))
}

/// `r`, `w`, `rw`, `c` (create), never following a FIFO into a wait.
fn open(path: &str, how: &str) -> Outcome {
    let mut options = OpenOptions::new();
    options.read(how.contains('r')).write(how.contains(['w', 'c'])).create(how.contains('c'));
    done(options.custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path))
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

/// Any system call by name or number. Words are numbers (`0x` for hexadecimal, negative ones too), `s:TEXT` for the address
/// of a string, `z:N` for that of N zero bytes, `h:HEX` for that of these bytes, `fd:PATH` for a descriptor of that path.
fn call(name: &str, words: &[&str]) -> Result<i64, Errno> {
    let syscall = match Sysno::from_str(name) {
        Ok(known) => known.id().unsigned_abs() as usize,
        Err(()) => number(name)?,
    };
    let mut kept = Words::default();
    let mut arguments = [0; 6];
    for (place, word) in arguments.iter_mut().zip(words) {
        *place = kept.value(word)?;
    }
    raw::call(syscall, arguments)
}

fn number(word: &str) -> Result<usize, Errno> {
    let parsed = match (word.strip_prefix("0x"), word.strip_prefix('-')) {
        (Some(digits), _) => usize::from_str_radix(digits, 16).ok(),
        (_, Some(digits)) => digits.parse::<usize>().ok().map(usize::wrapping_neg),
        _ => word.parse().ok(),
    };
    parsed.ok_or(Errno::EDOM)
}

/// Keeps what arguments point to.
#[derive(Default)]
struct Words {
    bytes: Vec<Vec<u8>>,
    files: Vec<fs::File>,
}

impl Words {
    fn value(&mut self, word: &str) -> Result<usize, Errno> {
        let Some((kind, rest)) = word.split_once(':') else { return number(word) };
        let bytes = match kind {
            "s" => CString::new(rest).map_err(|_| Errno::EDOM)?.into_bytes_with_nul(),
            "z" => vec![0; number(rest)?],
            "h" => hexadecimal(rest)?,
            "fd" => {
                let file = fs::File::open(rest).map_err(|error| errno(&error))?;
                self.files.push(file);
                let file = self.files.last().ok_or(Errno::EBADF)?;
                return usize::try_from(std::os::fd::AsRawFd::as_raw_fd(file)).map_err(|_| Errno::EBADF);
            }
            _ => return Err(Errno::EDOM),
        };
        self.bytes.push(bytes);
        Ok(self.bytes.last_mut().map_or(0, |bytes| bytes.as_mut_ptr() as usize))
    }
}

fn hexadecimal(text: &str) -> Result<Vec<u8>, Errno> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(Errno::EDOM);
    (0..text.len()).step_by(2).map(digit).collect()
}
