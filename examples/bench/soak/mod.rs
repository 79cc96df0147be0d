//! Nothing stays: a thousand tasks, good and bad, through a board, a real worker and its jail; then the worker is killed with
//! SIGKILL in the middle of tasks, again and again. After each, and at the end, nothing may be left of it, and the worker's
//! memory must not have grown.

mod leftovers;
mod tasks;
mod worker;

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, sync::Arc, time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use p2p_worker::{
    client::{Client, ClientEvent, DEFAULT_ATTEMPTS, Setup},
    ids::FutureId,
    spool::Spooled,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    Failure,
    figures::{Samples, Table, progress},
    way,
    world::{World, join, patiently},
};
use leftovers::{Leftovers, Look, kernel_networks};
use tasks::{ClientDoes, Kind};
use worker::{Figures, SLOTS, Worker};

/// The names of the futures that are shell scripts.
const PREFIX: &str = "soak-";
/// How many futures are posted at once: more than there are slots, so that none has to wait for work.
const IN_FLIGHT: usize = SLOTS + 4;
/// How long one future may take, waiting for a slot included.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often the worker is looked at.
const LOOKS: usize = 10;
/// How much the worker may have grown, in KiB, between the look in the middle and the last.
const MAY_GROW: f64 = 4096.0;

pub(crate) async fn measure(tasks: usize, kills: usize) -> Result<(), Failure> {
    let world = World::new().await?;
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755))?;
    let mut worker = Worker::new(&world)?;
    let mut running = worker.start(&world).await?;
    let soak = Arc::new(Soak::new(&world).await?);
    // One of everything first, so that what is made once and kept is there: host keys, folders, caches.
    soak.one(&tasks::KINDS[0], "first").await?;
    let before = (Look::new(world.folder.path()), kernel_networks());
    let after_one = Figures::of(running.pid)?;

    let begin = Instant::now();
    let mut table = Figures::table(tasks);
    let mut series = Vec::new();
    let mut counts = BTreeMap::new();
    let all = tasks::mixed(tasks);
    for (look, some) in all.chunks(tasks.div_ceil(LOOKS).max(1)).enumerate() {
        soak.some(look, some, &mut counts).await?;
        let (left, _) = before.0.settled(&running.pids()).await;
        let figures = Figures::settled(running.pid, &after_one).await?;
        let done = counts.values().sum();
        progress(&format!("{done} of {tasks} tasks after {:.0} s", begin.elapsed().as_secs_f64()));
        table.row(figures.row(done, begin.elapsed(), &left));
        complain("after tasks", &left)?;
        series.push(figures);
    }
    table.print()?;
    kinds(&counts)?;

    let mut gone = Samples::of("worker killed → no process of it is left");
    let mut interrupted = 0;
    for round in 0..kills {
        let (took, tasks) = soak.kill(&mut running, round, &before.0).await?;
        gone.add(took);
        interrupted += tasks;
        running = worker.start(&world).await?;
    }
    running.stop().await?;
    drop(soak);
    let (left, _) = before.0.settled(&[]).await;
    complain("at the end", &left)?;
    let mut table = Table::new(
        format!("kill -9 of the worker, {kills} times, in the middle of {interrupted} tasks in all"),
        &["", "median", "p95", "times"],
    );
    table.samples(&gone);
    table.print()?;
    progress("left at the end: 0 processes, 0 mounts, 0 cgroups, 0 files, 0 network namespaces");
    if let (Some(before), Some(after)) = (before.1, kernel_networks()) {
        progress(&format!("network namespaces in the kernel's cache: {before} before, {after} after (others' too)"));
    }
    flat(&series)
}

fn complain(when: &str, left: &Leftovers) -> Result<(), Failure> {
    let Leftovers { processes, mounts, cgroups, files, networks } = left;
    if processes.is_empty() && mounts.is_empty() && cgroups.is_empty() && files.is_empty() && *networks == 0 {
        return Ok(());
    }
    Err(format!("left {when}: {left:#?}").into())
}

/// The memory of the worker has not grown since half of the tasks were done.
fn flat(series: &[Figures]) -> Result<(), Failure> {
    let (Some(middle), Some(last)) = (series.get(series.len() / 2), series.last()) else { return Ok(()) };
    let grown = last.resident - middle.resident;
    progress(&format!("the worker grew by {grown:.0} KiB in the second half"));
    if grown > MAY_GROW {
        return Err(format!("the worker grew by {grown:.0} KiB, more than {MAY_GROW:.0}").into());
    }
    Ok(())
}

fn kinds(counts: &BTreeMap<&'static str, usize>) -> Result<(), Failure> {
    let mut table = Table::new("What they did", &["", "tasks"]);
    for (name, count) in counts {
        table.row([(*name).to_owned(), count.to_string()]);
    }
    Ok(table.print()?)
}

/// The clients' side.
struct Soak {
    client: Client,
    folder: std::path::PathBuf,
    port: u16,
    real: (FutureId, Arc<Spooled>),
}

impl Soak {
    async fn new(world: &World) -> Result<Self, Failure> {
        let folder = world.folder.path().to_owned();
        let (id, real) = way::real_future("sum(sqrt(1:1e5))", &folder).await?;
        Ok(Self { client: client(&folder, world.port).await?, folder, port: world.port, real: (id, real) })
    }

    /// Some tasks, a few at a time.
    async fn some(
        self: &Arc<Self>,
        look: usize,
        kinds: &[&'static Kind],
        counts: &mut BTreeMap<&'static str, usize>,
    ) -> Result<(), Failure> {
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        // The real future has one name, so there is one of it at a time.
        let real = Arc::new(Semaphore::new(1));
        let mut running = JoinSet::new();
        for (number, kind) in kinds.iter().copied().enumerate() {
            let (soak, room, real) = (Arc::clone(self), Arc::clone(&room), Arc::clone(&real));
            running.spawn(async move {
                let wants = if kind.client == ClientDoes::WaitForR { real } else { Arc::new(Semaphore::new(1)) };
                let _one = wants.acquire_owned().await;
                let _turn = room.acquire_owned().await;
                let done = soak.one(kind, &format!("{look}-{number}")).await;
                done.map(|()| kind.name).map_err(|error| format!("{}: {error}", kind.name))
            });
        }
        let mut unlike = Vec::new();
        while let Some(done) = running.join_next().await {
            match done? {
                Ok(name) => *counts.entry(name).or_default() += 1,
                Err(error) => unlike.push(error),
            }
        }
        if unlike.is_empty() { Ok(()) } else { Err(unlike.join("\n").into()) }
    }

    async fn one(&self, kind: &'static Kind, name: &str) -> Result<(), Failure> {
        let id: FutureId = format!("{PREFIX}{name}").parse()?;
        let work = async {
            match kind.client {
                ClientDoes::Vanish => self.vanish(&id).await,
                ClientDoes::Cancel => self.cancel(id, kind).await,
                ClientDoes::Wait => self.wait(id, self.payload(kind)?, kind).await,
                ClientDoes::WaitForR => self.wait(self.real.0.clone(), Arc::clone(&self.real.1), kind).await,
            }
        };
        timeout(PATIENCE, work).await.map_err(|_| format!("no end within {} s", PATIENCE.as_secs()))?
    }

    fn payload(&self, kind: &Kind) -> Result<Arc<Spooled>, Failure> {
        Ok(Arc::new(Spooled::from_bytes(&self.folder, kind.payload().as_bytes())?))
    }

    async fn wait(&self, id: FutureId, payload: Arc<Spooled>, kind: &Kind) -> Result<(), Failure> {
        let mut events = self.client.post(id, payload).await;
        match last(&mut events).await? {
            ClientEvent::Done(result, _) => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut result.reader(), &mut bytes)?;
                let text: String = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect();
                if text.contains(kind.expected) { Ok(()) } else { Err(format!("the result: {text:.600}").into()) }
            }
            other => Err(format!("no result: {other:?}").into()),
        }
    }

    async fn cancel(&self, id: FutureId, kind: &Kind) -> Result<(), Failure> {
        let mut events = self.client.post(id.clone(), self.payload(kind)?).await;
        begun(&mut events).await?;
        self.client.withdraw(id).await;
        while events.recv().await.is_some() {}
        Ok(())
    }

    /// A client in a process of its own, which is killed.
    async fn vanish(&self, id: &FutureId) -> Result<(), Failure> {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command.arg("soak-victim").arg(&self.folder).arg(self.port.to_string()).arg(id.to_string());
        let mut victim = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(victim.stdout.take().ok_or("no output")?).lines();
        let line = lines.next_line().await?;
        victim.kill().await?;
        if line.as_deref() == Some("begun") { Ok(()) } else { Err(format!("the victim said {line:?}").into()) }
    }

    /// Kills the worker when every slot has a task that does not want to end: how long until nothing of it is left, and how
    /// many tasks were running.
    async fn kill(
        &self,
        running: &mut worker::Running,
        round: usize,
        before: &Look,
    ) -> Result<(Duration, usize), Failure> {
        // A client of its own, which remembers no worker that failed it.
        let client = client(&self.folder, self.port).await?;
        let stubborn = tasks::KINDS.iter().filter(|kind| kind.client == ClientDoes::Cancel).cycle().take(SLOTS);
        let mut all = Vec::new();
        for (number, kind) in stubborn.enumerate() {
            let id: FutureId = format!("{PREFIX}kill-{round}-{number}").parse()?;
            all.push((client.post(id.clone(), self.payload(kind)?).await, id));
        }
        for (events, _) in &mut all {
            patiently("a task begins", begun(events)).await??;
        }
        // The positive control: what is looked for is found while it is there. On a slow machine the first tasks may have met
        // their time limit before the last has begun.
        let there = before.leftovers(&[]);
        let tasks = there.networks;
        if tasks == 0 || there.processes.len() < 3 * tasks {
            return Err(format!("tasks run, and this is all that is seen of them: {there:#?}").into());
        }
        kill(Pid::from_raw(running.pid.cast_signed()), Signal::SIGKILL)?;
        let (left, took) = before.settled(&[]).await;
        complain("after the worker was killed", &left)?;
        running.collect().await?;
        for (_, id) in all {
            client.withdraw(id).await;
        }
        Ok((took, tasks))
    }
}

/// The other program of [`Soak::vanish`].
pub(crate) async fn victim(folder: &Path, port: u16, name: &str) -> Result<(), Failure> {
    let client = client(folder, port).await?;
    let payload = tasks::KINDS.iter().find(|kind| kind.client == ClientDoes::Vanish).ok_or("no such kind")?.payload();
    let mut events = client.post(name.parse()?, Arc::new(Spooled::from_bytes(folder, payload.as_bytes())?)).await;
    begun(&mut events).await?;
    std::io::Write::write_all(&mut std::io::stdout(), b"begun\n")?;
    std::future::pending().await
}

async fn client(folder: &Path, port: u16) -> Result<Client, Failure> {
    let (me, link) = join(folder, port).await?;
    let setup = Setup {
        me,
        link,
        transfer: Some(way::transfer().await?),
        wormhole: None,
        spool_directory: folder.to_owned(),
        max_result: 1 << 30,
        max_attempts: DEFAULT_ATTEMPTS,
    };
    Ok(Client::start(setup).0)
}

/// Waits until the task has begun.
async fn begun(events: &mut mpsc::Receiver<ClientEvent>) -> Result<(), Failure> {
    while let Some(event) = events.recv().await {
        match event {
            ClientEvent::Running(_) => return Ok(()),
            ClientEvent::Done(..) | ClientEvent::Failed(_) => return Err(format!("too early: {event:?}").into()),
            _ => {}
        }
    }
    Err("the client ended".into())
}

/// The last event.
async fn last(events: &mut mpsc::Receiver<ClientEvent>) -> Result<ClientEvent, Failure> {
    while let Some(event) = events.recv().await {
        if matches!(event, ClientEvent::Done(..) | ClientEvent::Failed(_)) {
            return Ok(event);
        }
    }
    Err("the client ended".into())
}
