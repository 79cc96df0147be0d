//! Profiles: what a task may do, as commented data.
//!
//! [`Profile`] is what holds: every value is set and checked. What people write is in `raw` (TOML, with `inherits`);
//! what contradicts itself or would share something unsafe is refused by `check`. A profile says nothing about this
//! machine; the drivers' planners bring the two together.

mod check;
mod error;
mod paths;
mod raw;
mod rule;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use p2p_jail::spec::{Condition, DenyRule, Seccomp, Test};

pub use error::{Place, ProfileError};
pub use paths::{Surroundings, unsafe_to_share};

use super::Layer;

/// The user and group that every task believes to be.
pub const TASK_ID: u32 = 1000;

/// The host name that every task sees.
pub(in crate::sandbox) const TASK_HOSTNAME: &str = "task";

/// The largest profile file that is read, in bytes.
const MAX_PROFILE_BYTES: u64 = 256 << 10;

/// The profiles that come with the program: name and text.
pub const EMBEDDED: [(&str, &str); 2] = [
    ("strict", include_str!("../../../sandbox-profiles/strict.toml")),
    ("standard", include_str!("../../../sandbox-profiles/standard.toml")),
];

/// A policy with every value set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// `strict`, `standard`, or the file's name without `.toml`.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// The layers without which nothing starts.
    pub required: Vec<Layer>,
    /// Whether `--sandbox none` may be used with it.
    pub without_sandbox: bool,
    /// Landlock.
    pub landlock: LandlockPolicy,
    /// What of the network can be reached.
    pub reach: Reach,
    /// How much of everything.
    pub limits: Limits,
    /// Where a task can write: file systems in memory, by their path inside.
    pub scratch: BTreeMap<PathBuf, Scratch>,
    /// What of the host is there, read-only, by its path (the same inside and outside).
    pub read: BTreeMap<PathBuf, Readable>,
    /// Small files made up for the task, by their path inside.
    pub written: BTreeMap<PathBuf, Written>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// The allow-list of system calls.
    pub calls: Vec<CallGroup>,
    /// The rules about their arguments.
    pub rules: Vec<CallRule>,
}

/// What a profile says of Landlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LandlockPolicy {
    /// Whether the layer `filesystem` counts as enforced only with it.
    pub required: bool,
    /// The oldest ABI that is good enough.
    pub minimum_abi: u32,
}

/// What of the network can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Nothing, not even loopback.
    #[default]
    None,
    /// Public addresses, and neither this machine nor the networks that it is in: `sandbox::uplink`.
    Internet,
}

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, all processes and scratch together.
    pub memory: u64,
    /// Bytes of address space of each process.
    pub address_space: u64,
    /// Processes and threads.
    pub processes: u32,
    /// CPUs.
    pub cpus: u32,
    /// CPU time of all processes together.
    pub cpu_time: Duration,
    /// Time on the clock.
    pub wall_time: Duration,
    /// Bytes of each file.
    pub file_size: u64,
    /// Descriptors of each process.
    pub open_files: u32,
    /// Bytes of each main thread's stack.
    pub stack: u64,
    /// Bytes of text that are kept.
    pub text: u64,
    /// Bytes of the result.
    pub result: u64,
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scratch {
    /// Bytes.
    pub size: u64,
    /// Files, folders and links.
    pub files: u64,
    /// Whether programs in it may be started (held by Landlock). Libraries can be loaded in any case.
    pub execute: bool,
    /// The reason.
    pub why: String,
}

/// A path of the host that the task may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable {
    /// Whether files in it may be executed.
    pub execute: bool,
    /// Whether it may be absent.
    pub optional: bool,
    /// Where it is on the host, if that is elsewhere: then it is the host's even if another root file system is in use.
    pub from: Option<PathBuf>,
    /// The reason.
    pub why: String,
}

/// A file made up for the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its contents.
    pub text: String,
    /// The reason.
    pub why: String,
}

/// System calls that are allowed for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallGroup {
    /// A short name.
    pub name: String,
    /// The reason.
    pub why: String,
    /// The names of the calls.
    pub names: Vec<String>,
    /// The numbers, on this architecture, of those that it has.
    pub numbers: Vec<i64>,
}

/// A rule about an argument of a call that is allowed in general.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRule {
    /// A short name.
    pub name: String,
    /// The reason.
    pub why: String,
    /// The name of the call.
    pub call: String,
    /// Whether a profile that inherits it can except values (rules of the form `only`).
    pub exceptions: bool,
    /// What it comes to on this architecture; empty where there is no such call.
    pub deny: Vec<DenyRule>,
}

impl Profile {
    /// Loads the embedded profile of that name, else the file at that path.
    ///
    /// # Errors
    /// [`ProfileError`]: not found, not understood, contradictory or unsafe.
    pub fn load(name_or_path: &str, surroundings: &Surroundings) -> Result<Self, ProfileError> {
        if let Some((name, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(name, text, surroundings);
        }
        let path = Path::new(name_or_path);
        if !path.is_file() {
            return Err(ProfileError::NotFound { name: name_or_path.to_owned() });
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if EMBEDDED.iter().any(|(taken, _)| *taken == name) {
            let what =
                "that name is taken by the program's own; results would be misleading, rename the file".to_owned();
            return Err(ProfileError::Contradiction { place: Place::of(&name), keys: Vec::new(), what });
        }
        let text = read(path)?;
        Self::parse(&name, &text, surroundings).map_err(|error| error.located(path, &text))
    }

    /// Understands a profile's text.
    ///
    /// # Errors
    /// [`ProfileError`]: not understood, contradictory or unsafe.
    pub fn parse(name: &str, text: &str, surroundings: &Surroundings) -> Result<Self, ProfileError> {
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        let profile = raw::Raw::parse(&name, text)?.inherit(&name)?.resolve(&name)?;
        check::check(&profile, surroundings)?;
        Ok(profile)
    }

    /// The seccomp filter that the profile comes to on this architecture.
    #[must_use]
    pub fn seccomp(&self) -> Seccomp {
        let mut allow: Vec<i64> = self.calls.iter().flat_map(|group| group.numbers.iter().copied()).collect();
        allow.sort_unstable();
        allow.dedup();
        let deny = self.rules.iter().flat_map(|rule| rule.deny.iter().cloned());
        Seccomp { deny: deny.filter(|rule| allow.binary_search(&rule.syscall).is_ok()).collect(), allow, explain: None }
    }
}

impl CallRule {
    /// Whether the rule denies the call when this argument has this value and the others do not matter.
    #[must_use]
    pub fn denies(&self, call: i64, argument: u8, value: u32) -> bool {
        let holds = |condition: &Condition| {
            condition.argument == argument
                && match condition.test {
                    Test::Equal(wanted) => value == wanted,
                    Test::NotEqual(unwanted) => value != unwanted,
                    Test::BitSet(bit) => value & bit == bit,
                }
        };
        self.deny.iter().any(|rule| rule.syscall == call && rule.conditions.iter().all(holds))
    }
}

fn read(path: &Path) -> Result<String, ProfileError> {
    use std::io::Read;
    let wrap = |source| ProfileError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path).map_err(wrap)?.take(MAX_PROFILE_BYTES + 1).read_to_string(&mut text).map_err(wrap)?;
    if text.len() as u64 > MAX_PROFILE_BYTES { Err(ProfileError::TooLong { path: path.to_owned() }) } else { Ok(text) }
}
