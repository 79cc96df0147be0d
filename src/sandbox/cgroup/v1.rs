//! Control groups of version 1: a hierarchy for each controller or some, and this process may make groups below its own
//! where its own are writable: for root, or where root gave them away with chown(1).

use std::path::PathBuf;

use p2p_jail::spec::{CgroupVersion, Controller, Hierarchy, Identity};

use super::{
    ControlGroups, Obstacle,
    folders::{Folders, remove_stale, writable},
    view::View,
};

/// The controllers, and whether there must be one: processors are held by affinity as well, and their time by the watch.
const CONTROLLERS: [(Controller, &str, bool); 4] = [
    (Controller::Memory, "memory", true),
    (Controller::Processes, "pids", true),
    (Controller::Cpu, "cpu", false),
    (Controller::CpuAccounting, "cpuacct", false),
];

pub(super) fn find(view: &View, become_user: Option<Identity>) -> Result<ControlGroups, Obstacle> {
    let mut bases: Vec<(PathBuf, Vec<Controller>)> = Vec::new();
    for (controller, name, needed) in CONTROLLERS {
        let Some(base) = view.first(name).filter(|base| writable(base)) else {
            if needed {
                return Err(obstacle(view, name));
            }
            continue;
        };
        match bases.iter_mut().find(|(known, _)| known == base) {
            Some((_, controllers)) => controllers.push(controller),
            None => bases.push((base.to_owned(), vec![controller])),
        }
    }
    let mut folders = Folders::default();
    let mut hierarchies = Vec::new();
    for (base, controllers) in bases {
        remove_stale(&base);
        let parent = folders.make(&base, become_user).map_err(|error| format!("{}: {error}", base.display()))?;
        hierarchies.push(Hierarchy { parent, controllers });
    }
    Ok(ControlGroups::new(CgroupVersion::V1, hierarchies, folders))
}

fn obstacle(view: &View, name: &str) -> Obstacle {
    match view.first(name) {
        None => format!("the kernel has no {name} controller of cgroup v1 for this process"),
        Some(base) => {
            format!("{} is not writable (root can give this user a group of its own with chown)", base.display())
        }
    }
}
