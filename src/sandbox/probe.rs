//! Proving what a driver enforces: `p2p-jail check` is run as the task of the very plan that tasks get, and what it finds
//! inside is compared with what the profile says. A layer is *enforced* only if everything that can be seen of it from
//! inside is as it should be.

use std::{io::Write, path::Path, time::Duration};

use p2p_jail::spec::{Command, Exit, Stage};

use crate::error_chain;

use super::{
    Driver, Enforcement, LaunchPlan, Layer, Machine, Profile, Share, Task,
    driver::JAIL_INSIDE,
    facts::Facts,
    fix::{fix, layers_of, of_start},
    judge::Judge,
    launch::{LaunchError, run_to_end},
};

/// How long the check may take, from one report to the next.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the driver enforces of the profile on this machine.
pub(super) fn probe(
    driver: Driver,
    profile: &Profile,
    machine: &Machine,
    shares: &[Share],
) -> Vec<(Layer, Enforcement)> {
    if driver == Driver::None {
        return without_sandbox(profile);
    }
    match run_check(driver, profile, machine, shares) {
        Ok((plan, stages, text)) => {
            Judge { driver, profile, machine, plan: &plan, stages: &stages, shares, facts: Facts(&text) }.all()
        }
        Err(failed) => failed.layers(),
    }
}

/// Why the check did not run to its end.
struct Failed {
    /// The stage that is not in force, where it came that far.
    stage: Option<Stage>,
    /// What happened, and what would mend it.
    why: String,
}

impl Failed {
    fn new(error: &dyn std::error::Error) -> Self {
        Self { stage: None, why: error_chain(error) }
    }

    /// The layers that hang on the stage lack for that reason; of the others nothing is known, which is no better.
    fn layers(self) -> Vec<(Layer, Enforcement)> {
        let failed = self.stage.map_or(&Layer::ALL[..], layers_of);
        let names: Vec<String> = failed.iter().map(ToString::to_string).collect();
        let state = |layer| {
            let untried = || format!("not tried, as nothing goes on without {}", names.join(", "));
            let failed = failed.contains(&layer);
            (layer, if failed { Enforcement::Missing(self.why.clone()) } else { Enforcement::Untried(untried()) })
        };
        Layer::ALL.into_iter().map(state).collect()
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

fn run_check(driver: Driver, profile: &Profile, machine: &Machine, shares: &[Share]) -> Result<Checked, Failed> {
    let canary = canary()?;
    let task = check_task(profile, machine, canary.path(), shares);
    let mut plan = driver.plan(profile, &task, machine).map_err(|error| Failed::new(&error))?;
    let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
    plan.spec.watch.wall_time_ms = plan.spec.watch.wall_time_ms.map(|limit| limit.min(patience));
    let finished = run_to_end(&plan, PATIENCE).map_err(|error| explained(&error, machine))?;
    match (finished.exit, finished.stopped) {
        (Exit::Code(0), None) => Ok((plan, finished.stages, finished.text)),
        (exit, stopped) => {
            let why = format!("the check inside ended with {exit:?}, stopped: {stopped:?}");
            Err(Failed { stage: None, why })
        }
    }
}

/// A file of the host that everybody may read, and that nobody inside may find.
fn canary() -> Result<tempfile::NamedTempFile, Failed> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let mut builder = tempfile::Builder::new();
    let file = builder.prefix("p2p-worker-probe-").permissions(permissions).tempfile();
    let filled = file.and_then(|mut file| file.write_all(b"nobody inside can read this").map(|()| file));
    filled.map_err(|error| {
        let folder = std::env::temp_dir();
        let why = format!(
            "cannot make a file in {} for the check: {error}; make room there, or set TMPDIR",
            folder.display()
        );
        Failed { stage: None, why }
    })
}

fn check_task(profile: &Profile, machine: &Machine, canary: &Path, shares: &[Share]) -> Task {
    let mut argv = vec![JAIL_INSIDE.to_owned(), "check".to_owned()];
    // A home that is /tmp, as containers have it, is covered by the task's own.
    let covered = |path: &String| profile.scratch.keys().any(|scratch| scratch.starts_with(path));
    let hidden = |path: &String| !covered(path) && !shares.iter().any(|share| share.to.starts_with(path));
    argv.extend(outside_paths(machine, canary).into_iter().filter(hidden));
    let jail = Share { from: machine.jail_for_tasks.clone(), to: JAIL_INSIDE.into(), execute: true };
    Task {
        command: Command { argv, environment: Vec::new(), directory: "/".into() },
        files: Vec::new(),
        shares: shares.iter().cloned().chain([jail]).collect(),
        slot: 0,
    }
}

/// Paths that exist outside and must not exist inside, where no share leads through them.
fn outside_paths(machine: &Machine, canary: &Path) -> Vec<String> {
    let home = machine.surroundings.home.as_deref().filter(|home| home.parent().is_some() && home.exists());
    let system = ["/etc/shadow", "/etc/machine-id", "/sys", "/run/dbus", "/var/lib"].map(Path::new);
    let paths = [canary].into_iter().chain(home).chain(system).map(|path| path.to_string_lossy().into_owned());
    // The check answers in lines.
    paths.filter(|path| !path.contains(char::is_control)).collect()
}

/// The error with what would mend it, where that is known.
fn explained(error: &LaunchError, machine: &Machine) -> Failed {
    let (stage, fix) = match error {
        LaunchError::Refused { stage, errno, .. } => (Some(*stage), fix(*stage, *errno, machine)),
        LaunchError::Start(source) => (None, of_start(source)),
        LaunchError::Report(_) => (None, None),
    };
    let fix = fix.map_or_else(String::new, |fix| format!("; {fix}"));
    Failed { stage, why: format!("{}{fix}", error_chain(error)) }
}
