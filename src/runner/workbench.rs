//! Where futures are evaluated: a sandbox that was probed, the R inside it, and a folder for bytes on their way.
//!
//! Everything that reads R data runs in the sandbox: the evaluation itself, and the small R programs that make a future
//! of an expression, tell a future's name, and show what a result printed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use p2p_jail::spec::{Reached, Usage};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    AttemptEvent, Ended, InstallationError, Job, Mode, Outcome, RInstallation, RUNNER_SCRIPT, Reason, ReplayError,
    SCRIPT_PATH,
    ahead::Pool,
    attempt::{self, Aids},
    command,
    command::{ahead_of_its_future, heap_mib, to_end_with},
    interrupted,
    outcome::Text,
    replay,
    warm::{Next, Warm},
};
use crate::{
    clock,
    ids::{FutureId, IdError},
    rds::{Carried, ScanError, scan},
    sandbox::{self, Known, LaunchPlan, Machine, Profile, Provenance, Ready, SandboxError, Surroundings, Task, met},
    spool::{Beginning, Relief, SpoolError, SpoolWriter, Spooled},
};

/// The task's home and its folder for temporary files, as the profiles have them.
const HOME: &str = "/home/task";
const TEMPORARY: &str = "/tmp";

/// When a future is under way, so that starting R for the one that probably follows does not slow it down.
const SETTLED: Duration = Duration::from_millis(250);

/// How long one of the small R programs may take, in milliseconds.
const SMALL_SERVICE_MS: u64 = 60_000;

/// The least room for bytes on their way with which a workbench starts.
const LEAST_ROOM: u64 = 1 << 20;

/// How much of a result is looked at at once, in bytes.
const SCANNED_AT_ONCE: usize = 64 * 1024;

/// The most that is read of a future's name, in bytes.
const MOST_NAME: usize = 256;

/// Why the workbench cannot do its small services. Evaluating a future has no error: it always has a result.
#[derive(Debug, thiserror::Error)]
pub enum WorkbenchError {
    /// R cannot be used.
    #[error(transparent)]
    R(#[from] InstallationError),
    /// The folder for bytes on their way cannot be made.
    #[error("cannot make the folder {}", path.display())]
    SpoolFolder {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The preparation itself died.
    #[error("cannot prepare the sandbox")]
    Task(#[source] tokio::task::JoinError),
    /// The sandbox cannot be had, or the task cannot be planned.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The sandbox could not be set up after all.
    #[error("{0}")]
    Refused(Reason),
    /// Nothing is denied without a sandbox.
    #[error("without a sandbox nothing is denied that could be explained: use --sandbox jail or bubblewrap")]
    NothingToExplain,
    /// Bytes cannot be kept.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// There are no random bits for a future's name.
    #[error("cannot make a name for the future: {0}")]
    Random(getrandom::Error),
    /// The expression is no R code, or cannot be made a future.
    #[error("cannot make a future of this: {0}")]
    Make(String),
    /// What was given is not a future, or R died of it.
    #[error("this is not the RDS of a future: {0}")]
    NoFuture(String),
    /// A future's name is of no form that a board line can carry.
    #[error("this future has no usable name")]
    Name(#[from] IdError),
    /// The result cannot be shown.
    #[error("cannot show the result: {0}")]
    Show(String),
    /// What was made of the result is not what it should be.
    #[error("cannot show the result")]
    Replay(#[from] ReplayError),
    /// The result is nothing that an R should read.
    #[error("the result is refused")]
    Scan(#[from] ScanError),
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// What a result comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The code ran to its end.
    Fine,
    /// The code ended in an error of its own.
    CodeFailed,
    /// The task was stopped, died, or never began.
    Stopped,
    /// It is not a result.
    NoResult,
}

/// What a result says, as Rscript would have printed it. A stranger's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// For standard output.
    pub stdout: Vec<u8>,
    /// For standard error.
    pub stderr: Vec<u8>,
    /// What it comes to.
    pub verdict: Verdict,
    /// What of it may run code when a reader of the RDS touches it.
    pub carried: Carried,
}

/// A place to evaluate futures in.
#[derive(Debug)]
pub struct Workbench {
    /// Both ended before the control groups go, which are the sandbox's.
    warm: Option<Arc<Warm>>,
    pool: Option<Arc<Pool>>,
    ready: Ready,
    r: RInstallation,
    provenance: Provenance,
    spool_directory: PathBuf,
    /// What gives way to results on a full disk.
    relief: Option<Relief>,
    time_zone: String,
    /// The word behind a result that is whole.
    ending: Option<String>,
    max_future: u64,
    max_result: u64,
}

impl Workbench {
    /// Finds R, reads the profile, probes the driver: everything that can be missing is missed here, before anything is
    /// claimed. Takes some tens of milliseconds.
    ///
    /// # Errors
    /// [`WorkbenchError::R`], [`WorkbenchError::Sandbox`], [`WorkbenchError::SpoolFolder`].
    pub async fn prepare(driver: &str, profile: &str, known: Known) -> Result<Self, WorkbenchError> {
        let (driver, profile) = (driver.to_owned(), profile.to_owned());
        let prepared = tokio::task::spawn_blocking(move || {
            let driver = driver.parse()?;
            let profile = Profile::load(&profile, &known.surroundings).map_err(SandboxError::from)?;
            let spool = spool_folder(&known.surroundings)?;
            let machine = Machine::discover(&known).map_err(SandboxError::from)?;
            let r = RInstallation::of(&machine)?.with_future()?;
            let ready = sandbox::select(driver, profile, machine.clone(), &r.shares(&machine))?;
            Ok(Self::new(ready, r, spool))
        });
        prepared.await.map_err(WorkbenchError::Task)?
    }

    /// A workbench of a sandbox and of an R that has package future. Bytes on their way lie in `spool_directory`.
    #[must_use]
    pub fn new(ready: Ready, r: RInstallation, spool_directory: PathBuf) -> Self {
        let provenance = Provenance {
            driver: ready.driver().name().to_owned(),
            profile: ready.profile().name.clone(),
            layers: ready.layers().to_vec(),
        };
        let time_zone = clock::time_zone();
        // Without one each result waits for the end of its R.
        let ending = fresh_name().ok().map(|word| word.to_string());
        Self {
            warm: None,
            pool: None,
            ready,
            r,
            provenance,
            spool_directory,
            relief: None,
            time_zone,
            ending,
            max_future: u64::MAX,
            max_result: u64::MAX,
        }
    }

    /// With limits in bytes; that of the profile on results holds too.
    #[must_use]
    pub fn with_limits(self, max_future: u64, max_result: u64) -> Self {
        Self { max_future, max_result, ..self }
    }

    /// With something that gives way to results on a full disk.
    #[must_use]
    pub fn relieved_by(self, relief: Relief) -> Self {
        Self { relief: Some(relief), ..self }
    }

    /// From now on keeps some jails ready for futures, of which at most `slots` are evaluated at a time, and has the folders of
    /// control groups removed even if this program is killed. An R that is [expected](Self::expect) is started, and waits for so
    /// long; never if that is zero. For workers: each future is evaluated sooner, at the price of some memory between two.
    ///
    /// # Errors
    /// [`WorkbenchError::Sandbox`], if no task could be planned.
    pub async fn kept_ready(mut self, slots: usize, keep_warm: Duration) -> Result<Self, WorkbenchError> {
        let plan = self.plan(Mode::Run, &fresh_name()?, 0)?;
        self.ready.machine().sweep_after_death();
        self.pool = Pool::new(&plan, slots).map(Arc::new);
        if let Some(pool) = &self.pool {
            pool.fill().await;
        }
        self.warm = (!keep_warm.is_zero()).then(|| Arc::new(Warm::new(self.pool.clone(), keep_warm)));
        Ok(self)
    }

    /// Says that a future is on its way to this slot, or probably will be: R is started meanwhile, if none waits already. One
    /// that was [fed](Self::feed) is ended if a future comes that cannot have that beginning.
    pub fn expect(&self, slot: usize, next: Next<'_>) {
        let Some(warm) = &self.warm else { return };
        // Why there is no plan, the future itself will learn.
        if let Ok(plan) = fresh_name().and_then(|id| Ok(self.plan(Mode::Run, &id, slot)?)) {
            warm.expect(slot, ahead_of_its_future(&plan), next);
        }
    }

    /// Has an R that waits in this slot read what the next future probably begins with, which are the first bytes of this one. It
    /// serves no future that begins otherwise.
    pub fn feed(&self, slot: usize, future: &Spooled, beginning: &Beginning) {
        if let Some(warm) = self.warm.as_ref().filter(|_| attempt::is_read_as_it_comes(future)) {
            self.expect(slot, Next::Unknown);
            warm.feed(slot, future.reader_of(0..beginning.bytes()), beginning);
        }
    }

    /// How long an R waits for a future; zero if none does.
    #[must_use]
    pub fn keep_warm(&self) -> Duration {
        self.warm.as_ref().map_or(Duration::ZERO, |warm| warm.keep())
    }

    /// The largest future that is taken, in bytes.
    #[must_use]
    pub fn max_future(&self) -> u64 {
        self.max_future
    }

    /// The folder of unnamed files.
    #[must_use]
    pub fn spool_directory(&self) -> &Path {
        &self.spool_directory
    }

    /// Under what futures are evaluated here.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Under what a task ran that reached these limits.
    #[must_use]
    pub fn provenance_after(&self, reached: &Reached) -> Provenance {
        let mut provenance = self.provenance.clone();
        provenance.note_reached(reached, self.ready.driver(), self.ready.profile());
        provenance
    }

    /// The version of the R that evaluates them.
    #[must_use]
    pub fn r_version(&self) -> &str {
        &self.r.version
    }

    /// The same, and with what, in a few words for the log.
    #[must_use]
    pub fn describe(&self) -> String {
        let future = self.r.future.as_deref().unwrap_or("none");
        let Provenance { driver, profile, .. } = &self.provenance;
        let root = self.ready.machine().root.as_ref().map_or(String::new(), |root| format!(" of {}", root.display()));
        format!("{driver}, profile {profile}; R {}{root}, package future {future}", self.r.version)
    }

    /// Tells the owner which layers are not held in full.
    pub fn warn_of_shortfalls(&self) {
        for (layer, state) in self.provenance.layers.iter().filter(|(_, state)| !state.is_whole()) {
            let (state, why) = state.in_words();
            tracing::warn!(%layer, state, why, "not held in full; every client is told");
        }
    }

    /// Evaluates a future and always comes back with a result: the task's own, or one that says why there is none. The
    /// client takes at most `client_max` bytes.
    ///
    /// # Errors
    /// [`WorkbenchError::Spool`], when there is no room even for a result that says so.
    pub async fn evaluate(
        &self,
        slot: usize,
        future: &Spooled,
        id: &FutureId,
        client_max: u64,
        cancel: CancellationToken,
        events: mpsc::Sender<AttemptEvent>,
    ) -> Result<Outcome, WorkbenchError> {
        let mut plan = match self.plan(Mode::Run, id, slot) {
            Ok(plan) => plan,
            Err(error) => {
                let what = crate::error_chain(&error);
                return self.answer(id, Reason::CouldNotStart { stage: None, what });
            }
        };
        plan.max_result = plan.max_result.min(self.max_result).min(client_max);
        let busy = self.pool.as_ref().map(Pool::begin);
        let (pool, relief) = (self.pool.as_deref(), self.relief.as_ref());
        let warm = self.warm.as_deref().map(|warm| (warm, slot));
        let aids = Aids { pool, warm, relief, spool_directory: &self.spool_directory };
        let attempt = attempt::run_in(&aids, &plan, future, id, cancel, events);
        tokio::pin!(attempt);
        let outcome = match timeout(SETTLED, &mut attempt).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.expect(slot, Next::Unknown);
                attempt.await
            }
        };
        drop(busy);
        Ok(outcome?)
    }

    /// Evaluates a future of the owner's, who wants to know what the profile denies: it is in the outcome. Not for futures of
    /// others: the run is watched by this program, see [`sandbox::Witness`].
    ///
    /// # Errors
    /// [`WorkbenchError::NothingToExplain`] without a sandbox; [`WorkbenchError::Sandbox`]; [`WorkbenchError::Spool`].
    pub async fn explain(
        &self,
        future: &Spooled,
        id: &FutureId,
        cancel: CancellationToken,
    ) -> Result<Outcome, WorkbenchError> {
        let plan = self.plan(Mode::Run, id, 0)?.explained().ok_or(WorkbenchError::NothingToExplain)?;
        let (events, _) = mpsc::channel(1);
        Ok(attempt::run(&plan, future, id, &self.spool_directory, cancel, events).await?)
    }

    /// What was denied beyond what was denied to a future that does nothing, in words, with the lines of a profile that would
    /// allow it.
    #[must_use]
    pub fn advise(&self, denials: &sandbox::Denials, nothing: &sandbox::Denials) -> String {
        sandbox::advise(denials, nothing, self.ready.profile(), self.ready.machine())
    }

    /// A result in place of one that cannot be had, for this reason.
    ///
    /// # Errors
    /// [`WorkbenchError::Spool`], when there is no memory for it.
    pub fn answer(&self, id: &FutureId, reason: Reason) -> Result<Outcome, WorkbenchError> {
        let now = clock::now();
        let rds = interrupted::result(id, &reason, now, now);
        let mut result = SpoolWriter::in_memory(rds.len() as u64)?;
        result.write(&rds)?;
        Ok(Outcome {
            result: Arc::new(result.finish()),
            ended: if reason.is_before_start() { Ended::Refused(reason) } else { Ended::Stopped(reason) },
            usage: Usage::default(),
            text: Text::default(),
            stages: Vec::new(),
            denials: None,
            progress_dropped: 0,
        })
    }

    /// Makes a future of R code. It prints what `Rscript -e` would print.
    ///
    /// # Errors
    /// [`WorkbenchError::Make`] with R's own words, and whatever keeps R from being started.
    pub async fn make(
        &self,
        code: &str,
        cancel: &CancellationToken,
    ) -> Result<(FutureId, Arc<Spooled>), WorkbenchError> {
        let id = fresh_name()?;
        let input = Spooled::from_bytes(&self.spool_directory, code.as_bytes())?;
        let made = self.small_service(Mode::Make, &id, &input, cancel).await?;
        Ok((id, made.map_err(WorkbenchError::Make)?))
    }

    /// A future's name, from its uuid.
    ///
    /// # Errors
    /// [`WorkbenchError::NoFuture`] with R's own words, and whatever keeps R from being started.
    pub async fn identify(&self, future: &Spooled, cancel: &CancellationToken) -> Result<FutureId, WorkbenchError> {
        let name = self.small_service(Mode::Name, &fresh_name()?, future, cancel).await?;
        let name = read_all(&*name.map_err(WorkbenchError::NoFuture)?, MOST_NAME)?;
        Ok(String::from_utf8_lossy(&name).parse()?)
    }

    /// What the result of a future says; that of another future is none. No R reads it, not even in the sandbox, before
    /// [`crate::rds::scan`] has.
    ///
    /// # Errors
    /// [`WorkbenchError::Scan`], [`WorkbenchError::Show`] and [`WorkbenchError::Replay`], and whatever keeps R from being started.
    pub async fn show(
        &self,
        id: &FutureId,
        result: &Spooled,
        cancel: &CancellationToken,
    ) -> Result<Shown, WorkbenchError> {
        let (bytes, size) = (std::io::BufReader::with_capacity(SCANNED_AT_ONCE, result.reader()), result.size());
        let scanned = tokio::task::spawn_blocking(move || scan(bytes, size)).await;
        let carried = scanned.map_err(WorkbenchError::Task)??;
        let shown = self.small_service(Mode::Show, id, result, cancel).await?;
        let records = shown.map_err(WorkbenchError::Show)?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let verdict = match replay(std::io::BufReader::new(records.reader()), &mut stdout, &mut stderr)? {
            0 => Verdict::Fine,
            1 => Verdict::CodeFailed,
            4 => Verdict::Stopped,
            _ => Verdict::NoResult,
        };
        Ok(Shown { stdout, stderr, verdict, carried })
    }

    /// Runs one of the small R programs; the inner error is what went wrong in it, in words.
    async fn small_service(
        &self,
        mode: Mode,
        id: &FutureId,
        input: &Spooled,
        cancel: &CancellationToken,
    ) -> Result<Result<Arc<Spooled>, String>, WorkbenchError> {
        let mut plan = self.plan(mode, id, 0)?;
        // A stranger's result may make R busy for ever.
        let wall = &mut plan.spec.watch.wall_time_ms;
        *wall = Some(wall.map_or(SMALL_SERVICE_MS, |wall| wall.min(SMALL_SERVICE_MS)));
        // None of them signals progress.
        let (events, _) = mpsc::channel(1);
        let outcome = attempt::run(&plan, input, id, &self.spool_directory, cancel.clone(), events).await?;
        match outcome.ended {
            Ended::Finished => Ok(Ok(outcome.result)),
            Ended::Stopped(Reason::Cancelled) => Err(WorkbenchError::Interrupted),
            Ended::Refused(reason) => Err(WorkbenchError::Refused(reason)),
            Ended::Stopped(reason) => Ok(Err(reason.to_string())),
            // R's own words, if it had any, say more than that it ended.
            Ended::Crashed(reason) => {
                let words = outcome.text.for_log();
                Ok(Err(if words.trim().is_empty() { reason.to_string() } else { words.trim().to_owned() }))
            }
        }
    }

    fn plan(&self, mode: Mode, id: &FutureId, slot: usize) -> Result<LaunchPlan, SandboxError> {
        let job = Job {
            mode,
            future: id,
            script: Path::new(SCRIPT_PATH),
            home: Path::new(HOME),
            temporary: Path::new(TEMPORARY),
            memory: Some(self.ready.memory_of_a_process()),
            time_zone: &self.time_zone,
        };
        let mut plan = self.ready.plan(&Task {
            command: command(&self.r, &job),
            files: vec![(PathBuf::from(SCRIPT_PATH), RUNNER_SCRIPT.as_bytes().to_vec())],
            shares: self.r.shares(self.ready.machine()),
            slot: u32::try_from(slot).unwrap_or_default(),
        })?;
        if mode == Mode::Run {
            let heap = heap_mib(self.ready.memory_of_a_process()) << 20;
            let limits = met::for_r(&plan, self.ready.driver(), self.ready.profile(), heap);
            let environment = &mut plan.spec.command.environment;
            environment.push(("P2P_LIMITS".to_owned(), limits));
            environment.extend(self.ending.as_deref().map(to_end_with));
        }
        Ok(plan)
    }
}

/// A folder for unnamed files in the state folder, for this user alone; without one, the system's for such things.
fn spool_folder(surroundings: &Surroundings) -> Result<PathBuf, WorkbenchError> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(state) = &surroundings.state else { return Ok(std::env::temp_dir()) };
    let path = state.join("spool");
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|source| WorkbenchError::SpoolFolder { path: path.clone(), source })?;
    try_to_write(&path)?;
    Ok(path)
}

/// Writes and forgets some bytes, so that a full or read-only disk is found before anything is claimed.
fn try_to_write(folder: &Path) -> Result<(), WorkbenchError> {
    let mut writer = SpoolWriter::new(folder, LEAST_ROOM)?;
    Ok(writer.write(&vec![0; usize::try_from(LEAST_ROOM).unwrap_or_default()])?)
}

/// A name like those that package future gives.
fn fresh_name() -> Result<FutureId, WorkbenchError> {
    let mut bits = [0u8; 16];
    getrandom::fill(&mut bits).map_err(WorkbenchError::Random)?;
    Ok(format!("{:032x}-1", u128::from_be_bytes(bits)).parse()?)
}

fn read_all(from: &Spooled, most: usize) -> Result<Vec<u8>, WorkbenchError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let failed = |source| SpoolError::Read { what: "a temporary file".to_owned(), source };
    from.reader().take(most as u64).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
