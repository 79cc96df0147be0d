//! What every driver's innermost process gives up, and what is watched from outside: the same for all that confine.

use std::{collections::BTreeMap, time::Duration};

use p2p_jail::spec::{Command, Confinement, ControlGroup, Controller, Landlock, Rlimit, Watch};

use super::world::World;
use crate::sandbox::{machine::Machine, profile::Profile, task::Task};

/// The memory that a task may use here, in bytes: the profile's limit, or three quarters of the machine's if that is
/// less, so that the task is stopped before the machine is.
pub(in crate::sandbox) fn memory_limit(profile: &Profile, machine: &Machine) -> u64 {
    profile.limits.memory.min(machine.memory / 4 * 3)
}

/// Whether the plan has a Landlock ruleset: where the kernel has it, or the profile insists (the stage then fails).
pub(in crate::sandbox) fn uses_landlock(profile: &Profile, machine: &Machine) -> bool {
    let enough = machine.landlock_abi.is_some_and(|abi| abi >= profile.landlock.minimum_abi);
    enough || profile.landlock.required
}

pub(super) fn confinement(profile: &Profile, task: &Task, machine: &Machine, world: &World) -> Confinement {
    let landlock = Landlock { minimum_abi: profile.landlock.minimum_abi, ..world.landlock.clone() };
    Confinement {
        rlimits: rlimits(profile, machine),
        cpus: cpus(profile, task, machine),
        drop_capabilities: true,
        no_nested_user_namespaces: false,
        landlock: uses_landlock(profile, machine).then_some(landlock),
        seccomp: Some(profile.seccomp()),
    }
}

pub(super) fn watch(profile: &Profile, machine: &Machine, world: &World) -> Watch {
    Watch {
        waits: false,
        wall_time_ms: Some(milliseconds(profile.limits.wall_time)),
        cpu_time_ms: Some(milliseconds(profile.limits.cpu_time)),
        memory: Some(memory_limit(profile, machine)),
        tmpfs: world.tmpfs.clone(),
    }
}

/// The groups of a task with so many processes that belong to its container and not to its process namespace.
pub(super) fn control_group(profile: &Profile, machine: &Machine, outside: u64) -> Option<ControlGroup> {
    let groups = machine.limits.control_groups()?;
    Some(ControlGroup {
        version: groups.version,
        hierarchies: groups.hierarchies.clone(),
        memory: memory_limit(profile, machine),
        processes: u64::from(profile.limits.processes) + outside,
        cpus: profile.limits.cpus,
    })
}

/// The command with the whole of its environment: the profile's variables win over the task's.
pub(super) fn command(profile: &Profile, task: &Task) -> Command {
    let mut environment: BTreeMap<String, String> = task.command.environment.iter().cloned().collect();
    environment.extend(profile.environment.clone());
    Command { environment: environment.into_iter().collect(), ..task.command.clone() }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// By how much more than its control group the rlimit on processes allows, so that the group's limit is the one that is
/// reached: that one is counted.
const MORE_THAN_GROUP: u64 = 16;

fn rlimits(profile: &Profile, machine: &Machine) -> Vec<(Rlimit, u64)> {
    let limits = &profile.limits;
    let counted = machine.limits.control_groups().is_some_and(|groups| groups.have(Controller::Processes));
    let more = if counted { MORE_THAN_GROUP } else { 0 };
    // The kernel counts whole seconds; what is below is for the watch.
    let seconds = limits.cpu_time.as_secs().saturating_add(1);
    vec![
        (Rlimit::AddressSpace, limits.address_space),
        (Rlimit::Processes, u64::from(limits.processes) + more),
        (Rlimit::CpuSeconds, seconds),
        (Rlimit::FileSize, limits.file_size),
        (Rlimit::OpenFiles, u64::from(limits.open_files)),
        (Rlimit::CoreDump, 0),
        (Rlimit::LockedMemory, 0),
        (Rlimit::MessageQueues, 0),
        (Rlimit::PendingSignals, u64::from(limits.processes)),
        (Rlimit::Priority, 0),
        (Rlimit::Stack, limits.stack),
    ]
}

/// Neighbouring CPUs, beginning where the slot's turn is.
fn cpus(profile: &Profile, task: &Task, machine: &Machine) -> Vec<u32> {
    let wanted = usize::try_from(profile.limits.cpus).unwrap_or(usize::MAX).min(machine.cpus.len());
    let first =
        usize::try_from(task.slot).unwrap_or(0).wrapping_mul(wanted).checked_rem(machine.cpus.len()).unwrap_or(0);
    let mut cpus: Vec<u32> = machine.cpus.iter().cycle().skip(first).take(wanted).copied().collect();
    cpus.sort_unstable();
    cpus
}
