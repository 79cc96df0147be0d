//! `p2p-jail run`: the process that the supervisor starts. It takes the order, starts the container, watches, reports.

pub(crate) mod ahead;
mod census;
mod group;
mod kept;
mod launch;
mod monitor;
mod uplink;
mod watch;

use std::process::ExitCode;

use nix::sys::prctl::{set_child_subreaper, set_dumpable};
use nix::unistd::setsid;

use crate::control::Control;
use crate::failure::{At, Outcome};
use crate::identity;
use crate::prepared::Prepared;
use crate::spec::Stage;
use crate::sys;
use group::Group;
use monitor::Monitor;

/// The exit status is of no use to anybody: what happened is in the reports.
pub(crate) fn run() -> ExitCode {
    let Ok(socket) = sys::adopt(0) else { return ExitCode::from(2) };
    // An interrupt typed at the supervisor's terminal is for the supervisor, which decides what becomes of the tasks.
    let _ = setsid();
    // A limit is as exact as this process is soon on a processor when it is time to look. It is better without than not at all.
    let _ = sys::ask_for_short_turns();
    let mut control = Control::new(socket);
    match start(&mut control) {
        Ok((prepared, group, started)) => Monitor::new(control, &prepared.spec, group.as_ref(), started).run(),
        Err(failure) => control.refuse(failure),
    }
    ExitCode::SUCCESS
}

fn start(control: &mut Control) -> Outcome<(Prepared, Option<Group>, launch::Started)> {
    let (spec, descriptors) = control.receive()?;
    let prepared = Prepared::new(spec)?;
    control.stage(Stage::Spec, String::new());
    // Before the change of identity: whoever the task runs as must not be able to change its limits.
    let group = prepared.spec.control_group.as_ref().map(Group::make).transpose()?;
    if let Some(group) = &group {
        control.stage(Stage::ControlGroup, group.describe());
    }
    let identity = identity::assume(identity::wanted(&prepared.spec.container))?;
    control.stage(Stage::Identity, identity);
    // Whatever the task leaves behind becomes a child of this process, and is found.
    set_child_subreaper(true).at(Stage::Watch, || "prctl PR_SET_CHILD_SUBREAPER".into())?;
    let started = launch::start(&prepared, group.as_ref(), descriptors)?;
    // Tasks of the same user (driver `none`) shall not trace this process.
    set_dumpable(false).at(Stage::Watch, || "prctl PR_SET_DUMPABLE".into())?;
    Ok((prepared, group, started))
}
