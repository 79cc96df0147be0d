//! What a sandbox costs: `/bin/true` bare, in `p2p-jail`, in bubblewrap. The runs take turns, so that what else this
//! machine does falls on all of them.

use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use p2p_jail::spec::{Command as TaskCommand, Container, Exit};
use p2p_worker::sandbox::{
    Driver, Enforcement, Known, LaunchPlan, Machine, Profile, Surroundings, Task, run_to_end, select,
};
use tokio::time::Instant;

use crate::{
    Failure,
    figures::{Samples, Table, milliseconds, progress},
    programs,
};

const TRUE: &str = "/bin/true";

/// Where `p2p-jail` is bound to in a container of bubblewrap.
const JAIL_INSIDE: &str = "/run/p2p-jail";

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn measure(runs: usize) -> Result<(), Failure> {
    progress(&format!("{runs} runs each, taking turns"));
    let (jail, outer) = (strict(Driver::Jail)?, strict(Driver::Bubblewrap)?);
    let mut same_mounts = SameMounts::of(&outer)?;
    let mut bare = Samples::of("bare exec");
    let mut plain = Samples::of("bwrap --unshare-all --ro-bind / /");
    let mut mounts = Samples::of("bwrap --unshare-all, the mounts of strict");
    let mut ours = Samples::of("p2p-jail, strict, every layer");
    let mut both = Samples::of("--sandbox bubblewrap, strict, every layer");
    for _ in 0..runs {
        bare.add(timed(|| run(Command::new(TRUE)))?);
        plain.add(timed(|| run(simplest(&same_mounts.program)))?);
        mounts.add(timed(|| same_mounts.run())?);
        ours.add(timed(|| sandboxed(&jail))?);
        both.add(timed(|| sandboxed(&outer))?);
    }
    let columns = ["around /bin/true", "median", "p95", "over bare", "of bwrap, same mounts"];
    let mut table = Table::new(format!("The sandbox around nothing, {runs} runs each, taking turns"), &columns);
    for samples in [&bare, &plain, &mounts, &ours, &both] {
        let over = |samples: &Samples| samples.median() - bare.median();
        let ratio = format!("{:.2} ×", samples.median() / mounts.median());
        let over = milliseconds(over(samples));
        table.row([samples.name.clone(), milliseconds(samples.median()), milliseconds(samples.p95()), over, ratio]);
    }
    Ok(table.print()?)
}

fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

fn run(mut command: Command) -> Result<(), Failure> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn sandboxed(plan: &LaunchPlan) -> Result<(), Failure> {
    let finished = run_to_end(plan, PATIENCE)?;
    if finished.exit == Exit::Code(0) { Ok(()) } else { Err(format!("{finished:?}").into()) }
}

/// A plan of profile strict, whose every layer was proven to be in force.
fn strict(driver: Driver) -> Result<LaunchPlan, Failure> {
    let known =
        Known { jail: Some(programs()?.join("p2p-jail")), search_path: std::env::var_os("PATH"), ..Known::default() };
    let profile = Profile::load("strict", &Surroundings::default())?;
    let ready = select(driver, profile, Machine::discover(&known)?, &[])?;
    if let Some(layer) = ready.layers().iter().find(|(_, state)| !matches!(state, Enforcement::Enforced(_))) {
        return Err(format!("not in force: {layer:?}").into());
    }
    let command = TaskCommand { argv: vec![TRUE.into()], environment: Vec::new(), directory: "/".into() };
    Ok(ready.plan(&Task { command, files: Vec::new(), shares: Vec::new(), slot: 0 })?)
}

fn simplest(program: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--unshare-all", "--ro-bind", "/", "/", TRUE]);
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
        arguments.extend(["--".to_owned(), TRUE.to_owned()]);
        Ok(Self { program, arguments, files })
    }

    fn run(&mut self) -> Result<(), Failure> {
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
