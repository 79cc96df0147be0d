//! `profile list` and `profile show`: a profile, and exactly what a driver makes of it on this machine.

use std::{
    fmt::{self, Write},
    path::Path,
};

use p2p_jail::spec::{Container, Mount};

use super::{
    Driver, EMBEDDED, LaunchPlan, Layer, Machine, PlanError, Profile, ProfileError, Share, Surroundings, Task,
    driver::{landlock_in_words, memory_limit, nothing},
    profile::{CallRule, Reach},
    show_bytes, show_duration, uplink,
};

/// The profiles that come with the program, one line each.
///
/// # Errors
/// [`ProfileError`]; the embedded profiles are tested to have none.
pub fn list(surroundings: &Surroundings) -> Result<String, ProfileError> {
    let mut text = String::new();
    for (name, _) in EMBEDDED {
        let profile = Profile::load(name, surroundings)?;
        let _ = writeln!(text, "{name:<10} {}", profile.summary);
    }
    text.push_str("A profile of your own is a TOML file that inherits from one of these: --profile FILE\n");
    Ok(text)
}

/// A profile for people to read, and whether it can be run.
#[derive(Debug)]
pub struct Shown {
    /// What it comes to.
    pub text: String,
    /// Why the driver cannot run it here, which the text says too.
    pub refused: Option<PlanError>,
}

/// What the profile comes to with this driver on this machine, which must have been told to look at the profile's paths and
/// at what R needs beside them.
#[must_use]
pub fn show(profile: &Profile, driver: Driver, machine: &Machine, shares: &[Share]) -> Shown {
    let mut text = String::new();
    let plan = match driver {
        Driver::None => None,
        _ => Some(driver.plan(profile, &Task { shares: shares.to_vec(), ..nothing() }, machine)),
    };
    // Writing to a String cannot fail.
    let _ = write_all(&mut text, profile, driver, machine, shares, plan.as_ref());
    Shown { text, refused: plan.and_then(Result::err) }
}

fn write_all(
    out: &mut String,
    profile: &Profile,
    driver: Driver,
    machine: &Machine,
    shares: &[Share],
    plan: Option<&Result<LaunchPlan, PlanError>>,
) -> fmt::Result {
    writeln!(out, "Profile {} with the driver {driver}\n{}\n", profile.name, profile.summary)?;
    layers(out, profile, driver, machine)?;
    limits(out, profile, machine)?;
    match plan {
        None => {
            writeln!(
                out,
                "\nNo sandbox: of the limits only wall_time, text and result hold, and of the rest nothing."
            )?;
            return Ok(());
        }
        Some(Ok(plan)) => {
            network(out, profile)?;
            files(out, profile, driver, machine, shares)?;
            variables(out, &plan.spec.command.environment)?;
            if let Container::External(external) = &plan.spec.container {
                command_line(out, &external.argv)?;
            }
        }
        Some(Err(error)) => writeln!(out, "\nThis driver cannot run it here: {error}")?,
    }
    calls(out, profile)
}

fn layers(out: &mut String, profile: &Profile, driver: Driver, machine: &Machine) -> fmt::Result {
    let names = |required: bool| {
        let of = Layer::ALL.iter().filter(|layer| profile.required.contains(layer) == required);
        let names: Vec<String> = of.map(ToString::to_string).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    if driver == Driver::None {
        let allowed = if profile.without_sandbox { "waives all layers" } else { "never runs with this driver" };
        return writeln!(out, "Layers\n  {} {allowed}", profile.name);
    }
    writeln!(
        out,
        "Layers (what holds here: p2p-worker doctor)\n  required  {}\n  optional  {}",
        names(true),
        names(false)
    )?;
    writeln!(out, "  Landlock  {}", landlock_in_words(profile.landlock, machine))
}

fn network(out: &mut String, profile: &Profile) -> fmt::Result {
    match profile.reach {
        Reach::Internet => writeln!(out, "\nNetwork\n  {}\n  not closed: {}", uplink::IN_WORDS, uplink::NOT_HELD),
        Reach::None => writeln!(out, "\nNetwork\n  none, not even loopback"),
    }
}

fn limits(out: &mut String, profile: &Profile, machine: &Machine) -> fmt::Result {
    let limits = &profile.limits;
    let memory = memory_limit(profile, machine);
    let here = if memory < limits.memory { " (three quarters of this machine's)" } else { "" };
    writeln!(out, "\nLimits")?;
    let mut line = |key: &str, value: String, how: &str| writeln!(out, "  {key:<14} {value:<12} {how}");
    line("memory", show_bytes(memory), &format!("all processes and scratch together{here}"))?;
    line("address_space", show_bytes(limits.address_space), "of each process")?;
    line("processes", limits.processes.to_string(), "processes and threads")?;
    line("cpus", limits.cpus.to_string(), &format!("of {} here", machine.cpus.len()))?;
    line("cpu_time", show_duration(limits.cpu_time), "all processes together")?;
    line("wall_time", show_duration(limits.wall_time), "on the clock")?;
    line("file_size", show_bytes(limits.file_size), "of each file")?;
    line("open_files", limits.open_files.to_string(), "of each process")?;
    line("stack", show_bytes(limits.stack), "of each process")?;
    line("text", show_bytes(limits.text), "kept of what it prints")?;
    line("result", show_bytes(limits.result), "as RDS")
}

fn files(out: &mut String, profile: &Profile, driver: Driver, machine: &Machine, shares: &[Share]) -> fmt::Result {
    writeln!(out, "\nFiles (everything that is there)")?;
    if let Some(root) = &machine.root {
        writeln!(out, "  of the root file system {}, where nothing else is said", root.display())?;
    }
    for (path, scratch) in &profile.scratch {
        let size = format!("{}, {} files", show_bytes(scratch.size), scratch.files);
        let execute = if scratch.execute { ", execute" } else { "" };
        writeln!(out, "  {:<22} writable{execute}, in memory, {size}: {}", path.display(), scratch.why)?;
    }
    let of_r = |path: &Path| shares.iter().find(|share| share.to == path);
    for mount in driver.mounts(profile, shares, machine).unwrap_or_default() {
        match &mount {
            Mount::Bind { from, to, .. } => {
                let (read, share) = (profile.read.get(to), of_r(to));
                let execute = read.is_some_and(|readable| readable.execute) || share.is_some_and(|share| share.execute);
                let rights = if execute { "read, execute" } else { "read" };
                let from = if *from == machine.outside(to) {
                    String::new()
                } else {
                    format!(", {} of the host", from.display())
                };
                let why = read.map_or("R and its packages", |readable| readable.why.as_str());
                writeln!(out, "  {:<22} {rights}{from}: {why}", to.display())?;
            }
            Mount::Symlink { target, at } => writeln!(out, "  {:<22} link to {}", at.display(), target.display())?,
            Mount::File { at, .. } => {
                let why = profile.written.get(at).map_or("", |file| file.why.as_str());
                writeln!(out, "  {:<22} made up: {why}", at.display())?;
            }
            Mount::Proc { to, only_processes } => {
                let whose =
                    if *only_processes { "the task's own processes, nothing else" } else { "the task's own processes" };
                writeln!(out, "  {:<22} {whose}", to.display())?;
            }
            Mount::Devices { to } => writeln!(out, "  {:<22} null, full, random, urandom", to.display())?,
            Mount::Tmpfs { .. } | Mount::Directory { .. } => {}
        }
    }
    for share in shares.iter().filter(|share| !profile.read.contains_key(&share.to)) {
        // What lies in a folder that is shared anyway has no mount of its own.
        let within = profile.read.keys().find(|path| share.to.starts_with(path));
        if let Some(within) = within {
            writeln!(out, "  {:<22} R and its packages, within {}", share.to.display(), within.display())?;
        }
    }
    let absent: Vec<_> =
        profile.read.iter().filter(|(path, read)| !machine.paths.contains_key(&machine.shared(path, read))).collect();
    if !absent.is_empty() {
        let names: Vec<String> = absent.iter().map(|(path, _)| path.display().to_string()).collect();
        writeln!(out, "  Not on this machine: {}", names.join(", "))?;
    }
    Ok(())
}

fn variables(out: &mut String, environment: &[(String, String)]) -> fmt::Result {
    writeln!(out, "\nEnvironment (and what R itself needs)")?;
    environment.iter().try_for_each(|(name, value)| writeln!(out, "  {name}={value}"))
}

fn command_line(out: &mut String, argv: &[String]) -> fmt::Result {
    write!(out, "\nCommand line\n ")?;
    for argument in argv {
        let new_line = if argument.starts_with("--") { "\n   " } else { "" };
        write!(out, "{new_line} {argument}")?;
    }
    writeln!(out)
}

fn calls(out: &mut String, profile: &Profile) -> fmt::Result {
    writeln!(out, "\nSystem calls (all others: ENOSYS)")?;
    for group in &profile.calls {
        writeln!(out, "  {}: {}\n    {}", group.name, group.why, group.names.join(" "))?;
    }
    writeln!(out, "\nDenied arguments (EPERM)")?;
    let allowed = |rule: &&CallRule| profile.calls.iter().any(|group| group.names.contains(&rule.call));
    profile
        .rules
        .iter()
        .filter(allowed)
        .try_for_each(|rule| writeln!(out, "  {} of {}: {}", rule.name, rule.call, rule.why))
}
