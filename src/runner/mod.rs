//! One attempt at one future: start `p2p-jail`, feed it, cap what comes out, learn how it ended, and always come back
//! with exactly one result.
//!
//! The supervisor's side never parses R data (the client's does look over the bytes of a result: [`crate::rds`]). What the task says in its frames is the client's own data and is
//! believed in nothing; how the task ended comes from `p2p-jail`, which has it from the kernel.
//!
//! - [`command()`], [`RInstallation`]: which R, and its whole command line and environment
//! - `r/runner.R`: what R does in the sandbox
//! - [`run`]: the attempt; [`Outcome`]: what came of it
//! - [`interrupted`]: the result of a future that has no other
//! - [`Workbench`]: a sandbox, an R and a folder together: where futures are evaluated
//! - [`replay()`]: what a future printed, as `Rscript` would have printed it

mod ahead;
mod attempt;
mod command;
mod frames;
pub mod interrupted;
mod jail;
mod outcome;
mod r_installation;
mod rds;
mod replay;
mod streams;
mod warm;
mod workbench;

pub use attempt::run;
pub use command::{Job, Mode, RUNNER_SCRIPT, SCRIPT_PATH, command};
pub use interrupted::Reason;
pub use outcome::{AttemptEvent, Done, Ended, Outcome, Text};
pub use r_installation::{InstallationError, RInstallation};
pub use replay::{ReplayError, replay};
pub use warm::Next;
pub use workbench::{Shown, Verdict, Workbench, WorkbenchError};
