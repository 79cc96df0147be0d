//! Limits on a task as a whole: those that are watched, and those of control groups.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Limits held from outside. Each is checked as soon as the task could have reached it: the interval of the memory
/// watch shrinks with what is left, down to a millisecond.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watch {
    /// Whether the command is started before it is known what for. It then waits for that on its fd 0, with all of its layers in
    /// force; times count, and what is watched here is held, from the one byte that the supervisor writes on the control
    /// socket once the command runs.
    pub waits: bool,
    /// Milliseconds from the start of the command.
    pub wall_time_ms: Option<u64>,
    /// Milliseconds of CPU time, all processes of the task together, those that ended included.
    pub cpu_time_ms: Option<u64>,
    /// Bytes of memory, all processes and all tmpfs of the task together. Shared memory counts where it is mapped, so
    /// this holds only together with a seccomp filter that denies shared anonymous mappings (see the README).
    pub memory: Option<u64>,
    /// Mount points, inside the container, of the tmpfs that count as memory.
    pub tmpfs: Vec<PathBuf>,
}

/// Limits held by the kernel over all processes of the task together (cgroups(7)). `p2p-jail` makes a group below each
/// of the folders, puts the task's first process into it before that does anything else, and removes it at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlGroup {
    /// Which interface the folders have.
    pub version: CgroupVersion,
    /// One folder for each hierarchy, at most [`MAX_HIERARCHIES`]: a group in which the groups of tasks are made. The user
    /// that the task runs as on the host must be able to remove folders there.
    pub hierarchies: Vec<Hierarchy>,
    /// Bytes of memory: of processes, of tmpfs, of the kernel for them; and of swap, which version 2 forbids and version 1
    /// counts with it, as far as the kernel counts swap at all.
    pub memory: u64,
    /// Processes and threads, those of the container included.
    pub processes: u64,
    /// How many processors' worth of time.
    pub cpus: u32,
}

/// The most hierarchies of one [`ControlGroup`].
pub const MAX_HIERARCHIES: usize = 8;

/// One hierarchy of control groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// The group in which groups of tasks are made.
    pub parent: PathBuf,
    /// What can be limited there.
    pub controllers: Vec<Controller>,
}

/// The two interfaces of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// A hierarchy for each controller, or for some.
    V1,
    /// One hierarchy.
    V2,
}

/// The controllers that are of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Controller {
    /// `memory`.
    Memory,
    /// `pids`.
    Processes,
    /// `cpu`.
    Cpu,
    /// `cpuacct`: version 1 alone; version 2 always counts.
    CpuAccounting,
}

/// The most locks on files (fcntl(2)) that a task may hold under a watch of its memory: each is some 200 bytes of the
/// kernel's, which neither the watch nor every kernel's control groups count. SQLite holds a few for each database.
pub const MOST_FILE_LOCKS: u64 = 20_000;
