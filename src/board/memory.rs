//! A board within one process, for tests: the same topics as over SSH, without the network.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    Board, BoardError, BoardEvent, LINK_QUEUE, Link,
    hub::{Direction, Entry, Hub, Inbox, Member},
    is_postable,
    outlet::Outlet,
};
use crate::ids::{Topic, UserName};

/// One account's sign-in to a board within this process.
#[derive(Debug, Clone)]
pub struct MemoryBoard {
    hub: Arc<Hub>,
    user: UserName,
    shares_with: Vec<UserName>,
}

impl MemoryBoard {
    /// Signs in to the board that all holders of `hub` share.
    #[must_use]
    pub fn new(hub: &Arc<Hub>, user: UserName) -> Self {
        Self { hub: Arc::clone(hub), user, shares_with: Vec::new() }
    }

    /// The same account; topics of its own that it joins from now on are shared with `guests`.
    #[must_use]
    pub fn sharing_with(self, guests: Vec<UserName>) -> Self {
        Self { shares_with: guests, ..self }
    }
}

impl Board for MemoryBoard {
    async fn user(&self) -> Result<UserName, BoardError> {
        Ok(self.user.clone())
    }

    async fn join(&self, topic: &Topic) -> Result<Link, BoardError> {
        let (member, inbox) = self.hub.join(Entry {
            user: self.user.clone(),
            address: "memory".to_owned(),
            topic: topic.clone(),
            direction: Direction::Pipe,
            echo: true,
            shares_with: self.shares_with.clone(),
            public: false,
        });
        let is_foreign = topic.as_str().matches('/').count() >= 2;
        if is_foreign && member.name() == format!("{}/{topic}", self.user) {
            return Err(BoardError::NoAccess { topic: topic.clone() });
        }
        let (events, incoming) = mpsc::channel(LINK_QUEUE);
        let (outgoing, lines) = mpsc::channel(LINK_QUEUE);
        let carrier = tokio::spawn(carry(member, inbox, events, lines));
        Ok(Link { incoming, outgoing, carrier })
    }
}

/// Carries lines both ways until the link is dropped or the client is cut off.
async fn carry(member: Member, mut inbox: Inbox, events: mpsc::Sender<BoardEvent>, mut lines: mpsc::Receiver<String>) {
    let read = async {
        let mut outlet = Outlet::joined(events.clone());
        loop {
            let told = tokio::select! {
                told = outlet.tell(), if outlet.owes() => told,
                line = inbox.next() => match line {
                    Some(line) => outlet.line(line.to_vec()).await,
                    None => break,
                },
            };
            if told.is_err() {
                return;
            }
        }
        // Nobody is left to tell if this fails.
        let _ = events.send(BoardEvent::Lost(inbox.ended().to_string())).await;
    };
    let write = async {
        while let Some(line) = lines.recv().await {
            post(&member, &line);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = read => {}
        () = write => {}
        () = events.closed() => {}
    }
    // What was posted before the link was left still goes out.
    while let Ok(line) = lines.try_recv() {
        post(&member, &line);
    }
}

fn post(member: &Member, line: &str) {
    if is_postable(line) {
        member.post(line.as_bytes());
    }
}
