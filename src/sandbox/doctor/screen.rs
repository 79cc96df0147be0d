//! What `doctor` prints: the answer first, then the proof, on one screen of 80 columns.

use std::fmt::{self, Write};

use super::{Doctor, Driver, Enforcement, Facts, Held, STRICTEST, Verdict};
use crate::sandbox::show_bytes;

/// The width of a terminal.
const WIDTH: usize = 80;

/// Where the details of a layer begin.
const DETAIL: usize = 22;

/// All of it.
pub(super) fn render(doctor: &Doctor) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(doctor, &mut text);
    text
}

fn write(doctor: &Doctor, out: &mut String) -> fmt::Result {
    wrapped(out, "", &verdict(doctor), 0)?;
    out.push('\n');
    machine(&doctor.machine, out)?;
    out.push('\n');
    layers(doctor, out)?;
    others(doctor, out)?;
    if !doctor.known_problems.is_empty() {
        out.push('\n');
    }
    for known in &doctor.known_problems {
        let text = format!("{} in {}: {}. Do: {}", known.id, known.of, known.what, known.fix);
        wrapped(out, "! ", &text, 2)?;
    }
    if !doctor.to_do.is_empty() {
        out.push_str("\nTo do\n");
    }
    for (number, to_do) in (1..).zip(&doctor.to_do) {
        wrapped(out, &format!("{number}. "), to_do, 3)?;
    }
    Ok(())
}

/// The answer to "is it safe to leave this on?".
fn verdict(doctor: &Doctor) -> String {
    let Doctor { driver, profile, verdict, .. } = doctor;
    let strict = strict(doctor);
    if driver == Driver::None.name() {
        format!("NO: the driver none is no sandbox. {strict}")
    } else if !verdict.profile_runs {
        format!("NO: the profile {profile} cannot run with the driver {driver}: {}. Nothing starts. {strict}", words(&verdict.profile_lacks))
    } else if doctor.machine.r.is_none() {
        format!("NO: the sandbox holds, but there is no R to run in it. {strict}")
    } else if !verdict.safe {
        format!("NOT YET: all layers of {profile} hold with the driver {driver}, but see what is known below. {strict}")
    } else if verdict.not_held.is_empty() {
        format!("YES: it is safe to leave on. Every layer of the profile {profile} holds with the driver {driver}. {strict}")
    } else {
        let less = words(&verdict.not_held);
        format!(
            "YES, with less: what the profile {profile} requires holds with the driver {driver}; not in full: {less}. {strict}"
        )
    }
    .trim_end()
    .to_owned()
}

/// What `strict` would do, where that is not the profile in question.
fn strict(doctor: &Doctor) -> String {
    let Verdict { strict_runs, strict_lacks, .. } = &doctor.verdict;
    if doctor.profile == STRICTEST || doctor.driver == Driver::None.name() {
        String::new()
    } else if *strict_runs {
        "So does every layer of strict.".to_owned()
    } else {
        format!("The profile strict cannot run: {}.", words(strict_lacks))
    }
}

fn words(layers: &[super::Layer]) -> String {
    if layers.len() == super::Layer::ALL.len() {
        return "no layer holds".to_owned();
    }
    layers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn machine(facts: &Facts, out: &mut String) -> fmt::Result {
    let landlock = facts.landlock_abi.map_or_else(|| "no Landlock".to_owned(), |abi| format!("Landlock ABI {abi}"));
    let around = facts.habitat.around.map_or_else(String::new, |around| format!(", in {}", around.name()));
    let memory = show_bytes(facts.memory >> 20 << 20);
    let uid = facts.task_uid.map_or_else(|| "?".to_owned(), |uid| uid.to_string());
    let bubblewrap = facts.bubblewrap.as_deref().unwrap_or("not installed");
    let r = facts
        .r
        .as_ref()
        .map_or_else(|| "no R".to_owned(), |r| format!("R {} with package future {}", r.version, r.future));
    let line = format!(
        "Linux {}, {landlock}{around}; {} CPUs, {memory}; {r}; bubblewrap {bubblewrap}; tasks run as uid {uid} of this machine.",
        facts.kernel, facts.cpus
    );
    wrapped(out, "", &line, 0)?;
    wrapped(out, "", &format!("Limits are held by {}.", facts.limits), 0)
}

/// Each layer under the driver and the profile that were asked about, and beside it whether the other driver has it.
fn layers(doctor: &Doctor, out: &mut String) -> fmt::Result {
    let Some(asked) = doctor.drivers.iter().find(|diagnosis| diagnosis.driver == doctor.driver) else { return Ok(()) };
    writeln!(out, "{:<12}{:<10}how it is held ({}, profile {})", "layer", "holds", doctor.driver, doctor.profile)?;
    let mut said: Vec<&str> = Vec::new();
    for held in &asked.layers {
        let (_, detail) = held.enforcement.in_words();
        // What many layers lack for the same reason is said once.
        let shown = if said.contains(&detail) { "as above".to_owned() } else { doctor.shortened(detail) };
        said.push(detail);
        let state = word(held);
        wrapped(out, &format!("{:<12}{state:<10}", held.layer.to_string()), &shown, DETAIL)?;
    }
    Ok(())
}

impl Doctor {
    /// A detail without what is said again under *To do*.
    fn shortened(&self, detail: &str) -> String {
        // Why there are no control groups is said above all layers.
        let why = self.machine.limits.split_once("no control groups: ").map(|(_, why)| format!(" ({why})"));
        let detail = why.map_or_else(|| detail.to_owned(), |why| detail.replace(&why, ""));
        self.to_do.iter().zip(1..).fold(detail, |detail, (fix, number): (_, usize)| {
            detail
                .replace(&format!("; {fix}"), &format!(" (to do: {number})"))
                .replace(fix, &format!("to do: {number}"))
        })
    }
}

fn word(held: &Held) -> &'static str {
    match (&held.enforcement, held.required) {
        (Enforcement::Enforced(_), _) => "yes",
        (Enforcement::Reduced(_), _) => "reduced",
        (Enforcement::Untried(_), _) => "untried",
        (Enforcement::Partly(_), true) => "PARTLY",
        (Enforcement::Missing(_), true) => "NO",
        (Enforcement::Partly(_), false) => "partly",
        (Enforcement::Missing(_), false) => "no",
    }
}

/// The drivers that were not asked about: a line each.
fn others(doctor: &Doctor, out: &mut String) -> fmt::Result {
    let others =
        doctor.drivers.iter().filter(|other| other.driver != doctor.driver && other.driver != Driver::None.name());
    for other in others {
        let whole = |held: &&Held| held.enforcement.is_whole();
        let lacking: Vec<&Held> = other.layers.iter().filter(|held| !whole(held)).collect();
        let blamed = |held: &&&Held| !matches!(held.enforcement, Enforcement::Untried(_));
        let names = words(&lacking.iter().filter(blamed).map(|held| held.layer).collect::<Vec<_>>());
        let why = lacking.first().map(|held| doctor.shortened(held.enforcement.in_words().1)).unwrap_or_default();
        let runs = if other.runs.contains(&doctor.profile) { "would run with less" } else { "cannot run" };
        let state = match lacking.len() {
            0 => format!("holds every layer of {} too", doctor.profile),
            _ => format!("{} {runs}; {names}: {}", doctor.profile, why.trim_end_matches('.')),
        };
        wrapped(out, "", &format!("The driver {}: {state}.", other.driver), 2)?;
    }
    Ok(())
}

/// Text in lines of at most [`WIDTH`] columns, the first after `start`, the others after so many blanks. A word that is too
/// long for a line has one of its own.
fn wrapped(out: &mut String, start: &str, text: &str, indent: usize) -> fmt::Result {
    out.push_str(start);
    let mut column = start.chars().count();
    let mut first = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if !first && column + 1 + length > WIDTH {
            write!(out, "\n{:indent$}", "")?;
            column = indent;
        } else if !first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
        first = false;
    }
    out.push('\n');
    Ok(())
}
