//! What is known of this machine before anything is planned.
//!
//! [`Machine`] is plain data: the planners are pure functions of it, and tests make one up. Finding it out reads a few
//! files of `/proc`, asks `bwrap` for its version, and starts nothing else; control groups are made ready ([`Mechanism`]).

mod programs;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::{Pid, getegid, geteuid},
};
use p2p_jail::spec::Identity;

use self::programs::{find_jail, program_on, reachable_jail};
use super::{
    cgroup::Mechanism,
    habitat::Habitat,
    profile::{Profile, Readable, Surroundings, unsafe_to_share},
};

/// The unprivileged user of the host as which the tasks of root run, unless the owner names another.
pub const NOBODY: Identity = Identity { uid: 65534, gid: 65534 };

/// Where root's worker keeps a copy of `p2p-jail` that its tasks' user can execute.
const ROOT_RUNTIME: &str = "/run/p2p-worker";

/// Files of `/proc` that tell of the host, its boot, its disks and its users rather than of the task's processes, and that
/// nothing in R reads. Which of them there are depends on how the kernel was built.
pub(super) const KERNEL_FILES: [&str; 8] = [
    "/proc/cmdline",
    "/proc/diskstats",
    "/proc/kallsyms",
    "/proc/key-users",
    "/proc/keys",
    "/proc/modules",
    "/proc/partitions",
    "/proc/sys/kernel/random/boot_id",
];

/// What is known of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// The program `p2p-jail`.
    pub jail: PathBuf,
    /// The same program where the user that tasks run as can execute it.
    pub jail_for_tasks: PathBuf,
    /// The supervisor's effective user and group.
    pub me: Option<Identity>,
    /// As whom tasks run when the supervisor is root; `None` otherwise.
    pub become_user: Option<Identity>,
    /// The owner's places, none of which is ever shared.
    pub surroundings: Surroundings,
    /// Such as `6.1.0-18-amd64`.
    pub kernel: String,
    /// The version of the original that a distribution's kernel was made of, where it says so.
    pub mainline: Option<(u32, u32, u32)>,
    /// The kernel's Landlock ABI; `None` without Landlock.
    pub landlock_abi: Option<u32>,
    /// The CPUs that this process may use.
    pub cpus: Vec<u32>,
    /// Bytes of memory.
    pub memory: u64,
    /// What surrounds it: containers, switches, filters.
    pub habitat: Habitat,
    /// The program bubblewrap.
    pub bubblewrap: Option<Bubblewrap>,
    /// The program pasta, which carries the packets of tasks that may reach the internet.
    pub pasta: Option<PathBuf>,
    /// Whether every user may open `/dev/net/tun`, which pasta does.
    pub tun: bool,
    /// The folder of the host in which the driver `none` puts a task's files.
    pub bare_folder: Option<PathBuf>,
    /// What holds the limits of tasks.
    pub limits: Mechanism,
    /// The root file system that takes the place of the host's own in what profiles share; `None` for the host's own.
    pub root: Option<PathBuf>,
    /// What is at the paths that were asked about; what is absent is not in it.
    pub paths: BTreeMap<PathBuf, HostPath>,
}

/// The installed bubblewrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bubblewrap {
    /// The program, absolute.
    pub path: PathBuf,
    /// Its version.
    pub version: (u32, u32, u32),
    /// Whether it is set-uid root, as on systems where ordinary users have no user namespaces.
    pub setuid: bool,
}

/// What is at a path of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPath {
    /// What it is, itself.
    pub kind: PathKind,
    /// Where it is, all symbolic links followed.
    pub real: PathBuf,
}

/// The kinds of files that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathKind {
    /// A folder.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link that says this.
    Symlink(PathBuf),
    /// A socket, a pipe or a device.
    Special,
}

/// What the caller knows and [`Machine::discover`] cannot find out.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The program `p2p-jail`; otherwise the one beside the running program.
    pub jail: Option<PathBuf>,
    /// As whom the tasks of root run; otherwise [`NOBODY`].
    pub become_user: Option<Identity>,
    /// The owner's places.
    pub surroundings: Surroundings,
    /// Leave control groups alone, and hold the limits with rlimits and the watch.
    pub no_control_groups: bool,
    /// `$PATH`, where bubblewrap is looked for.
    pub search_path: Option<std::ffi::OsString>,
    /// A root file system to be used in place of the host's own.
    pub root: Option<PathBuf>,
}

/// Why nothing can be planned on this machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// There is no `p2p-jail`.
    #[error("the program p2p-jail is not at {}; it belongs beside p2p-worker", path.display())]
    NoJail {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is no such root file system, or it cannot be used.
    #[error("{} cannot be the tasks' root file system: {why}", path.display())]
    Root {
        /// What was given.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A user for the tasks was named by somebody who cannot give them one.
    #[error("only root's tasks can run as another user; yours run as you")]
    NotRoot,
    /// The tasks' user was given as root.
    #[error("tasks never run as uid 0: name an unprivileged account")]
    RootTasks,
    /// A file that every Linux has could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The copy of `p2p-jail` for root's tasks could not be made.
    #[error("p2p-jail at {} cannot be executed by uid {uid}, as whom root's tasks run, and cannot be copied to {ROOT_RUNTIME}; install it to /usr/local/bin", jail.display())]
    Copy {
        /// The program.
        jail: PathBuf,
        /// The tasks' user.
        uid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Machine {
    /// This machine as the running program sees it, with the places of its owner.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn of(surroundings: Surroundings) -> Result<Self, MachineError> {
        Self::discover(&Known { surroundings, search_path: std::env::var_os("PATH"), ..Known::default() })
    }

    /// Finds out all but what is at the paths of a profile.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn discover(known: &Known) -> Result<Self, MachineError> {
        let jail = find_jail(known)?;
        let me = Identity { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        if me.uid != 0 && known.become_user.is_some() {
            return Err(MachineError::NotRoot);
        }
        let become_user = (me.uid == 0).then(|| known.become_user.unwrap_or(NOBODY));
        if become_user.is_some_and(|user| user.uid == 0 || user.gid == 0) {
            return Err(MachineError::RootTasks);
        }
        let jail_for_tasks = match become_user {
            Some(user) => reachable_jail(&jail, user).map_err(|source| MachineError::Copy {
                jail: jail.clone(),
                uid: user.uid,
                source,
            })?,
            None => jail.clone(),
        };
        let mut machine = Self {
            jail,
            jail_for_tasks,
            me: Some(me),
            become_user,
            surroundings: known.surroundings.clone(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            mainline: mainline(
                &fs::read_to_string("/proc/version_signature").unwrap_or_default(),
                &fs::read_to_string("/proc/version").unwrap_or_default(),
            ),
            landlock_abi: p2p_jail::landlock_abi(),
            cpus: allowed_cpus(),
            memory: total_memory(&read("/proc/meminfo")?),
            habitat: Habitat::discover(Path::new("/")),
            bubblewrap: Bubblewrap::discover(known.search_path.as_deref()),
            pasta: known.search_path.as_deref().and_then(|path| program_on(path, "pasta")),
            tun: fs::metadata("/dev/net/tun").is_ok_and(|found| found.mode() & 0o006 == 0o006),
            bare_folder: None,
            limits: if known.no_control_groups { Mechanism::default() } else { Mechanism::choose(become_user) },
            root: known.root.as_deref().map(|root| usable_root(root, &known.surroundings)).transpose()?,
            paths: BTreeMap::new(),
        };
        let program = machine.jail_for_tasks.clone();
        machine.look([program.as_path()].into_iter().chain(KERNEL_FILES.map(Path::new)));
        Ok(machine)
    }

    /// From now on, the folders of control groups are removed even if this program is killed (`p2p-jail sweep`).
    pub fn sweep_after_death(&self) {
        if let Some(groups) = self.limits.control_groups() {
            groups.sweep_after_death(&self.jail);
        }
    }

    /// Looks what is at these paths.
    pub fn look<'path>(&mut self, paths: impl IntoIterator<Item = &'path Path>) {
        for path in paths {
            if let Some(found) = HostPath::at(path) {
                self.paths.insert(path.to_owned(), found);
            }
        }
    }

    /// Looks what is at the paths that a profile shares.
    pub fn look_for(&mut self, profile: &Profile) {
        let paths: Vec<PathBuf> = profile.read.iter().map(|(path, readable)| self.shared(path, readable)).collect();
        self.look(paths.iter().map(PathBuf::as_path));
    }

    /// Where what tasks find at this path is on the host: there, or in the root file system that is used instead.
    #[must_use]
    pub fn outside(&self, inside: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(inside.strip_prefix("/").unwrap_or(inside)),
            None => inside.to_owned(),
        }
    }

    /// The same for what a profile shares at this path.
    pub(super) fn shared(&self, path: &Path, readable: &Readable) -> PathBuf {
        readable.from.clone().unwrap_or_else(|| self.outside(path))
    }

    /// Whether the kernel is at least this version.
    #[must_use]
    pub fn kernel_at_least(&self, major: u32, minor: u32) -> bool {
        numbers(&self.kernel).is_some_and(|(a, b, _)| (a, b) >= (major, minor))
    }

    /// As whom tasks run on the host.
    #[must_use]
    pub fn task_user(&self) -> Option<Identity> {
        self.become_user.or(self.me)
    }
}

impl HostPath {
    fn at(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        let kind = if found.is_symlink() {
            PathKind::Symlink(fs::read_link(path).ok()?)
        } else if found.is_dir() {
            PathKind::Directory
        } else if found.is_file() {
            PathKind::File
        } else {
            PathKind::Special
        };
        Some(Self { kind, real: fs::canonicalize(path).ok()? })
    }
}

/// A root file system without links in its path, that may be shared.
fn usable_root(root: &Path, surroundings: &Surroundings) -> Result<PathBuf, MachineError> {
    let refuse = |why: String| MachineError::Root { path: root.to_owned(), why };
    let real = fs::canonicalize(root).map_err(|error| refuse(error.to_string()))?;
    match unsafe_to_share(&real, surroundings) {
        Some(why) => Err(refuse(why)),
        None if !real.join("usr").is_dir() => Err(refuse("it has no folder usr".to_owned())),
        None => Ok(real),
    }
}

fn read(path: &str) -> Result<String, MachineError> {
    fs::read_to_string(path).map_err(|source| MachineError::Read { path: path.into(), source })
}

/// The CPUs of this process. Each worker begins with another one, or all workers' first slots would share the first CPU.
fn allowed_cpus() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    let cpus = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    let mut cpus: Vec<u32> = cpus.filter_map(|cpu| u32::try_from(cpu).ok()).collect();
    let first = usize::try_from(std::process::id()).unwrap_or_default() % cpus.len().max(1);
    cpus.rotate_left(first);
    cpus
}

fn total_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")).and_then(|number| number.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// The kernel that a distribution's was made of: Ubuntu's `/proc/version_signature` ends in it (`Ubuntu 5.15.0-91.101-generic
/// 5.15.131`), Debian's `/proc/version` names it (`… Debian 6.1.76-1 (2024-02-01)`).
fn mainline(signature: &str, version: &str) -> Option<(u32, u32, u32)> {
    let ubuntu = signature.split_whitespace().nth(2).and_then(numbers);
    let debian = || numbers(version.rsplit_once(" Debian ")?.1);
    ubuntu.or_else(debian)
}

/// The first three numbers of a version.
pub(super) fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    Some((parts.next()?, parts.next()?, parts.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(numbers("6.1.0-18-amd64"), Some((6, 1, 0)));
        assert_eq!(numbers("0.8.0"), Some((0, 8, 0)));
        assert_eq!(numbers("6.12-rc1"), Some((6, 12, 0)));
        assert_eq!(numbers("abc"), None);
        assert_eq!(mainline("Ubuntu 5.15.0-91.101-generic 5.15.131\n", ""), Some((5, 15, 131)));
        let debian = "Linux version 6.1.0-18-amd64 (x@y) (gcc-12) #1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)";
        assert_eq!((mainline("", debian), mainline("", "Linux version 6.9.1")), (Some((6, 1, 76)), None));
        let machine = Machine { kernel: "5.15.0-91-generic".to_owned(), ..Machine::default() };
        assert!(machine.kernel_at_least(5, 14) && !machine.kernel_at_least(6, 0));
    }

    #[test]
    fn memory() {
        assert_eq!(total_memory("MemFree: 3 kB\nMemTotal:       16384 kB\n"), 16 << 20);
        assert_eq!(total_memory(""), 0);
    }
}
