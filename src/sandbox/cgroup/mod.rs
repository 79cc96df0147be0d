//! What holds the limits of tasks: control groups where this process may make some, version 2 before version 1; otherwise
//! rlimits and the watch of `p2p-jail`. Chosen once, when the machine is looked at.
//!
//! This makes the folder below which `p2p-jail` makes one group for each task, and for version 2 moves this process into a
//! leaf, since a group whose children have limits may have no processes of its own (cgroups(7)). It removes what a
//! worker that was killed has left. It sets no limit: that is in the plan.

mod folders;
mod v1;
mod v2;
mod view;

use std::{fmt, path::Path, sync::Arc};

use p2p_jail::spec::{CgroupVersion, Controller, Hierarchy, Identity};

use folders::Folders;
use view::View;

/// What holds the limits on memory, processes and processor time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mechanism {
    /// Control groups of the kernel, beside rlimits and the watch.
    ControlGroups(ControlGroups),
    /// rlimits and the watch of `p2p-jail` alone.
    Watch {
        /// Why there are no control groups, and what would give them.
        why: String,
    },
}

/// Control groups in which this process may make more. The folders for tasks go with the last copy of this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlGroups {
    /// Which interface they have.
    pub version: CgroupVersion,
    /// Where the groups of tasks are made.
    pub hierarchies: Vec<Hierarchy>,
    folders: Arc<Folders>,
}

/// Why there are no control groups of one version.
type Obstacle = String;

impl Default for Mechanism {
    fn default() -> Self {
        Self::Watch { why: "control groups were not looked for".to_owned() }
    }
}

impl Mechanism {
    /// Chooses, makes the folders for the tasks of this process, which run as `become_user` on the host if that is given,
    /// and moves this process if that is needed. Never fails: without control groups there is the watch.
    pub(super) fn choose(become_user: Option<Identity>) -> Self {
        let view = match View::discover() {
            Ok(view) => view,
            Err(error) => return Self::Watch { why: format!("/proc/self cannot be read: {error}") },
        };
        let found = v2::find(&view, become_user).or_else(|second| {
            v1::find(&view, become_user).map_err(|first| if view.has_v1_memory() { first } else { second })
        });
        found.map_or_else(|why| Self::Watch { why }, Self::ControlGroups)
    }

    /// For tests of plans: nothing is there.
    #[cfg(test)]
    pub(super) fn made_up(version: CgroupVersion, hierarchy: Hierarchy) -> Self {
        Self::ControlGroups(ControlGroups::new(version, vec![hierarchy], Folders::default()))
    }

    /// The control groups, if there are any.
    #[must_use]
    pub fn control_groups(&self) -> Option<&ControlGroups> {
        match self {
            Self::ControlGroups(groups) => Some(groups),
            Self::Watch { .. } => None,
        }
    }

    /// Why there are no control groups; empty where there are.
    #[must_use]
    pub fn obstacle(&self) -> &str {
        match self {
            Self::ControlGroups(_) => "",
            Self::Watch { why } => why,
        }
    }
}

impl ControlGroups {
    fn new(version: CgroupVersion, hierarchies: Vec<Hierarchy>, folders: Folders) -> Self {
        Self { version, hierarchies, folders: Arc::new(folders) }
    }

    /// From now on, the folders are removed even if this process is killed. A failure is no more than what was before: the
    /// next start removes them.
    pub(super) fn sweep_after_death(&self, jail: &Path) {
        let folders = self.hierarchies.iter().map(|hierarchy| hierarchy.parent.as_path());
        if let Err(error) = folders::sweep_after_death(jail, folders) {
            tracing::warn!(%error, "if this worker is killed, empty control groups stay until the next start");
        }
    }

    /// Whether there is a controller for this.
    #[must_use]
    pub fn have(&self, controller: Controller) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// Whether the processor time of all that ever ran in a group is counted.
    #[must_use]
    pub fn count_cpu_time(&self) -> bool {
        self.version == CgroupVersion::V2 || self.have(Controller::CpuAccounting)
    }
}

impl fmt::Display for ControlGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.version {
            CgroupVersion::V1 => "cgroup v1",
            CgroupVersion::V2 => "cgroup v2",
        })
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlGroups(groups) => {
                let all = [
                    (Controller::Memory, "memory"),
                    (Controller::Processes, "pids"),
                    (Controller::Cpu, "cpu"),
                    (Controller::CpuAccounting, "cpuacct"),
                ];
                let names = all.iter().filter(|(controller, _)| groups.have(*controller)).map(|(_, name)| *name);
                write!(f, "{groups} ({}), rlimits", names.collect::<Vec<_>>().join(", "))
            }
            Self::Watch { why } => write!(f, "rlimits and a watch; no control groups: {why}"),
        }
    }
}
