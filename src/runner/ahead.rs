//! A few `p2p-jail ahead` that wait for tasks: what of a jail does not depend on the task (starting the program, control
//! groups, namespaces) is off the way from a future to its evaluation. Each serves one task and is replaced by another.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use p2p_jail::spec::Ahead;
use tokio::{process::Child, time::sleep};

use super::jail::{Jail, Pipes, StartError, Waiting, start};
use crate::{clock, sandbox::LaunchPlan};

/// The most that wait at a time: a worker and all that waits with it shall stay below 30 MB resident, and one takes 4 MiB.
const MOST: usize = 1;

/// When a task has begun, so that starting another jail does not slow it down.
const BEGUN: Duration = Duration::from_secs(1);

/// How long the end of those that were not needed is waited for, so that they have removed their control groups.
const PATIENCE: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(2);

/// Those that wait, for one kind of task.
#[derive(Debug)]
pub(super) struct Pool {
    program: PathBuf,
    ahead: Ahead,
    slots: usize,
    /// Tasks at work.
    busy: AtomicUsize,
    waiting: Mutex<Vec<Waiting>>,
    /// Held while it is filled, so that nobody does so twice.
    filling: tokio::sync::Mutex<()>,
}

/// One task at work; dropped, its slot is free, and one is started for it.
pub(super) struct Busy(Arc<Pool>);

impl Pool {
    /// An empty one for tasks like this, of which at most so many run at a time; `None` where nothing can be made ahead.
    pub(super) fn new(plan: &LaunchPlan, slots: usize) -> Option<Self> {
        Some(Self {
            program: plan.jail.clone(),
            ahead: Ahead::of(&plan.spec)?,
            slots,
            busy: AtomicUsize::new(0),
            waiting: Mutex::default(),
            filling: tokio::sync::Mutex::default(),
        })
    }

    /// Starts as many as there are free slots, up to a bound, in place of those that are no more. One that cannot be
    /// started is no failure: tasks then start from nothing, and say what is wrong.
    pub(super) async fn fill(&self) {
        let Ok(_filling) = self.filling.try_lock() else { return };
        for _ in 0..MOST {
            let free = self.slots.saturating_sub(self.busy.load(Ordering::Relaxed)).min(MOST);
            {
                let mut waiting = self.waiting();
                waiting.retain_mut(Waiting::is_alive);
                if waiting.len() >= free {
                    return;
                }
            }
            match Waiting::start(&self.program, &self.ahead).await {
                Ok(another) => self.waiting().push(another),
                Err(error) => {
                    tracing::debug!(error = crate::error_chain(&error), "no p2p-jail can be started ahead");
                    return;
                }
            }
        }
    }

    /// Counts a task until what is returned is dropped. What it uses is replaced when it has long begun.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.fill_after(BEGUN);
        Busy(Arc::clone(self))
    }

    fn fill_after(self: &Arc<Self>, delay: Duration) {
        // A worker that stops meanwhile is not held up.
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(delay).await;
            if let Some(pool) = pool.upgrade() {
                pool.fill().await;
            }
        });
    }

    /// Starts a task in one that waits for it, if there is one.
    async fn start(&self, plan: &LaunchPlan) -> Option<(Jail, Pipes)> {
        if Ahead::of(&plan.spec).as_ref() != Some(&self.ahead) || plan.jail != self.program {
            return None;
        }
        loop {
            let mut next = self.waiting().pop()?;
            if next.is_alive()
                && let Some(started) = next.take(plan).await
            {
                return Some(started);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a task, in one that waits for it or from nothing.
///
/// # Errors
/// As [`start`].
pub(super) async fn start_in(pool: Option<&Pool>, plan: &LaunchPlan) -> Result<(Jail, Pipes), StartError> {
    if let Some(pool) = pool
        && let Some(started) = pool.start(plan).await
    {
        return Ok(started);
    }
    start(plan).await
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.fill_after(Duration::ZERO);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        end_all(self.waiting().drain(..).map(Waiting::dismiss).collect());
    }
}

/// Waits for a while until all of these, which were asked to end, have.
pub(super) fn end_all(mut ending: Vec<Child>) {
    let due = clock::now() + PATIENCE;
    while !ending.is_empty() && clock::now() < due {
        ending.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        thread::park_timeout(BETWEEN);
    }
}
