//! `doctor`: what this machine can enforce, drivers × layers, each proven by a probe, with the fix for what is missing.

use std::fmt::{self, Write};

use serde::Serialize;

use super::{Driver, EMBEDDED, Enforcement, Layer, Machine, Profile, ProfileError, show_bytes};

/// Everything that `doctor` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doctor {
    /// This machine.
    pub machine: Facts,
    /// What each driver enforces of the profile `strict`, and which profiles it can run.
    pub drivers: Vec<Diagnosis>,
    /// What would mend what is missing; empty when `strict` runs with the built-in jail.
    pub fixes: Vec<String>,
}

/// The facts of the machine that decide what can be enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The kernel's release.
    pub kernel: String,
    /// Landlock's ABI, if the kernel has it.
    pub landlock_abi: Option<u32>,
    /// What forbids user namespaces, if something does.
    pub user_namespaces_obstacle: Option<String>,
    /// The CPUs that tasks can use.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// As whom tasks run, on the host.
    pub task_uid: Option<u32>,
    /// The version of bubblewrap, if it is installed.
    pub bubblewrap: Option<String>,
    /// What holds the limits.
    pub limits: String,
    /// R, as the runner found it: set by the caller, who knows.
    pub r: Option<String>,
}

/// One driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Its name.
    pub driver: String,
    /// The embedded profiles that it can run here.
    pub runs: Vec<String>,
    /// Every layer, under `strict`.
    pub layers: Vec<(Layer, Enforcement)>,
}

/// Probes every driver. Blocks for some hundred milliseconds.
///
/// # Errors
/// [`ProfileError`]; the embedded profiles are tested to have none.
pub fn examine(mut machine: Machine) -> Result<Doctor, ProfileError> {
    let profiles: Vec<Profile> =
        EMBEDDED.iter().map(|(name, _)| Profile::load(name, &machine.surroundings)).collect::<Result<_, _>>()?;
    machine.look(profiles.iter().flat_map(|profile| profile.read.keys()).map(std::path::PathBuf::as_path));
    let drivers: Vec<Diagnosis> =
        Driver::ALL.into_iter().map(|driver| Diagnosis::of(driver, &profiles, &machine)).collect();
    let mut doctor = Doctor { machine: Facts::of(&machine), drivers, fixes: Vec::new() };
    doctor.fixes = doctor.find_fixes();
    Ok(doctor)
}

impl Facts {
    fn of(machine: &Machine) -> Self {
        let version = |(major, minor, patch)| format!("{major}.{minor}.{patch}");
        Self {
            kernel: machine.kernel.clone(),
            landlock_abi: machine.landlock_abi,
            user_namespaces_obstacle: machine.user_namespaces.obstacle().map(str::to_owned),
            cpus: machine.cpus.len(),
            memory: machine.memory,
            task_uid: machine.task_user().map(|user| user.uid),
            bubblewrap: machine.bubblewrap.as_ref().map(|bubblewrap| version(bubblewrap.version)),
            limits: machine.limits.to_string(),
            r: None,
        }
    }
}

impl Diagnosis {
    fn of(driver: Driver, profiles: &[Profile], machine: &Machine) -> Self {
        let probed: Vec<_> = profiles.iter().map(|profile| (profile, driver.probe(profile, machine, &[]))).collect();
        let holds = |profile: &Profile, layers: &[(Layer, Enforcement)]| {
            let enforced =
                |layer: &Layer| layers.iter().any(|(l, e)| l == layer && matches!(e, Enforcement::Enforced(_)));
            if driver == Driver::None { profile.without_sandbox } else { profile.required.iter().all(enforced) }
        };
        let runs = probed.iter().filter(|(profile, layers)| holds(profile, layers));
        Self {
            driver: driver.name().to_owned(),
            runs: runs.map(|(profile, _)| profile.name.clone()).collect(),
            layers: probed.first().map(|(_, layers)| layers.clone()).unwrap_or_default(),
        }
    }

    fn runs(&self, profile: &str) -> bool {
        self.runs.iter().any(|name| name == profile)
    }
}

impl Doctor {
    /// Whether `strict` runs with the built-in jail. Otherwise the exit status is 3.
    #[must_use]
    pub fn strict_runs(&self) -> bool {
        self.drivers.iter().any(|diagnosis| diagnosis.driver == Driver::Jail.name() && diagnosis.runs("strict"))
    }

    /// All of it as JSON.
    ///
    /// # Errors
    /// None in practice: there is nothing in it that JSON cannot say.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// One screen of text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let facts = &self.machine;
        let or = |value: &Option<String>, none: &str| value.clone().unwrap_or_else(|| none.to_owned());
        let landlock = facts.landlock_abi.map_or_else(|| "none".to_owned(), |abi| format!("ABI {abi}"));
        writeln!(
            out,
            "Linux {}, Landlock {landlock}, {} CPUs, {}",
            facts.kernel,
            facts.cpus,
            show_bytes(facts.memory >> 20 << 20)
        )?;
        let uid = facts.task_uid.map_or_else(|| "?".to_owned(), |uid| uid.to_string());
        writeln!(
            out,
            "tasks run as uid {uid}; bubblewrap {}; R {}",
            or(&facts.bubblewrap, "not installed"),
            or(&facts.r, "not looked for")
        )?;
        writeln!(out, "limits held by {}\n", facts.limits)?;
        self.matrix(out)?;
        self.details(out)?;
        for fix in &self.fixes {
            writeln!(out, "To do: {fix}")?;
        }
        let verdict = if self.strict_runs() { "runs" } else { "cannot run" };
        writeln!(out, "The profile strict {verdict} here with the built-in jail.")
    }

    fn matrix(&self, out: &mut String) -> fmt::Result {
        write!(out, "{:<12}", "")?;
        self.drivers.iter().try_for_each(|diagnosis| write!(out, "{:<12}", diagnosis.driver))?;
        for layer in Layer::ALL {
            write!(out, "\n{:<12}", layer.to_string())?;
            for diagnosis in &self.drivers {
                let state = diagnosis.layers.iter().find(|(known, _)| *known == layer);
                write!(out, "{:<12}", state.map_or("?", |(_, state)| state.in_words().0))?;
            }
        }
        write!(out, "\n{:<12}", "profiles")?;
        for diagnosis in &self.drivers {
            let runs = if diagnosis.runs.is_empty() { "-".to_owned() } else { diagnosis.runs.join("+") };
            write!(out, "{runs:<12} ")?;
        }
        writeln!(out, "\n")
    }

    /// Why something does not hold, each reason once. That `none` holds nothing needs no reasons.
    fn details(&self, out: &mut String) -> fmt::Result {
        let mut said: Vec<&str> = Vec::new();
        for diagnosis in self.drivers.iter().filter(|diagnosis| diagnosis.driver != Driver::None.name()) {
            for (layer, state) in &diagnosis.layers {
                let (word, detail) = state.in_words();
                if matches!(state, Enforcement::Enforced(_)) || said.contains(&detail) {
                    continue;
                }
                writeln!(out, "{} {layer} {word}: {detail}", diagnosis.driver)?;
                said.push(detail);
            }
        }
        Ok(())
    }

    fn find_fixes(&self) -> Vec<String> {
        let mut fixes = Vec::new();
        if !self.strict_runs() {
            fixes.extend(self.machine.user_namespaces_obstacle.clone());
            if self.machine.landlock_abi.is_none() {
                fixes.push(super::probe::NO_LANDLOCK.to_owned());
            }
        }
        if self.machine.bubblewrap.is_none() {
            fixes.push("for the driver bubblewrap: apt install bubblewrap".to_owned());
        }
        fixes
    }
}
