//! Names of system calls and of their arguments' values, turned into this architecture's numbers.
//!
//! A profile speaks of names. A name that this architecture does not have but another one does is left out; a name
//! that nobody knows is a typing error, and some are never allowed, whatever a profile says.

use std::str::FromStr;

pub(super) use syscalls::Sysno;

/// What a name stands for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// This number.
    Number(i64),
    /// Nothing on this architecture, but it is a system call of another.
    Elsewhere,
}

/// Why a name cannot be allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No architecture that we know has it.
    #[error("no system call is named \"{name}\"")]
    Unknown {
        /// The name as written.
        name: String,
    },
    /// It would open the sandbox or the kernel.
    #[error("the system call {name} can never be allowed: {why}")]
    Never {
        /// The name.
        name: String,
        /// What it would do.
        why: &'static str,
    },
    /// An argument's value is not in our table of constants.
    #[error("\"{name}\" is not a constant that profiles may use; write its number")]
    Constant {
        /// The name as written.
        name: String,
    },
}

/// The family of IPv4's sockets.
pub(super) const AF_INET: u32 = 2;

/// System calls of the older architectures, which the newer ones (`aarch64`, `riscv64`) never had.
const ELSEWHERE: [&str; 46] = [
    "access",
    "alarm",
    "arch_prctl",
    "chmod",
    "chown",
    "creat",
    "dup2",
    "epoll_create",
    "epoll_wait",
    "eventfd",
    "fadvise64",
    "fork",
    "fstat",
    "fstatat",
    "futimesat",
    "getdents",
    "getpgrp",
    "getrlimit",
    "lchown",
    "link",
    "lstat",
    "mkdir",
    "mknod",
    "newfstatat",
    "open",
    "pause",
    "pipe",
    "poll",
    "readlink",
    "rename",
    "renameat",
    "rmdir",
    "select",
    "setrlimit",
    "signalfd",
    "stat",
    "symlink",
    "time",
    "umask",
    "unlink",
    "utime",
    "utimes",
    "vfork",
    "ustat",
    "_llseek",
    "fcntl64",
];

/// What no profile may allow.
const NEVER: [(&str, &str); 43] = {
    const NAMESPACES: &str = "it makes or enters namespaces";
    const MOUNTS: &str = "it changes what is mounted";
    const KERNEL: &str = "it changes the kernel or the machine";
    const OTHERS: &str = "it reaches into other processes";
    const SURFACE: &str = "it is a way into the kernel that no seccomp rule can look into";
    [
        ("clone3", "its flags are in memory, where no rule can see them; programs fall back to clone"),
        ("unshare", NAMESPACES),
        ("setns", NAMESPACES),
        ("mount", MOUNTS),
        ("umount2", MOUNTS),
        ("pivot_root", MOUNTS),
        ("chroot", MOUNTS),
        ("open_tree", MOUNTS),
        ("move_mount", MOUNTS),
        ("fsopen", MOUNTS),
        ("fsconfig", MOUNTS),
        ("fsmount", MOUNTS),
        ("fspick", MOUNTS),
        ("mount_setattr", MOUNTS),
        ("swapon", KERNEL),
        ("swapoff", KERNEL),
        ("reboot", KERNEL),
        ("kexec_load", KERNEL),
        ("kexec_file_load", KERNEL),
        ("init_module", KERNEL),
        ("finit_module", KERNEL),
        ("delete_module", KERNEL),
        ("settimeofday", KERNEL),
        ("clock_settime", KERNEL),
        ("adjtimex", KERNEL),
        ("clock_adjtime", KERNEL),
        ("sethostname", KERNEL),
        ("setdomainname", KERNEL),
        ("iopl", KERNEL),
        ("ioperm", KERNEL),
        ("acct", KERNEL),
        ("quotactl", KERNEL),
        ("ptrace", OTHERS),
        ("process_vm_readv", OTHERS),
        ("process_vm_writev", OTHERS),
        ("pidfd_getfd", OTHERS),
        ("open_by_handle_at", "it opens files that are not mounted here"),
        ("io_uring_setup", SURFACE),
        ("bpf", SURFACE),
        ("userfaultfd", SURFACE),
        ("perf_event_open", SURFACE),
        ("keyctl", "it reaches the owner's keyrings"),
        ("sched_setaffinity", "it would undo the limit on CPUs"),
    ]
};

/// Values that rules may name (the generic Linux headers: x86, arm, riscv, loongarch, s390).
const CONSTANTS: [(&str, u32); 42] = [
    ("AF_INET", AF_INET),
    ("AF_INET6", 10),
    ("AF_UNIX", 1),
    ("CLONE_NEWNS", 0x0002_0000),
    ("CLONE_NEWCGROUP", 0x0200_0000),
    ("CLONE_NEWUTS", 0x0400_0000),
    ("CLONE_NEWIPC", 0x0800_0000),
    ("CLONE_NEWUSER", 0x1000_0000),
    ("CLONE_NEWPID", 0x2000_0000),
    ("CLONE_NEWNET", 0x4000_0000),
    ("F_NOTIFY", 1026),
    ("F_OFD_SETLK", 37),
    ("F_OFD_SETLKW", 38),
    ("F_SETLEASE", 1024),
    ("F_SETPIPE_SZ", 1031),
    ("FIOCLEX", 0x5451),
    ("FIONBIO", 0x5421),
    ("FIONCLEX", 0x5450),
    ("FIONREAD", 0x541b),
    ("MADV_PAGEOUT", 21),
    ("MAP_ANONYMOUS", 0x20),
    ("MAP_SHARED", 0x1),
    ("PR_GET_DUMPABLE", 3),
    ("PR_GET_NAME", 16),
    ("PR_GET_NO_NEW_PRIVS", 39),
    ("PR_GET_PDEATHSIG", 2),
    ("PR_SET_CHILD_SUBREAPER", 36),
    ("PR_SET_NAME", 15),
    ("PR_SET_NO_NEW_PRIVS", 38),
    ("PR_SET_PDEATHSIG", 1),
    ("PR_SET_TIMERSLACK", 29),
    ("PR_SET_VMA", 0x5356_4d41),
    ("S_IFCHR", 0x2000),
    ("SO_RCVBUF", 8),
    ("SO_RCVBUFFORCE", 33),
    ("SO_SNDBUF", 7),
    ("SO_SNDBUFFORCE", 32),
    ("TCGETS", 0x5401),
    ("TIOCGPGRP", 0x540f),
    ("TIOCGWINSZ", 0x5413),
    ("TIOCLINUX", 0x541c),
    ("TIOCSTI", 0x5412),
];

/// Values of arguments that no profile may except from a rule, and why.
const NEVER_EXCEPTED: [(&str, u32, &str); 5] = [
    ("ioctl", 0x5412, "it types into a terminal (CVE-2017-5226)"),
    ("ioctl", 0x541c, "it pastes into a terminal (CVE-2023-28100)"),
    ("ioctl", 0x5423, "it loads line disciplines into the kernel (CVE-2017-2636)"),
    ("prctl", 4, "a process that is not dumpable hides from the watch"),
    ("prctl", 35, "it changes what the kernel believes of the process's memory"),
];

/// The families of sockets that a profile may allow.
const FAMILIES: [u32; 3] = [1, 2, 10];

/// Why this value of an argument of this call must stay denied; `None` when a profile may except it.
pub(super) fn never_excepted(call: &str, value: u32) -> Option<&'static str> {
    if call.starts_with("socket") && !FAMILIES.contains(&value) {
        return Some("only AF_UNIX, AF_INET and AF_INET6 can be allowed; the others reach the kernel or the host");
    }
    let found = NEVER_EXCEPTED.iter().find(|(name, never, _)| *name == call && *never == value);
    found.map(|(_, _, why)| *why)
}

/// The kernel's name of a call.
pub(super) fn name(number: i64) -> Option<String> {
    Sysno::new(usize::try_from(number).ok()?).map(|call| call.name().to_owned())
}

/// The name of a value, where the table has one for this call.
pub(super) fn constant_name(call: &str, value: u32) -> Option<&'static str> {
    let prefix = match call {
        "socket" | "socketpair" => "AF_",
        "prctl" => "PR_",
        "fcntl" => "F_",
        "ioctl" => "T",
        _ => return None,
    };
    CONSTANTS.iter().find(|(name, known)| *known == value && name.starts_with(prefix)).map(|(name, _)| *name)
}

/// Looks a system call up by its kernel name.
///
/// # Errors
/// [`CallError::Unknown`] and [`CallError::Never`].
pub(super) fn call(name: &str) -> Result<Call, CallError> {
    if let Some((_, why)) = NEVER.iter().find(|(never, _)| *never == name) {
        return Err(CallError::Never { name: name.to_owned(), why });
    }
    match Sysno::from_str(name) {
        Ok(number) => Ok(Call::Number(i64::from(number.id()))),
        Err(()) if ELSEWHERE.contains(&name) => Ok(Call::Elsewhere),
        Err(()) => Err(CallError::Unknown { name: name.to_owned() }),
    }
}

/// Looks up the value of a named constant.
///
/// # Errors
/// [`CallError::Constant`].
pub(super) fn constant(name: &str) -> Result<u32, CallError> {
    let found = CONSTANTS.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| CallError::Constant { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_allowed_exists() {
        for (name, _) in NEVER {
            Sysno::from_str(name).expect(name);
            call(name).expect_err(name);
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn names_of_elsewhere_are_real() {
        // These three are of other architectures than the one that the test runs on.
        let others = ["fstatat", "_llseek", "fcntl64"];
        for name in ELSEWHERE {
            assert_eq!(Sysno::from_str(name).is_err(), others.contains(&name), "{name}");
        }
        assert_eq!(call("read"), Ok(Call::Number(0)));
        assert_eq!(call("fcntl64"), Ok(Call::Elsewhere));
        call("raed").expect_err("a typing error");
    }
}
