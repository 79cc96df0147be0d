//! `p2p-jail confine`: the last program that somebody else's container starts. It confines itself and executes the command.

use std::fs::File;
use std::process::ExitCode;

use crate::control::chain;
use crate::failure::{At, Failure, Outcome};
use crate::message;
use crate::prepared::Prepared;
use crate::spec::{CONFINE_FD, Container, STATUS_FD, Spec, Stage};
use crate::stages::tail;
use crate::status::Status;
use crate::sys;

/// Comes back only when a stage failed.
pub(crate) fn confine() -> ExitCode {
    let Ok(status) = sys::adopt(STATUS_FD).map(Status::from) else { return ExitCode::from(2) };
    match prepare(&status) {
        Ok(prepared) => tail::run(&prepared, &status, false),
        Err(failure) => status.refuse(failure),
    }
    ExitCode::from(127)
}

fn prepare(status: &Status) -> Outcome<Prepared> {
    let order = sys::adopt(CONFINE_FD).at(Stage::Spec, || format!("fd {CONFINE_FD}, which has the spec"))?;
    let spec: Spec = message::read(&mut File::from(order)).map_err(|error| Failure::new(Stage::Spec, chain(&error)))?;
    let made_by = match &spec.container {
        Container::External(external) => external.argv.first().cloned().unwrap_or_default(),
        Container::Builtin(_) | Container::None { .. } => {
            return Err(Failure::new(Stage::Spec, "confine is for external containers"));
        }
    };
    let prepared = Prepared::new(spec)?;
    status.stage(Stage::Namespaces, format!("made by {made_by}"))?;
    Ok(prepared)
}
