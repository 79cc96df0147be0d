//! Stage *Seccomp*: which system calls the task may make, and with which arguments.
//!
//! Two filters, since the kernel takes the most severe answer of all: one denies combinations of arguments (`EPERM`), the other
//! allows calls by number (all else: `ENOSYS`). Both kill a process that uses the calls of another architecture. The
//! allow-list goes last, as seccomp(2) itself need not be on it.
//!
//! To explain ([`crate::spec::Explain`]) the two are one program, since only one filter of a process can ask; it asks where the
//! two would deny. Sending the descriptor away takes sendmsg(2), and what follows seccomp(2): a second filter then denies both.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::control::chain;
use crate::failure::{Failure, Outcome};
use crate::spec::{Condition, DenyRule, Explain, Seccomp, Stage, Test};
use crate::stages::allow_list;
use crate::status::{Note, Status};
use crate::sys;

const STAGE: Stage = Stage::Seccomp;

/// What this program itself needs between the filter and the exec, failures included.
const NEEDED: [(i64, &str); 3] =
    [(libc::SYS_execve, "execve"), (libc::SYS_write, "write"), (libc::SYS_exit_group, "exit_group")];

/// The bit that marks the numbers of x32 on x86-64.
const X32: i64 = 0x4000_0000;

/// All that the init does for the rest of its life; anything else kills it, and all with it.
const INIT: [i64; 16] = [
    libc::SYS_wait4,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fcntl, // std's check that what it closes is open
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // The memory of the program itself.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_futex,
];

/// The compiled filters.
pub(crate) struct Filters {
    deny: Option<BpfProgram>,
    allow: BpfProgram,
    /// Instead of both: what asks, and what then denies sending descriptors.
    asking: Option<(BpfProgram, BpfProgram)>,
    summary: String,
}

impl Filters {
    /// Compiles, and refuses what could not work or would be a hole.
    pub(crate) fn compile(seccomp: &Seccomp) -> Outcome<Self> {
        if let Some((_, name)) = NEEDED.iter().find(|(number, _)| !seccomp.allow.contains(number)) {
            return Err(refused(format!("the list of allowed system calls lacks {name}")));
        }
        if seccomp.allow.iter().any(|number| *number < 0 || number & X32 != 0 || *number == libc::SYS_clone3) {
            return Err(refused("x32 numbers and clone3 (whose arguments no filter can see) cannot be allowed"));
        }
        if let Some(rule) = seccomp.deny.iter().find(|rule| !(0..X32).contains(&rule.syscall)) {
            return Err(refused(format!("{} is no system call that arguments could be denied of", rule.syscall)));
        }
        let deny = rules(&seccomp.deny)?;
        let summary =
            format!("{} system calls allowed, {} rules deny arguments", seccomp.allow.len(), seccomp.deny.len());
        let deny = (!deny.is_empty()).then(|| deny_program(deny)).transpose()?;
        let explain = seccomp.explain.as_ref();
        Ok(Self {
            asking: explain.map(|explain| asking(seccomp, explain, deny.as_deref().unwrap_or_default())).transpose()?,
            allow: allow_list::program(&seccomp.allow, SeccompAction::Errno(Errno::ENOSYS as u32).into())?,
            deny,
            summary,
        })
    }

    /// Puts them in force. Returns a line for the owner.
    pub(crate) fn apply(&self, status: &Status) -> Outcome<&str> {
        if let Some((asking, no_more)) = &self.asking {
            let failed =
                |errno: Errno| Failure { errno: errno as i32, ..refused("seccomp, with a listener (Linux 5.5)") };
            let listener = sys::install_filter(asking, true).map_err(failed)?;
            let listener = listener.ok_or_else(|| refused("seccomp gave no listener"))?;
            status.send(&Note::Asks, &[listener.as_raw_fd()]).map_err(failed)?;
            sys::install_filter(no_more, false).map_err(failed)?;
            return Ok(&self.summary);
        }
        for filter in self.deny.iter().chain([&self.allow]) {
            install(filter)?;
        }
        Ok(&self.summary)
    }
}

/// `SECCOMP_RET_USER_NOTIF`, which seccompiler does not have.
const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;

/// The two filters as one that asks where they deny, and the one that follows.
fn asking(seccomp: &Seccomp, explain: &Explain, deny: &[sock_filter]) -> Outcome<(BpfProgram, BpfProgram)> {
    let ruled = |number: &i64| seccomp.deny.iter().any(|rule| rule.syscall == *number);
    if explain.watch.iter().any(|number| ruled(number) || !seccomp.allow.contains(number)) {
        return Err(refused("only calls that are allowed, whatever their arguments, can be watched"));
    }
    let transport = [libc::SYS_sendmsg, libc::SYS_seccomp];
    let allowed = seccomp.allow.iter().filter(|number| !explain.watch.contains(number)).chain(&transport);
    let allowed = allow_list::program(&allowed.copied().collect::<Vec<_>>(), ASK)?;
    let length = deny.len();
    let joined = deny.iter().enumerate().map(|(at, instruction)| match *instruction {
        sock_filter { code, k, .. } if code == allow_list::RETURN && k == u32::from(SeccompAction::Allow) => {
            allow_list::jump(length - at - 1)
        }
        sock_filter { code, k, .. } if code == allow_list::RETURN && k == u32::from(DENIED) => {
            Ok(sock_filter { k: ASK, ..*instruction })
        }
        ref other => Ok(sock_filter { code: other.code, jt: other.jt, jf: other.jf, k: other.k }),
    });
    let mut program = joined.collect::<Outcome<BpfProgram>>()?;
    program.extend(allowed);
    let forbidden: Vec<i64> = transport.into_iter().filter(|number| !seccomp.allow.contains(number)).collect();
    Ok((program, allow_list::all_but(&forbidden, SeccompAction::Errno(Errno::ENOSYS as u32).into())?))
}

/// Reduces this process to an init that reaps.
pub(crate) fn only_reap() -> Outcome<()> {
    install(&allow_list::program(&INIT, SeccompAction::KillProcess.into())?)
}

fn rules(deny: &[DenyRule]) -> Outcome<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
    for DenyRule { syscall, conditions } in deny {
        let conditions = conditions.iter().map(condition).collect::<Result<Vec<_>, _>>();
        let rule = conditions.and_then(SeccompRule::new).map_err(|error| refused(chain(&error)))?;
        rules.entry(*syscall).or_default().push(rule);
    }
    Ok(rules)
}

fn condition(Condition { argument, test }: &Condition) -> Result<SeccompCondition, BackendError> {
    let (operator, value) = match *test {
        Test::Equal(value) => (SeccompCmpOp::Eq, value),
        Test::NotEqual(value) => (SeccompCmpOp::Ne, value),
        Test::BitSet(bit) => (SeccompCmpOp::MaskedEq(bit.into()), bit),
    };
    SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator, value.into())
}

/// What a denied combination of arguments gets.
const DENIED: SeccompAction = SeccompAction::Errno(Errno::EPERM as u32);

fn deny_program(rules: BTreeMap<i64, Vec<SeccompRule>>) -> Outcome<BpfProgram> {
    let compile = || {
        let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
        BpfProgram::try_from(SeccompFilter::new(rules, SeccompAction::Allow, DENIED, architecture)?)
    };
    compile().map_err(|error: BackendError| refused(chain(&error)))
}

fn install(filter: &BpfProgram) -> Outcome<()> {
    seccompiler::apply_filter(filter).map_err(|error| {
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        let errno = cause.and_then(std::io::Error::raw_os_error).unwrap_or(0);
        Failure { errno, ..refused(format!("seccomp: {error}")) }
    })
}

fn refused(what: impl Into<String>) -> Failure {
    Failure::new(STAGE, what)
}
