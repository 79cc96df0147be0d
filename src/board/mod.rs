//! The message board: how lines get to the other peers of a cluster and back.
//!
//! A [`Board`] is trusted with nothing: it may drop, repeat, reorder and forge lines. What a line means is the business
//! of [`crate::proto`]; here it is bytes without a line end.

pub mod error;
pub mod hub;
pub mod inbox;
pub mod memory;
mod outlet;
pub mod server;
pub mod ssh;

use tokio::{sync::mpsc, task::JoinHandle};

pub use error::{BoardError, ServeError};
pub use ssh::{BoardAddress, SshBoard, SshBoardConfig};

use crate::ids::{Topic, UserName};
pub use crate::proto::lines::MAX_LINE;

/// How many lines and events wait in a [`Link`] in each direction.
pub const LINK_QUEUE: usize = 256;

/// What comes from a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoardEvent {
    /// The topic is joined, for the first time or again: lines sent from now on reach the others.
    Joined,
    /// A line, without its end; at most [`MAX_LINE`] bytes of anything.
    Line(Vec<u8>),
    /// So many lines were thrown away: they were over [`MAX_LINE`], or came while [`Link::incoming`] was full for a while.
    Skipped(u64),
    /// The connection broke; a [`BoardEvent::Joined`] follows if it can be had again, else the link ends.
    Lost(String),
}

/// A joined topic. The link ends for good when `incoming` yields `None`; dropping it leaves the topic.
#[derive(Debug)]
pub struct Link {
    /// Events in their order. Lines that come when it has been full for a second are skipped and counted, so that an owner
    /// who waits for room in `outgoing` while not reading here never waits for ever.
    pub incoming: mpsc::Receiver<BoardEvent>,
    /// Lines to post, without their end. A line that is sent while the connection is lost is lost too.
    pub outgoing: mpsc::Sender<String>,
    /// What carries the lines, until the link is left.
    carrier: JoinHandle<()>,
}

impl Link {
    /// Leaves the topic, and comes back when everything that was posted before is on the board, or the board was too slow.
    pub async fn leave(mut self) {
        self.incoming.close();
        drop(self.outgoing);
        // If it panicked, there is nothing to wait for.
        let _ = self.carrier.await;
    }
}

impl Link {
    /// The same link; `tap` is shown what comes before anybody else, and `None` when nothing will come any more. Must be called
    /// inside a tokio runtime.
    #[must_use]
    pub fn tapped(self, mut tap: impl FnMut(Option<&BoardEvent>) + Send + 'static) -> Self {
        let Self { mut incoming, outgoing, carrier } = self;
        let (pass_on, tapped) = mpsc::channel(LINK_QUEUE);
        let carrier = tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = incoming.recv() => event,
                    () = pass_on.closed() => break,
                };
                tap(event.as_ref());
                let Some(event) = event else { break };
                if pass_on.send(event).await.is_err() {
                    break;
                }
            }
            drop((incoming, pass_on));
            // If it panicked, there is nothing to wait for.
            let _ = carrier.await;
        });
        Self { incoming: tapped, outgoing, carrier }
    }
}

/// A board that one has signed in to.
pub trait Board: Send + Sync {
    /// The name of one's account.
    ///
    /// # Errors
    /// When the board cannot be reached, does not prove its host key, or refuses the sign-in.
    fn user(&self) -> impl Future<Output = Result<UserName, BoardError>> + Send;

    /// Joins a topic.
    ///
    /// # Errors
    /// As [`Board::user`], and [`BoardError::NoAccess`] where the topic belongs to somebody who does not share it.
    fn join(&self, topic: &Topic) -> impl Future<Output = Result<Link, BoardError>> + Send;
}

/// Whether a line can be posted: it is one line, and not over [`MAX_LINE`]. Others are dropped by whoever is to post them.
fn is_postable(line: &str) -> bool {
    !line.is_empty() && line.len() <= MAX_LINE && !line.contains(['\n', '\r'])
}
