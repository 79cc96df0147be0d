//! A profile as it is written. Nothing here is trusted to be complete or sensible; [`Raw::resolve`] makes it so.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::{
    CallGroup, EMBEDDED, LandlockPolicy, Limits, Place, Profile, ProfileError, Reach, Readable, Scratch, Written,
    rule::{RawException, RawRule},
};
use crate::sandbox::{
    Layer,
    syscalls::{self, Call},
    units::{parse_bytes, parse_duration},
};

/// The file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    inherits: Option<String>,
    summary: Option<String>,
    layers: RawLayers,
    landlock: RawLandlock,
    network: RawNetwork,
    limits: RawLimits,
    scratch: BTreeMap<PathBuf, RawScratch>,
    files: RawFiles,
    environment: BTreeMap<String, String>,
    syscalls: RawSyscalls,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLayers {
    required: Option<Vec<Layer>>,
    without_sandbox: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLandlock {
    required: Option<bool>,
    minimum_abi: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawNetwork {
    reach: Option<Reach>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    memory: Option<Bytes>,
    address_space: Option<Bytes>,
    processes: Option<u32>,
    cpus: Option<u32>,
    cpu_time: Option<Time>,
    wall_time: Option<Time>,
    file_size: Option<Bytes>,
    open_files: Option<u32>,
    stack: Option<Bytes>,
    text: Option<Bytes>,
    result: Option<Bytes>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScratch {
    size: Bytes,
    files: u64,
    #[serde(default)]
    execute: bool,
    why: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawFiles {
    read: BTreeMap<PathBuf, RawReadable>,
    write: BTreeMap<PathBuf, RawWritten>,
    /// Paths that the parent shares and this profile does not.
    hide: Vec<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReadable {
    #[serde(default)]
    execute: bool,
    #[serde(default)]
    optional: bool,
    from: Option<PathBuf>,
    why: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWritten {
    text: String,
    why: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSyscalls {
    allow: BTreeMap<String, RawGroup>,
    rules: BTreeMap<String, RawRule>,
    /// By the name of the inherited rule.
    except: BTreeMap<String, RawException>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    why: String,
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
struct Bytes(u64);

#[derive(Debug, Clone, Copy)]
struct Time(Duration);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_bytes(&String::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

impl Raw {
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        toml::from_str(text).map_err(|source| ProfileError::Syntax { place: Place::of(name), source: Box::new(source) })
    }

    /// Fills what is not said from the parents. All profiles but `strict` have one, so that no rule about arguments can
    /// be forgotten. The chain is as long as there are embedded profiles, since only those
    /// can be inherited from and none of them inherits from itself (a test checks that).
    pub(super) fn inherit(self, name: &str) -> Result<Self, ProfileError> {
        let Some(parent) = self.inherits.clone() else {
            let root = EMBEDDED.first().is_some_and(|(root, _)| *root == name);
            let unset = || ProfileError::Unset { place: Place::of(name), key: "inherits" };
            return if root { Ok(self) } else { Err(unset()) };
        };
        let Some((parent, text)) = EMBEDDED.iter().find(|(known, _)| *known == parent && *known != name) else {
            return Err(ProfileError::Parent { place: Place::of(name), parent });
        };
        let parent = Self::parse(parent, text)?.inherit(parent)?;
        self.over(parent, name)
    }

    fn over(self, mut parent: Self, name: &str) -> Result<Self, ProfileError> {
        if let Some(rule) = self.syscalls.rules.keys().find(|rule| parent.syscalls.rules.contains_key(*rule)) {
            let what = format!(
                "the rule syscalls.rules.{rule} is inherited and cannot be replaced; give yours a new name, or make \
                 exceptions: syscalls.except.{rule}"
            );
            return Err(contradiction(name, &["syscalls", "rules", rule], what));
        }
        for path in &self.files.hide {
            if parent.files.read.remove(path).is_none() {
                let what = format!("files.hide names {}, which is not shared anyway", path.display());
                return Err(contradiction(name, &["files", "hide"], what));
            }
        }
        parent.scratch.extend(self.scratch);
        parent.files.read.extend(self.files.read);
        parent.files.write.extend(self.files.write);
        parent.environment.extend(self.environment);
        parent.syscalls.allow.extend(self.syscalls.allow);
        for (key, exception) in self.syscalls.except {
            let rule = parent.syscalls.rules.get_mut(&key);
            let excepted = rule.ok_or_else(|| "no inherited rule has this name".to_owned());
            excepted.and_then(|rule| rule.except(exception)).map_err(|what| {
                contradiction(name, &["syscalls", "except", &key], format!("syscalls.except.{key}: {what}"))
            })?;
        }
        parent.syscalls.rules.extend(self.syscalls.rules);
        Ok(Self {
            inherits: None,
            summary: self.summary.or(parent.summary),
            layers: RawLayers {
                required: self.layers.required.or(parent.layers.required),
                without_sandbox: self.layers.without_sandbox.or(parent.layers.without_sandbox),
            },
            landlock: RawLandlock {
                required: self.landlock.required.or(parent.landlock.required),
                minimum_abi: self.landlock.minimum_abi.or(parent.landlock.minimum_abi),
            },
            network: RawNetwork { reach: self.network.reach.or(parent.network.reach) },
            limits: self.limits.over(&parent.limits),
            files: RawFiles { hide: Vec::new(), ..parent.files },
            scratch: parent.scratch,
            environment: parent.environment,
            syscalls: parent.syscalls,
        })
    }

    /// Demands every value and turns names into numbers.
    pub(super) fn resolve(self, name: &str) -> Result<Profile, ProfileError> {
        let unset = |key| ProfileError::Unset { place: Place::of(name), key };
        let groups = self.syscalls.allow.into_iter();
        let rules = self.syscalls.rules.into_iter();
        Ok(Profile {
            name: name.to_owned(),
            summary: self.summary.unwrap_or_default(),
            required: self.layers.required.ok_or_else(|| unset("layers.required"))?,
            without_sandbox: self.layers.without_sandbox.ok_or_else(|| unset("layers.without_sandbox"))?,
            landlock: LandlockPolicy {
                required: self.landlock.required.ok_or_else(|| unset("landlock.required"))?,
                minimum_abi: self.landlock.minimum_abi.ok_or_else(|| unset("landlock.minimum_abi"))?,
            },
            reach: self.network.reach.unwrap_or_default(),
            limits: self.limits.resolve().map_err(unset)?,
            scratch: self.scratch.into_iter().map(|(path, raw)| (path, raw.resolve())).collect(),
            read: self.files.read.into_iter().map(|(path, raw)| (path, raw.resolve())).collect(),
            written: self.files.write.into_iter().map(|(path, raw)| (path, raw.resolve())).collect(),
            environment: self.environment,
            calls: groups.map(|(key, raw)| raw.resolve(name, key)).collect::<Result<_, _>>()?,
            rules: rules.map(|(key, raw)| raw.resolve(name, key)).collect::<Result<_, _>>()?,
        })
    }
}

impl RawLimits {
    fn over(&self, parent: &Self) -> Self {
        Self {
            memory: self.memory.or(parent.memory),
            address_space: self.address_space.or(parent.address_space),
            processes: self.processes.or(parent.processes),
            cpus: self.cpus.or(parent.cpus),
            cpu_time: self.cpu_time.or(parent.cpu_time),
            wall_time: self.wall_time.or(parent.wall_time),
            file_size: self.file_size.or(parent.file_size),
            open_files: self.open_files.or(parent.open_files),
            stack: self.stack.or(parent.stack),
            text: self.text.or(parent.text),
            result: self.result.or(parent.result),
        }
    }

    fn resolve(&self) -> Result<Limits, &'static str> {
        Ok(Limits {
            memory: self.memory.ok_or("limits.memory")?.0,
            address_space: self.address_space.ok_or("limits.address_space")?.0,
            processes: self.processes.ok_or("limits.processes")?,
            cpus: self.cpus.ok_or("limits.cpus")?,
            cpu_time: self.cpu_time.ok_or("limits.cpu_time")?.0,
            wall_time: self.wall_time.ok_or("limits.wall_time")?.0,
            file_size: self.file_size.ok_or("limits.file_size")?.0,
            open_files: self.open_files.ok_or("limits.open_files")?,
            stack: self.stack.ok_or("limits.stack")?.0,
            text: self.text.ok_or("limits.text")?.0,
            result: self.result.ok_or("limits.result")?.0,
        })
    }
}

impl RawScratch {
    fn resolve(self) -> Scratch {
        Scratch { size: self.size.0, files: self.files, execute: self.execute, why: self.why }
    }
}

impl RawReadable {
    fn resolve(self) -> Readable {
        Readable { execute: self.execute, optional: self.optional, from: self.from, why: self.why }
    }
}

impl RawWritten {
    fn resolve(self) -> Written {
        Written { text: self.text, why: self.why }
    }
}

impl RawGroup {
    fn resolve(self, profile: &str, key: String) -> Result<CallGroup, ProfileError> {
        let mut numbers = Vec::new();
        for name in &self.names {
            if let Call::Number(number) = number(profile, &format!("allow.{key}"), name)? {
                numbers.push(number);
            }
        }
        Ok(CallGroup { name: key, why: self.why, names: self.names, numbers })
    }
}

/// The number of a system call that is named at this place of a profile.
pub(super) fn number(profile: &str, place: &str, name: &str) -> Result<Call, ProfileError> {
    syscalls::call(name).map_err(|source| ProfileError::Call {
        place: Place::of(profile),
        key: place.to_owned(),
        source,
    })
}

/// What this key says cannot be.
pub(super) fn contradiction(profile: &str, key: &[&str], what: String) -> ProfileError {
    let keys = vec![key.iter().map(|&part| part.to_owned()).collect()];
    ProfileError::Contradiction { place: Place::of(profile), keys, what }
}
