//! What the supervisor tells `p2p-jail`, and what `p2p-jail` answers: plain data, nothing else.
//!
//! The supervisor starts `p2p-jail run` with one end of a stream socket pair as fd 0 (the *control
//! socket*). It sends one [`Spec`] as a message (see [`crate::message`]) with the task's three file
//! descriptors attached to its first byte (`SCM_RIGHTS`): what becomes the task's fd 0 (the future's bytes),
//! the frames pipe (the task's fd [`FRAMES_FD`]) and the text pipe (the task's fd 1 and fd 2). From then on the
//! supervisor writes nothing: end of file on the control socket, however it comes about, means *stop
//! everything*. `p2p-jail` answers with [`Report`]s, the last of which is [`Report::Refused`] or [`Report::Ended`].
//!
//! There are no paths, names or policies in this crate other than those in the spec: the policy is made by the
//! supervisor's pure planner and can be compared whole in its tests.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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

/// Who makes the task's namespaces and mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Container {
    /// `p2p-jail` does, in the order of the module documentation of `stages`.
    Builtin(Builtin),
    /// Another program does (bubblewrap, for instance), and executes `p2p-jail confine` inside, which finds the
    /// confinement and the command on an inherited descriptor.
    External(External),
    /// Nobody does: the task shares the owner's world. Only the driver `none` says this.
    None {
        /// Become this user of the host before executing the command; see [`Builtin::become_user`].
        become_user: Option<Identity>,
    },
}

/// A root file system and a set of fresh namespaces, made by `p2p-jail`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builtin {
    /// Become this user of the host before anything else. Required when `p2p-jail` is started by root, whose
    /// tasks never run as uid 0; `None` keeps the identity of the supervisor.
    pub become_user: Option<Identity>,
    /// Who the task believes to be: the one user and group mapped into its user namespace.
    pub inside: Identity,
    /// The host name that the task sees, in its own UTS namespace.
    pub hostname: String,
    /// Applied in this order below a fresh tmpfs, which becomes the root and is made read-only at the end.
    pub mounts: Vec<Mount>,
    /// The task's way to the internet; `None` for no network at all.
    pub uplink: Option<Uplink>,
}

/// The most blocks that an [`Uplink`] closes.
pub const MAX_CLOSED: usize = 1024;

/// A way to the internet, over IPv4: see `stages::network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// The program pasta, absolute. It is started outside of the container, by the user that the task runs as on the host.
    pub program: PathBuf,
    /// Where no packet goes, at most [`MAX_CLOSED`]. Closed too is what this machine is and has around it at the start: the
    /// networks and addresses of its interfaces, and wherever its routes lead but the default.
    pub closed: Vec<Ipv4Block>,
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4Block {
    /// The first of them.
    pub address: [u8; 4],
    /// How many bits, at most 32.
    pub prefix: u8,
}

/// A user and a group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// One step in building the root file system. Targets are absolute paths inside the new root; parents are made as
/// needed (mode 0755). Nothing inside the new root is ever followed as a symbolic link while it is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A file or folder of the host, recursively, always `nosuid` and `nodev`. A source that does not exist is a
    /// failure of the stage, so the planner leaves out what is optional.
    Bind {
        /// Path on the host.
        from: PathBuf,
        /// Path inside.
        to: PathBuf,
        /// Whether the task may write there; otherwise the whole subtree is read-only.
        writable: bool,
    },
    /// An empty file system in memory, `nosuid` and `nodev`, mode 01777.
    Tmpfs {
        /// Path inside.
        to: PathBuf,
        /// Size limit in bytes.
        bytes: u64,
        /// Limit on the number of files, folders and links.
        inodes: u64,
    },
    /// `/proc` of the new process namespace.
    Proc {
        /// Path inside.
        to: PathBuf,
        /// Only the processes, none of the host's other files (`subset=pid`, Linux 5.8).
        only_processes: bool,
    },
    /// A folder with `null`, `full`, `random`, `urandom` (bound from the host), `fd`, `stdin`, `stdout`, `stderr`
    /// (links into `/proc/self/fd`) and nothing else. No `zero`: shared mappings of it would escape [`Watch::memory`].
    Devices {
        /// Path inside.
        to: PathBuf,
    },
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: PathBuf,
        /// Path inside.
        at: PathBuf,
    },
    /// A read-only file (mode 0444) with these contents, on the root tmpfs.
    File {
        /// Path inside.
        at: PathBuf,
        /// Its bytes.
        contents: Vec<u8>,
    },
    /// An empty folder (mode 0755) on the root tmpfs.
    Directory {
        /// Path inside.
        at: PathBuf,
    },
}

/// A program that makes the container and executes `p2p-jail confine` in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Become this user of the host before executing it; see [`Builtin::become_user`].
    pub become_user: Option<Identity>,
    /// The program and its arguments. `argv[0]` is an absolute path. The inner `p2p-jail confine` finds its orders on
    /// [`CONFINE_FD`], which the program must let through.
    pub argv: Vec<String>,
    /// The whole environment of that program.
    pub environment: Vec<(String, String)>,
    /// Contents that the program finds on [`FILES_FD`] and the descriptors after it, one each, at their beginning (files
    /// in memory): for what it is told to put into the container, so that nothing is written to the host.
    pub files: Vec<Vec<u8>>,
}

/// The descriptor on which the external program finds `p2p-jail` itself, to put it into the container: a mount of the
/// program would tell the task where on the host it lies.
pub const PROGRAM_FD: i32 = 6;

/// The descriptor of the first of [`External::files`].
pub const FILES_FD: i32 = 7;

/// The descriptor on which `p2p-jail confine` reads its [`Spec`] (a sealed memory file).
pub const CONFINE_FD: i32 = 4;

/// The descriptor on which `p2p-jail confine` reports its stages to the `p2p-jail run` outside.
pub const STATUS_FD: i32 = 5;

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
    /// Only for [`Container::Builtin`]; elsewhere the seccomp filter alone holds it.
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
    /// Leave TCP alone: for a task with an [`Uplink`].
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
/// [`Report::Asks`]. Whoever holds it answers with the errors named at [`Seccomp`]; if nobody does, every such call fails
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

/// Limits held from outside. Each is checked as soon as the task could have reached it: the interval of the memory
/// watch shrinks with what is left, down to a millisecond.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watch {
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
    /// Bytes of memory: of processes, of tmpfs, of the kernel for them. No swap.
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
    /// Attached: the descriptor on which the kernel asks, see [`Explain`].
    Asks,
    /// The command was executed.
    Running {
        /// Process id, on the host, of the outermost process of the task (its init, where it has one).
        pid: i32,
    },
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
    /// No descriptor other than 0, 1, 2 and [`FRAMES_FD`].
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

/// The most locks on files (fcntl(2)) that a task may hold under a watch of its memory: each is some 200 bytes of the
/// kernel's, which neither the watch nor every kernel's control groups count. SQLite holds a few for each database.
pub const MOST_FILE_LOCKS: u64 = 20_000;

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
    /// [`Watch::wall_time_ms`] passed.
    WallTime,
    /// [`Watch::cpu_time_ms`] passed.
    CpuTime,
    /// [`Watch::memory`] was reached, or that of the control group.
    Memory,
    /// The kernel killed a process of the task for want of memory, though its own limit was not reached: the machine, or
    /// a group around the worker's, had none left.
    MachineMemory,
    /// It held more than [`MOST_FILE_LOCKS`].
    FileLocks,
    /// The program that carries its packets ended (see [`Uplink`]), so that it had no network any more.
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
    /// How many processes and threads were not made because of the limit; known only with a control group.
    pub refused_processes: u64,
    /// Which of the tmpfs in [`Watch::tmpfs`] had no room for another byte or another file at one of the looks, or at the end:
    /// bit 0 is the first one. What was full only between two looks is not in it.
    pub full_tmpfs: u64,
}
