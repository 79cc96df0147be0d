//! R processes that run already, each in its sandbox, with package future loaded, and wait for the first line of their fd 0:
//! starting R, which takes most of the time of a small future, is off the way from a future to its evaluation.
//!
//! Each serves one future and no other, so futures share no more than they do without: nothing of a future has run in it
//! before. It is started when a future is on its way, and again when a future has ended, because another one probably
//! follows; it is ended when none has come for a while.
//!
//! One may be fed: it reads what its future probably begins with, which is what futures of one client began with. It then
//! serves no future that begins otherwise.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    ahead::{self, Pool, end_all},
    command::FED_AHEAD,
    jail::{Jail, Pipes},
    streams::pump_input,
};
use crate::{
    sandbox::LaunchPlan,
    spool::{Beginning, Reader},
};

/// How long a sandbox may take until R is executed in it, and one that is not needed to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the next future of a slot.
#[derive(Debug, Clone, Copy)]
pub enum Next<'a> {
    /// Nothing, not even whether there will be one.
    Unknown,
    /// It is on its way, and may have this beginning.
    Coming(Option<&'a Beginning>),
}

/// Those that wait: at most one for each slot.
#[derive(Debug)]
pub(super) struct Warm {
    pool: Option<Arc<Pool>>,
    keep: Duration,
    waiting: Mutex<HashMap<usize, Waiting>>,
    next: AtomicU64,
}

/// One of them, or one that is being started.
#[derive(Debug)]
struct Waiting {
    number: u64,
    plan: LaunchPlan,
    ready: oneshot::Receiver<Running>,
    fed: Option<Beginning>,
}

#[derive(Debug)]
struct Running {
    jail: Jail,
    pipes: Pipes,
}

impl Warm {
    /// None yet; each will wait for that long at most.
    pub(super) fn new(pool: Option<Arc<Pool>>, keep: Duration) -> Self {
        Self { pool, keep, waiting: Mutex::default(), next: AtomicU64::new(0) }
    }

    /// How long one waits.
    pub(super) fn keep(&self) -> Duration {
        self.keep
    }

    /// Has one wait for the next future of this slot under this plan, if none does. One that cannot be started is no failure: the
    /// future's own start says what is wrong.
    pub(super) fn expect(self: &Arc<Self>, slot: usize, plan: LaunchPlan, next: Next<'_>) {
        let mut waiting = self.waiting();
        let suits = |waiting: &Waiting| match next {
            Next::Unknown => true,
            Next::Coming(beginning) => waiting.is_fed_with(beginning),
        };
        if waiting.get(&slot).is_some_and(|waiting| waiting.is_for(&plan) && suits(waiting)) {
            return;
        }
        let (tell, ready) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(begin(self.pool.clone(), plan.clone(), tell));
        let replaced = waiting.insert(slot, Waiting { number, plan, ready, fed: None });
        drop(waiting);
        replaced.into_iter().for_each(Waiting::dismiss);
        let (warm, keep) = (Arc::downgrade(self), self.keep);
        tokio::spawn(async move {
            sleep(keep).await;
            if let Some(warm) = warm.upgrade() {
                warm.forget(slot, number);
            }
        });
    }

    /// Feeds the one that waits for a future of this slot, if one does that was not fed yet: with these bytes, which are that
    /// beginning.
    pub(super) fn feed(&self, slot: usize, bytes: Reader, beginning: &Beginning) {
        let mut waiting = self.waiting();
        let Some(unfed) = waiting.get_mut(&slot).filter(|waiting| waiting.fed.is_none()) else { return };
        let (tell, ready) = oneshot::channel();
        unfed.fed = Some(beginning.clone());
        let before = std::mem::replace(&mut unfed.ready, ready);
        drop(waiting);
        tokio::spawn(async move {
            let Ok(Running { jail, mut pipes }) = before.await else { return };
            // What went wrong shows when a future is there.
            if let Err(error) = pump_input(FED_AHEAD, bytes, "", &mut pipes.input).await {
                tracing::debug!(%error, "what a future begins with cannot be read");
            }
            hand_over(Running { jail, pipes }, tell).await;
        });
    }

    /// The one that waits for a future of this slot, if it is for such a plan, and for one that begins so if it was fed; and
    /// whether it was. It has been told that it begins.
    pub(super) async fn take(
        &self,
        slot: usize,
        plan: &LaunchPlan,
        beginning: Option<&Beginning>,
    ) -> Option<(Jail, Pipes, bool)> {
        let waiting = self.waiting().remove(&slot)?;
        if !(waiting.is_for(plan) && waiting.is_fed_with(beginning)) {
            waiting.dismiss();
            return None;
        }
        let is_fed = waiting.fed.is_some();
        let Running { mut jail, pipes } = timeout(PATIENCE, waiting.ready).await.ok()?.ok()?;
        (jail.is_alive() && jail.begin().await.is_ok()).then_some((jail, pipes, is_fed))
    }

    fn forget(&self, slot: usize, number: u64) {
        let mut waiting = self.waiting();
        if waiting.get(&slot).is_some_and(|waiting| waiting.number == number) {
            let forgotten = waiting.remove(&slot);
            drop(waiting);
            forgotten.into_iter().for_each(Waiting::dismiss);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<usize, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether a task under this plan would be started in the same way.
    fn is_for(&self, plan: &LaunchPlan) -> bool {
        self.plan.spec == plan.spec && self.plan.jail == plan.jail
    }

    /// Whether it can take a future with this beginning.
    fn is_fed_with(&self, beginning: Option<&Beginning>) -> bool {
        self.fed.as_ref().is_none_or(|fed| beginning.is_some_and(|beginning| beginning.is(fed)))
    }

    /// Ends it, in a while.
    fn dismiss(self) {
        tokio::spawn(async move {
            if let Ok(running) = self.ready.await {
                running.end().await;
            }
        });
    }
}

impl Running {
    /// Ends it, so that it has tidied up after itself.
    async fn end(self) {
        let mut child = self.jail.dismiss();
        if timeout(PATIENCE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }
}

/// Hands one over, or ends it if nobody wants it any more.
async fn hand_over(running: Running, to: oneshot::Sender<Running>) {
    if let Err(unwanted) = to.send(running) {
        unwanted.end().await;
    }
}

/// Starts one, and hands it over once R is executed.
async fn begin(pool: Option<Arc<Pool>>, plan: LaunchPlan, to: oneshot::Sender<Running>) {
    let started = async {
        let (mut jail, pipes) =
            ahead::start_in(pool.as_deref(), &plan).await.map_err(|error| crate::error_chain(&error))?;
        jail.until_it_runs().await?;
        Ok::<_, String>(Running { jail, pipes })
    };
    match timeout(PATIENCE, started).await {
        Ok(Ok(running)) => hand_over(running, to).await,
        failed => {
            let why = failed.map_or_else(|_| "it takes too long".to_owned(), |failed| failed.err().unwrap_or_default());
            tracing::debug!(why, "no R can be started ahead");
        }
    }
    if let Some(pool) = pool {
        pool.fill().await;
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        let ended = |(_, mut waiting): (usize, Waiting)| Some(waiting.ready.try_recv().ok()?.jail.dismiss());
        let ending = self.waiting().drain().filter_map(ended).collect();
        end_all(ending);
    }
}
