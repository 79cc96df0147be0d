//! Proving what a driver enforces: `p2p-jail check` is run as the task of the very plan that tasks get, and what it finds
//! inside is compared with what the profile says. A layer is *enforced* only if everything that can be seen of it from
//! inside is as it should be.

use std::{io::Write, path::Path, time::Duration};

use p2p_jail::spec::{Command, Exit, Stage};

use super::{
    Driver, Enforcement, LaunchPlan, Layer, Machine, Profile, Share, Task,
    driver::JAIL_INSIDE,
    facts::Facts,
    judge::Judge,
    launch::{LaunchError, run_to_end},
};

/// What to do on a kernel without Landlock.
pub(super) const NO_LANDLOCK: &str =
    "this kernel has no Landlock: boot with lsm=landlock,... (Linux 5.13 or newer, CONFIG_SECURITY_LANDLOCK)";

/// How long the check may take, from one report to the next.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the driver enforces of the profile on this machine.
pub(super) fn probe(driver: Driver, profile: &Profile, machine: &Machine) -> Vec<(Layer, Enforcement)> {
    if driver == Driver::None {
        return without_sandbox(profile);
    }
    match run_check(driver, profile, machine) {
        Ok((plan, stages, text)) => {
            Judge { driver, profile, machine, plan: &plan, stages: &stages, facts: Facts(&text) }.all()
        }
        Err(why) => Layer::ALL.into_iter().map(|layer| (layer, Enforcement::Missing(why.clone()))).collect(),
    }
}

fn without_sandbox(profile: &Profile) -> Vec<(Layer, Enforcement)> {
    let state = |layer| match layer {
        Layer::Time => Enforcement::Enforced("watched by p2p-jail".to_owned()),
        Layer::Output => Judge::output(profile),
        _ => Enforcement::Missing("the driver none is no sandbox".to_owned()),
    };
    Layer::ALL.into_iter().map(|layer| (layer, state(layer))).collect()
}

type Checked = (LaunchPlan, Vec<(Stage, String)>, String);

fn run_check(driver: Driver, profile: &Profile, machine: &Machine) -> Result<Checked, String> {
    let in_words = |error: &dyn std::error::Error| {
        let causes = std::iter::successors(Some(error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    let canary = canary().map_err(|error| in_words(&error))?;
    let task = check_task(machine, canary.path());
    let mut plan = driver.plan(profile, &task, machine).map_err(|error| in_words(&error))?;
    let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
    plan.spec.watch.wall_time_ms = plan.spec.watch.wall_time_ms.map(|limit| limit.min(patience));
    let finished = run_to_end(&plan, PATIENCE).map_err(|error| {
        let fix = fix(&error, machine);
        format!("{}{fix}", in_words(&error))
    })?;
    match (finished.exit, finished.stopped) {
        (Exit::Code(0), None) => Ok((plan, finished.stages, finished.text)),
        (exit, stopped) => Err(format!("the check inside ended with {exit:?}, stopped: {stopped:?}")),
    }
}

/// A file of the host that everybody may read, and that nobody inside may find.
fn canary() -> std::io::Result<tempfile::NamedTempFile> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix("p2p-worker-probe-").permissions(permissions).tempfile()?;
    file.write_all(b"nobody inside can read this")?;
    Ok(file)
}

fn check_task(machine: &Machine, canary: &Path) -> Task {
    let mut argv = vec![JAIL_INSIDE.to_owned(), "check".to_owned()];
    argv.extend(outside_paths(machine, canary));
    Task {
        command: Command { argv, environment: Vec::new(), directory: "/".into() },
        files: Vec::new(),
        shares: vec![Share { from: machine.jail_for_tasks.clone(), to: JAIL_INSIDE.into(), execute: true }],
        slot: 0,
    }
}

/// Paths that exist outside and must not exist inside.
fn outside_paths(machine: &Machine, canary: &Path) -> Vec<String> {
    let home = machine.surroundings.home.as_deref().filter(|home| home.parent().is_some() && home.exists());
    let system = ["/etc/shadow", "/etc/machine-id", "/sys", "/run/dbus", "/var/lib"].map(Path::new);
    let paths = [canary].into_iter().chain(home).chain(system).map(|path| path.to_string_lossy().into_owned());
    // The check answers in lines.
    paths.filter(|path| !path.contains(char::is_control)).collect()
}

/// What would mend it, where that is known; begins with a separator.
fn fix(error: &LaunchError, machine: &Machine) -> String {
    let LaunchError::Refused { stage, what, .. } = error else { return String::new() };
    let fix = match stage {
        Stage::Identity | Stage::Mounts if machine.become_user.is_some() => {
            Some("root's tasks run as another user, who must be able to reach what the profile shares")
        }
        Stage::Landlock if machine.landlock_abi.is_none() => Some(NO_LANDLOCK),
        Stage::Seccomp => Some("the kernel needs CONFIG_SECCOMP_FILTER, and no other filter that forbids seccomp(2)"),
        Stage::Namespaces | Stage::Mounts | Stage::Init => machine.user_namespaces.obstacle(),
        _ => None,
    };
    fix.filter(|fix| !what.contains(fix)).map_or_else(String::new, |fix| format!("; {fix}"))
}
