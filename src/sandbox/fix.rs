//! What the owner can do about a stage of the sandbox that failed, and which layers stand or fall with it.
//!
//! Told from the stage, the error number and what surrounds the machine ([`super::Habitat`]). Where nothing is known to help,
//! nothing is said: a wrong fix costs more than none.

use nix::errno::Errno;
use p2p_jail::spec::Stage;

use super::{Layer, Machine, launch::SAME_BUILD};

/// The layers that a stage holds; all of them where none can be told apart.
pub(super) fn layers_of(stage: Stage) -> &'static [Layer] {
    match stage {
        Stage::Identity | Stage::NestedNamespaces | Stage::Capabilities | Stage::NoNewPrivileges => {
            &[Layer::Privileges]
        }
        Stage::Namespaces => &[Layer::Filesystem, Layer::Network, Layer::Processes, Layer::Ipc, Layer::Privileges],
        Stage::Mounts | Stage::Descriptors | Stage::Landlock => &[Layer::Filesystem],
        Stage::Init | Stage::Session => &[Layer::Processes],
        Stage::ControlGroup => &[Layer::Memory, Layer::Cpu, Layer::Pids],
        Stage::Limits => &[Layer::Memory, Layer::Cpu, Layer::Pids, Layer::Disk],
        Stage::Seccomp => &[Layer::Syscalls],
        Stage::Watch => &[Layer::Memory, Layer::Cpu, Layer::Time],
        _ => &Layer::ALL,
    }
}

/// For what cannot be opened any more, and for a number of a descriptor that is above what may be.
const MORE_DESCRIPTORS: &str = "raise the limit of open files: ulimit -n 4096 (systemd: LimitNOFILE=4096)";

/// What to do about a `p2p-jail` that cannot be started.
pub(super) fn of_start(error: &std::io::Error) -> Option<String> {
    match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::EMFILE => Some(MORE_DESCRIPTORS.into()),
        Errno::ENOENT | Errno::EACCES | Errno::ENOEXEC | Errno::EPIPE | Errno::ECONNRESET => Some(SAME_BUILD.into()),
        _ => None,
    }
}

/// What would mend it, where that is known.
pub(super) fn fix(stage: Stage, errno: i32, machine: &Machine) -> Option<String> {
    let errno = Errno::from_raw(errno);
    let habitat = &machine.habitat;
    match (stage, errno) {
        (_, Errno::EMFILE) | (Stage::Descriptors, Errno::EINVAL) => Some(MORE_DESCRIPTORS.into()),
        (_, Errno::ENFILE) => Some("this machine has no descriptors left: sysctl fs.file-max".into()),
        (_, Errno::ENOMEM) => {
            Some("this machine, or the limits that this program runs under, have no memory left".into())
        }
        (Stage::Namespaces | Stage::Init, Errno::EAGAIN) => {
            Some("this user has too many processes: ulimit -u (systemd: TasksMax=, LimitNPROC=)".into())
        }
        (Stage::ControlGroup, errno) => Some(control_group(errno).to_owned()),
        (Stage::Landlock, errno) => Some(landlock(errno, machine)),
        (Stage::Namespaces, Errno::EACCES) => habitat.obstacle().or_else(|| habitat.denied()),
        (Stage::Namespaces, Errno::ENOSPC | Errno::EUSERS) => habitat.switched_off().or_else(|| {
            Some("a limit on namespaces is reached: see sysctl user, the lines user.max_*_namespaces".into())
        }),
        (Stage::Identity, Errno::EINVAL | Errno::EPERM) if habitat.single_user => Some(
            "root here is the only user there is (a container with one user), and tasks never run as root: run the \
             worker as an ordinary user of the host, or give the container more users"
                .into(),
        ),
        (Stage::Mounts, Errno::EACCES) if machine.become_user.is_some() => habitat.obstacle().or_else(|| {
            Some("root's tasks run as another user, who must be able to reach what the profile shares".into())
        }),
        (Stage::Mounts | Stage::Descriptors, Errno::ENOSYS) => {
            habitat.filter().or_else(|| Some("Linux 5.12 or newer is needed".into()))
        }
        (Stage::Seccomp, _) => habitat.filter().or_else(|| {
            Some("the kernel needs CONFIG_SECCOMP_FILTER, and no other filter may forbid seccomp(2)".into())
        }),
        (Stage::Namespaces | Stage::Mounts | Stage::Init | Stage::NestedNamespaces, _) => {
            habitat.obstacle().or_else(|| habitat.filter())
        }
        (Stage::Spec, _) => Some(SAME_BUILD.to_owned()),
        _ => habitat.filter(),
    }
}

/// What to do where a group for the task cannot be made below the one that was found writable when the program started.
fn control_group(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSPC | Errno::EAGAIN => {
            "there are too many control groups: see cgroup.max.descendants, and what other programs have left in /sys/fs/cgroup"
        }
        Errno::EINVAL => {
            "the group that this program runs in has less than the profile gives a task (CPUQuota=, cpu.cfs_quota_us): raise \
             that, or lower the profile's cpus"
        }
        Errno::ENOENT => "somebody removed the control groups of this program: start it again",
        _ => {
            "start it in a control group of its own (systemd-run --user --scope -p Delegate=yes p2p-worker), or in one that it \
             may not write to: then rlimits and the watch hold the limits"
        }
    }
}

/// What to do where Landlock is missing: `ENOSYS` says that the kernel does not have it, `EOPNOTSUPP` that it was not switched
/// on at boot (landlock_create_ruleset(2)).
pub(super) fn landlock(errno: Errno, machine: &Machine) -> String {
    if let Some(filtered) = machine.habitat.filter().filter(|_| errno == Errno::ENOSYS) {
        return filtered;
    }
    if errno == Errno::EOPNOTSUPP {
        return "Landlock is not switched on: add lsm=landlock,<what cat /sys/kernel/security/lsm shows> to \
                GRUB_CMDLINE_LINUX in /etc/default/grub, then sudo update-grub and boot again"
            .to_owned();
    }
    if machine.kernel_at_least(5, 13) {
        "boot a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,... (Debian from 12, Ubuntu from 22.04 have it)"
    } else {
        "Linux 5.13 or newer is needed (Debian from 12, Ubuntu from 22.04)"
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use p2p_jail::spec::Identity;

    use super::*;
    use crate::sandbox::{Around, Habitat, SecurityModule};

    fn said(stage: Stage, errno: Errno, machine: &Machine) -> String {
        fix(stage, errno as i32, machine).unwrap_or_default()
    }

    #[test]
    fn a_fix_depends_on_what_surrounds_the_machine() {
        let plain = Machine { kernel: "6.1.0".into(), ..Machine::default() };
        let docker = Habitat { around: Some(Around::Docker), filtered: true, ..Habitat::default() };
        let docker = Machine { habitat: docker, ..plain.clone() };
        let old = Machine { kernel: "5.10.0".into(), ..Machine::default() };
        let apparmor = Habitat { can_deny_userns: vec![SecurityModule::AppArmor], ..Habitat::default() };
        let apparmor = Machine { habitat: apparmor, ..plain.clone() };
        let root = Machine { become_user: Some(Identity { uid: 65534, gid: 65534 }), ..plain.clone() };
        for (stage, errno, machine, word) in [
            (Stage::Landlock, Errno::ENOSYS, &plain, "CONFIG_SECURITY_LANDLOCK"),
            (Stage::Landlock, Errno::ENOSYS, &old, "Linux 5.13"),
            (Stage::Landlock, Errno::ENOSYS, &docker, "seccomp=unconfined"),
            (Stage::Landlock, Errno::EOPNOTSUPP, &plain, "update-grub"),
            (Stage::Namespaces, Errno::EPERM, &docker, "systempaths=unconfined"),
            (Stage::Namespaces, Errno::ENOSPC, &plain, "user.max_*_namespaces"),
            (
                Stage::Namespaces,
                Errno::EACCES,
                &apparmor,
                "AppArmor denies p2p-jail user namespaces: p2p-worker doctor",
            ),
            (Stage::Mounts, Errno::ENOSYS, &plain, "5.12"),
            (Stage::Mounts, Errno::EACCES, &root, "root's tasks"),
            (Stage::Seccomp, Errno::EINVAL, &plain, "CONFIG_SECCOMP_FILTER"),
            (Stage::Session, Errno::EMFILE, &plain, "ulimit -n"),
            (Stage::Descriptors, Errno::EINVAL, &plain, "ulimit -n"),
            (Stage::Namespaces, Errno::ENOSPC, &docker, "user.max_*_namespaces"),
            (Stage::Capabilities, Errno::EPERM, &docker, "Docker"),
        ] {
            let said = said(stage, errno, machine);
            assert!(said.contains(word), "{stage:?} {errno} lacks {word}: {said}");
        }
        assert_eq!(fix(Stage::Capabilities, Errno::EPERM as i32, &plain), None, "nothing is made up");
        assert_eq!(fix(Stage::Namespaces, Errno::EPERM as i32, &plain), None);
    }

    #[test]
    fn every_stage_has_layers() {
        assert_eq!(layers_of(Stage::Seccomp), [Layer::Syscalls]);
        assert_eq!(layers_of(Stage::Spec), Layer::ALL);
        assert!(layers_of(Stage::Namespaces).contains(&Layer::Network));
    }
}
