//! Drivers: who makes the sandbox. Each turns a profile into a [`LaunchPlan`] by a pure function of what is known of the
//! machine, in a file of its own; what it really enforces here is proven by a probe before anything starts.

mod bubblewrap;
mod confinement;
mod jail;
mod none;
mod sockets;
#[cfg(test)]
mod tests;
mod world;

use std::{
    fmt, fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    str::FromStr,
};

use p2p_jail::spec::{Command, Mount};

use self::world::World;
use super::{
    Enforcement, LaunchPlan, Layer, Provenance, SandboxError,
    machine::Machine,
    probe,
    profile::{LandlockPolicy, Profile},
    task::{Share, Task},
    uplink,
};

pub(super) use bubblewrap::{JAIL_INSIDE, LIMITS_SIZE};
pub(super) use confinement::memory_limit;

/// Who makes the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Driver {
    /// Built in: the program `p2p-jail`.
    Jail,
    /// bwrap(1), with `p2p-jail` inside.
    Bubblewrap,
    /// Nobody. Must be asked for by name.
    None,
}

/// A path, with where its links lead if that is elsewhere.
fn with_links(path: &Path, real: &Path) -> String {
    let really = if real == path { String::new() } else { format!(" (really {})", real.display()) };
    format!("{}{really}", path.display())
}

/// Why a driver cannot make a plan of this profile and task on this machine.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The profile or the task needs a path of the host that is not there.
    #[error("{} does not exist on this machine; mark it optional or take it out of the profile", path.display())]
    Absent {
        /// The path.
        path: PathBuf,
    },
    /// A path leads to something that is not safe to share.
    #[error("{} cannot be shared with tasks: {why}", with_links(path, real))]
    Unsafe {
        /// As written.
        path: PathBuf,
        /// All links followed.
        real: PathBuf,
        /// Why not.
        why: String,
    },
    /// Two things claim the same place inside.
    #[error("{} lies inside of something else that the task gets; choose another place for it", path.display())]
    Covered {
        /// The place inside.
        path: PathBuf,
    },
    /// bwrap is not installed.
    #[error("bubblewrap is not installed: apt install bubblewrap, or use --sandbox jail")]
    NoBubblewrap,
    /// bwrap is too old.
    #[error("bubblewrap {}.{}.{} is too old, 0.5 or newer is needed: use --sandbox jail", version.0, version.1, version.2)]
    OldBubblewrap {
        /// Its version.
        version: (u32, u32, u32),
    },
    /// The profile asks for the internet, which cannot be held here.
    #[error("the internet without this machine and its private network cannot be held here: {why}")]
    NoInternet {
        /// Why not, and what would mend it.
        why: String,
    },
    /// The driver `none` has no root of its own.
    #[error("a root file system takes a sandbox: without one, tasks see this machine's files")]
    RootWithoutSandbox,
    /// The driver `none` has no folder for the task's files.
    #[error("the driver none needs a folder for the task's files")]
    NoFolder,
}

impl Driver {
    /// All of them, the recommended one first.
    pub const ALL: [Self; 3] = [Self::Jail, Self::Bubblewrap, Self::None];

    /// The name as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jail => "jail",
            Self::Bubblewrap => "bubblewrap",
            Self::None => "none",
        }
    }

    /// Turns a profile and a task into a plan: pure, so the same arguments always give the same plan. The provenance has
    /// no layers yet; [`Ready::plan`] fills in what was proven.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan(self, profile: &Profile, task: &Task, machine: &Machine) -> Result<LaunchPlan, PlanError> {
        let uplink = uplink::uplink(self, profile, machine)?;
        let spec = match self {
            Self::Jail => jail::spec(profile, task, machine, uplink)?,
            Self::Bubblewrap => bubblewrap::spec(profile, task, machine)?,
            Self::None => none::spec(profile, task, machine)?,
        };
        Ok(LaunchPlan {
            jail: machine.jail.clone(),
            spec,
            root: machine.root.clone().unwrap_or_else(|| "/".into()),
            max_result: profile.limits.result,
            max_text: profile.limits.text,
            provenance: Provenance {
                driver: self.name().to_owned(),
                profile: profile.name.clone(),
                layers: Vec::new(),
            },
        })
    }

    /// What a task of this profile with these shares sees of files, by path inside; nothing is mounted for the driver `none`.
    ///
    /// # Errors
    /// [`PlanError`].
    pub(super) fn mounts(
        self,
        profile: &Profile,
        shares: &[Share],
        machine: &Machine,
    ) -> Result<Vec<Mount>, PlanError> {
        let task = Task { shares: shares.to_vec(), ..nothing() };
        let mut mounts = if self == Self::None { Vec::new() } else { World::build(profile, &task, machine)?.mounts() };
        for mount in &mut mounts {
            if let (Self::Bubblewrap, Mount::Proc { only_processes, .. }) = (self, mount) {
                *only_processes = false;
            }
        }
        Ok(mounts)
    }

    /// What this driver enforces of this profile on this machine, layer by layer, proven by running a check inside, with
    /// what tasks will need beside the profile's paths. Blocks for some ten milliseconds.
    #[must_use]
    pub fn probe(self, profile: &Profile, machine: &Machine, shares: &[Share]) -> Vec<(Layer, Enforcement)> {
        probe::probe(self, profile, machine, shares)
    }
}

/// A driver and a profile that were found to hold on this machine. The only way to a plan that the runner takes.
#[derive(Debug)]
pub struct Ready {
    driver: Driver,
    profile: Profile,
    machine: Machine,
    layers: Vec<(Layer, Enforcement)>,
    /// The files of the driver `none`, gone with this.
    _bare: Option<tempfile::TempDir>,
}

/// Probes the driver and compares with what the profile requires. `shares` are what the tasks will need of the host
/// beside the profile's paths. Blocks for some ten milliseconds: once, at the start.
///
/// # Errors
/// [`SandboxError::NotEnforced`] names every required layer that does not hold, and what would mend it;
/// [`SandboxError::WithoutSandbox`] when the profile does not allow the driver `none`; [`SandboxError::Plan`] when something
/// is wrong with a path.
pub fn select(driver: Driver, profile: Profile, mut machine: Machine, shares: &[Share]) -> Result<Ready, SandboxError> {
    if driver == Driver::None && !profile.without_sandbox {
        return Err(SandboxError::WithoutSandbox { profile: profile.name });
    }
    let bare = if driver == Driver::None { Some(bare_folder(&mut machine)?) } else { None };
    machine.look_for(&profile);
    machine.look(shares.iter().map(|share| share.from.as_path()));
    // What is wrong with the paths is an error of its own, not a layer that does not hold.
    match driver.plan(&profile, &Task { shares: shares.to_vec(), ..nothing() }, &machine) {
        Err(error @ (PlanError::NoBubblewrap | PlanError::OldBubblewrap { .. })) => {
            let missing = Layer::ALL.map(|layer| (layer, Enforcement::Missing(error.to_string()))).to_vec();
            return Err(SandboxError::NotEnforced { driver, profile: profile.name, missing });
        }
        Err(error @ PlanError::NoInternet { .. }) => {
            let missing = vec![(Layer::Network, Enforcement::Missing(error.to_string()))];
            return Err(SandboxError::NotEnforced { driver, profile: profile.name, missing });
        }
        planned => planned?,
    };
    if driver != Driver::None {
        sockets::refuse(&profile, shares, &machine)?;
    }
    let layers = driver.probe(&profile, &machine, shares);
    let waived = driver == Driver::None;
    let missing: Vec<_> =
        layers.iter().filter(|(layer, state)| profile.required.contains(layer) && !state.suffices()).cloned().collect();
    if !waived && !missing.is_empty() {
        return Err(SandboxError::NotEnforced { driver, profile: profile.name, missing });
    }
    if waived {
        tracing::warn!("no sandbox: tasks can do all that this user can do");
    }
    Ok(Ready { driver, profile, machine, layers, _bare: bare })
}

impl Ready {
    /// Everything about the start of one task.
    ///
    /// # Errors
    /// [`SandboxError::Plan`], and [`SandboxError::BareFolder`] for the driver `none`.
    pub fn plan(&self, task: &Task) -> Result<LaunchPlan, SandboxError> {
        let mut plan = self.driver.plan(&self.profile, task, &self.machine)?;
        plan.provenance.layers.clone_from(&self.layers);
        if let (Driver::None, Some(folder)) = (self.driver, self.machine.bare_folder.as_deref()) {
            self.fill(folder, task).map_err(|source| SandboxError::BareFolder { source })?;
        }
        Ok(plan)
    }

    /// The driver.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The memory that a process of a task can have, in bytes: what the profile or this machine gives the whole task, or
    /// the profile's address space if that is less.
    #[must_use]
    pub fn memory_of_a_process(&self) -> u64 {
        memory_limit(&self.profile, &self.machine).min(self.profile.limits.address_space)
    }

    /// The machine as it was found.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Every layer and whether it was enforced.
    #[must_use]
    pub fn layers(&self) -> &[(Layer, Enforcement)] {
        &self.layers
    }

    fn fill(&self, folder: &Path, task: &Task) -> io::Result<()> {
        for place in none::folders(&self.profile, folder) {
            fs::create_dir_all(&place)?;
            if let Some(user) = self.machine.become_user {
                chown(&place, Some(user.uid), Some(user.gid))?;
            }
        }
        for (path, contents) in none::files(task, folder) {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            if !fs::read(&path).is_ok_and(|there| there == contents) {
                fs::write(&path, contents)?;
            }
        }
        Ok(())
    }
}

/// A task that only shows what every task gets.
pub(super) fn nothing() -> Task {
    let command = Command { argv: Vec::new(), environment: Vec::new(), directory: "/".into() };
    Task { command, files: Vec::new(), shares: Vec::new(), slot: 0 }
}

fn bare_folder(machine: &mut Machine) -> Result<tempfile::TempDir, SandboxError> {
    let wrap = |source| SandboxError::BareFolder { source };
    let folder = tempfile::Builder::new().prefix("p2p-worker-none-").tempdir().map_err(wrap)?;
    if machine.become_user.is_some() {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(wrap)?;
    }
    machine.bare_folder = Some(folder.path().to_owned());
    Ok(folder)
}

/// Where a mount is inside.
pub(super) fn target(mount: &Mount) -> &Path {
    match mount {
        Mount::Bind { to, .. } | Mount::Tmpfs { to, .. } | Mount::Proc { to, .. } | Mount::Devices { to } => to,
        Mount::Symlink { at, .. } | Mount::File { at, .. } | Mount::Directory { at } => at,
    }
}

/// What the profile says of Landlock, in words, for those who report it.
pub(super) fn landlock_in_words(policy: LandlockPolicy, machine: &Machine) -> String {
    let wanted = if policy.required { "required" } else { "used where the kernel has it" };
    match machine.landlock_abi {
        Some(abi) => {
            format!("{wanted}; this kernel has ABI {abi}, the profile asks for {} or newer", policy.minimum_abi)
        }
        None => format!("{wanted}; this kernel has no Landlock"),
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Driver {
    type Err = SandboxError;

    fn from_str(name: &str) -> Result<Self, SandboxError> {
        let found = Self::ALL.into_iter().find(|driver| driver.name() == name);
        found.ok_or_else(|| SandboxError::UnknownDriver { name: name.to_owned() })
    }
}
