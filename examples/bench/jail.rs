//! What a sandbox costs: a program bare, in `p2p-jail`, in bubblewrap. The runs take turns, so that what else this machine does
//! falls on all of them. The program is `date`, which says itself when it was started.

use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    time::{ClockId, clock_gettime},
};
use p2p_jail::spec::{Ahead, Command as TaskCommand, Container, Exit, Stage};
use p2p_worker::sandbox::{
    Driver, Enforcement, Finished, Known, LaunchPlan, Machine, Profile, Ready, Surroundings, Task, Waiting, run_to_end,
    select,
};

use crate::{
    Failure,
    figures::{Samples, Table, microseconds, milliseconds, progress},
    programs,
};

/// Prints the time in nanoseconds.
const DATE: [&str; 2] = ["/bin/date", "+%s%N"];

/// Where `p2p-jail` is bound to in a container of bubblewrap.
const JAIL_INSIDE: &str = "/run/p2p-jail";

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a program that was started ahead is left alone before it is used.
const SETTLED: Duration = Duration::from_millis(20);

pub(crate) fn measure(runs: usize) -> Result<(), Failure> {
    progress(&format!("{runs} runs each, taking turns"));
    // The control groups in which tasks get theirs go with what was found ready.
    let (ready, outer_ready) = (strict(Driver::Jail)?, strict(Driver::Bubblewrap)?);
    let (jail, outer) = (around_date(&ready)?, around_date(&outer_ready)?);
    progress(&format!("limits are held by {}", ready.machine().limits));
    let what = Ahead::of(&jail.spec).ok_or("nothing can be made ahead")?;
    let mut same_mounts = SameMounts::of(&outer)?;
    let mut bare = Both::of("bare exec");
    let mut plain = Both::of("bwrap --unshare-all --ro-bind / /");
    let mut mounts = Both::of("bwrap --unshare-all, the mounts of strict");
    let mut cold = Both::of("p2p-jail, strict, every layer, from nothing");
    let mut ahead = Both::of("p2p-jail, strict, every layer, started ahead");
    let (mut cold_stages, mut ahead_stages) = (Stages::default(), Stages::default());
    let mut both = Both::of("--sandbox bubblewrap, strict, every layer");
    for _ in 0..runs {
        bare.add(|| run(date()))?;
        plain.add(|| run(simplest(&same_mounts.program)))?;
        mounts.add(|| same_mounts.run())?;
        cold.add(|| cold_stages.add(|| Ok(Waiting::start(&jail.jail)?), &jail))?;
        let waiting = settled(Waiting::start_ahead(&jail.jail, &what)?);
        ahead.add(|| ahead_stages.add(|| Ok(waiting), &jail))?;
        both.add(|| sandboxed(&outer))?;
    }
    let all = [&bare, &plain, &mounts, &cold, &ahead, &both];
    table("To the start of the program", all.map(|both| &both.start), runs)?;
    table("To the end of everything", all.map(|both| &both.end), runs)?;
    Stages::table(&cold_stages, &ahead_stages, runs)
}

/// Waits until a program that was started ahead has nothing to do but to wait: that is not measured.
#[expect(clippy::disallowed_methods, reason = "nothing tells from outside that it waits")]
fn settled(waiting: Waiting) -> Waiting {
    thread::sleep(SETTLED);
    waiting
}

/// How long each stage of `p2p-jail` took, since the one before.
#[derive(Default)]
struct Stages(Vec<(Stage, Samples)>);

impl Stages {
    /// Runs the plan, and returns what the program printed.
    fn add(&mut self, start: impl FnOnce() -> Result<Waiting, Failure>, plan: &LaunchPlan) -> Result<String, Failure> {
        let mut before = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let finished = start()?.run_to_end(plan, PATIENCE)?;
        for (stage, reached) in &finished.reached {
            let took = reached.saturating_sub(before);
            before = before.max(*reached);
            match self.0.iter_mut().find(|(known, _)| known == stage) {
                Some((_, samples)) => samples.add(took),
                None => {
                    let mut samples = Samples::of(format!("{stage:?}"));
                    samples.add(took);
                    self.0.push((*stage, samples));
                }
            }
        }
        printed(finished)
    }

    fn table(cold: &Self, ahead: &Self, runs: usize) -> Result<(), Failure> {
        let columns = ["stage, since the one before", "from nothing", "p95", "started ahead", "p95"];
        let mut table = Table::new(format!("Where the time of p2p-jail goes, medians of {runs}"), &columns);
        for ((stage, cold), (_, ahead)) in cold.0.iter().zip(&ahead.0) {
            let figures = [cold.median(), cold.p95(), ahead.median(), ahead.p95()].map(microseconds);
            table.row([format!("{stage:?}")].into_iter().chain(figures));
        }
        Ok(table.print()?)
    }
}

/// Of each run, how long it took to the start of the program and to the end of everything.
struct Both {
    start: Samples,
    end: Samples,
}

impl Both {
    fn of(name: &str) -> Self {
        Self { start: Samples::of(name), end: Samples::of(name) }
    }

    /// Does the work, which returns what the program printed.
    fn add(&mut self, work: impl FnOnce() -> Result<String, Failure>) -> Result<(), Failure> {
        let begin = now()?;
        let started = work()?;
        let end = now()?;
        let started = Duration::from_nanos(started.trim().parse().map_err(|_| format!("date said {started:?}"))?);
        self.start.add(started.saturating_sub(begin));
        self.end.add(end.saturating_sub(begin));
        Ok(())
    }
}

/// The same clock as date(1) reads.
#[expect(clippy::disallowed_methods, reason = "a measurement, against another program's clock")]
fn now() -> Result<Duration, Failure> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}

/// `all` are: bare, bubblewrap, bubblewrap with the same mounts, ours from nothing, started ahead, and inside bubblewrap.
fn table(what: &str, all: [&Samples; 6], runs: usize) -> Result<(), Failure> {
    let [bare, _, mounts, ..] = all;
    let columns = ["around date", "median", "p95", "over bare", "of what bwrap, same mounts, is over bare"];
    let mut table = Table::new(format!("{what}, {runs} runs each, taking turns"), &columns);
    for samples in all {
        let over = samples.median() - bare.median();
        let ratio = format!("{:.2} ×", over / (mounts.median() - bare.median()));
        let figures = [samples.median(), samples.p95(), over].map(milliseconds);
        table.row([samples.name.clone()].into_iter().chain(figures).chain([ratio]));
    }
    Ok(table.print()?)
}

fn date() -> Command {
    let [program, format] = DATE;
    let mut command = Command::new(program);
    command.arg(format);
    command
}

fn run(mut command: Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(format!("{command:?}: {}", output.status).into())
    }
}

fn sandboxed(plan: &LaunchPlan) -> Result<String, Failure> {
    printed(run_to_end(plan, PATIENCE)?)
}

fn printed(finished: Finished) -> Result<String, Failure> {
    if finished.exit == Exit::Code(0) { Ok(finished.text) } else { Err(format!("{finished:?}").into()) }
}

/// Profile strict, whose every layer was proven to be in force.
fn strict(driver: Driver) -> Result<Ready, Failure> {
    let known =
        Known { jail: Some(programs()?.join("p2p-jail")), search_path: std::env::var_os("PATH"), ..Known::default() };
    let profile = Profile::load("strict", &Surroundings::default())?;
    let ready = select(driver, profile, Machine::discover(&known)?, &[])?;
    if let Some(layer) = ready.layers().iter().find(|(_, state)| !matches!(state, Enforcement::Enforced(_))) {
        return Err(format!("not in force: {layer:?}").into());
    }
    Ok(ready)
}

fn around_date(ready: &Ready) -> Result<LaunchPlan, Failure> {
    let command =
        TaskCommand { argv: DATE.map(str::to_owned).to_vec(), environment: Vec::new(), directory: "/".into() };
    Ok(ready.plan(&Task { command, files: Vec::new(), shares: Vec::new(), slot: 0 })?)
}

fn simplest(program: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--unshare-all", "--ro-bind", "/", "/"]).args(DATE);
    command
}

/// bubblewrap with the mounts of a plan and nothing of ours inside: no limits, no Landlock, no seccomp, no watch. Nor is
/// it asked for `--disable-userns`, which costs it a second user namespace.
struct SameMounts {
    program: String,
    arguments: Vec<String>,
    /// What it copies into the container, on descriptors that it inherits.
    files: Vec<File>,
}

impl SameMounts {
    fn of(plan: &LaunchPlan) -> Result<Self, Failure> {
        let Container::External(external) = &plan.spec.container else { return Err("not bubblewrap's".into()) };
        let files = external.files.iter().map(|contents| in_memory(contents)).collect::<Result<Vec<_>, _>>()?;
        let mut descriptors = files.iter().map(AsRawFd::as_raw_fd);
        let mut given = external.argv.clone().into_iter();
        let program = given.next().ok_or("no program")?;
        let mut arguments = vec!["--unshare-all".to_owned()];
        while let Some(argument) = given.next().filter(|argument| argument != "--") {
            match argument.as_str() {
                unshare if unshare.starts_with("--unshare-") => {}
                "--disable-userns" => {}
                // `--perms MODE --file FD TO`: the copy of p2p-jail, which is not executed here.
                "--file" if given.as_slice().get(1).is_some_and(|to| to == JAIL_INSIDE) => {
                    given.nth(1);
                    arguments.truncate(arguments.len().saturating_sub(2));
                }
                "--file" => {
                    given.next();
                    arguments.extend([argument, descriptors.next().ok_or("a file too few")?.to_string()]);
                }
                _ => arguments.push(argument),
            }
        }
        arguments.push("--".to_owned());
        arguments.extend(DATE.map(str::to_owned));
        Ok(Self { program, arguments, files })
    }

    fn run(&mut self) -> Result<String, Failure> {
        for file in &mut self.files {
            file.rewind()?;
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        run(command)
    }
}

fn in_memory(contents: &[u8]) -> Result<File, Failure> {
    let mut file = File::from(memfd_create(c"file", MFdFlags::empty())?);
    file.write_all(contents)?;
    Ok(file)
}
