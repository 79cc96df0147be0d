//! Asks for a passphrase: on the terminal of this process, without showing it, or by the program that `SSH_ASKPASS` names.
//!
//! There is a terminal to ask on where the process has a controlling one and is in its foreground: never in a service,
//! a cron job or a shell's background. The program is asked as ssh(1) says: where there is a display and no terminal, and
//! otherwise as `SSH_ASKPASS_REQUIRE` has it.

use std::{
    env,
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use russh::keys::PrivateKey;

/// How often a passphrase may be wrong.
const ATTEMPTS: usize = 3;
/// The longest passphrase, in bytes.
const MOST: usize = 1024;

/// Who asks.
enum Asker {
    Terminal(File),
    /// The program that `SSH_ASKPASS` names.
    Program(OsString),
}

/// Whether somebody can be asked.
pub(super) fn is_possible() -> bool {
    asker().is_some()
}

/// As readpass.c of OpenSSH has it, but that no program is asked that nobody named.
fn asker() -> Option<Asker> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let program = set("SSH_ASKPASS").map(Asker::Program);
    let has_display = set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY")).is_some();
    let on_terminal = || terminal().map(Asker::Terminal);
    match set("SSH_ASKPASS_REQUIRE").as_deref().and_then(|word| word.to_str()) {
        Some("force") => program.or_else(on_terminal),
        Some("never") => on_terminal(),
        Some("prefer") => program.filter(|_| has_display).or_else(on_terminal),
        _ => on_terminal().or_else(|| program.filter(|_| has_display)),
    }
}

fn terminal() -> Option<File> {
    // systemd says so even where a service was given a terminal.
    if env::var_os("INVOCATION_ID").is_some() && env::var_os("SYSTEMD_EXEC_PID").is_some_and(is_this_process) {
        return None;
    }
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    let foreground = nix::unistd::tcgetpgrp(&terminal).ok()?;
    (foreground == nix::unistd::getpgrp()).then_some(terminal)
}

fn is_this_process(pid: OsString) -> bool {
    pid.to_str().is_some_and(|pid| pid == std::process::id().to_string())
}

/// Asks until the key opens, for at most [`ATTEMPTS`] times. `None` if it does not, or the user gave up. Blocks.
pub(super) fn unlock(path: &Path, open: impl Fn(&str) -> Option<PrivateKey>) -> Option<PrivateKey> {
    let mut asker = asker()?;
    for _ in 0..ATTEMPTS {
        let question =
            format!("Enter passphrase for key '{}': ", crate::text::for_terminal(&path.display().to_string()));
        let answer = match &mut asker {
            Asker::Terminal(terminal) => ask(terminal, &question),
            Asker::Program(program) => ask_by(program, &question),
        };
        let passphrase = answer.ok().flatten().filter(|passphrase| !passphrase.is_empty())?;
        if let Some(key) = open(&passphrase) {
            return Some(key);
        }
        if let Asker::Terminal(terminal) = &mut asker {
            // If this cannot be written, the next question cannot be either.
            let _ = writeln!(terminal, "That is not the passphrase.");
        }
    }
    None
}

/// The first line that the program writes; `None` if it ends with another status than 0, as when the user cancels.
fn ask_by(program: &OsString, question: &str) -> io::Result<Option<String>> {
    let mut asking = Command::new(program).arg(question).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut answer = Vec::new();
    let read = match asking.stdout.take() {
        // What is too long is cut off, and so no answer.
        Some(output) => output.take(MOST as u64 + 2).read_to_end(&mut answer),
        None => Ok(0),
    };
    let status = asking.wait()?;
    read?;
    let line = answer.split(|byte| matches!(byte, b'\r' | b'\n')).next().filter(|line| line.len() <= MOST);
    Ok(line.filter(|_| status.success()).and_then(|line| String::from_utf8(line.to_vec()).ok()))
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
