//! Where the worker lives, as far as that decides what a sandbox can be: the kernel's switches for user namespaces, a
//! container around, WSL, gVisor, a filter of system calls. For each obstacle the exact way around it.
//!
//! Reads some small files, below `/` or below a folder that a test fills; starts nothing. What it finds only *explains*:
//! whether a layer holds is proven by the probe alone.

use std::{fs, path::Path};

use serde::Serialize;

/// What surrounds this machine's worker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Habitat {
    /// `/proc/sys/user/max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `/proc/sys/kernel/unprivileged_userns_clone` (Debian's kernels).
    pub userns_clone_allowed: Option<bool>,
    /// `/proc/sys/kernel/apparmor_restrict_unprivileged_userns` (Ubuntu from 23.10).
    pub apparmor_restricts_userns: Option<bool>,
    /// What is around this system, by the marks that it leaves.
    pub around: Option<Around>,
    /// Whether something is mounted over parts of `/proc`, as container engines do.
    pub proc_is_masked: bool,
    /// Whether this process was started under a seccomp filter.
    pub filtered: bool,
    /// Whether there is only one user here (`/proc/self/uid_map`), so that root has no other to become.
    pub single_user: bool,
}

/// Things that look like a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Around {
    /// Docker, or another engine that leaves `/.dockerenv`.
    Docker,
    /// Podman.
    Podman,
    /// LXC, LXD or Incus.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
    /// Another container.
    Container,
    /// The Windows Subsystem for Linux, version 1: no Linux kernel.
    Wsl1,
    /// The Windows Subsystem for Linux, version 2: a Linux kernel of Microsoft's.
    Wsl2,
    /// gVisor, which answers system calls itself.
    Gvisor,
}

impl Habitat {
    /// Looks around below a folder: `/`, or one that a test has filled.
    #[must_use]
    pub fn discover(root: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(root.join(name)).ok();
        let switch = |name: &str| text(name).map(|value| value.trim() != "0");
        let status = text("proc/self/status").unwrap_or_default();
        let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        Self {
            max_user_namespaces: text("proc/sys/user/max_user_namespaces").and_then(|most| most.trim().parse().ok()),
            userns_clone_allowed: switch("proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts_userns: switch("proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            around: Around::discover(root),
            proc_is_masked: is_masked(&text("proc/self/mountinfo").unwrap_or_default()),
            filtered: mode.is_some_and(|mode| mode.trim() == "2"),
            single_user: text("proc/self/uid_map").is_some_and(|map| is_single(&map)),
        }
    }

    /// A switch of the kernel that is off, and how it is turned.
    #[must_use]
    pub fn switched_off(&self) -> Option<String> {
        let switched_off = |switch: &str, value: &str, on: &str| {
            let where_to = if self.around.is_some_and(Around::shares_the_hosts_kernel) { " on the host" } else { "" };
            format!(
                "user namespaces are switched off ({switch} is {value}){where_to}: sudo sysctl -w {switch}={on}; to keep \
                 it, put {switch}={on} into /etc/sysctl.d/90-p2p-worker.conf"
            )
        };
        if self.max_user_namespaces == Some(0) {
            return Some(switched_off("user.max_user_namespaces", "0", "15000"));
        }
        if self.userns_clone_allowed == Some(false) {
            return Some(switched_off("kernel.unprivileged_userns_clone", "0", "1"));
        }
        None
    }

    /// What stands in the way of namespaces and mounts, and how it is moved: the most certain obstacle first.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        if let Some(switch) = self.switched_off() {
            return Some(switch);
        }
        if let Some(container) = self.around.filter(|_| self.proc_is_masked || self.filtered || self.single_user) {
            return Some(container.fix());
        }
        if self.apparmor_restricts_userns == Some(true) {
            return Some(APPARMOR.to_owned());
        }
        if self.filtered {
            return Some(FILTERED.to_owned());
        }
        if self.proc_is_masked {
            return Some(
                "parts of /proc are covered by mounts, so the kernel allows no new /proc: unmount them".to_owned(),
            );
        }
        self.around.filter(|around| *around != Around::Wsl2).map(Around::fix)
    }

    /// Why a stage that only needs system calls may have failed.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        let container = self.around.filter(|_| self.filtered).map(Around::fix);
        container.or_else(|| self.filtered.then(|| FILTERED.to_owned()))
    }
}

/// Ubuntu's restriction; `apparmor/p2p-jail` of this repository is the profile that is printed.
const APPARMOR: &str = "AppArmor lets no program without a profile of its own use user namespaces \
    (kernel.apparmor_restrict_unprivileged_userns is 1): p2p-worker doctor --apparmor-profile | sudo tee \
    /etc/apparmor.d/p2p-jail >/dev/null && sudo apparmor_parser -r /etc/apparmor.d/p2p-jail";

const FILTERED: &str = "this program was started under a filter of system calls (SystemCallFilter= or \
    RestrictNamespaces= of a systemd unit, another sandbox): start it without";

impl Around {
    fn discover(root: &Path) -> Option<Self> {
        let text = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
        let is = |name: &str| root.join(name).exists();
        let release = text("proc/sys/kernel/osrelease");
        let named = text("run/systemd/container");
        // gVisor's /proc/version is always this one.
        if text("proc/version").contains("4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016") {
            Some(Self::Gvisor)
        } else if is("run/.containerenv") || named.trim() == "podman" {
            Some(Self::Podman)
        } else if is(".dockerenv") || named.trim() == "docker" {
            Some(Self::Docker)
        } else if named.trim() == "systemd-nspawn" {
            Some(Self::Nspawn)
        } else if named.starts_with("lxc") || is("dev/lxd/sock") || text("proc/self/mountinfo").contains(" lxcfs ") {
            Some(Self::Lxc)
        } else if release.contains("-Microsoft") {
            Some(Self::Wsl1)
        } else if release.contains("microsoft") {
            Some(Self::Wsl2)
        } else {
            (!named.trim().is_empty() && named.trim() != "wsl").then_some(Self::Container)
        }
    }

    /// Whether the kernel is that of a host, which alone can turn its switches.
    fn shares_the_hosts_kernel(self) -> bool {
        !matches!(self, Self::Wsl1 | Self::Wsl2 | Self::Gvisor)
    }

    /// The name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "a Docker container",
            Self::Podman => "a Podman container",
            Self::Lxc => "an LXC container",
            Self::Nspawn => "a systemd-nspawn container",
            Self::Container => "a container",
            Self::Wsl1 => "WSL 1",
            Self::Wsl2 => "WSL 2",
            Self::Gvisor => "gVisor",
        }
    }

    fn fix(self) -> String {
        let fix = match self {
            Self::Docker => {
                "run it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined --security-opt \
                 apparmor=unconfined"
            }
            Self::Podman => "run it with --security-opt seccomp=unconfined --security-opt unmask=ALL",
            Self::Lxc => "on the host: lxc config set NAME security.nesting=true (LXD, Incus: incus config set)",
            Self::Nspawn | Self::Container => "it forbids namespaces or covers /proc",
            Self::Wsl1 => "it has no Linux kernel; in Windows: wsl --set-version DISTRIBUTION 2",
            Self::Wsl2 => "in Windows: wsl --update",
            Self::Gvisor => "it answers system calls itself and lacks most of what a sandbox is made of",
        };
        format!("this is {}: {fix}; or run the worker outside of it", self.name())
    }
}

/// Whether anything is mounted over parts of `/proc`.
fn is_masked(mountinfo: &str) -> bool {
    let mut targets = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    targets.any(|target| target.starts_with("/proc/") && target != "/proc/sys/fs/binfmt_misc")
}

/// Whether a map of users holds one user.
fn is_single(map: &str) -> bool {
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    counts.sum::<u64>() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found on a machine with these files.
    fn habitat(files: &[(&str, &str)]) -> Habitat {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Habitat::discover(root.path())
    }

    const MASKED: (&str, &str) = ("proc/self/mountinfo", "1 2 0:5 /null /proc/kcore rw - devtmpfs x rw\n");
    const OPEN: (&str, &str) =
        ("proc/self/mountinfo", "1 2 0:5 / /proc rw - proc proc rw\n1 2 0:5 / /proc/sys/fs/binfmt_misc rw - x y z\n");
    const FILTER: (&str, &str) = ("proc/self/status", "Name:\tcat\nSeccomp:\t2\nSeccomp_filters:\t1\n");
    const APPARMOR_RESTRICTS: (&str, &str) = ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");

    #[test]
    fn nothing_in_the_way_is_nothing_to_say() {
        assert_eq!(habitat(&[]), Habitat::default());
        let fine = habitat(&[
            ("proc/sys/user/max_user_namespaces", "31390\n"),
            ("proc/sys/kernel/unprivileged_userns_clone", "1\n"),
            ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0\n"),
            ("proc/self/uid_map", "         0          0 4294967295\n"),
            ("proc/self/status", "Seccomp:\t0\n"),
            OPEN,
        ]);
        assert_eq!((fine.obstacle(), fine.filter(), fine.single_user), (None, None, false));
    }

    #[test]
    fn each_obstacle_has_its_fix() {
        /// Files and what is in them.
        type Files = &'static [(&'static str, &'static str)];
        let cases: [(Files, &[&str]); 12] = [
            (&[("proc/sys/user/max_user_namespaces", "0\n")], &["sysctl -w user.max_user_namespaces=15000"]),
            (
                &[("proc/sys/kernel/unprivileged_userns_clone", "0\n")],
                &["sysctl -w kernel.unprivileged_userns_clone=1"],
            ),
            (&[("proc/sys/user/max_user_namespaces", "0\n"), (".dockerenv", "")], &["on the host", "sysctl -w user"]),
            (&[APPARMOR_RESTRICTS], &["doctor --apparmor-profile", "apparmor_parser -r /etc/apparmor.d/p2p-jail"]),
            (&[(".dockerenv", ""), MASKED], &["Docker", "seccomp=unconfined", "systempaths=unconfined"]),
            (&[(".dockerenv", ""), FILTER, APPARMOR_RESTRICTS], &["Docker", "apparmor=unconfined"]),
            (&[("run/.containerenv", ""), ("proc/self/uid_map", "0 1000 1\n")], &["Podman", "unmask=ALL"]),
            (&[("run/systemd/container", "lxc\n")], &["LXC", "security.nesting=true"]),
            (&[("run/systemd/container", "systemd-nspawn"), MASKED], &["systemd-nspawn", "outside"]),
            (&[("proc/sys/kernel/osrelease", "4.4.0-19041-Microsoft\n")], &["WSL 1", "wsl --set-version"]),
            (&[("proc/version", "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n")], &["gVisor", "outside"]),
            (&[FILTER], &["SystemCallFilter="]),
        ];
        for (files, words) in cases {
            let obstacle = habitat(files).obstacle().unwrap_or_else(|| panic!("{files:?}"));
            words.iter().for_each(|word| assert!(obstacle.contains(word), "{files:?}: {obstacle}"));
        }
        let covered = habitat(&[MASKED]);
        assert!(covered.obstacle().unwrap().contains("unmount") && covered.filter().is_none());
    }

    #[test]
    fn wsl_2_is_a_linux_that_may_well_have_everything() {
        let wsl = habitat(&[("proc/sys/kernel/osrelease", "5.15.153.1-microsoft-standard-WSL2\n")]);
        assert_eq!((wsl.around, wsl.obstacle()), (Some(Around::Wsl2), None));
        assert_eq!(habitat(&[("run/systemd/container", "rkt")]).around, Some(Around::Container));
    }

    #[test]
    fn a_filter_around_explains_calls_that_fail() {
        assert!(habitat(&[FILTER]).filter().unwrap().contains("SystemCallFilter="));
        assert!(habitat(&[FILTER, ("run/.containerenv", "")]).filter().unwrap().contains("Podman"));
    }
}
