//! Where the worker lives, as far as that decides what a sandbox can be: the kernel's switches for user namespaces, a
//! container around, WSL, gVisor, a filter of system calls. For each obstacle the exact way around it.
//!
//! Reads some small files, below `/` or below a folder that a test fills; starts nothing. What it finds only *explains*:
//! whether a layer holds is proven by the probe alone.

mod around;

use std::{fs, path::Path};

use serde::Serialize;

pub use around::Around;

/// What surrounds this machine's worker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Habitat {
    /// `/proc/sys/user/max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `/proc/sys/kernel/unprivileged_userns_clone` (Debian's kernels).
    pub userns_clone_allowed: Option<bool>,
    /// `/proc/sys/kernel/apparmor_restrict_unprivileged_userns` (Ubuntu from 23.10).
    pub apparmor_restricts_userns: Option<bool>,
    /// The AppArmor profile that this process runs under, with its mode; `None` where it is unconfined.
    pub apparmor_profile: Option<String>,
    /// The security modules of the kernel that can deny user namespaces to single programs.
    pub can_deny_userns: Vec<SecurityModule>,
    /// What is around this system, by the marks that it leaves.
    pub around: Option<Around>,
    /// Whether something is mounted over parts of `/proc`, as container engines do.
    pub proc_is_masked: bool,
    /// Whether this process was started under a seccomp filter.
    pub filtered: bool,
    /// Whether there is only one user here (`/proc/self/uid_map`), so that root has no other to become.
    pub single_user: bool,
}

/// Security modules whose policies say which programs may make user namespaces (the hook `userns_create`, Linux 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecurityModule {
    /// AppArmor.
    AppArmor,
    /// SELinux.
    SELinux,
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
            apparmor_profile: text("proc/self/attr/apparmor/current")
                .map(|label| label.trim_matches(['\n', '\0']).to_owned())
                .filter(|label| !label.is_empty() && label != "unconfined"),
            can_deny_userns: [
                (SecurityModule::AppArmor, "sys/module/apparmor/parameters/enabled", "Y"),
                (SecurityModule::SELinux, "sys/fs/selinux/enforce", "1"),
            ]
            .into_iter()
            .filter(|(_, file, on)| text(file).is_some_and(|value| value.trim() == *on))
            .map(|(module, ..)| module)
            .collect(),
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
            return Some(apparmor(
                "AppArmor lets no program without a profile of its own use user namespaces \
                 (kernel.apparmor_restrict_unprivileged_userns is 1)",
            ));
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

    /// Who denied a user namespace with `EACCES`: system calls and switches deny it with other errors (clone(2),
    /// user_namespaces(7)), a security module with this one.
    #[must_use]
    pub fn denied(&self) -> Option<String> {
        if self.can_deny_userns.contains(&SecurityModule::AppArmor) {
            let under = self.apparmor_profile.as_ref().map_or_else(String::new, |label| {
                format!(", and p2p-worker itself runs under the AppArmor profile {label}")
            });
            Some(apparmor(&format!("AppArmor denies p2p-jail user namespaces{under}")))
        } else if self.can_deny_userns.contains(&SecurityModule::SELinux) {
            Some(
                "SELinux denies p2p-jail user namespaces: sudo ausearch -m avc -c p2p-jail says which rule is missing, \
                 audit2allow makes a module of it"
                    .to_owned(),
            )
        } else {
            None
        }
    }

    /// Why a stage that only needs system calls may have failed.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        let container = self.around.filter(|_| self.filtered).map(Around::fix);
        container.or_else(|| self.filtered.then(|| FILTERED.to_owned()))
    }
}

/// What gives `p2p-jail` its own profile, `apparmor/p2p-jail` of this repository.
fn apparmor(why: &str) -> String {
    format!(
        "{why}: p2p-worker doctor --apparmor-profile | sudo tee /etc/apparmor.d/p2p-jail >/dev/null && sudo \
         apparmor_parser -r /etc/apparmor.d/p2p-jail"
    )
}

const FILTERED: &str = "this program was started under a filter of system calls (SystemCallFilter= or \
    RestrictNamespaces= of a systemd unit, another sandbox): start it without";

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
    fn a_mark_is_believed_where_the_kernel_does_not_contradict() {
        let around = |namespace: Option<&str>, files: &[(&str, &str)]| {
            let root = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = root.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            if let Some(namespace) = namespace {
                fs::create_dir_all(root.path().join("proc/self/ns")).unwrap();
                std::os::unix::fs::symlink(namespace, root.path().join("proc/self/ns/pid")).unwrap();
            }
            Habitat::discover(root.path()).around
        };
        const FIRST: Option<&str> = Some("pid:[4026531836]");
        const LATER: Option<&str> = Some("pid:[4026532181]");
        const LAYERED: (&str, &str) = ("proc/self/mountinfo", "1 2 0:39 / / rw,relatime - overlay overlay rw\n");
        let mark = (".dockerenv", "");
        // The disk of a virtual machine that was made of an image, and a host of LXD.
        assert_eq!(around(FIRST, &[mark, OPEN]), None);
        assert_eq!(
            around(FIRST, &[("dev/lxd/sock", ""), ("proc/self/mountinfo", "1 2 0:5 / /x - fuse lxcfs rw")]),
            None
        );
        // A container with a process namespace of its own, and one with the host's.
        assert_eq!(around(LATER, &[mark, OPEN]), Some(Around::Docker));
        assert_eq!(around(FIRST, &[mark, LAYERED]), Some(Around::Docker));
        assert_eq!(around(FIRST, &[mark, MASKED]), Some(Around::Docker));
        assert_eq!(around(LATER, &[]), Some(Around::Container));
        // A system that was started from a medium has layers too.
        assert_eq!(around(FIRST, &[LAYERED]), None);
    }

    #[test]
    fn a_security_module_that_denies_is_named() {
        let apparmor = ("sys/module/apparmor/parameters/enabled", "Y\n");
        let denied = habitat(&[apparmor, ("proc/self/attr/apparmor/current", "unconfined\n")]).denied().unwrap();
        assert!(denied.contains("AppArmor denies p2p-jail user namespaces: p2p-worker doctor"), "{denied}");
        let under =
            habitat(&[apparmor, ("proc/self/attr/apparmor/current", "everybody (enforce)\n")]).denied().unwrap();
        assert!(under.contains("the AppArmor profile everybody (enforce): p2p-worker"), "{under}");
        assert!(habitat(&[("sys/fs/selinux/enforce", "1")]).denied().unwrap().contains("ausearch -m avc"));
        assert_eq!(habitat(&[("sys/fs/selinux/enforce", "0")]).denied(), None);
    }

    #[test]
    fn a_filter_around_explains_calls_that_fail() {
        assert!(habitat(&[FILTER]).filter().unwrap().contains("SystemCallFilter="));
        assert!(habitat(&[FILTER, ("run/.containerenv", "")]).filter().unwrap().contains("Podman"));
    }
}
