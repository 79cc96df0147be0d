//! `doctor`: is it safe to leave this on? What each driver enforces of the profile, every layer proven by a probe, each
//! limit with its mechanism, versions with known problems, and what to do about the rest.
//!
//! `known` has the problems, `screen` the text. The JSON is described by `docs/doctor.schema.json`.

mod known;
mod screen;

use std::path::Path;

use serde::Serialize;

pub use known::Known;

use super::{Driver, EMBEDDED, Enforcement, Habitat, Layer, Machine, Profile, ProfileError, Share, fix};

/// The version of the JSON: a field that goes away or changes its meaning makes a new one, a field that comes does not.
const SCHEMA: u32 = 1;

/// The profile that nothing is required of but everything.
const STRICTEST: &str = "strict";

/// What the owner asks about.
#[derive(Debug)]
pub struct Question {
    /// Who is to make the sandbox.
    pub driver: Driver,
    /// What tasks may do.
    pub profile: Profile,
    /// What the tasks will need of the host beside the profile's paths.
    pub shares: Vec<Share>,
    /// The R that tasks would run under, or why there is none.
    pub r: Result<Interpreter, String>,
}

/// R.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interpreter {
    /// Its version.
    pub version: String,
    /// The version of package future.
    pub future: String,
}

/// Everything that `doctor` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doctor {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The answer.
    pub verdict: Verdict,
    /// What was asked about: the driver's name.
    pub driver: String,
    /// What was asked about: the profile's name.
    pub profile: String,
    /// This machine.
    pub machine: Facts,
    /// What each driver enforces of the profile, and which profiles it can run.
    pub drivers: Vec<Diagnosis>,
    /// Versions with known problems.
    pub known_problems: Vec<Known>,
    /// What would mend what is missing, in the order in which it should be done.
    pub to_do: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether the profile that was asked about runs with the driver, R is there, and nothing known speaks against it.
    pub safe: bool,
    /// Whether `strict` runs with the driver.
    pub strict_runs: bool,
    /// Whether the profile that was asked about runs with the driver.
    pub profile_runs: bool,
    /// Layers of the profile that was asked about that do not hold in full, required or not.
    pub not_held: Vec<Layer>,
    /// Layers that keep the profile that was asked about from running.
    pub profile_lacks: Vec<Layer>,
    /// Layers that keep `strict` from running.
    pub strict_lacks: Vec<Layer>,
}

/// The facts of the machine that decide what can be enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The kernel's release.
    pub kernel: String,
    /// Landlock's ABI, if the kernel has it.
    pub landlock_abi: Option<u32>,
    /// The CPUs that tasks can use.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// As whom tasks run, on the host.
    pub task_uid: Option<u32>,
    /// The version of bubblewrap, if it is installed.
    pub bubblewrap: Option<String>,
    /// R with package future, if it can be used.
    pub r: Option<Interpreter>,
    /// What holds the limits on memory, processes and processor time.
    pub limits: String,
    /// Containers, switches, filters.
    pub habitat: Habitat,
    /// What stands in the way of namespaces and mounts, if something does.
    pub obstacle: Option<String>,
}

/// One driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Its name.
    pub driver: String,
    /// The profiles that it can run here, of the embedded ones and the one that was asked about.
    pub runs: Vec<String>,
    /// Every layer, under the profile that was asked about.
    pub layers: Vec<Held>,
}

/// One layer of a driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Which.
    pub layer: Layer,
    /// Whether the profile requires it.
    pub required: bool,
    /// Whether it holds; the detail is its proof and, for a limit, its mechanism, or else what is wrong.
    #[serde(flatten)]
    pub enforcement: Enforcement,
}

/// Probes every driver. Blocks for some hundred milliseconds.
///
/// # Errors
/// [`ProfileError`]; the embedded profiles are tested to have none.
pub fn examine(mut machine: Machine, question: &Question) -> Result<Doctor, ProfileError> {
    let mut profiles = vec![question.profile.clone()];
    for (name, _) in EMBEDDED.iter().filter(|(name, _)| *name != question.profile.name) {
        profiles.push(Profile::load(name, &machine.surroundings)?);
    }
    profiles.iter().for_each(|profile| machine.look_for(profile));
    machine.look(question.shares.iter().map(|share| share.from.as_path()));
    let examined: Vec<Examined> =
        Driver::ALL.into_iter().map(|driver| Examined::of(driver, &profiles, &question.shares, &machine)).collect();
    let asked = examined.iter().find(|examined| examined.driver == question.driver);
    let r = question.r.as_ref().ok().cloned();
    let known_problems = known::problems(&machine, r.as_ref().map(|r| r.version.as_str()));
    let verdict = asked.map(|asked| asked.verdict(r.is_some(), &known_problems)).unwrap_or_default();
    let details = asked.map(Examined::details).unwrap_or_default();
    let to_do = to_do(question, &verdict, &details, &machine);
    Ok(Doctor {
        schema: SCHEMA,
        verdict,
        driver: question.driver.name().to_owned(),
        profile: question.profile.name.clone(),
        machine: Facts::of(&machine, r),
        drivers: examined.into_iter().map(Examined::diagnosis).collect(),
        known_problems,
        to_do,
    })
}

/// One driver with all profiles; the first is the one that was asked about.
struct Examined {
    driver: Driver,
    profiles: Vec<(Profile, Vec<(Layer, Enforcement)>)>,
}

impl Examined {
    fn of(driver: Driver, profiles: &[Profile], shares: &[Share], machine: &Machine) -> Self {
        let probe = |profile: &Profile| (profile.clone(), driver.probe(profile, machine, shares));
        Self { driver, profiles: profiles.iter().map(probe).collect() }
    }

    /// The required layers of a profile that do not hold.
    fn lacks(&self, (profile, layers): &(Profile, Vec<(Layer, Enforcement)>)) -> Vec<Layer> {
        let lacks = |(layer, state): &&(Layer, Enforcement)| profile.required.contains(layer) && !state.suffices();
        let lacking: Vec<_> = layers.iter().filter(lacks).collect();
        // What was not tried is not to blame.
        let tried: Vec<_> = lacking
            .iter()
            .filter(|(_, state)| !matches!(state, Enforcement::Untried(_)))
            .map(|(layer, _)| *layer)
            .collect();
        if tried.is_empty() { lacking.iter().map(|(layer, _)| *layer).collect() } else { tried }
    }

    fn runs(&self, probed: &(Profile, Vec<(Layer, Enforcement)>)) -> bool {
        if self.driver == Driver::None { probed.0.without_sandbox } else { self.lacks(probed).is_empty() }
    }

    fn verdict(&self, has_r: bool, known: &[Known]) -> Verdict {
        let Some(asked) = self.profiles.first() else { return Verdict::default() };
        let strict = self.profiles.iter().find(|(profile, _)| profile.name == STRICTEST);
        let profile_runs = self.runs(asked);
        let open = known.iter().any(|known| known.reachable);
        Verdict {
            safe: profile_runs && self.driver != Driver::None && has_r && !open,
            strict_runs: strict.is_some_and(|strict| self.runs(strict)),
            profile_runs,
            profile_lacks: self.lacks(asked),
            not_held: asked.1.iter().filter(|(_, state)| !state.is_whole()).map(|(layer, _)| *layer).collect(),
            strict_lacks: strict.map(|strict| self.lacks(strict)).unwrap_or_default(),
        }
    }

    /// What is said of each layer under the profile that was asked about.
    fn details(&self) -> Vec<String> {
        let layers = self.profiles.first().map_or(&[][..], |(_, layers)| layers);
        layers.iter().map(|(_, state)| state.in_words().1.to_owned()).collect()
    }

    fn diagnosis(self) -> Diagnosis {
        let runs = self.profiles.iter().filter(|probed| self.runs(probed)).map(|(profile, _)| profile.name.clone());
        let runs = runs.collect();
        let layers = self.profiles.into_iter().next().map(|(profile, layers)| {
            let held = |(layer, enforcement)| Held { layer, required: profile.required.contains(&layer), enforcement };
            layers.into_iter().map(held).collect()
        });
        Diagnosis { driver: self.driver.name().to_owned(), runs, layers: layers.unwrap_or_default() }
    }
}

impl Default for Verdict {
    /// Nothing is known to hold.
    fn default() -> Self {
        let all = Layer::ALL.to_vec();
        Self {
            safe: false,
            strict_runs: false,
            profile_runs: false,
            not_held: all.clone(),
            profile_lacks: all.clone(),
            strict_lacks: all,
        }
    }
}

impl Facts {
    fn of(machine: &Machine, r: Option<Interpreter>) -> Self {
        let version = |(major, minor, patch)| format!("{major}.{minor}.{patch}");
        Self {
            kernel: machine.kernel.clone(),
            landlock_abi: machine.landlock_abi,
            cpus: machine.cpus.len(),
            memory: machine.memory,
            task_uid: machine.task_user().map(|user| user.uid),
            bubblewrap: machine.bubblewrap.as_ref().map(|bubblewrap| version(bubblewrap.version)),
            r,
            limits: machine.limits.to_string(),
            habitat: machine.habitat.clone(),
            obstacle: machine.habitat.obstacle(),
        }
    }
}

impl Doctor {
    /// Whether the driver can run both `strict` and the profile that was asked about. Otherwise the exit status is 3.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.verdict.strict_runs && self.verdict.profile_runs && self.driver != Driver::None.name()
    }

    /// All of it as JSON.
    ///
    /// # Errors
    /// None in practice: there is nothing in it that JSON cannot say.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// One screen of text, for a terminal of 80 columns.
    #[must_use]
    pub fn render(&self) -> String {
        screen::render(self)
    }
}

/// What the owner can do. A fix for one layer that does not hold is in its row already; here is what goes beyond.
fn to_do(question: &Question, verdict: &Verdict, details: &[String], machine: &Machine) -> Vec<String> {
    let mut list = Vec::new();
    let explained = |fix: &str| details.iter().any(|detail| detail.contains(fix));
    let lacks = |layer| verdict.strict_lacks.contains(&layer) || verdict.not_held.contains(&layer);
    if question.driver == Driver::None {
        list.push("choose a driver that is a sandbox: --sandbox jail".to_owned());
    } else if lacks(Layer::Network) {
        list.extend(machine.habitat.obstacle().or_else(|| machine.habitat.denied().filter(|fix| explained(fix))));
    }
    if machine.landlock_abi.is_none() {
        list.push(fix::landlock(nix::errno::Errno::UnknownErrno, machine));
    }
    if let Err(why) = &question.r {
        list.push(why.clone());
    }
    if machine.bubblewrap.is_none() {
        list.push("for the driver bubblewrap: apt install bubblewrap".to_owned());
    }
    list.dedup();
    list
}

/// The AppArmor profile of this repository, for the place where `p2p-jail` is.
#[must_use]
pub fn apparmor_profile(jail: &Path) -> String {
    const SHIPPED: &str = include_str!("../../../apparmor/p2p-jail");
    const LAST: &str = "# More places go here.";
    let usual = ["/usr/bin", "/usr/local/bin"].iter().any(|folder| jail.parent() == Some(Path::new(folder)));
    if usual {
        return SHIPPED.to_owned();
    }
    let escaped: String = jail.to_string_lossy().chars().fold(String::new(), |mut text, c| {
        // What has a meaning in a pattern, or ends a quoted one (apparmor.d(5)).
        if "\\\"*?[]{}^,@".contains(c) {
            text.push('\\');
        }
        text.push(c);
        text
    });
    SHIPPED.replace(LAST, &format!("@{{p2p_jail}} += \"{escaped}\""))
}
