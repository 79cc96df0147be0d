//! The program `p2p-worker`: arguments, run, exit status. The only place that prints an error.

use std::process::ExitCode;

use p2p_worker::cli;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("p2p-worker: cannot start: {error}");
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
