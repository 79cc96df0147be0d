//! Asks for a passphrase on the terminal of this process, without showing it.
//!
//! There is a terminal to ask on where the process has a controlling one and is in its foreground: never in a service,
//! a cron job or a shell's background.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use russh::keys::PrivateKey;

/// How often a passphrase may be wrong.
const ATTEMPTS: usize = 3;
/// The longest passphrase, in bytes.
const MOST: usize = 1024;

/// Whether somebody can be asked.
pub(super) fn is_possible() -> bool {
    terminal().is_some()
}

fn terminal() -> Option<File> {
    // systemd says so even where a service was given a terminal.
    if std::env::var_os("INVOCATION_ID").is_some() && std::env::var_os("SYSTEMD_EXEC_PID").is_some_and(is_this_process)
    {
        return None;
    }
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    let foreground = nix::unistd::tcgetpgrp(&terminal).ok()?;
    (foreground == nix::unistd::getpgrp()).then_some(terminal)
}

fn is_this_process(pid: std::ffi::OsString) -> bool {
    pid.to_str().is_some_and(|pid| pid == std::process::id().to_string())
}

/// Asks until the key opens, for at most [`ATTEMPTS`] times. `None` if it does not, or the user gave up. Blocks.
pub(super) fn unlock(path: &Path, open: impl Fn(&str) -> Option<PrivateKey>) -> Option<PrivateKey> {
    let mut terminal = terminal()?;
    for _ in 0..ATTEMPTS {
        let question =
            format!("Enter passphrase for key '{}': ", crate::text::for_terminal(&path.display().to_string()));
        let passphrase = ask(&mut terminal, &question).ok().flatten().filter(|passphrase| !passphrase.is_empty())?;
        if let Some(key) = open(&passphrase) {
            return Some(key);
        }
        // If this cannot be written, the next question cannot be either.
        let _ = writeln!(terminal, "That is not the passphrase.");
    }
    None
}

/// One answer; `None` if the user gave up (Ctrl-C, Ctrl-D).
fn ask(terminal: &mut File, question: &str) -> io::Result<Option<String>> {
    terminal.write_all(question.as_bytes())?;
    let silent = Silent::new(terminal)?;
    let answer = read_answer(&mut &silent.terminal);
    drop(silent);
    terminal.write_all(b"\n")?;
    answer
}

#[expect(clippy::unbuffered_bytes, reason = "what is typed after the answer is not ours to take from the terminal")]
fn read_answer(from: &mut impl Read) -> io::Result<Option<String>> {
    let mut answer = Vec::new();
    for byte in from.bytes() {
        match byte? {
            b'\r' | b'\n' => return Ok(String::from_utf8(answer).ok()),
            // Ctrl-C and Ctrl-D.
            3 | 4 => return Ok(None),
            // Ctrl-U.
            21 => answer.clear(),
            8 | 127 => {
                // A character may be several bytes.
                while answer.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if answer.len() < MOST => answer.push(byte),
            _ => {}
        }
    }
    Ok(None)
}

/// A terminal that shows nothing and sends no signals, as long as this lives.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn new(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_flags &= !(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        for (index, value) in [(SpecialCharacterIndices::VMIN, 1), (SpecialCharacterIndices::VTIME, 0)] {
            if let Some(place) = silent.control_chars.get_mut(index as usize) {
                *place = value;
            }
        }
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // If this fails, the terminal is gone.
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_can_be_corrected_and_refused() {
        let read = |mut bytes: &[u8]| read_answer(&mut bytes).unwrap();
        assert_eq!(read(b"secret\r").as_deref(), Some("secret"));
        assert_eq!(read("sec\x7fcrë\x7fet\n".as_bytes()).as_deref(), Some("secret"));
        assert_eq!(read(b"wrong\x15secret\n").as_deref(), Some("secret"));
        assert_eq!(read(b"secret\x03"), None);
        assert_eq!(read(b"no end"), None);
        assert_eq!(read(&[b'x'; 5000]), None);
    }
}
