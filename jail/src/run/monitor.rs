//! The loop of `p2p-jail run`: hears the stages, watches the limits, ends the task, reports.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock;
use crate::control::{Control, Heard};
use crate::failure::Failure;
use crate::run::census::{Processes, kill_descendants};
use crate::run::group::Group;
use crate::run::launch::Started;
use crate::run::uplink::Pasta;
use crate::run::watch::{Watch, ended_cpu_ms, out_of_memory};
use crate::spec::{Exit, Reached, Report, Spec, Stage, Stop, Usage};
use crate::stages::init::parse_exit;
use crate::status::Note;
use crate::sys;

/// How long the way to the exec may take.
const SETTING_UP: Duration = Duration::from_secs(30);
/// How often orphans are reaped when there is nothing else to look at, and how long to wait between two rounds of killing.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
const KILLING: Duration = Duration::from_millis(1);

/// The stages that are reported from inside, in order.
const STAGES: [Stage; 12] = [
    Stage::Namespaces,
    Stage::Mounts,
    Stage::Init,
    Stage::Session,
    Stage::Limits,
    Stage::Descriptors,
    Stage::NestedNamespaces,
    Stage::Capabilities,
    Stage::NoNewPrivileges,
    Stage::Landlock,
    Stage::Seccomp,
    Stage::Exec,
];

/// The state of one task, from its first process to its last.
pub(crate) struct Monitor<'a> {
    control: Control,
    spec: &'a Spec,
    group: Option<&'a Group>,
    task: Started,
    deadline: Duration,
    last: Option<Stage>,
    executing: bool,
    hears: bool,
    exec: Option<OwnedFd>,
    tmpfs: Vec<OwnedFd>,
    processes: Option<OwnedFd>,
    watch: Option<Watch<'a>>,
    /// The command waits, or will, for what it is to do.
    waits: bool,
    failure: Option<Failure>,
    stopped: Option<Stop>,
    exit: Option<Exit>,
    cpu_ms: u64,
}

impl<'a> Monitor<'a> {
    /// Takes over a task that has been started.
    pub(crate) fn new(control: Control, spec: &'a Spec, group: Option<&'a Group>, task: Started) -> Self {
        Self {
            control,
            spec,
            group,
            task,
            deadline: clock::now() + SETTING_UP,
            last: None,
            executing: false,
            hears: true,
            exec: None,
            tmpfs: Vec::new(),
            processes: None,
            watch: None,
            waits: spec.watch.waits,
            failure: None,
            stopped: None,
            exit: None,
            cpu_ms: 0,
        }
    }

    /// Runs until the task is over and no process of it is left, and has reported so.
    pub(crate) fn run(mut self) {
        while self.exit.is_none() && self.failure.is_none() && self.stopped.is_none() {
            self.control.flush();
            let [control, notes, exec, ended] = self.wait();
            if notes || exec {
                self.hear();
            }
            if exec {
                self.see_exec();
            }
            // Orphans, of which nothing tells, are collected with the notes that do not come and with the watch's looks.
            if ended || !notes {
                self.reap();
            }
            if control {
                self.obey();
            }
            if self.control.is_deaf() {
                self.stopped = Some(Stop::Asked);
            }
            if self.exit.is_none() && self.stopped.is_none() {
                self.look();
            }
        }
        self.end();
        self.report();
    }

    /// Waits until something happens or the next look is due: whether it was the control socket, a note, the exec, the end
    /// of the first process or of pasta. From the hand-over on, notes are heard when the pipe closes, all of them at once: the stages
    /// that are left take less time than being woken up for each.
    fn wait(&self) -> [bool; 4] {
        let due = match &self.watch {
            Some(_) if self.waits => None,
            Some(watch) => watch.due(),
            None => Some(self.deadline),
        };
        let timeout = due.map_or(HOUSEKEEPING, |due| due.saturating_sub(clock::now()).min(HOUSEKEEPING));
        // A descriptor that is not to be waited for is replaced by one that is waited for anyway.
        let pidfd = self.task.pidfd.as_fd();
        let explains = self.spec.confinement.seccomp.as_ref().is_some_and(|seccomp| seccomp.explain.is_some());
        // What a filter asks with must be on its way before the exec, about which the filter asks.
        let waits_for_notes = self.hears && (explains || self.exec.is_none());
        let notes = if waits_for_notes { self.task.notes.as_fd() } else { pidfd };
        let exec = self.exec.as_ref().map_or(pidfd, AsFd::as_fd);
        let pasta = self.task.pasta.as_ref().map_or(pidfd, |pasta| pasta.pidfd.as_fd());
        let [control, notes, exec, ended, cut_off] = ready([self.control.as_fd(), notes, exec, pidfd, pasta], timeout);
        [control, notes && waits_for_notes, exec && self.exec.is_some(), ended || cut_off]
    }

    /// Takes in all notes that have come.
    fn hear(&mut self) {
        while self.hears && self.failure.is_none() {
            match self.task.notes.receive() {
                Ok(Some((note, fds))) => self.note(note, fds),
                Ok(None) => self.hears = false,
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    let what = "a note from inside cannot be read".to_owned();
                    self.failure = Some(Failure { stage: self.missing_stage(), what, errno: errno as i32 });
                }
            }
        }
    }

    fn note(&mut self, note: Note, mut fds: Vec<OwnedFd>) {
        match note {
            Note::Stage(stage, detail, since) => {
                self.last = Some(stage);
                self.control.report(&Report::Stage(stage, detail, since));
            }
            Note::Refused { stage, what, errno } => self.failure = Some(Failure { stage, what, errno }),
            Note::Processes => self.processes = fds.pop(),
            Note::Handover if !fds.is_empty() => {
                self.tmpfs = fds.split_off(1);
                self.exec = fds.pop();
            }
            Note::Handover => {}
            Note::Asks => {
                if let Some(listener) = fds.pop() {
                    self.control.hand_over(&Report::Asks, &listener);
                }
            }
            Note::Executing => self.executing = true,
        }
    }

    /// The pipe that closes on exec has closed: by the exec, or by the end of the process that was to do it.
    fn see_exec(&mut self) {
        self.exec = None;
        // poll(2) looked at the notes before it looked at this pipe: one may have come in between.
        self.hear();
        self.hears = false;
        if self.failure.is_some() {
            return;
        }
        if !self.executing {
            self.failure = Some(Failure::new(self.missing_stage(), "the process ended in this stage"));
            return;
        }
        let processes = self.processes.take().map_or(Processes::Descendants, Processes::Namespace);
        let spec = self.spec;
        self.control.stage(Stage::Exec, String::new());
        self.watch =
            Some(Watch::new(&spec.watch, self.group, &spec.confinement, processes, std::mem::take(&mut self.tmpfs)));
        self.control.report(&Report::Running { pid: self.task.pid.as_raw() });
    }

    /// Collects the children that have ended; with them, perhaps, the first process of the task.
    fn reap(&mut self) {
        while let Ok(Some((pid, exit))) = sys::wait(None, true) {
            if pid == self.task.pid {
                self.exit = Some(exit);
            } else if let Some(pasta) = self.task.pasta.take_if(|pasta| pasta.pid == pid) {
                self.is_cut_off(pasta);
            }
        }
    }

    /// pasta has ended: a task that would begin or go on without the network that it was promised is not to. One that has ended
    /// itself, of which pasta takes notice, is left alone.
    fn is_cut_off(&mut self, mut pasta: Pasta) {
        let [over] = ready([self.task.pidfd.as_fd()], Duration::ZERO);
        if self.watch.is_none() {
            self.failure = self.failure.take().or_else(|| Some(pasta.ended()));
        } else if !over && self.exit.is_none() {
            self.stopped = self.stopped.or(Some(Stop::Uplink));
        }
    }

    /// Hears the supervisor: the byte with which the task begins, once; those that ask how it stands while it runs; everything
    /// else is an end.
    fn obey(&mut self) {
        match (self.control.heard(), &mut self.watch) {
            (Heard::Nothing, _) => {}
            (Heard::Byte, Some(watch)) if self.waits => {
                self.waits = false;
                watch.begin();
            }
            (Heard::Byte, Some(_)) => self.answer(),
            (Heard::Byte | Heard::End, _) => self.stopped = Some(Stop::Asked),
        }
    }

    /// Tells the supervisor what was reached, unless that has been the end of the task.
    fn answer(&mut self) {
        self.see_want_of_memory();
        if self.stopped.is_none() {
            let reached = self.reached();
            self.control.report(&Report::Reached(reached));
        }
    }

    fn look(&mut self) {
        match &mut self.watch {
            Some(_) if self.waits => {}
            Some(watch) => self.stopped = watch.look(),
            None if clock::now() >= self.deadline => {
                let what = format!("not in force after {} s", SETTING_UP.as_secs());
                let errno = Errno::ETIMEDOUT as i32;
                self.failure = Some(Failure { stage: self.missing_stage(), what, errno });
            }
            None => {}
        }
    }

    /// The stage after the last one that was reported.
    fn missing_stage(&self) -> Stage {
        STAGES.into_iter().find(|stage| Some(*stage) > self.last).unwrap_or(Stage::Exec)
    }

    /// Kills whatever is left, and waits until it is gone. With our own init dead, the kernel has killed the whole namespace
    /// before the init can be waited for; otherwise all descendants are ours, as this process adopts orphans.
    fn end(&mut self) {
        // When the kernel kills a namespace, it does not add up what its processes used.
        self.cpu_ms = self.watch.as_ref().filter(|_| self.exit.is_none()).map_or(0, Watch::cpu_ms);
        self.group.inspect(|group| group.kill());
        if let Some(pasta) = &self.task.pasta {
            let _ = sys::kill(pasta.pidfd.as_fd());
        }
        while self.exit.is_none() || !self.nobody_is_left() {
            if self.exit.is_none() {
                let _ = sys::kill(self.task.pidfd.as_fd());
            }
            if self.task.outcome.is_none() {
                kill_descendants();
            }
            let _ = ready([self.task.pidfd.as_fd()], if self.exit.is_none() { HOUSEKEEPING } else { KILLING });
            self.reap();
        }
    }

    /// Whether the kernel killed something of the task for want of memory, if that was not seen before it ended.
    fn see_want_of_memory(&mut self) {
        let may_be_more = |stop| matches!(stop, Stop::Asked | Stop::Uplink);
        if self.stopped.is_none_or(may_be_more) && self.watch.is_some() {
            let seen = self.group.and_then(Group::memory);
            self.stopped = seen.and_then(|seen| out_of_memory(&seen)).or(self.stopped);
        }
    }

    fn nobody_is_left(&self) -> bool {
        sys::wait(None, true) == Err(Errno::ECHILD)
    }

    fn report(mut self) {
        // A process that ended before the exec may have left a note about it; a command that ended at once may have been
        // executed and gone between two looks. Nothing holds the pipe any more, so it has closed.
        if self.watch.is_none() && self.failure.is_none() {
            self.hear();
            if self.exec.is_some() && self.failure.is_none() && self.stopped.is_none() {
                self.see_exec();
            }
        }
        self.see_want_of_memory();
        let failure = self.failure.take().or_else(|| {
            let ended = self.watch.is_none() && self.stopped.is_none();
            ended.then(|| Failure::new(self.missing_stage(), format!("the process ended before this: {:?}", self.exit)))
        });
        match failure {
            Some(failure) => self.control.refuse(failure),
            None => {
                let (exit, usage, stopped) = (self.how_it_ended(), self.usage(), self.stopped);
                drop(self.watch.take());
                self.control.report(&Report::Ended { exit, stopped, usage });
                self.control.flush();
            }
        }
    }

    fn how_it_ended(&mut self) -> Exit {
        let Some(outcome) = &mut self.task.outcome else { return self.exit.unwrap_or(Exit::Unknown) };
        let mut bytes = Vec::new();
        let _ = outcome.read_to_end(&mut bytes);
        match parse_exit(&bytes) {
            // We killed the init, and the kernel killed the command with it.
            Exit::Unknown if self.stopped.is_some() => self.exit.unwrap_or(Exit::Unknown),
            exit => exit,
        }
    }

    fn usage(&mut self) -> Usage {
        let Some(watch) = &mut self.watch else { return Usage::default() };
        let counted = self.group.is_some_and(|group| group.cpu_ms().is_some());
        Usage {
            wall_ms: watch.wall_ms(),
            cpu_ms: if counted { watch.cpu_ms() } else { watch.since_it_began(ended_cpu_ms()).max(self.cpu_ms) },
            peak_memory: watch.peak().max(self.group.and_then(Group::memory).map_or(0, |memory| memory.most)),
            reached: self.reached(),
        }
    }

    fn reached(&mut self) -> Reached {
        Reached {
            refused_processes: self.group.map_or(0, Group::refused_processes),
            full_tmpfs: self.watch.as_mut().map_or(0, Watch::full),
        }
    }
}

/// Which of these can be read or have come to their end, waiting for at most that time.
fn ready<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Duration) -> [bool; N] {
    let mut entries = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    // Rounded up: a wait that ends too early would only be repeated.
    let timeout = PollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
    match poll(&mut entries, timeout) {
        Ok(_) => entries.map(|entry| entry.any().unwrap_or(true)),
        Err(_) => [false; N],
    }
}
