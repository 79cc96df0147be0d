//! What `p2p-jail` answers.

use serde::{Deserialize, Serialize};

/// What `p2p-jail run` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// This stage is in force, since that many microseconds on the monotonic clock (`CLOCK_MONOTONIC`).
    Stage(Stage, String, u64),
    /// A stage failed and nothing of the task was executed.
    Refused {
        /// Which stage.
        stage: Stage,
        /// What was tried, for a person: includes paths and the system call.
        what: String,
        /// The error number of the system call, 0 when there is none.
        errno: i32,
    },
    /// Attached: the descriptor on which the kernel asks, see [`Explain`](super::Explain).
    Asks,
    /// The command was executed.
    Running {
        /// Process id, on the host, of the outermost process of the task (its init, where it has one).
        pid: i32,
    },
    /// What was reached so far: the answer to a byte that comes when the command runs. Where the task is ending, none comes.
    Reached(Reached),
    /// The task is over, and no process of it is left.
    Ended {
        /// How the command itself ended.
        exit: Exit,
        /// Why `p2p-jail` stopped it, if it did.
        stopped: Option<Stop>,
        /// What it used.
        usage: Usage,
    },
}

/// The stages in their order. A detail that the owner should know (a Landlock ABI, for instance) goes with it in
/// [`Report::Stage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Reading the spec and receiving the descriptors.
    Spec,
    /// The task's own control groups, with their limits. Not reported where there are none.
    ControlGroup,
    /// Becoming the unprivileged user, when started by root.
    Identity,
    /// New user, mount, pid, net, ipc, uts and cgroup namespaces; or the start of the external program.
    Namespaces,
    /// The new root and everything mounted in it; the old root is gone.
    Mounts,
    /// The init that reaps, and the task's own process.
    Init,
    /// A session of its own, no controlling terminal.
    Session,
    /// rlimits, CPU affinity, no core dumps.
    Limits,
    /// No descriptor other than 0, 1, 2 and [`FRAMES_FD`](super::FRAMES_FD).
    Descriptors,
    /// No user namespaces inside.
    NestedNamespaces,
    /// No capability in any set, securebits locked.
    Capabilities,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// The Landlock ruleset.
    Landlock,
    /// The seccomp filter.
    Seccomp,
    /// Executing the command.
    Exec,
    /// The watch from outside.
    Watch,
}

/// How the command ended, from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Its init was killed from outside the jail, so nobody knows.
    Unknown,
}

/// Why `p2p-jail` stopped the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// [`Watch::wall_time_ms`](super::Watch::wall_time_ms) passed.
    WallTime,
    /// [`Watch::cpu_time_ms`](super::Watch::cpu_time_ms) passed.
    CpuTime,
    /// [`Watch::memory`](super::Watch::memory) was reached, or that of the control group.
    Memory,
    /// The kernel killed a process of the task for want of memory, though its own limit was not reached: the machine, or
    /// a group around the worker's, had none left.
    MachineMemory,
    /// It held more than [`MOST_FILE_LOCKS`](super::MOST_FILE_LOCKS).
    FileLocks,
    /// The program that carries its packets ended (see [`Uplink`](super::Uplink)), so that it had no network any more.
    Uplink,
    /// The control socket came to its end.
    Asked,
}

/// What a task used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Milliseconds from the execution of the command to its end.
    pub wall_ms: u64,
    /// Milliseconds of CPU time of all its processes, as far as they were waited for.
    pub cpu_ms: u64,
    /// The most memory that the watch or the control group saw, in bytes; 0 without either. A control group counts the
    /// files of the host that were read for the task, too.
    pub peak_memory: u64,
    /// Which limits it reached that let it go on.
    pub reached: Reached,
}

/// Limits that a task reached and that let it go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reached {
    /// How many processes and threads were not made because of the limit; known only with a control group.
    pub refused_processes: u64,
    /// Which of the tmpfs in [`Watch::tmpfs`](super::Watch::tmpfs) had no room for another byte or another file at one of the looks, or at the end:
    /// bit 0 is the first one. What was full only between two looks is not in it.
    pub full_tmpfs: u64,
}
