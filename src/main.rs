//! The program `p2p-worker`: arguments, run, exit status. The only place that prints an error.

use std::{io, panic, process::ExitCode};

use p2p_worker::cli;

fn main() -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!(
                "p2p-worker: cannot start: {error}\nhint: ulimit -n 4096 allows more open files, ulimit -u more threads"
            );
            return cli::Status::Usage.into();
        }
    };
    let result = runtime.block_on(cli::run());
    // What still runs on blocking threads (a read of stdin) must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                eprintln!("{message}");
            }
            failure.status.into()
        }
    }
}

/// tokio panics where it has no descriptors for its signal handling; that is an error like any other here.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let built =
        panic::catch_unwind(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build());
    panic::set_hook(hook);
    built.unwrap_or_else(|_| Err(io::Error::other("no descriptors are left")))
}
