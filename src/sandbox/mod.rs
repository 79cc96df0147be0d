//! What a task may do and who makes sure of it: profiles, layers, drivers.
//!
//! A *profile* is commented data: what each layer must be and how much of everything a task may use. A *driver* says
//! what it can enforce on this machine ([`Layer`] by layer, each proven by a probe) and turns a profile into a
//! [`LaunchPlan`] by a pure function. Nothing here starts a task; [`crate::runner`] does, from the plan alone.

mod cgroup;
mod doctor;
mod driver;
mod error;
mod explain;
mod facts;
mod fix;
mod habitat;
mod judge;
mod launch;
mod machine;
pub mod met;
mod probe;
mod profile;
mod show;
mod syscalls;
mod task;
mod units;
mod uplink;

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use cgroup::{ControlGroups, Mechanism};
pub use doctor::{Doctor, Interpreter, Known as KnownProblem, Question, apparmor_profile, examine};
pub use driver::{Driver, PlanError, Ready, select};
pub use error::SandboxError;
pub use explain::{Denials, Denied, Witness, advise};
pub use habitat::{Around, Habitat, SecurityModule};
pub use launch::{Finished, LaunchError, Waiting, run_to_end};
pub use machine::{Bubblewrap, HostPath, Known, Machine, MachineError, NOBODY, PathKind};
pub use profile::{
    CallGroup, CallRule, EMBEDDED, LandlockPolicy, Limits, Place, Profile, ProfileError, Reach, Readable, Scratch,
    Surroundings, TASK_ID, Written, unsafe_to_share,
};
pub use show::{Shown, list, show};
pub use syscalls::CallError;
pub use task::{Share, Task};
pub use units::{UnitError, parse_bytes, parse_duration, show_bytes, show_duration};

/// One kind of protection. A profile says of each whether it is required; a driver says of each whether it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Only the files that the profile names are there at all.
    Filesystem,
    /// No network, not even the host's loopback.
    Network,
    /// No process of the host or of another task is visible or can be signalled.
    Processes,
    /// No shared memory, message queue or abstract socket is shared.
    Ipc,
    /// Only the system calls of an allow-list.
    Syscalls,
    /// No capability, no way to gain one, never uid 0 of the host.
    Privileges,
    /// A limit on memory, tmpfs included.
    Memory,
    /// A limit on CPUs and CPU time.
    Cpu,
    /// A limit on processes and threads.
    Pids,
    /// A limit on bytes and files written.
    Disk,
    /// A limit on wall time.
    Time,
    /// A limit on the text and on the result.
    Output,
}

/// Whether a layer holds, as proven by a probe on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "detail")]
pub enum Enforcement {
    /// It holds; the text says how.
    Enforced(String),
    /// Part of it holds; the text says what does not and why.
    Partly(String),
    /// It does not hold; the text says why and what would mend it.
    Missing(String),
    /// It holds as far as the profile requires it; the text says what it goes without.
    Reduced(String),
    /// Nobody knows, as something before it failed.
    Untried(String),
}

/// Under what a task ran. Goes with every result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The driver's name.
    pub driver: String,
    /// The profile's name.
    pub profile: String,
    /// Every layer and whether it was enforced.
    pub layers: Vec<(Layer, Enforcement)>,
}

/// Everything about one start of a task. Pure data: the same profile, machine and task give the same plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchPlan {
    /// The program `p2p-jail`.
    pub jail: PathBuf,
    /// What it is told.
    pub spec: p2p_jail::spec::Spec,
    /// Where on the host what the profile shares lies: `/`, or the root file system that is used in its place.
    pub root: PathBuf,
    /// The largest result that is taken from the task, in bytes.
    pub max_result: u64,
    /// How much of the task's text (its fd 1 and 2) is kept, in bytes; the rest is counted and thrown away.
    pub max_text: u64,
    /// Under what the task runs.
    pub provenance: Provenance,
}

impl Layer {
    /// All of them, in the order in which they are reported.
    pub const ALL: [Self; 12] = [
        Self::Filesystem,
        Self::Network,
        Self::Processes,
        Self::Ipc,
        Self::Syscalls,
        Self::Privileges,
        Self::Memory,
        Self::Cpu,
        Self::Pids,
        Self::Disk,
        Self::Time,
        Self::Output,
    ];
}

impl Provenance {
    /// Nobody knows under what: of a worker that comes by wormhole, which has no word for it.
    #[must_use]
    pub fn unknown() -> Self {
        Self { driver: UNKNOWN.to_owned(), profile: UNKNOWN.to_owned(), layers: Vec::new() }
    }

    /// Whether nothing is said of what the task ran under.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.driver == UNKNOWN && self.layers.is_empty()
    }
}

/// In place of a name that nobody said.
const UNKNOWN: &str = "unknown";

impl Enforcement {
    /// Whether it is what a profile that requires the layer asks for.
    #[must_use]
    pub fn suffices(&self) -> bool {
        matches!(self, Self::Enforced(_) | Self::Reduced(_))
    }

    /// Whether there is nothing that the owner or the client should know.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Enforced(_))
    }

    /// The state in a word, and the detail.
    #[must_use]
    pub fn in_words(&self) -> (&'static str, &str) {
        match self {
            Self::Enforced(detail) => ("enforced", detail),
            Self::Partly(detail) => ("partly", detail),
            Self::Missing(detail) => ("missing", detail),
            Self::Reduced(detail) => ("reduced", detail),
            Self::Untried(detail) => ("untried", detail),
        }
    }
}

impl Provenance {
    /// What the client of a task should know: the layers that were not held in full, one in a line. Empty when all were.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let short = self.layers.iter().filter(|(_, state)| !state.is_whole());
        let said = |(layer, state): &(Layer, Enforcement)| {
            let (word, detail) = state.in_words();
            format!("{layer} {word}: {detail}")
        };
        short.map(said).collect()
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filesystem => "filesystem",
            Self::Network => "network",
            Self::Processes => "processes",
            Self::Ipc => "ipc",
            Self::Syscalls => "syscalls",
            Self::Privileges => "privileges",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Disk => "disk",
            Self::Time => "time",
            Self::Output => "output",
        })
    }
}
