//! The native probe of the escape suite: one act, and one word for what came of it. The future carries this program along as
//! bytes; the controls run the same bytes outside.
//!
//! `escape-probe ACT [ARGUMENT...]` prints the outcome. `escape-probe batch` reads lines `NAME TAB ACT TAB ARGUMENT...`,
//! tries each in a process of its own, and prints `@@NAME TAB OUTCOME`: "ok" or a value, the name of an error number, or
//! "signal N" of what ended that process. With `batch mounts`, each has a mount namespace of its own too.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod acts;
mod bombs;
mod inet;
mod others;
mod raw;
mod words;

use std::io::{BufRead, Read, Write, stdin};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{alarm, pipe},
};

/// Seconds that an act may take.
const PATIENCE: u32 = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["batch"] => batch(false),
        ["batch", "mounts"] => batch(true),
        [act, arguments @ ..] => println!("{}", outcome(act, arguments)),
        [] => println!("usage: escape-probe ACT [ARGUMENT...]"),
    }
}

fn outcome(act: &str, arguments: &[&str]) -> String {
    match acts::attempt(act, arguments) {
        Ok(said) => said,
        Err(Errno::UnknownErrno) => "unknown error".to_owned(),
        Err(errno) => format!("{errno:?}"),
    }
}

fn batch(own_mounts: bool) {
    for line in stdin().lock().lines().map_while(Result::ok) {
        let mut words = line.split('\t');
        if let (Some(name), Some(act)) = (words.next(), words.next()) {
            let arguments: Vec<&str> = words.collect();
            println!("@@{name}\t{}", apart(act, &arguments, own_mounts).replace(['\n', '\t'], " "));
        }
    }
}

/// The outcome of an act in a process of its own, which it may end in any way.
fn apart(act: &str, arguments: &[&str], own_mounts: bool) -> String {
    let Ok((reader, writer)) = pipe() else { return "no pipe".to_owned() };
    match raw::fork() {
        Ok(None) => {
            drop(reader);
            alarm::set(PATIENCE);
            let apart = if own_mounts { unshare(CloneFlags::CLONE_NEWNS) } else { Ok(()) };
            let said =
                apart.map_or_else(|errno| format!("no mounts of its own: {errno:?}"), |()| outcome(act, arguments));
            let _ = std::fs::File::from(writer).write_all(said.as_bytes());
            std::process::exit(0)
        }
        Ok(Some(child)) => {
            drop(writer);
            let mut said = String::new();
            let _ = std::fs::File::from(reader).read_to_string(&mut said);
            match waitpid(child, None) {
                Ok(WaitStatus::Signaled(_, signal, _)) => format!("signal {}", signal as i32),
                Ok(_) if !said.is_empty() => said,
                other => format!("no outcome: {other:?}"),
            }
        }
        Err(errno) => format!("no fork: {errno:?}"),
    }
}
