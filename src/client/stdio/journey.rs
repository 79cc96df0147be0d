//! One future on its way, from its file to the line that ends it.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    failed::{Class, Failed},
    folder::Folder,
    line::Line,
    members::BoardState,
    orders::Post,
    outbox::Outbox,
    returned,
};
use crate::{
    client::{Client, ClientEvent, Terms},
    ids::{FutureId, PeerName},
    sandbox::Provenance,
    spool::Spooled,
    text,
};

/// When it is first told that nobody took a future; then each time that the time has doubled.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// How long a large file is kept, with which the next one may have something in common.
const KEPT: Duration = Duration::from_secs(60);

/// The least time between two lines about the bytes of one future.
const PACE: Duration = Duration::from_millis(250);

/// The most characters of a sentence.
const MOST_REASON: usize = 1000;

/// What all journeys of a session share.
#[derive(Debug)]
pub(super) struct Road {
    pub(super) folder: Arc<Folder>,
    pub(super) outbox: Outbox,
    /// The largest future, in bytes.
    pub(super) max_future: u64,
    /// The largest result, in bytes.
    pub(super) max_result: u64,
    /// How many workers get a future, where its order does not say.
    pub(super) attempts: u32,
    pub(super) board: watch::Receiver<BoardState>,
}

impl Road {
    /// How many workers get this one, one after the other.
    fn attempts_of(&self, post: &Post) -> u32 {
        post.retry.map_or(self.attempts, |retry| retry.saturating_add(1))
    }
}

/// Leave to go: there is a client, and the one before has been posted.
pub(super) struct Turn {
    pub(super) client: Client,
    pub(super) before: oneshot::Receiver<()>,
    /// Dropped when this one has been posted.
    pub(super) posted: oneshot::Sender<()>,
}

/// One future.
pub(super) struct Journey {
    pub(super) road: Arc<Road>,
    pub(super) post: Post,
    /// The end of its time.
    pub(super) deadline: Option<Instant>,
    pub(super) turn: oneshot::Receiver<Turn>,
    pub(super) withdrawn: CancellationToken,
}

/// Where it is, as far as its lines tell.
struct Place {
    worker: Option<PeerName>,
    provenance: Option<Provenance>,
    told_bytes: Option<Instant>,
    /// Since when its request is on the board, and when that is told next.
    waiting: Option<(Instant, Duration)>,
    times: Times,
}

/// When what happened, since the order.
#[derive(Debug)]
pub(super) struct Times {
    ordered: Instant,
    marks: Vec<(&'static str, Duration)>,
}

impl Times {
    /// Now. What happens again counts from the last time.
    pub(super) fn mark(&mut self, what: &'static str) {
        self.marks.retain(|(before, _)| *before != what);
        self.marks.push((what, self.ordered.elapsed()));
    }
}

impl fmt::Display for Times {
    /// `read:0.2,posted:0.4`, in milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = |(what, after): &(&str, Duration)| format!("{what}:{:.1}", after.as_secs_f64() * 1000.0);
        f.write_str(&self.marks.iter().map(mark).collect::<Vec<_>>().join(","))
    }
}

impl Journey {
    /// Goes the whole way, and writes the line that ends it.
    pub(super) async fn go(self) -> FutureId {
        let future = self.post.future.clone();
        let (road, mut place) = (Arc::clone(&self.road), Place::new());
        let end = match self.travel(&mut place).await {
            Ok(line) => line,
            Err(failed) => failed.line(&future, place.worker.as_ref()),
        };
        road.outbox.keep(end);
        tracing::debug!(%future, times = %place.times, "ended");
        future
    }

    async fn travel(self, place: &mut Place) -> Result<Line, Failed> {
        let mut board = self.road.board.clone();
        let Self { road, post, deadline, turn, withdrawn } = self;
        let gone = async {
            match board.wait_for(|state| matches!(state, BoardState::Gone(_))).await {
                Ok(state) => {
                    if let BoardState::Gone(reason) = &*state {
                        reason.clone()
                    } else {
                        String::new()
                    }
                }
                Err(_) => "the session ended".to_owned(),
            }
        };
        let early = |failed: Failed| {
            road.folder.remove(post.file.as_str());
            Err(failed)
        };
        let turn = tokio::select! {
            biased;
            () = withdrawn.cancelled() => return early(Failed::withdrawn()),
            turn = turn => match turn {
                Ok(turn) => turn,
                Err(_) => return early(Failed::withdrawn()),
            },
            () = at(deadline) => return early(Failed::timed_out()),
            reason = gone => return early(Failed::no_board(&reason)),
        };
        let (folder, file, limit) = (Arc::clone(&road.folder), post.file.clone(), road.max_future);
        let taken = spawn_blocking(move || folder.take(&file, limit)).await;
        let payload = taken.map_err(|error| Failed::new(Class::Local, &error))?.map_err(Failed::not_taken)?;
        place.times.mark("read");
        if road.folder.keeps(&payload) {
            let (folder, payload) = (Arc::downgrade(&road.folder), Arc::downgrade(&payload));
            tokio::spawn(async move {
                sleep(KEPT).await;
                if let (Some(folder), Some(payload)) = (folder.upgrade(), payload.upgrade()) {
                    folder.forget(&payload);
                }
            });
        }
        let Turn { client, before, posted } = turn;
        // It is over, or has been posted: either will do.
        let _ = before.await;
        let patience = deadline.map(|deadline| deadline - Instant::now());
        let terms = Terms { patience, attempts: Some(road.attempts_of(&post)) };
        let events = client.post_on(post.future.clone(), payload, terms).await;
        drop(posted);
        let walk = Walk { road: &road, post: &post, client: &client, place };
        let (result, provenance) = walk.follow(events, &withdrawn).await?;
        place.times.mark("returned");
        let line = returned::take(&road, &post, result, provenance).await?;
        place.times.mark("written");
        Ok(line.maybe("worker", place.worker.as_ref()).with("times", &place.times))
    }
}

/// The end of a time; never, if there is none.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The part from the board to the worker and back.
struct Walk<'a> {
    road: &'a Road,
    post: &'a Post,
    client: &'a Client,
    place: &'a mut Place,
}

impl Walk<'_> {
    async fn follow(
        mut self,
        mut events: mpsc::Receiver<ClientEvent>,
        withdrawn: &CancellationToken,
    ) -> Result<(Spooled, Provenance), Failed> {
        let mut asked = false;
        loop {
            let next_word = self.place.waiting.map(|(since, wait)| since + wait);
            tokio::select! {
                event = events.recv() => match event {
                    Some(ClientEvent::Done(result, provenance)) => return Ok((result, provenance)),
                    Some(ClientEvent::Failed(error)) => return Err(Failed::of_client(error)),
                    Some(event) => self.happened(event).await?,
                    None => return Err(Failed::no_board("the client ended")),
                },
                () = withdrawn.cancelled(), if !asked => {
                    asked = true;
                    self.client.withdraw(self.post.future.clone()).await;
                }
                () = at(next_word) => self.still_waiting(),
            }
        }
    }

    fn line(&self, kind: &'static str) -> Line {
        Line::new(kind).with("future", &self.post.future)
    }

    fn still_waiting(&mut self) {
        if let Some((since, wait)) = &mut self.place.waiting {
            let seconds = since.elapsed().as_secs();
            *wait *= 2;
            self.road.outbox.mention(self.line("waiting").with("seconds", seconds));
        }
    }

    async fn happened(&mut self, event: ClientEvent) -> Result<(), Failed> {
        let place = &mut *self.place;
        let line = match event {
            ClientEvent::Posted => {
                place.waiting.get_or_insert((Instant::now(), FIRST_WAIT));
                place.times.mark("posted");
                self.line("posted")
            }
            ClientEvent::Accepted(worker) => {
                place.waiting = None;
                place.worker = Some(worker.clone());
                place.times.mark("accepted");
                self.line("accepted").with("worker", worker)
            }
            ClientEvent::Sending { bytes, total } => {
                if bytes >= total {
                    place.times.mark("sent");
                }
                self.tell_bytes("sending", bytes, total);
                return Ok(());
            }
            ClientEvent::Receiving { bytes, total } => {
                self.tell_bytes("receiving", bytes, total);
                return Ok(());
            }
            ClientEvent::Running(provenance) => {
                let Provenance { driver, profile, .. } = &provenance;
                let line = self.line("running").with("driver", driver).with("profile", profile);
                self.place.provenance = Some(provenance);
                self.place.times.mark("running");
                line
            }
            ClientEvent::Progress(condition) => {
                returned::progress(self.road, &self.post.future, self.post.results, condition).await;
                return Ok(());
            }
            ClientEvent::Printed(text) => self.line("printed").with("text", text),
            ClientEvent::Doubted(worker) if self.road.attempts_of(self.post) == 1 && place.provenance.is_some() => {
                self.client.withdraw(self.post.future.clone()).await;
                return Err(Failed::lost(&worker));
            }
            ClientEvent::Doubted(worker) => self.line("doubted").with("worker", worker),
            ClientEvent::Returned(worker) => self.line("returned").with("worker", worker),
            ClientEvent::PostedAgain(reason) => {
                place.worker = None;
                place.provenance = None;
                self.line("again").with("reason", text::for_log(&reason, MOST_REASON))
            }
            // The caller has those.
            ClientEvent::Done(..) | ClientEvent::Failed(_) => return Ok(()),
        };
        self.road.outbox.mention(line);
        Ok(())
    }

    fn tell_bytes(&mut self, kind: &'static str, bytes: u64, total: u64) {
        let now = Instant::now();
        if bytes >= total || self.place.told_bytes.is_none_or(|told| now - told >= PACE) {
            self.place.told_bytes = Some(now);
            self.road.outbox.mention(self.line(kind).with("bytes", bytes).with("total", total));
        }
    }
}

impl Place {
    fn new() -> Self {
        let times = Times { ordered: Instant::now(), marks: Vec::new() };
        Self { worker: None, provenance: None, told_bytes: None, waiting: None, times }
    }
}
