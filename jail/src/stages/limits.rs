//! Stage *Limits*: rlimits, CPU affinity, no core dumps.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::failure::{At, Outcome};
use crate::spec::{Confinement, Rlimit, Stage};

const STAGE: Stage = Stage::Limits;

/// Sets them all. Returns a line for the owner.
pub(crate) fn apply(confinement: &Confinement) -> Outcome<String> {
    set(Resource::RLIMIT_CORE, NO_CORE)?;
    if !confinement.cpus.is_empty() {
        pin(&confinement.cpus)?;
    }
    for (limit, value) in &confinement.rlimits {
        resources(*limit).iter().try_for_each(|resource| set(*resource, effective(*limit, *value)))?;
    }
    Ok(format!("{} rlimits, {} processors named", confinement.rlimits.len(), confinement.cpus.len()))
}

/// One byte rather than none: where `core_pattern` names a program, Linux starts it even for a limit of 0, but not for 1
/// (fs/coredump.c), and no dump is as small as one byte.
const NO_CORE: u64 = 1;

fn effective(limit: Rlimit, value: u64) -> u64 {
    if limit == Rlimit::CoreDump { value.max(NO_CORE) } else { value }
}

fn resources(limit: Rlimit) -> &'static [Resource] {
    match limit {
        Rlimit::AddressSpace => &[Resource::RLIMIT_AS],
        Rlimit::Processes => &[Resource::RLIMIT_NPROC],
        Rlimit::CpuSeconds => &[Resource::RLIMIT_CPU],
        Rlimit::FileSize => &[Resource::RLIMIT_FSIZE],
        Rlimit::OpenFiles => &[Resource::RLIMIT_NOFILE],
        Rlimit::CoreDump => &[Resource::RLIMIT_CORE],
        Rlimit::LockedMemory => &[Resource::RLIMIT_MEMLOCK],
        Rlimit::MessageQueues => &[Resource::RLIMIT_MSGQUEUE],
        Rlimit::PendingSignals => &[Resource::RLIMIT_SIGPENDING],
        Rlimit::Priority => &[Resource::RLIMIT_NICE, Resource::RLIMIT_RTPRIO],
        Rlimit::Stack => &[Resource::RLIMIT_STACK],
    }
}

/// Soft and hard limit alike, but never above the hard limit that is there: an ordinary user could not raise it.
fn set(resource: Resource, value: u64) -> Outcome<()> {
    let (_, hard) = getrlimit(resource).at(STAGE, || format!("getrlimit {resource:?}"))?;
    let value = value.min(hard);
    setrlimit(resource, value, value).at(STAGE, || format!("setrlimit {resource:?} to {value}"))
}

fn pin(cpus: &[u32]) -> Outcome<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu as usize).at(STAGE, || format!("processor {cpu}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).at(STAGE, || format!("sched_setaffinity to {cpus:?}"))
}
