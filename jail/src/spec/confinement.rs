//! What the innermost process does to itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the innermost process gives up, in this order: session, core dumps, CPU affinity, rlimits, descriptors,
/// nested user namespaces, capabilities, new privileges, Landlock, seccomp.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confinement {
    /// Soft and hard limit alike. Every limit that is not named here keeps its inherited value.
    pub rlimits: Vec<(Rlimit, u64)>,
    /// The CPUs that the task may run on; empty leaves the affinity alone. Holds only together with a seccomp
    /// filter without `sched_setaffinity`.
    pub cpus: Vec<u32>,
    /// Give up every capability (all five sets, and securebits locked).
    pub drop_capabilities: bool,
    /// Forbid user namespaces inside the one that the task lives in (`/proc/sys/user/max_user_namespaces` = 0).
    /// Only for [`Container::Builtin`](super::Container::Builtin); elsewhere the seccomp filter alone holds it.
    pub no_nested_user_namespaces: bool,
    /// Landlock, or `None` for no ruleset at all.
    pub landlock: Option<Landlock>,
    /// The allow-list of system calls, or `None` for no filter at all.
    pub seccomp: Option<Seccomp>,
}

/// The resources of setrlimit(2) that a profile may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rlimit {
    /// `RLIMIT_AS`: bytes of address space of each process.
    AddressSpace,
    /// `RLIMIT_NPROC`: processes and threads. Counted inside the task's own user namespace (Linux 5.14), where it
    /// holds exactly; before that, and without one, it counts all processes of the user.
    Processes,
    /// `RLIMIT_CPU`: seconds of CPU time of each process.
    CpuSeconds,
    /// `RLIMIT_FSIZE`: bytes of each file.
    FileSize,
    /// `RLIMIT_NOFILE`: descriptors of each process.
    OpenFiles,
    /// `RLIMIT_CORE`: bytes of a core dump.
    CoreDump,
    /// `RLIMIT_MEMLOCK`: bytes locked in memory.
    LockedMemory,
    /// `RLIMIT_MSGQUEUE`: bytes in POSIX message queues.
    MessageQueues,
    /// `RLIMIT_SIGPENDING`: queued signals.
    PendingSignals,
    /// `RLIMIT_NICE` and `RLIMIT_RTPRIO`: both set to this value.
    Priority,
    /// `RLIMIT_STACK`: bytes of the main thread's stack.
    Stack,
}

/// A Landlock ruleset (landlock(7)). It handles every right that the running kernel knows; what is not granted is
/// denied. Where the kernel knows them: TCP bind and connect are denied whole, and abstract sockets and signals
/// are scoped to the task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Landlock {
    /// Fail the stage when the kernel's Landlock ABI is older than this.
    pub minimum_abi: u32,
    /// Leave TCP alone: for a task with an [`Uplink`](super::Uplink).
    pub tcp: bool,
    /// Subtrees whose folders may be listed, for `ls /`. What an escape could reach does not lie below the root of the
    /// container, so it is not granted by a rule for `/`.
    pub list: Vec<PathBuf>,
    /// Subtrees that may be read, listed and executed.
    pub read_execute: Vec<PathBuf>,
    /// Subtrees that may be read and listed, not executed.
    pub read: Vec<PathBuf>,
    /// Subtrees in which everything may be done but device nodes and executing files.
    pub read_write: Vec<PathBuf>,
    /// Single files (devices) that may be read and written.
    pub files_read_write: Vec<PathBuf>,
}

/// A seccomp filter (seccomp(2)). A call of a foreign architecture kills the process; a call that is not allowed,
/// x32 and `clone3` among them, fails with `ENOSYS`; a denied combination of arguments fails with `EPERM`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seccomp {
    /// Numbers of the allowed system calls on this architecture.
    pub allow: Vec<i64>,
    /// Allowed calls that are denied all the same when an argument matches: any one rule suffices.
    pub deny: Vec<DenyRule>,
    /// To explain to the owner what is denied (never for a task of somebody else): see [`Explain`].
    pub explain: Option<Explain>,
}

/// The kernel asks instead of denying (`SECCOMP_RET_USER_NOTIF`, Linux 5.5): the descriptor on which it asks comes with
/// [`Report::Asks`](super::Report::Asks). Whoever holds it answers with the errors named at [`Seccomp`]; if nobody does, every such call fails
/// with `ENOSYS`. See [`crate::explain`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explain {
    /// Allowed calls about which the kernel asks too: those with paths. None of them may have a rule in
    /// [`Seccomp::deny`], so that "go on" is never an answer to a denied call.
    pub watch: Vec<i64>,
}

/// One reason to deny a system call that is allowed in general. All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyRule {
    /// The number of the system call.
    pub syscall: i64,
    /// What must hold of its arguments; not empty.
    pub conditions: Vec<Condition>,
}

/// A comparison of the lower 32 bits of an argument, as the kernel reads flags and commands (CVE-2019-10063 came from
/// comparing all 64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub test: Test,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// It is this value.
    Equal(u32),
    /// It is not this value.
    NotEqual(u32),
    /// This single bit of it is set.
    BitSet(u32),
}
