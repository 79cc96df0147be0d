//! What the supervisor tells `p2p-jail`, and what `p2p-jail` answers: plain data, nothing else.
//!
//! The supervisor starts `p2p-jail run` with one end of a stream socket pair as fd 0 (the *control
//! socket*). It sends one [`Spec`] as a message (see [`crate::message`]) with the task's three file
//! descriptors attached to its first byte (`SCM_RIGHTS`): what becomes the task's fd 0 (the future's bytes),
//! the frames pipe (the task's fd [`FRAMES_FD`]) and the text pipe (the task's fd 1 and fd 2). From then on the
//! supervisor writes nothing but the one byte of [`Watch::waits`]: end of file on the control socket, however it comes
//! about, means *stop everything*. `p2p-jail` answers with [`Report`]s, the last of which is [`Report::Refused`] or [`Report::Ended`].
//!
//! There are no paths, names or policies in this crate other than those in the spec: the policy is made by the
//! supervisor's pure planner and can be compared whole in its tests.

mod confinement;
mod container;
mod limits;
mod report;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use confinement::{Condition, Confinement, DenyRule, Explain, Landlock, Rlimit, Seccomp, Test};
pub use container::{
    Builtin, CONFINE_FD, Container, External, FILES_FD, Identity, Ipv4Block, MAX_CLOSED, Mount, PROGRAM_FD, STATUS_FD,
    Uplink,
};
pub use limits::{CgroupVersion, ControlGroup, Controller, Hierarchy, MAX_HIERARCHIES, MOST_FILE_LOCKS, Watch};
pub use report::{Exit, Reached, Report, Stage, Stop, Usage};

/// The descriptor on which the task finds the frames pipe. Its fd 1 is the same pipe as its fd 2, so nothing that
/// the user's code prints can be a frame by accident.
pub const FRAMES_FD: i32 = 3;

/// The largest encoded [`Spec`] or [`Report`] that either side accepts, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// One task: where it lives, what holds it, what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Who makes the task's world of namespaces and mounts.
    pub container: Container,
    /// What the innermost process does to itself right before it executes the command.
    pub confinement: Confinement,
    /// Limits that `p2p-jail` itself watches from outside, for as long as the task lives.
    pub watch: Watch,
    /// Control groups for this task alone, where the supervisor may make any.
    pub control_group: Option<ControlGroup>,
    /// What is executed at the end.
    pub command: Command,
}

/// What `p2p-jail ahead` makes before there is a task: the process that becomes the init of one task, in its control
/// groups and in all of its namespaces but for the mounts. Sent before the [`Spec`], as a message of its own and without
/// descriptors. It then waits for one spec, which must say the same of all this, and serves no other.
///
/// If something fails before the spec is there, the program ends without a report; once it has taken one, it says so at
/// once with the report of [`Stage::Spec`]. So without any report nothing of the task has run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// See [`Builtin::become_user`].
    pub become_user: Option<Identity>,
    /// See [`Builtin::inside`].
    pub inside: Identity,
    /// See [`Builtin::hostname`].
    pub hostname: String,
    /// See [`Spec::control_group`].
    pub control_group: Option<ControlGroup>,
}

impl Ahead {
    /// What can be made ahead of this spec; `None` unless `p2p-jail` itself makes the container.
    #[must_use]
    pub fn of(spec: &Spec) -> Option<Self> {
        // The network namespace of a task with a way to the internet takes more than is known ahead.
        let Container::Builtin(builtin @ Builtin { uplink: None, .. }) = &spec.container else { return None };
        Some(Self {
            become_user: builtin.become_user,
            inside: builtin.inside,
            hostname: builtin.hostname.clone(),
            control_group: spec.control_group.clone(),
        })
    }
}

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program (absolute, inside the container) and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment; nothing is inherited.
    pub environment: Vec<(String, String)>,
    /// The working directory, inside the container.
    pub directory: PathBuf,
}
