//! The way of a topic's lines to the owner of a [`super::Link`].
//!
//! Whoever carries lines must not wait long for an owner who does not read: the owner may be waiting for room to post, and
//! with an echo each would wait for the other. So a full queue is waited for only briefly, and then lines are skipped and
//! counted until it has room again.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout};

use super::BoardEvent;

/// How long one line waits for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// Nobody reads the events any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deaf;

/// The sending end of a link's events, for one connection.
#[derive(Debug)]
pub(super) struct Outlet {
    events: mpsc::Sender<BoardEvent>,
    /// [`BoardEvent::Joined`] was not told yet.
    owes_joined: bool,
    /// Lines that were skipped and not told of yet.
    skipped: u64,
}

impl Outlet {
    /// For a topic that was just joined, which is the first event.
    pub(super) fn joined(events: mpsc::Sender<BoardEvent>) -> Self {
        let mut outlet = Self { events, owes_joined: true, skipped: 0 };
        outlet.settle();
        outlet
    }

    /// Hands a line over; waits for room for at most [`PATIENCE`], and not at all while lines are being skipped.
    pub(super) async fn line(&mut self, line: Vec<u8>) -> Result<(), Deaf> {
        self.settle();
        if self.owes() {
            self.skip(1);
            return Ok(());
        }
        match timeout(PATIENCE, self.events.send(BoardEvent::Line(line))).await {
            Ok(told) => told.map_err(|_| Deaf),
            Err(_) => {
                self.skip(1);
                Ok(())
            }
        }
    }

    /// Counts lines that nobody will see.
    pub(super) fn skip(&mut self, lines: u64) {
        self.skipped = self.skipped.saturating_add(lines);
    }

    /// Whether there is something to [`Outlet::tell`].
    pub(super) fn owes(&self) -> bool {
        self.owes_joined || self.skipped > 0
    }

    /// Waits for room and tells what is owed. Cancel-safe.
    pub(super) async fn tell(&mut self) -> Result<(), Deaf> {
        while let Some(event) = self.owed() {
            let room = self.events.reserve().await.map_err(|_| Deaf)?;
            room.send(event);
            self.paid();
        }
        Ok(())
    }

    /// Tells what is owed, as far as there is room.
    fn settle(&mut self) {
        while let Some(event) = self.owed() {
            if self.events.try_send(event).is_err() {
                return;
            }
            self.paid();
        }
    }

    fn owed(&self) -> Option<BoardEvent> {
        if self.owes_joined {
            return Some(BoardEvent::Joined);
        }
        (self.skipped > 0).then_some(BoardEvent::Skipped(self.skipped))
    }

    /// The first of what is owed was told.
    fn paid(&mut self) {
        if !std::mem::take(&mut self.owes_joined) {
            self.skipped = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_owner_who_does_not_read_loses_lines_and_learns_how_many() {
        let (events, mut incoming) = mpsc::channel(2);
        let mut outlet = Outlet::joined(events);
        for number in 0..10u8 {
            outlet.line(vec![number]).await.unwrap();
        }
        assert_eq!(incoming.recv().await, Some(BoardEvent::Joined));
        assert_eq!(incoming.recv().await, Some(BoardEvent::Line(vec![0])));
        outlet.line(vec![10]).await.unwrap();
        assert_eq!(incoming.recv().await, Some(BoardEvent::Skipped(9)));
        assert_eq!(incoming.recv().await, Some(BoardEvent::Line(vec![10])));
        assert!(!outlet.owes());
        drop(incoming);
        assert_eq!(outlet.line(vec![11]).await, Err(Deaf));
    }

    #[tokio::test]
    async fn that_the_topic_is_joined_is_told_however_late_there_is_room() {
        let (events, mut incoming) = mpsc::channel(1);
        events.try_send(BoardEvent::Lost("before".to_owned())).unwrap();
        let mut outlet = Outlet::joined(events);
        outlet.line(vec![1]).await.unwrap();
        assert!(matches!(incoming.recv().await, Some(BoardEvent::Lost(_))));
        let told = tokio::spawn(async move { outlet.tell().await });
        assert_eq!(incoming.recv().await, Some(BoardEvent::Joined));
        assert_eq!(incoming.recv().await, Some(BoardEvent::Skipped(1)));
        assert_eq!(told.await.unwrap(), Ok(()));
    }
}
