//! `p2p-wormhole`: sends or receives one file by Magic-Wormhole, for p2p-worker, which starts it and speaks with it over
//! pipes ([`p2p_wormhole_contract`]).
//!
//! A program of its own for two reasons. It links the crate magic-wormhole, whose licence is the EUPL-1.2, and so is under
//! that licence itself. And it parses what strangers send, so it confines itself before it reads the first byte of the
//! network ([`confine`]): what takes it over has a socket and two pipes.
//!
//! From the crate come the mailbox and the exchange of keys ([`meeting`]). The file transfer's messages ([`letters`]) and
//! the transit connection ([`transit`]) are written here: the crate's own ask a server of a third party for this machine's
//! address, tell the peer every address that there is, and do not hold a sender to the size that it announced.
//!
//! One thread does everything; a second one waits for the end of file on fd 0 ([`pipes`]).

#![deny(unsafe_code)]

mod addresses;
#[expect(
    unsafe_code,
    reason = "the crate marks unchecked codes as unsafe; the one file of this crate with unsafe code"
)]
mod code;
mod confine;
mod courier;
mod failure;
mod letters;
mod meeting;
mod pipes;
mod receive;
mod send;
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
        // The library panics at some things that a peer or a server can send.
        Err(_) => Failure::Fault(fault()),
    };
    async_io::block_on(pipes.output.last(&Event::Failed(failed)));
    ExitCode::FAILURE
}

fn fault() -> String {
    let said = FAULT.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure::bounded(&said.unwrap_or_else(|| "it panicked".to_owned()))
}
