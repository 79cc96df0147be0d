//! The sandbox that this program puts around itself, before it has read a byte of its peer, of a server or of p2p-worker.
//!
//! Every layer is tried, and what is missing is reported with its reason: whether that is good enough is p2p-worker's
//! decision, which sends its request only then.

use std::{collections::BTreeMap, error::Error};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope,
};
use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl::{set_dumpable, set_no_new_privs},
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid},
};
use p2p_wormhole_contract::message::Layer;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::failure::chain;

type Outcome = Result<String, Box<dyn Error>>;
type Apply = fn() -> Outcome;

/// `nobody`, which root becomes.
const NOBODY: u32 = 65534;

/// Address space in bytes: the program and its two threads with their stacks, and the longest message of a mailbox server.
const ADDRESS_SPACE: u64 = 1 << 30;
/// Sockets to the mailbox, to relays and to the peer, and what the executor needs.
const OPEN_FILES: u64 = 64;

/// Puts all layers in force that this machine has.
pub(crate) fn confine() -> Vec<Layer> {
    let layers: [(&str, Apply); 5] = [
        ("identity", identity),
        ("limits", limits),
        ("no_new_privs", no_new_privileges),
        ("Landlock", landlock),
        ("seccomp", seccomp),
    ];
    let report = |(name, apply): (&str, Apply)| {
        let (enforced, detail) = match apply() {
            Ok(detail) => (true, detail),
            Err(error) => (false, chain(&*error)),
        };
        Layer { name: name.to_owned(), enforced, detail }
    };
    layers.into_iter().map(report).collect()
}

/// Root becomes nobody, and loses every capability by that (capabilities(7)).
fn identity() -> Outcome {
    if !geteuid().is_root() {
        return Ok(format!("the ordinary user {}", geteuid()));
    }
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok("root became nobody".to_owned())
}

/// No core dump, no file written, bounded memory and descriptors; nobody of this user may look into this process.
fn limits() -> Outcome {
    set_dumpable(false)?;
    // One byte: with 0, Linux would still start a program that `core_pattern` names (fs/coredump.c).
    let limits = [
        (Resource::RLIMIT_CORE, 1),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_AS, ADDRESS_SPACE),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ];
    for (resource, value) in limits {
        let value = value.min(getrlimit(resource)?.1);
        setrlimit(resource, value, value)?;
    }
    Ok("1 GiB of address space, 64 descriptors, no core dump, no file larger than nothing".to_owned())
}

fn no_new_privileges() -> Outcome {
    set_no_new_privs()?;
    Ok("no exec gives a right".to_owned())
}

/// No right to any file; no TCP port but one of the kernel's choice; no signal and no abstract socket beyond this program.
/// Outgoing connections are not held: the ports of peers and relays are whatever those say.
fn landlock() -> Outcome {
    let newest = ABI::V7;
    let status = landlock::Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(newest))?
        .create()?
        .add_rule(NetPort::new(0, AccessNet::BindTcp))?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok("no file, no port of its own choice, no signal to others".to_owned()),
        RulesetStatus::PartiallyEnforced => {
            Err("only a part: this kernel's Landlock is older than ABI 6 (Linux 6.12)".into())
        }
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock, or it is not started with it".into()),
    }
}

/// Calls that are allowed whatever their arguments. Everything that is on no list gets `ENOSYS`.
const ALLOWED: &[i64] = &[
    // Pipes and sockets that are there.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_fcntl,
    libc::SYS_dup,
    // Connections.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // The executor.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_ppoll,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    // Memory and threads of the program itself.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// The thread that `pthread_create` makes, and nothing that is a process of its own.
const THREAD: u64 = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;

/// Calls that are allowed with certain arguments: the first is call, argument and what it must be.
fn with_arguments() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let when = |argument, operator, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    let equal = |argument, value: i32| when(argument, SeccompCmpOp::Eq, u64::from(value.cast_unsigned()));
    let kind = |argument| {
        let stream = libc::SOCK_STREAM.cast_unsigned().into();
        when(argument, SeccompCmpOp::MaskedEq(0xf), stream) // The rest are SOCK_CLOEXEC and SOCK_NONBLOCK.
    };
    let mut rules = BTreeMap::new();
    rules.insert(
        libc::SYS_socket,
        vec![
            SeccompRule::new(vec![equal(0, libc::AF_INET)?, kind(1)?])?,
            SeccompRule::new(vec![equal(0, libc::AF_INET6)?, kind(1)?])?,
        ],
    );
    rules.insert(
        libc::SYS_clone, // clone3, whose arguments no filter can see, gets ENOSYS, and glibc then takes this one.
        vec![SeccompRule::new(vec![when(0, SeccompCmpOp::MaskedEq(THREAD), THREAD)?])?],
    );
    rules.insert(libc::SYS_prctl, vec![SeccompRule::new(vec![equal(0, libc::PR_SET_NAME)?])?]);
    let nonblocking = when(1, SeccompCmpOp::Eq, libc::FIONBIO)?;
    rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(vec![nonblocking])?]);
    Ok(rules)
}

fn seccomp() -> Outcome {
    let mut rules = with_arguments()?;
    rules.extend(ALLOWED.iter().map(|number| (*number, Vec::new())));
    let count = rules.len();
    let denied = SeccompAction::Errno(Errno::ENOSYS as u32);
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(format!("{count} system calls, of sockets only TCP"))
}
