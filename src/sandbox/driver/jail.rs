//! The built-in driver: `p2p-jail` makes the namespaces and the mounts itself.

use p2p_jail::spec::{Builtin, Container, Identity, Spec, Uplink};

use super::{
    PlanError,
    confinement::{command, confinement, control_group, watch},
    world::World,
};
use crate::sandbox::{
    machine::Machine,
    profile::{Profile, TASK_HOSTNAME, TASK_ID},
    task::Task,
};

pub(super) fn spec(
    profile: &Profile,
    task: &Task,
    machine: &Machine,
    uplink: Option<Uplink>,
) -> Result<Spec, PlanError> {
    let world = World::build(profile, task, machine)?;
    let builtin = Builtin {
        become_user: machine.become_user,
        inside: Identity { uid: TASK_ID, gid: TASK_ID },
        hostname: TASK_HOSTNAME.to_owned(),
        mounts: world.mounts(),
        uplink: uplink.clone(),
    };
    let mut confinement = confinement(profile, task, machine, &world);
    if let Some(landlock) = &mut confinement.landlock {
        landlock.tcp = uplink.is_some();
    }
    confinement.no_nested_user_namespaces = true;
    Ok(Spec {
        container: Container::Builtin(builtin),
        confinement,
        watch: watch(profile, machine, &world),
        control_group: control_group(profile, machine, u64::from(uplink.is_some())),
        command: command(profile, task),
    })
}
