//! Things that look like a machine: by the marks that they leave, where the kernel does not contradict.
//!
//! A mark alone proves little. `/.dockerenv` stays on the disk of a virtual machine that was made of an image, and a host of
//! LXD has its socket and its file system too. So a container is believed only where this is not the machine's first process
//! namespace, or where `/` or `/proc` are made as engines make them.

use std::{fs, path::Path};

use serde::Serialize;

use super::is_masked;

/// The first process namespace of a machine always has this number (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

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

impl Around {
    pub(super) fn discover(root: &Path) -> Option<Self> {
        let text = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
        let mountinfo = text("proc/self/mountinfo");
        // Where this cannot be asked, the marks are all there is.
        let first =
            fs::read_link(root.join("proc/self/ns/pid")).ok().map(|link| link == Path::new(FIRST_PID_NAMESPACE));
        let contained = first != Some(true) || root_is_layered(&mountinfo) || is_masked(&mountinfo);
        let is = |name: &str| contained && root.join(name).exists();
        let release = text("proc/sys/kernel/osrelease");
        let named = if contained { text("run/systemd/container") } else { String::new() };
        // gVisor's /proc/version is always this one.
        if text("proc/version").contains("4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016") {
            Some(Self::Gvisor)
        } else if is("run/.containerenv") || named.trim() == "podman" {
            Some(Self::Podman)
        } else if is(".dockerenv") || named.trim() == "docker" {
            Some(Self::Docker)
        } else if named.trim() == "systemd-nspawn" {
            Some(Self::Nspawn)
        } else if named.starts_with("lxc") || is("dev/lxd/sock") || contained && mountinfo.contains(" lxcfs ") {
            Some(Self::Lxc)
        } else if release.contains("-Microsoft") {
            Some(Self::Wsl1)
        } else if release.contains("microsoft") {
            Some(Self::Wsl2)
        } else {
            let named = !named.trim().is_empty() && named.trim() != "wsl";
            (named || first == Some(false)).then_some(Self::Container)
        }
    }

    /// Whether the kernel is that of a host, which alone can turn its switches.
    pub(super) fn shares_the_hosts_kernel(self) -> bool {
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

    pub(super) fn fix(self) -> String {
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

/// Whether `/` is made of layers, as the engines of containers make it.
fn root_is_layered(mountinfo: &str) -> bool {
    mountinfo.lines().any(|line| {
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        line.split(' ').nth(4) == Some("/") && matches!(kind, Some("overlay" | "fuse.fuse-overlayfs" | "aufs"))
    })
}
