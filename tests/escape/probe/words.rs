//! Any system call with any arguments, written as words.

use std::{ffi::CString, fs, os::fd::AsRawFd, str::FromStr};

use nix::errno::Errno;
use syscalls::Sysno;

use crate::{acts::errno, raw};

/// A system call by name or number. Words are numbers (`0x` for hexadecimal, negative ones too), `s:TEXT` for the address
/// of a string, `z:N` for that of N zero bytes, `h:HEX` for that of these bytes, `fd:PATH` for a descriptor of that path.
pub(crate) fn call(name: &str, words: &[&str]) -> Result<i64, Errno> {
    let syscall = match Sysno::from_str(name) {
        Ok(known) => known.id().unsigned_abs() as usize,
        Err(()) => number(name)?,
    };
    let mut kept = Words::default();
    let mut arguments = [0; 6];
    for (place, word) in arguments.iter_mut().zip(words) {
        *place = kept.value(word)?;
    }
    let value = raw::call(syscall, arguments)?;
    if value == 0 && ["clone", "clone3", "fork", "vfork"].contains(&name) {
        std::process::exit(0); // The child has nothing to say.
    }
    Ok(value)
}

pub(crate) fn number(word: &str) -> Result<usize, Errno> {
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
                let fd = self.files.last().map_or(-1, AsRawFd::as_raw_fd);
                return usize::try_from(fd).map_err(|_| Errno::EBADF);
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
