//! `p2p-wormhole`: sends or receives one file by Magic-Wormhole, for p2p-worker, which starts it and speaks with it over
//! pipes ([`p2p_wormhole_contract`]).
//!
//! A program of its own because it parses what strangers send, so it confines itself before it reads the first byte of the
//! network ([`confine`]): what takes it over has a socket and two pipes. It is under a licence of its own, the EUPL-1.2.
//!
//! It speaks with the mailbox server ([`mailbox`]), exchanges keys with the peer ([`keys`], [`meeting`]), agrees on a file
//! ([`letters`]), and connects to the peer ([`transit`]).
//!
//! One thread does everything; a second one waits for the end of file on fd 0 ([`pipes`]).

#![forbid(unsafe_code)]

mod addresses;
mod code;
mod confine;
mod courier;
mod failure;
mod hex;
mod keys;
mod letters;
mod mailbox;
mod meeting;
mod pipes;
mod receive;
mod send;
mod spake2;
mod time;
mod transit;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use p2p_wormhole_contract::message::{Event, Failure};

/// What the last panic said.
static FAULT: Mutex<Option<String>> = Mutex::new(None);

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("usage: p2p-wormhole (started by p2p-worker, not by hand)");
        return ExitCode::from(2);
    }
    std::panic::set_hook(Box::new(|panic| {
        *FAULT.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic.to_string());
    }));
    let here = addresses::of_this_machine();
    let layers = confine::confine();
    let mut pipes = match pipes::open() {
        Ok(pipes) => pipes,
        Err(error) => {
            eprintln!("p2p-wormhole: fd 0 and fd 1 must be pipes: {error}");
            return ExitCode::from(2);
        }
    };
    let run = AssertUnwindSafe(|| async_io::block_on(courier::serve(&mut pipes, layers, &here)));
    let failed = match catch_unwind(run) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(failure)) => failure,
        // None is known; what one says is better than what its end would.
        Err(_) => Failure::Fault(fault()),
    };
    async_io::block_on(pipes.output.last(&Event::Failed(failed)));
    ExitCode::FAILURE
}

fn fault() -> String {
    let said = FAULT.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure::bounded(&said.unwrap_or_else(|| "it panicked".to_owned()))
}
