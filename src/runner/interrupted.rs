//! The result of a future whose evaluation did not come to its end: a `FutureResult` with one condition that says why,
//! so that R's own `value()` signals it.
//!
//! A task that was stopped or died gives a `FutureInterruptError`, which lets a user `reset()` the future and run it
//! again; a task that never began gives a `FutureLaunchError`. Both classes exist since package future 1.40; for an
//! older one they are just a `FutureError`, which it knows.

use std::{fmt, time::Duration};

use p2p_jail::spec::{Exit, Stage};

use crate::{
    clock::Timestamp,
    ids::FutureId,
    runner::rds::{self, Data, Object},
    text,
};

/// The most characters of somebody else's words that go into a message.
const MOST_WORDS: usize = 300;

/// Why there is no result of the user's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The task reached its memory limit, in bytes.
    Memory {
        /// The limit.
        limit: u64,
    },
    /// The worker's machine ran out of memory before the task reached its limit.
    MachineMemory,
    /// The program that carries the task's packets ended, and with it the network that its profile promises.
    NetworkLost,
    /// The task held too many locks on files.
    FileLocks {
        /// The limit.
        limit: u64,
    },
    /// The task ran for as long as it may.
    WallTime {
        /// The limit.
        limit: Duration,
    },
    /// The task used as much CPU time as it may.
    CpuTime {
        /// The limit.
        limit: Duration,
    },
    /// The result is over its limit, in bytes.
    ResultTooLarge {
        /// The limit.
        limit: u64,
    },
    /// The client withdrew the future.
    Cancelled,
    /// The worker's owner stopped the worker.
    WorkerStopping,
    /// R ended in another way than by its own will.
    Crashed {
        /// How, from the kernel.
        exit: Exit,
        /// The last line of its text.
        last_words: String,
    },
    /// R ended as if all were well, and left no result.
    NoResult {
        /// The last line of its text.
        last_words: String,
    },
    /// What came in the result's place is not one.
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// The program that holds the task died or fell silent.
    JailLost {
        /// What is known.
        what: String,
    },
    /// The sandbox could not be set up, so nothing was run.
    CouldNotStart {
        /// The stage that failed, if the sandbox's program came that far.
        stage: Option<Stage>,
        /// What was tried.
        what: String,
    },
    /// The future never got here.
    NotArrived {
        /// Why not.
        why: String,
    },
    /// The worker does not evaluate this future.
    FutureRefused {
        /// Why not.
        why: String,
    },
    /// The worker's disk cannot hold the result.
    NoSpace {
        /// What failed.
        what: String,
    },
}

impl Reason {
    /// Whether the user's code never began.
    #[must_use]
    pub fn is_before_start(&self) -> bool {
        matches!(self, Self::CouldNotStart { .. } | Self::NotArrived { .. } | Self::FutureRefused { .. })
    }

    /// The class vector of the condition, as package future 1.75 makes it.
    fn classes(&self) -> [&'static str; 5] {
        let first = if self.is_before_start() { "FutureLaunchError" } else { "FutureInterruptError" };
        [first, "FutureError", "error", "FutureCondition", "condition"]
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { limit } => write!(f, "memory limit of {} reached", Bytes(*limit)),
            Self::MachineMemory => f.write_str("the worker's machine ran out of memory"),
            Self::NetworkLost => f.write_str("the way to the internet broke down there (the program pasta ended)"),
            Self::FileLocks { limit } => write!(f, "limit of {limit} file locks reached"),
            Self::WallTime { limit } => write!(f, "time limit of {} reached", Span(*limit)),
            Self::CpuTime { limit } => write!(f, "CPU time limit of {} reached", Span(*limit)),
            Self::ResultTooLarge { limit } => write!(f, "the result is larger than the limit of {}", Bytes(*limit)),
            Self::Cancelled => f.write_str("the future was cancelled"),
            Self::WorkerStopping => f.write_str("the worker is being stopped by its owner"),
            Self::Crashed { exit: Exit::Code(code), last_words } => {
                // A program between us and R (bubblewrap) turns a signal into such a status, as a shell does.
                let as_after = code.checked_sub(128).filter(|signal| (1..=64).contains(signal));
                let signal = as_after.map(|signal| format!(", as after signal {}", signal_name(signal)));
                write!(f, "R ended with exit status {code}{}{}", signal.unwrap_or_default(), Words(last_words))
            }
            Self::Crashed { exit: Exit::Signal(signal), last_words } => {
                write!(f, "R was ended by signal {}{}", signal_name(*signal), Words(last_words))
            }
            Self::Crashed { exit: Exit::Unknown, last_words } => {
                write!(f, "the sandbox was ended from outside{}", Words(last_words))
            }
            Self::NoResult { last_words } => {
                write!(f, "R ended without a result, as after quit(){}", Words(last_words))
            }
            Self::Malformed { what } => write!(f, "what came in place of a result is not one: {}", one_line(what)),
            Self::JailLost { what } => write!(f, "the program that holds the sandbox was lost: {}", one_line(what)),
            Self::CouldNotStart { stage: Some(stage), what } => {
                write!(f, "the sandbox could not be set up (stage {stage:?}): {}", one_line(what))
            }
            Self::CouldNotStart { stage: None, what } => {
                write!(f, "the sandbox could not be set up: {}", one_line(what))
            }
            Self::NotArrived { why } => write!(f, "it did not arrive there: {}", one_line(why)),
            Self::FutureRefused { why } => write!(f, "the worker refused it: {}", one_line(why)),
            Self::NoSpace { what } => write!(f, "the worker cannot store the result: {}", one_line(what)),
        }
    }
}

/// The RDS of a `FutureResult` that says why there is no other. `uuid` is the future's, as package future splits it.
#[must_use]
pub fn result(future: &FutureId, reason: &Reason, started: Timestamp, finished: Timestamp) -> Vec<u8> {
    let verb = if reason.is_before_start() { "could not be started" } else { "was stopped" };
    let message = format!("Future ({future}) {verb} on the worker: {reason}");
    let condition = Object::named_list(vec![("message", Object::text(message)), ("call", Data::Null.into())])
        .of_class(reason.classes())
        .with("when", time(finished))
        .with("uuid", uuid(future));
    let entry = Object::named_list(vec![("condition", condition), ("signaled", Data::Integer(vec![0]).into())]);
    let about_r = Object::named_list(vec![
        ("os", Object::text(std::env::consts::FAMILY)),
        ("captures_utf8", Data::Logical(vec![true]).into()),
    ]);
    rds::to_bytes(
        &Object::named_list(vec![
            ("value", Data::Null.into()),
            ("visible", Data::Logical(vec![true]).into()),
            ("stdout", Object::text("")),
            ("conditions", Data::List(vec![entry]).into()),
            ("rng", Data::Logical(vec![false]).into()),
            ("started", time(started)),
            ("finished", time(finished)),
            ("uuid", uuid(future)),
            ("session_uuid", Data::Text(vec![None]).into()),
            ("r_info", about_r),
            ("version", Object::text("1.8")),
        ])
        .of_class(["FutureResult"]),
    )
}

/// A `POSIXct`.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits for the next decades")]
fn time(at: Timestamp) -> Object {
    Object::from(Data::Real(vec![at.0 as f64 / 1000.0])).of_class(["POSIXct", "POSIXt"])
}

/// The uuid in the form in which the future holds it: session and counter in newer versions of package future, one
/// string in older ones. The same rule is in `r/runner.R`.
fn uuid(future: &FutureId) -> Object {
    let is_session = |text: &str| {
        text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_counter = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match future.as_str().split_once('-') {
        Some((session, counter)) if is_session(session) && is_counter(counter) => Object::texts([session, counter]),
        _ => Object::text(future.as_str()),
    }
}

fn one_line(text: &str) -> String {
    text::for_log(text, MOST_WORDS)
}

struct Words<'a>(&'a str);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; its last words: {}", one_line(self.0)) }
    }
}

/// A number of bytes for a person: `2.0 GiB`.
struct Bytes(u64);

impl fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 >> shift > 0) {
            Some((shift, unit)) => write!(f, "{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// A time for a person: `1.5 s`, `10 min`, `2 h 30 min`.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0 | 1, _) => write!(f, "{} s", self.0.as_millis() as f64 / 1000.0),
            (0, minutes, 0) => write!(f, "{minutes} min"),
            (0, minutes, rest) => write!(f, "{minutes} min {rest} s"),
            (hours, 0, _) => write!(f, "{hours} h"),
            (hours, minutes, _) => write!(f, "{hours} h {minutes} min"),
        }
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_its_limit() {
        let says = |reason: Reason| reason.to_string();
        assert_eq!(says(Reason::Memory { limit: 2 << 30 }), "memory limit of 2.0 GiB reached");
        assert_eq!(says(Reason::WallTime { limit: Duration::from_millis(1500) }), "time limit of 1.5 s reached");
        assert_eq!(says(Reason::CpuTime { limit: Duration::from_secs(9000) }), "CPU time limit of 2 h 30 min reached");
        assert_eq!(
            says(Reason::Crashed { exit: Exit::Signal(11), last_words: "a\u{1b}[1m".into() }),
            "R was ended by signal SIGSEGV; its last words: a␛[1m"
        );
    }

    #[test]
    fn a_uuid_is_split_as_package_future_does() {
        let parts = |text: &str| uuid(&text.parse().unwrap());
        assert_eq!(
            parts("44934a13689afc85802e5e095930b2c2-2"),
            Object::texts(["44934a13689afc85802e5e095930b2c2", "2"])
        );
        let old = "da8be6cb-eaa8-19f7-105a-244b2f9040ea";
        assert_eq!(parts(old), Object::text(old));
    }
}
