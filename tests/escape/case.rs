//! What a case of the catalogue is: acts that the task tries, what each must come to inside, and what the same act comes to
//! without a sandbox.

use crate::world::Place;

/// What must happen, as the catalogue's letters say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Denied with an error, and the job goes on.
    Denied,
    /// The job is stopped, the client hears of it, and the worker serves the next future.
    Killed,
    /// Nothing leaks, nothing is there, nothing has changed.
    Nothing,
    /// Bounded.
    Bounded,
}

impl Outcome {
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Denied => 'D',
            Self::Killed => 'K',
            Self::Nothing => 'N',
            Self::Bounded => 'B',
        }
    }
}

/// What goes wrong in it is the error.
pub(crate) type Scenario = fn(&Place<'_>) -> Result<(), String>;

/// One case of the catalogue.
pub(crate) struct Case {
    /// Its number in the catalogue.
    pub(crate) number: u8,
    /// What the task tries, for the matrix.
    pub(crate) attack: &'static str,
    /// The layers that hold it, by the names of `doctor`.
    pub(crate) layers: &'static str,
    /// Holes of other jails that it stands for.
    pub(crate) known: &'static str,
    pub(crate) outcome: Outcome,
    /// What the task gets, where a scenario and not an act's expectation says it.
    pub(crate) gets: &'static str,
    /// Tried in one task together with the acts of the other cases.
    pub(crate) acts: fn(&Place<'_>) -> Vec<Act>,
    /// Tried in tasks of its own, controls included; the error says what went wrong. A panic is an error too.
    pub(crate) scenario: Option<Scenario>,
}

impl Case {
    /// A case without acts and scenario, to be filled with `..`.
    pub(crate) const fn new(number: u8, outcome: Outcome, attack: &'static str, layers: &'static str) -> Self {
        Self { number, attack, layers, known: "", outcome, gets: "", acts: |_| Vec::new(), scenario: None }
    }
}

/// In which language an act is written.
#[derive(Debug, Clone)]
pub(crate) enum How {
    /// R code. `TRUE` and `NULL` are "ok", other values themselves, errors and warnings the name of the error number.
    R(String),
    /// An act of the native probe with its arguments, separated by tabs.
    Native(String),
}

/// What an act comes to outside.
#[derive(Debug, Clone)]
pub(crate) enum Outside {
    /// By an ordinary user: R code by `exec --sandbox none`, native acts directly.
    Bare(Vec<String>),
    /// The same probe, run by an ordinary user in namespaces of its own, in which it is root (`unshare --map-root-user`).
    OwnNamespaces(Vec<String>),
    /// It cannot succeed on this machine, or must not: the reason, and what stands for a control.
    Stated(&'static str),
}

/// One act.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) how: How,
    /// Any of these is right; a `*` at the end stands for whatever follows.
    pub(crate) inside: Vec<String>,
    pub(crate) outside: Outside,
    /// Not every kernel is built with this system call.
    pub(crate) lacking: bool,
    /// Why this driver cannot hold it. Then `inside` is what it comes to all the same.
    pub(crate) open: Option<&'static str>,
}

fn list(words: &str) -> Vec<String> {
    words.split('|').map(|word| word.trim().to_owned()).collect()
}

impl Act {
    /// R code, and what it comes to inside: alternatives separated by `|`.
    pub(crate) fn r(code: impl Into<String>, inside: &str) -> Self {
        Self::new(How::R(code.into()), inside)
    }

    /// An act of the native probe and its arguments, separated by tabs.
    pub(crate) fn native(act: impl Into<String>, inside: &str) -> Self {
        Self::new(How::Native(act.into()), inside)
    }

    fn new(how: How, inside: &str) -> Self {
        Self { how, inside: list(inside), outside: Outside::Stated(""), lacking: false, open: None }
    }

    /// What it comes to without a sandbox.
    pub(crate) fn bare(self, outside: &str) -> Self {
        Self { outside: Outside::Bare(list(outside)), ..self }
    }

    /// What it comes to in namespaces of one's own; native acts only.
    pub(crate) fn privileged(self, outside: &str) -> Self {
        Self { outside: Outside::OwnNamespaces(list(outside)), ..self }
    }

    /// Kernels may be built without this system call; then they are no control, and need none.
    pub(crate) fn may_be_lacking(self) -> Self {
        Self { lacking: true, ..self }
    }

    /// There is no control that succeeds, for this reason.
    pub(crate) fn stated(self, why: &'static str) -> Self {
        Self { outside: Outside::Stated(why), ..self }
    }

    /// This driver does not hold it.
    pub(crate) fn open(self, why: &'static str) -> Self {
        Self { open: Some(why), ..self }
    }

    /// What the act is, for messages.
    pub(crate) fn text(&self) -> String {
        match &self.how {
            How::R(code) => format!("R: {code}"),
            How::Native(act) => act.replace('\t', " "),
        }
    }
}

/// Whether an outcome is one of those expected.
pub(crate) fn fits(outcome: &str, expected: &[String]) -> bool {
    expected.iter().any(|expected| match expected.strip_suffix('*') {
        Some(start) => outcome.starts_with(start),
        None => outcome == expected,
    })
}
