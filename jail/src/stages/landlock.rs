//! Stage *Landlock*: a second line behind the mounts, which holds even where a mount is reachable that should not be.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use crate::control::chain;
use crate::failure::{Failure, Outcome};
use crate::spec::{Landlock, Stage};
use crate::sys;

const STAGE: Stage = Stage::Landlock;

/// The newest ABI that the crate `landlock` knows.
const NEWEST: u32 = 10;

/// Puts the ruleset in force. Returns a line for the owner.
pub(crate) fn apply(landlock: &Landlock) -> Outcome<String> {
    let found = sys::landlock_abi().map_err(|errno| Failure {
        errno: errno as i32,
        ..failed("landlock_create_ruleset: this kernel has no Landlock")
    })?;
    if found < landlock.minimum_abi {
        return Err(failed(format!("this kernel has Landlock ABI {found}, {} is required", landlock.minimum_abi)));
    }
    let abi = ABI::from(found.min(NEWEST).cast_signed());
    let mut ruleset = strict(abi, landlock.tcp)?;
    for (paths, access) in grants(landlock, abi) {
        for path in paths {
            ruleset = grant(ruleset, path, access, abi)?;
        }
    }
    enforce(ruleset)?;
    Ok(format!("ABI {found}{}", if found > NEWEST { ", held to what ABI 10 knows" } else { "" }))
}

/// For the init, which needs no file any more. It keeps the right to signal: the task is not in its domain. A kernel without
/// Landlock is no failure here: whether the task may run without it, its own stage decides.
pub(crate) fn deny_all_files() -> Outcome<()> {
    let Ok(found) = sys::landlock_abi() else { return Ok(()) };
    let abi = ABI::from(found.min(NEWEST).cast_signed());
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))
        .and_then(Ruleset::create)
        .map_err(|error| failed(chain(&error)))?;
    enforce(ruleset)
}

/// A ruleset that denies all that a kernel with this ABI can deny, TCP perhaps left alone.
fn strict(abi: ABI, tcp: bool) -> Outcome<RulesetCreated> {
    let build = || {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(abi))?;
        if !tcp && !AccessNet::from_all(abi).is_empty() {
            ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
        }
        if !Scope::from_all(abi).is_empty() {
            ruleset = ruleset.scope(Scope::from_all(abi))?;
        }
        ruleset.create()
    };
    build().map_err(|error| failed(chain(&error)))
}

fn grants(landlock: &Landlock, abi: ABI) -> [(&[PathBuf], BitFlags<AccessFs>); 5] {
    let all = AccessFs::from_all(abi);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let never = AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    [
        (&landlock.list, AccessFs::ReadDir.into()),
        (&landlock.read_execute, read | AccessFs::Execute),
        (&landlock.read, read),
        (&landlock.read_write, all & !never),
        (&landlock.files_read_write, all & (AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate)),
    ]
}

fn grant(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>, abi: ABI) -> Outcome<RulesetCreated> {
    let at = |error: &dyn std::error::Error| failed(format!("{}: {}", path.display(), chain(error)));
    let fd = PathFd::new(path).map_err(|error| at(&error))?;
    // Rights to folders cannot be granted on a file.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
    ruleset.add_rule(PathBeneath::new(fd, access)).map_err(|error| at(&error))
}

fn enforce(ruleset: RulesetCreated) -> Outcome<()> {
    match ruleset.restrict_self() {
        Ok(RestrictionStatus { ruleset: RulesetStatus::FullyEnforced, .. }) => Ok(()),
        Ok(status) => Err(failed(format!("landlock_restrict_self enforced only a part: {:?}", status.ruleset))),
        Err(error) => Err(failed(format!("landlock_restrict_self: {}", chain(&error)))),
    }
}

fn failed(what: impl Into<String>) -> Failure {
    Failure::new(STAGE, what)
}
