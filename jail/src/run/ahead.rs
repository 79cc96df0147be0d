//! `p2p-jail ahead`: what of a task does not depend on the task is made before there is one.
//!
//! It serves one task and no other. Everything is as in `p2p-jail run`, in the same order, but for this: the control groups,
//! the identity and the first process with its namespaces come before the spec, which must then ask for the same.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_child_subreaper, set_dumpable};
use nix::unistd::setsid;

use crate::clock;
use crate::control::Control;
use crate::failure::{At, Failure, Outcome};
use crate::identity;
use crate::prepared::check_group;
use crate::run::group::Group;
use crate::run::launch::{self, Started};
use crate::run::monitor::Monitor;
use crate::spec::{Ahead, Report, Spec, Stage};
use crate::sys;

/// What is there when the spec comes.
struct Made {
    ahead: Ahead,
    group: Option<Group>,
    init: Started,
    orders: UnixStream,
    /// What is to be reported once somebody listens.
    reports: Vec<Report>,
}

/// The exit status is of no use to anybody: what happened is in the reports.
pub(crate) fn ahead() -> ExitCode {
    let Ok(socket) = sys::adopt(0) else { return ExitCode::from(2) };
    // As in `run`: an interrupt typed at the terminal is for the supervisor.
    let _ = setsid();
    let _ = sys::ask_for_short_turns();
    let mut control = Control::new(socket);
    // Nobody has asked for a task yet: whoever does finds this process gone, and has another one say what is wrong.
    let Ok(made) = Made::make(&mut control) else { return ExitCode::FAILURE };
    if !made.is_wanted(&control) {
        made.abandon();
        return ExitCode::SUCCESS;
    }
    match made.take(&mut control) {
        Ok(spec) => {
            let Made { group, init, .. } = made;
            Monitor::new(control, &spec, group.as_ref(), init).run();
        }
        Err(failure) => {
            made.abandon();
            control.refuse(failure);
        }
    }
    ExitCode::SUCCESS
}

impl Made {
    /// The stages that need no spec, in the order of `run`.
    fn make(control: &mut Control) -> Outcome<Self> {
        let ahead = control.receive_ahead()?;
        ahead.control_group.as_ref().map_or(Ok(()), check_group)?;
        let mut reports = Vec::new();
        let group = ahead.control_group.as_ref().map(Group::make).transpose()?;
        if let Some(group) = &group {
            reports.push(Report::Stage(Stage::ControlGroup, group.describe(), clock::now_us()));
        }
        let identity = identity::assume(ahead.become_user)?;
        reports.push(Report::Stage(Stage::Identity, identity, clock::now_us()));
        set_child_subreaper(true).at(Stage::Watch, || "prctl PR_SET_CHILD_SUBREAPER".into())?;
        let (init, orders) = launch::start_ahead(&ahead, group.as_ref())?;
        let made = Self { ahead, group, init, orders, reports };
        match set_dumpable(false).at(Stage::Watch, || "prctl PR_SET_DUMPABLE".into()) {
            Ok(()) => Ok(made),
            Err(failure) => {
                made.abandon();
                Err(failure)
            }
        }
    }

    /// Waits until there is something on the control socket; false if the init has ended, which has nothing to do yet.
    fn is_wanted(&self, control: &Control) -> bool {
        loop {
            let mut entries = [control.as_fd(), self.init.pidfd.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut entries, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(_) => return false,
                Ok(_) => {
                    let [control, ended] = entries.map(|entry| entry.any().unwrap_or(true));
                    return control && !ended;
                }
            }
        }
    }

    /// Takes the order and passes it on to the init, having said that it was taken: from here on something may run.
    fn take(&self, control: &mut Control) -> Outcome<Spec> {
        let (order, descriptors) = control.receive_order()?;
        let spec = order.spec()?;
        if Ahead::of(&spec).as_ref() != Some(&self.ahead) {
            return Err(Failure::new(Stage::Spec, "the spec is not for what was made ahead of it"));
        }
        control.stage(Stage::Spec, String::new());
        self.reports.iter().for_each(|report| control.report(report));
        control.flush();
        order.pass_on(&self.orders, &descriptors)?;
        Ok(spec)
    }

    /// Ends the init, which has run nothing, and waits for it; the groups go after it.
    fn abandon(self) {
        let _ = sys::kill(self.init.pidfd.as_fd());
        while sys::wait(Some(self.init.pid), false) == Err(Errno::EINTR) {}
        drop(self.group);
    }
}
