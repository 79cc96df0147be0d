//! The worker of a soak, and what it costs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    process::Child,
    time::{Instant, sleep},
};

use super::{
    PREFIX,
    leftovers::Leftovers,
    tasks::{PROFILE, RInTwoMinds},
};
use crate::{
    Failure,
    figures::Table,
    programs,
    world::{World, patiently},
};

/// How many descriptors more than after its first task a worker may have: what waits for the next one has some.
const MORE_DESCRIPTORS: f64 = 4.0;
/// How long it may take to close them, and the connections to clients that were killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tasks at a time.
pub(crate) const SLOTS: usize = 8;

/// Programs and settings of their own, in the world's folder, by whose name all of its processes can be found.
pub(crate) struct Worker {
    program: PathBuf,
    profile: PathBuf,
    path: String,
    temporary: PathBuf,
}

/// A worker that has joined.
pub(crate) struct Running {
    child: Child,
    pub(crate) pid: u32,
}

impl Worker {
    pub(crate) fn new(world: &World) -> Result<Self, Failure> {
        let folder = world.folder.path();
        let bin = folder.join("bin");
        fs::create_dir(&bin)?;
        for name in ["p2p-worker", "p2p-jail"] {
            // The build folder may be where the user of tasks cannot go.
            copy(&programs()?.join(name), &bin.join(name))?;
        }
        let profile = folder.join("soak.toml");
        fs::write(&profile, PROFILE)?;
        let r = RInTwoMinds::new(folder, PREFIX)?;
        let temporary = folder.join("tmp");
        fs::create_dir(&temporary)?;
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", r.path.display());
        Ok(Self { program: bin.join("p2p-worker"), profile, path, temporary })
    }

    /// Starts it and waits until it has joined.
    pub(crate) async fn start(&mut self, world: &World) -> Result<Running, Failure> {
        let mut command = world.program_at(&self.program, "worker")?;
        // What waits for the next future is not left behind, if it goes soon.
        command.args(["--keep-warm", "2 s", "--slots", &SLOTS.to_string(), "--profile"]).arg(&self.profile);
        command.env("PATH", &self.path).env("TMPDIR", &self.temporary);
        let child = world.started(command).await?;
        let pid = child.id().ok_or("the worker has ended")?;
        Ok(Running { child, pid })
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(_) => Ok(fs::copy(from, to).map(drop)?),
    }
}

impl Running {
    /// Processes that may live as long as it does.
    pub(crate) fn pids(&self) -> [u32; 1] {
        [self.pid]
    }

    /// Waits for its end.
    pub(crate) async fn collect(&mut self) -> Result<(), Failure> {
        Ok(patiently("the worker ends", self.child.wait()).await?.map(drop)?)
    }

    /// Asks it to leave, and waits for that.
    pub(crate) async fn stop(&mut self) -> Result<(), Failure> {
        let pid = nix::unistd::Pid::from_raw(self.pid.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        self.collect().await
    }
}

/// What a worker has of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    /// In KiB.
    pub(crate) resident: f64,
    descriptors: f64,
    threads: f64,
}

impl Figures {
    pub(crate) fn table(tasks: usize) -> Table {
        let columns = [
            "tasks done",
            "after",
            "resident",
            "descriptors",
            "threads",
            "processes",
            "mounts",
            "cgroups",
            "files",
            "networks",
        ];
        Table::new(format!("A worker with {SLOTS} slots under {tasks} tasks, good and bad, and what is left"), &columns)
    }

    pub(crate) fn of(pid: u32) -> Result<Self, Failure> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let number = |key: &str| -> Result<f64, Failure> {
            let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            Ok(value.and_then(|value| value.split_whitespace().next()).ok_or("no such line")?.parse()?)
        };
        let descriptors = descriptors(pid)?.len();
        Ok(Self { resident: number("VmRSS")?, descriptors: descriptors as f64, threads: number("Threads")? })
    }

    /// The same, after waiting for it to have closed what it had open for tasks; `before` is after its first one. What is
    /// open still is an error.
    pub(crate) async fn settled(pid: u32, before: &Self) -> Result<Self, Failure> {
        let begin = Instant::now();
        loop {
            let figures = Self::of(pid)?;
            if figures.descriptors <= before.descriptors + MORE_DESCRIPTORS {
                return Ok(figures);
            }
            if begin.elapsed() > PATIENCE {
                let open = descriptors(pid)?.join(", ");
                return Err(
                    format!("it had {} descriptors, then {}: {open}", before.descriptors, figures.descriptors).into()
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn row(&self, done: usize, after: Duration, left: &Leftovers) -> Vec<String> {
        let Leftovers { processes, mounts, cgroups, files, networks } = left;
        let mut row = vec![
            done.to_string(),
            format!("{:.0} s", after.as_secs_f64()),
            format!("{:.1} MiB", self.resident / 1024.0),
            self.descriptors.to_string(),
            self.threads.to_string(),
        ];
        let counts = [processes.len(), mounts.len(), cgroups.len(), files.len(), *networks];
        row.extend(counts.iter().map(ToString::to_string));
        row
    }
}

/// What the descriptors of a process are open on.
fn descriptors(pid: u32) -> Result<Vec<String>, Failure> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    // One that has been closed meanwhile is none.
    Ok(entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string())).collect())
}
