//! A worker, a board or a host as a service of systemd: when it is ready, what it is doing, that it is alive, and how long it may
//! take to leave. Without a manager of services, nothing of this happens.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Interval, interval},
};

use crate::{
    ids::ClusterName,
    observe::notify::{Manager, Notice},
    supervisor::Status,
};

/// How long a worker takes to leave when the time for what runs is up: tasks are killed, clients told, streams closed.
const LAST_STEPS: Duration = Duration::from_secs(30);

/// This program, as a manager of services sees it.
#[derive(Debug)]
pub(super) struct Service(Option<Arc<Manager>>);

impl Service {
    /// A service of whoever started this program, if that is a manager of services.
    pub(super) fn of_the_manager() -> Self {
        Self(Manager::from_environment().map(Arc::new))
    }

    /// Not ready yet, or no longer.
    pub(super) fn starting(&self, what: &str) {
        self.tell(&[Notice::Status(what.to_owned())]);
    }

    /// Ready, and not watched further.
    pub(super) fn ready(&self, what: String) {
        self.tell(&[Notice::Ready, Notice::Status(what)]);
    }

    fn tell(&self, notices: &[Notice]) {
        if let Some(manager) = &self.0 {
            manager.tell(notices);
        }
    }

    /// Where a worker says what it is doing. The manager is told what changes; and that the worker is alive for as long as its
    /// dispatcher is, which may hang though other parts do not.
    pub(super) fn watch(&self, cluster: ClusterName, slots: usize, drain_time: Duration) -> watch::Sender<Status> {
        let (sender, mut receiver) = watch::channel(Status::default());
        if let Some(manager) = self.0.clone() {
            let mut teller =
                Teller { manager, cluster, slots, drain_time, said: String::new(), last: Status::default() };
            tokio::spawn(async move {
                let mut pulse = Pulse::new(teller.manager.every());
                loop {
                    tokio::select! {
                        changed = receiver.changed() => match changed {
                            Ok(()) => teller.tell(*receiver.borrow_and_update(), false),
                            Err(_) => break,
                        },
                        () = pulse.due() => {
                            let status = *receiver.borrow();
                            if pulse.goes_on(status.turns) {
                                teller.tell(status, true);
                            }
                        }
                    }
                }
            });
        }
        sender
    }
}

/// When the manager is to hear that the worker is alive, and whether it is.
struct Pulse {
    every: Option<Interval>,
    turns: u64,
}

impl Pulse {
    fn new(every: Option<Duration>) -> Self {
        Self { every: every.map(interval), turns: 0 }
    }

    async fn due(&mut self) {
        match &mut self.every {
            Some(every) => drop(every.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Whether the dispatcher has turned since this was asked last.
    fn goes_on(&mut self, turns: u64) -> bool {
        std::mem::replace(&mut self.turns, turns) != turns
    }
}

/// Tells the manager what is new.
struct Teller {
    manager: Arc<Manager>,
    cluster: ClusterName,
    slots: usize,
    drain_time: Duration,
    said: String,
    last: Status,
}

impl Teller {
    fn tell(&mut self, status: Status, alive: bool) {
        let mut notices = Vec::new();
        if status.joined && !self.last.joined {
            notices.push(Notice::Ready);
        }
        if status.leaving && !self.last.leaving {
            notices.push(Notice::Stopping(self.drain_time.saturating_add(LAST_STEPS)));
        }
        if alive {
            notices.push(Notice::Alive);
        }
        let words = self.words(status);
        if words != self.said {
            notices.push(Notice::Status(words.clone()));
            self.said = words;
        }
        self.last = status;
        if !notices.is_empty() {
            self.manager.tell(&notices);
        }
    }

    fn words(&self, status: Status) -> String {
        let Status { joined, leaving, running, delivered, failed, .. } = status;
        let state = match (leaving, joined) {
            (true, _) => "leaving".to_owned(),
            (false, true) => format!("serving {}", self.cluster),
            (false, false) => "waiting for the board".to_owned(),
        };
        format!("{state}: {running} of {} slots busy, {delivered} delivered, {failed} failed", self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_worker() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let heard = || {
            let mut bytes = [0; 512];
            let count = socket.recv(&mut bytes).unwrap_or_default();
            String::from_utf8(bytes[..count].to_vec()).unwrap()
        };
        let mut teller = Teller {
            manager: Arc::new(Manager::connect(path.to_str().unwrap(), None).unwrap()),
            cluster: "alice/friends".parse().unwrap(),
            slots: 2,
            drain_time: Duration::from_secs(60),
            said: String::new(),
            last: Status::default(),
        };
        let new = Status::default();
        teller.tell(new, false);
        assert_eq!(heard(), "STATUS=waiting for the board: 0 of 2 slots busy, 0 delivered, 0 failed");
        let joined = Status { joined: true, running: 1, ..new };
        teller.tell(joined, true);
        assert_eq!(
            heard(),
            "READY=1\nWATCHDOG=1\nSTATUS=serving alice/friends: 1 of 2 slots busy, 0 delivered, 0 failed"
        );
        // What is known already is not repeated.
        teller.tell(Status { turns: 9, ..joined }, false);
        assert_eq!(heard(), "");
        teller.tell(Status { leaving: true, ..joined }, false);
        assert!(heard().starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=90000000\nSTATUS=leaving: 1 of 2"));
    }
}
