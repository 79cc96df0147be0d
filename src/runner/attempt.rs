//! One attempt, from the plan to the outcome.

use std::{
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use p2p_jail::spec::{Reached, Report, Usage};
use tokio::{
    net::unix::pipe,
    sync::{mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{self, Timestamp},
    ids::FutureId,
    runner::{
        ahead::{self, Pool},
        command::{ahead_of_its_future, ending_of, first_line, last_line, reading_whole},
        frames::FrameError,
        interrupted::{self, Reason},
        jail::{Jail, Pipes, Reports, StartError},
        outcome::{AttemptEvent, Done, Ended, Evidence, Outcome, Text, judge},
        streams::{Fault, FramesSeen, FramesTo, pump_frames, pump_input, pump_text, tell},
        warm::Warm,
    },
    sandbox::{Denials, LaunchPlan},
    spool::{Beginning, Reader, Relief, SpoolError, SpoolWriter, Spooled},
};

/// How long the pipes are read on when the task is over. No process of it is left then, so that what is in them is all
/// there will be; the time is for a descriptor that got away, and for a slow disk.
const DRAIN: Duration = Duration::from_secs(10);

/// The largest result that we make ourselves, in bytes.
const MAX_OWN_RESULT: u64 = 64 * 1024;

/// Evaluates `input`, the RDS of the future named `future`, under a plan. Comes back with a result whatever happens to
/// the task; when `cancel` is cancelled, soon. Dropping the returned future kills the task.
///
/// `events` is a bounded queue; an event that nobody takes for a second is dropped, so it may be left alone.
///
/// # Errors
/// [`SpoolError`] only before anything was started: then there is no room even for the result that says so.
pub async fn run(
    plan: &LaunchPlan,
    input: &Spooled,
    future: &FutureId,
    spool_directory: &Path,
    cancel: CancellationToken,
    events: mpsc::Sender<AttemptEvent>,
) -> Result<Outcome, SpoolError> {
    let aids = Aids { pool: None, warm: None, relief: None, spool_directory };
    run_in(&aids, plan, input, future, cancel, events).await
}

/// What a workbench has for its attempts.
pub(super) struct Aids<'a> {
    /// Jails that were started ahead.
    pub(super) pool: Option<&'a Pool>,
    /// An R that may be running already, in this slot.
    pub(super) warm: Option<(&'a Warm, usize)>,
    /// What gives way to a result on a full disk.
    pub(super) relief: Option<&'a Relief>,
    /// Where results are written.
    pub(super) spool_directory: &'a Path,
}

impl Aids<'_> {
    /// Starts the task, or has one begin that was started ahead: then it has not been told yet of its future.
    async fn start(
        &self,
        plan: &LaunchPlan,
        input: &Spooled,
        future: &FutureId,
    ) -> Result<(Jail, Pipes, Food), StartError> {
        let whole = is_read_whole(input);
        if let Some((warm, slot)) = self.warm
            && let Some((jail, pipes, is_fed)) = warm.take(slot, &ahead_of_its_future(plan), input.beginning()).await
        {
            let fed = input.beginning().filter(|_| is_fed).map(Beginning::bytes);
            let food = match fed {
                Some(fed) => Food::of(input.reader_of(fed..input.size())).before(last_line(future)),
                None => Food::of(input.reader()).after(first_line(future, whole)),
            };
            return Ok((jail, pipes, food));
        }
        let plan = if whole { &reading_whole(plan) } else { plan };
        let (jail, pipes) = ahead::start_in(self.pool, plan).await?;
        Ok((jail, pipes, Food::of(input.reader())))
    }
}

/// What goes into a task: bytes of its future, and what it is told of them.
struct Food {
    first: String,
    bytes: Reader,
    last: String,
}

impl Food {
    fn of(bytes: Reader) -> Self {
        Self { first: String::new(), bytes, last: String::new() }
    }

    fn after(self, first: String) -> Self {
        Self { first, ..self }
    }

    fn before(self, last: String) -> Self {
        Self { last, ..self }
    }

    async fn pump(self, mut to: pipe::Sender) -> io::Result<()> {
        pump_input(&self.first, self.bytes, &self.last, &mut to).await
    }
}

/// The same with such aids.
pub(super) async fn run_in(
    aids: &Aids<'_>,
    plan: &LaunchPlan,
    input: &Spooled,
    future: &FutureId,
    cancel: CancellationToken,
    events: mpsc::Sender<AttemptEvent>,
) -> Result<Outcome, SpoolError> {
    let own_result = SpoolWriter::in_memory(MAX_OWN_RESULT)?;
    let started = clock::now();
    let refused = |reason| Observed { ended: Ended::Refused(reason), ..Observed::default() };
    let observed = if cancel.is_cancelled() {
        Observed { ended: Ended::Stopped(Reason::Cancelled), ..Observed::default() }
    } else {
        match aids.start(plan, input, future).await {
            Ok((jail, pipes, food)) => {
                let task = Task { plan, aids, cancel: &cancel, events: &events };
                task.observe(jail, pipes, food).await
            }
            Err(error) => refused(Reason::CouldNotStart { stage: None, what: crate::error_chain(&error) }),
        }
    };
    Ok(observed.into_outcome(own_result, future, started))
}

/// How a file begins that R cannot unpack while it reads it from a pipe: bzip2, xz.
const PACKED: [&[u8]; 2] = [b"BZh", b"\xfd7zXZ\0"];

/// Below so many bytes nothing is gained by reading an object as it comes.
const SMALL: u64 = 1 << 20;

/// How a file begins that R reads without anything in between: RDS as XDR or in native byte order, not compressed.
const PLAIN: [&[u8]; 2] = [b"X\n", b"B\n"];

fn begins_with(input: &Spooled, magics: &[&[u8]]) -> bool {
    let begins_with = |magic: &&[u8]| {
        let mut head = [0; 6];
        head.get_mut(..magic.len()).is_some_and(|head| input.file().read_exact_at(head, 0).is_ok() && head == *magic)
    };
    magics.iter().any(begins_with)
}

/// Whether R reads this input whole before it makes an object of it.
fn is_read_whole(input: &Spooled) -> bool {
    input.size() < SMALL || begins_with(input, &PACKED)
}

/// Whether R can begin to read this input before all of it is there.
pub(super) fn is_read_as_it_comes(input: &Spooled) -> bool {
    input.size() >= SMALL && begins_with(input, &PLAIN)
}

/// What an attempt has to do with.
struct Task<'a> {
    plan: &'a LaunchPlan,
    aids: &'a Aids<'a>,
    cancel: &'a CancellationToken,
    events: &'a mpsc::Sender<AttemptEvent>,
}

/// What is known when a task is over.
struct Observed {
    ended: Ended,
    frames: FramesSeen,
    text: Text,
    usage: Usage,
    stages: Vec<(p2p_jail::spec::Stage, String)>,
    denials: Option<Denials>,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            ended: Ended::Finished,
            frames: FramesSeen::default(),
            text: Text::default(),
            usage: Usage::default(),
            stages: Vec::new(),
            denials: None,
        }
    }
}

impl Task<'_> {
    async fn observe(&self, jail: Jail, pipes: Pipes, food: Food) -> Observed {
        let (mut frames, text) = (FramesSeen::default(), Mutex::<Text>::default());
        let (inquire, inquiry) = oneshot::channel();
        // The task is stopped by a cancellation, and by frames that leave nothing to wait for.
        let stop = self.cancel.child_token();
        let over = CancellationToken::new();
        let Aids { relief, spool_directory: directory, .. } = *self.aids;
        let (limit, ending) = (self.plan.max_result, ending_of(self.plan));
        let to = FramesTo { directory, relief, limit, events: self.events, ending };
        let reading = async {
            pump_frames(pipes.frames, &to, &mut frames).await;
            // One without a byte is none, whatever the task has marked.
            if let Some(result) = frames.whole.as_ref().filter(|result| result.size() > 0) {
                self.is_done(result, &text, inquire).await;
            }
            // A frame that is cut short is known at the end of the pipe, where the task is ending by itself: to stop it would
            // hide how it does.
            if frames.fault.as_ref().is_some_and(|fault| *fault != Fault::Frame(FrameError::Cut)) {
                stop.cancel();
            }
        };
        let watching = async {
            let _over = over.clone().drop_guard();
            let running = || drop(self.events.try_send(AttemptEvent::Running));
            jail.watch(self.plan, &stop, inquiry, running).await
        };
        let (reports, fed, _, _) = tokio::join!(
            watching,
            until(&over, Duration::ZERO, food.pump(pipes.input)),
            until(&over, DRAIN, reading),
            until(&over, DRAIN, pump_text(pipes.text, self.plan.max_text, &text)),
        );
        if let Some(Err(error)) = fed {
            tracing::warn!(%error, "a future could not be read back");
        }
        let text = text.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.conclude(reports, frames, text)
    }

    /// The result is whole: if no limit has ended the task, it need not be waited for. Who listens gets the result, and what the task
    /// has printed: that came before the result, so that it has been read while the jail is asked.
    async fn is_done(
        &self,
        result: &Arc<Spooled>,
        text: &Mutex<Text>,
        inquire: oneshot::Sender<oneshot::Sender<Reached>>,
    ) {
        let (answer, answered) = oneshot::channel();
        drop(inquire.send(answer));
        if let Ok(reached) = answered.await {
            let text = text.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let done = Done { result: Arc::clone(result), reached, text };
            // Who does not take it gets it with the outcome.
            tell(self.events, AttemptEvent::Done(done)).await;
        }
    }

    fn conclude(&self, reports: Reports, frames: FramesSeen, text: Text) -> Observed {
        let ended = judge(&Evidence {
            last: &reports.last,
            reported: !reports.stages.is_empty(),
            cancelled: self.cancel.is_cancelled(),
            watch: &self.plan.spec.watch,
            frames: &frames,
            text: &text,
        });
        let usage = match reports.last {
            Ok(Report::Ended { usage, .. }) => usage,
            _ => Usage::default(),
        };
        Observed { ended, frames, text, usage, stages: reports.stages, denials: reports.denials }
    }
}

/// Awaits something until `over` and for some time more; `None` when it did not come to its end.
async fn until<T>(over: &CancellationToken, grace: Duration, work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        over.cancelled().await;
        sleep(grace).await;
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = late => None,
    }
}

impl Observed {
    fn into_outcome(self, mut own_result: SpoolWriter, future: &FutureId, started: Timestamp) -> Outcome {
        let Self { ended, frames, text, usage, stages, denials } = self;
        let progress_dropped = frames.progress_dropped;
        let result = match (ended.reason(), frames.into_result()) {
            (None, Some(result)) => result,
            (reason, _) => {
                let nothing = Reason::NoResult { last_words: String::new() };
                let bytes = interrupted::result(future, reason.unwrap_or(&nothing), started, clock::now());
                if let Err(error) = own_result.write(&bytes) {
                    tracing::error!(error = crate::error_chain(&error), "no memory for a result of our own");
                }
                Arc::new(own_result.finish())
            }
        };
        Outcome { result, ended, usage, text, stages, denials, progress_dropped }
    }
}
