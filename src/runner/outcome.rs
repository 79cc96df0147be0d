//! What came of an attempt, and the judgement on it: a pure function of what `p2p-jail` reported, of what was seen in the
//! pipes, and of what was asked.

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use p2p_jail::spec::{Exit, MOST_FILE_LOCKS, Reached, Report, Stage, Stop, Usage, Watch};

use crate::{
    runner::{
        frames::FrameError,
        interrupted::Reason,
        streams::{Fault, FramesSeen},
    },
    sandbox::Denials,
    spool::Spooled,
    text,
};

/// What happens while a task runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEvent {
    /// The sandbox stands and R was executed in it.
    Running,
    /// R is up, has read the future, and begins.
    Begun,
    /// The RDS of one immediateCondition, at most 1 MiB.
    Progress(Vec<u8>),
    /// The result, as soon as it is whole: R ends by itself, which takes it some milliseconds.
    Done(Done),
}

/// What there is to tell of a task whose result is whole, and that no limit has ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// The RDS of its `FutureResult`.
    pub result: Arc<Spooled>,
    /// The limits that it reached and that let it go on.
    pub reached: Reached,
    /// What it wrote to its fd 1 and fd 2.
    pub text: Text,
}

impl PartialEq for Done {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.result, &other.result)
    }
}

impl Eq for Done {}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// R exited with status 0 after a complete result. Errors of the user's code are within that result.
    Finished,
    /// The task was stopped: a limit, or because it was asked for.
    Stopped(Reason),
    /// The task, or what holds it, ended without a result that can be used.
    Crashed(Reason),
    /// Nothing of the task was executed.
    Refused(Reason),
}

impl Ended {
    /// Why there is no result of the user's code.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Finished => None,
            Self::Stopped(reason) | Self::Crashed(reason) | Self::Refused(reason) => Some(reason),
        }
    }
}

/// The task's fd 1 and fd 2, as far as they were kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text {
    /// The first bytes, up to the plan's limit. Raw: see [`Self::for_log`].
    pub kept: Vec<u8>,
    /// How many bytes came after them.
    pub dropped: u64,
    pub(crate) tail: Vec<u8>,
}

impl Text {
    /// The text without anything that could move a cursor or forge a line, with a note of what is missing.
    #[must_use]
    pub fn for_log(&self) -> String {
        let mut kept = text::for_terminal(&String::from_utf8_lossy(&self.kept));
        if self.dropped > 0 {
            kept.push_str(&format!("\n[{} more bytes were dropped]", self.dropped));
        }
        kept
    }

    /// The last line that says something.
    pub(crate) fn last_words(&self) -> String {
        let tail = String::from_utf8_lossy(&self.tail);
        let mut lines = tail.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        lines.find(|line| *line != "Execution halted").unwrap_or_default().to_owned()
    }
}

/// What came of an attempt. There is always a result.
#[derive(Debug)]
pub struct Outcome {
    /// The RDS of a `FutureResult`: the task's own, or one that says why there is no other.
    pub result: Arc<Spooled>,
    /// How it ended.
    pub ended: Ended,
    /// What the task used, as far as it came to that.
    pub usage: Usage,
    /// What the task wrote to its fd 1 and fd 2.
    pub text: Text,
    /// The stages of the sandbox that were reported to be in force, with their details.
    pub stages: Vec<(Stage, String)>,
    /// What was denied, in a run that is explained.
    pub denials: Option<Denials>,
    /// How many immediateConditions were not passed on, because there were too many or nobody took them.
    pub progress_dropped: u64,
}

/// What the judgement rests on.
pub(crate) struct Evidence<'a> {
    /// The last report of `p2p-jail`, or why there is none.
    pub(crate) last: &'a Result<Report, String>,
    /// Whether `p2p-jail` reported any stage.
    pub(crate) reported: bool,
    /// Whether the caller asked for an end.
    pub(crate) cancelled: bool,
    /// The limits that `p2p-jail` watched.
    pub(crate) watch: &'a Watch,
    /// What came through the frames pipe.
    pub(crate) frames: &'a FramesSeen,
    /// What the task wrote.
    pub(crate) text: &'a Text,
}

/// How the attempt ended. The kernel's word comes first, the task's frames last.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Ended {
    let (exit, stopped) = match evidence.last {
        Ok(Report::Ended { exit, stopped, .. }) => (*exit, *stopped),
        Ok(Report::Refused { .. }) | Err(_) if evidence.cancelled => return Ended::Stopped(Reason::Cancelled),
        Ok(Report::Refused { stage, what, errno }) => return Ended::Refused(refused(*stage, what, *errno)),
        Ok(_) => return Ended::Crashed(Reason::JailLost { what: "it ended without a last report".to_owned() }),
        // Its first report is that it has understood what it is to do.
        Err(what) if !evidence.reported => {
            return Ended::Refused(Reason::CouldNotStart { stage: None, what: format!("p2p-jail: {what}") });
        }
        Err(what) => return Ended::Crashed(Reason::JailLost { what: what.clone() }),
    };
    let milliseconds = |limit: Option<u64>| Duration::from_millis(limit.unwrap_or_default());
    let watch = evidence.watch;
    match stopped {
        Some(Stop::Memory) => Ended::Stopped(Reason::Memory { limit: watch.memory.unwrap_or_default() }),
        Some(Stop::FileLocks) => Ended::Stopped(Reason::FileLocks { limit: MOST_FILE_LOCKS }),
        Some(Stop::Uplink) => Ended::Stopped(Reason::NetworkLost),
        Some(Stop::MachineMemory) => Ended::Stopped(Reason::MachineMemory),
        Some(Stop::WallTime) => Ended::Stopped(Reason::WallTime { limit: milliseconds(watch.wall_time_ms) }),
        Some(Stop::CpuTime) => Ended::Stopped(Reason::CpuTime { limit: milliseconds(watch.cpu_time_ms) }),
        Some(Stop::Asked) | None => match &evidence.frames.fault {
            // A frame that is cut short is what a crash leaves behind.
            Some(fault) if *fault != Fault::Frame(FrameError::Cut) || exit == Exit::Code(0) => fault_of(fault),
            _ if stopped.is_some() && evidence.cancelled => Ended::Stopped(Reason::Cancelled),
            _ => ended_by_itself(exit, evidence),
        },
    }
}

fn refused(stage: Stage, what: &str, errno: i32) -> Reason {
    let error = if errno == 0 { String::new() } else { format!(": {}", nix::errno::Errno::from_raw(errno).desc()) };
    Reason::CouldNotStart { stage: Some(stage), what: format!("{what}{error}") }
}

fn fault_of(fault: &Fault) -> Ended {
    match fault {
        Fault::TooLarge { limit } => Ended::Stopped(Reason::ResultTooLarge { limit: *limit }),
        Fault::Spool(what) => Ended::Crashed(Reason::NoSpace { what: what.clone() }),
        Fault::Frame(error) => Ended::Crashed(Reason::Malformed { what: error.to_string() }),
        Fault::Read(what) => Ended::Crashed(Reason::Malformed { what: what.clone() }),
    }
}

fn ended_by_itself(exit: Exit, evidence: &Evidence<'_>) -> Ended {
    let last_words = evidence.text.last_words();
    // What the kernel sends to a process that has used up its own limit, which is that of the task and a second.
    if exit == Exit::Signal(Signal::SIGXCPU as i32)
        && let Some(limit) = evidence.watch.cpu_time_ms
    {
        return Ended::Stopped(Reason::CpuTime { limit: Duration::from_millis(limit) });
    }
    match exit {
        Exit::Code(0) if evidence.frames.has_result() => Ended::Finished,
        Exit::Code(0) => Ended::Crashed(Reason::NoResult { last_words }),
        exit => Ended::Crashed(Reason::Crashed { exit, last_words }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SpoolWriter;

    fn verdict(last: Result<Report, String>, cancelled: bool, frames: &FramesSeen) -> Ended {
        let watch = Watch { wall_time_ms: Some(1000), cpu_time_ms: Some(3000), memory: Some(7), ..Watch::default() };
        let text = Text { tail: b"Error: boom\nExecution halted\n".to_vec(), ..Text::default() };
        judge(&Evidence { last: &last, reported: true, cancelled, watch: &watch, frames, text: &text })
    }

    fn ended(exit: Exit, stopped: Option<Stop>) -> Result<Report, String> {
        Ok(Report::Ended { exit, stopped, usage: Usage::default() })
    }

    fn with_result() -> FramesSeen {
        let directory = tempfile::tempdir().unwrap();
        let mut result = SpoolWriter::new(directory.path(), 10).unwrap();
        result.write(b"result").unwrap();
        FramesSeen { result: Some(result), ..FramesSeen::default() }
    }

    #[test]
    fn only_a_result_and_a_proper_exit_make_a_finish() {
        assert_eq!(verdict(ended(Exit::Code(0), None), false, &with_result()), Ended::Finished);
        let none = FramesSeen::default();
        let no_result = Ended::Crashed(Reason::NoResult { last_words: "Error: boom".into() });
        assert_eq!(verdict(ended(Exit::Code(0), None), false, &none), no_result);
        let crashed = |exit| Ended::Crashed(Reason::Crashed { exit, last_words: "Error: boom".into() });
        for exit in [Exit::Code(1), Exit::Signal(9), Exit::Unknown] {
            assert_eq!(verdict(ended(exit, None), false, &with_result()), crashed(exit));
        }
    }

    #[test]
    fn a_limit_outweighs_what_the_task_says() {
        let stopped = |stop| verdict(ended(Exit::Signal(9), Some(stop)), false, &with_result());
        assert_eq!(stopped(Stop::Memory), Ended::Stopped(Reason::Memory { limit: 7 }));
        assert_eq!(stopped(Stop::MachineMemory), Ended::Stopped(Reason::MachineMemory));
        assert_eq!(stopped(Stop::Uplink), Ended::Stopped(Reason::NetworkLost));
        let by_signal = |signal| verdict(ended(Exit::Signal(signal as i32), None), false, &FramesSeen::default());
        assert!(matches!(by_signal(Signal::SIGSEGV), Ended::Crashed(_)));
        assert_eq!(by_signal(Signal::SIGXCPU), Ended::Stopped(Reason::CpuTime { limit: Duration::from_secs(3) }));
        assert_eq!(stopped(Stop::WallTime), Ended::Stopped(Reason::WallTime { limit: Duration::from_secs(1) }));
        let fault = |fault| FramesSeen { fault: Some(fault), ..FramesSeen::default() };
        let asked = |frames, cancelled| verdict(ended(Exit::Signal(9), Some(Stop::Asked)), cancelled, frames);
        let quiet = FramesSeen::default();
        assert_eq!(asked(&quiet, true), Ended::Stopped(Reason::Cancelled));
        let over = fault(Fault::TooLarge { limit: 5 });
        assert_eq!(asked(&over, false), Ended::Stopped(Reason::ResultTooLarge { limit: 5 }));
        let cut = fault(Fault::Frame(FrameError::Cut));
        let crashed = verdict(ended(Exit::Signal(11), None), false, &cut);
        assert!(matches!(crashed, Ended::Crashed(Reason::Crashed { exit: Exit::Signal(11), .. })));
        let forged = fault(Fault::Frame(FrameError::Twice));
        assert_eq!(asked(&forged, false), Ended::Crashed(Reason::Malformed { what: "two beginnings".into() }));
    }

    #[test]
    fn a_task_that_ended_before_it_could_be_cancelled_has_finished() {
        assert_eq!(verdict(ended(Exit::Code(0), None), true, &with_result()), Ended::Finished);
    }

    #[test]
    fn what_holds_the_task_can_fail_too() {
        let none = FramesSeen::default();
        let refused = || Ok(Report::Refused { stage: Stage::Mounts, what: "mount /x".into(), errno: 2 });
        let reason =
            Reason::CouldNotStart { stage: Some(Stage::Mounts), what: "mount /x: No such file or directory".into() };
        assert_eq!(verdict(refused(), false, &none), Ended::Refused(reason));
        assert_eq!(verdict(refused(), true, &none), Ended::Stopped(Reason::Cancelled));
        let lost = Ended::Crashed(Reason::JailLost { what: "gone".into() });
        assert_eq!(verdict(Err("gone".into()), false, &none), lost);
        // One that never reported anything never ran anything.
        let (last, text) = (Err("another build".into()), Text::default());
        let evidence = Evidence {
            last: &last,
            reported: false,
            cancelled: false,
            watch: &Watch::default(),
            frames: &none,
            text: &text,
        };
        assert!(matches!(judge(&evidence), Ended::Refused(Reason::CouldNotStart { stage: None, .. })));
    }
}
