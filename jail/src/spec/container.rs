//! Where a task lives: what makes its namespaces and mounts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// (links into `/proc/self/fd`) and nothing else. No `zero`: shared mappings of it would escape [`Watch::memory`](super::Watch::memory).
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

/// The descriptor on which `p2p-jail confine` reads its [`Spec`](super::Spec) (a sealed memory file).
pub const CONFINE_FD: i32 = 4;

/// The descriptor on which `p2p-jail confine` reports its stages to the `p2p-jail run` outside.
pub const STATUS_FD: i32 = 5;
