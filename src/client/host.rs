//! Hosting a shared cluster: holding the access list of its topic, as `host_cluster()` of future.p2p does.
//!
//! A board keeps an access list for as long as the connection that gave it is there. So a host stays on the topic, says hello
//! every two minutes, and comes back with its list when the connection broke. A list is changed by a second connection with
//! the new one, before the first is left: who is on both lists notices nothing. If the second cannot be had and somebody is to
//! lose access, the first is left all the same.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    board::{Board, BoardError, BoardEvent, Link, MAX_LINE},
    clock::{self, Timestamp},
    error_chain,
    ids::{ClusterName, PeerName, Topic, UserName},
    proto::message::{About, Message, Protocols, Role},
};

/// How often a host says hello, as R hosts do.
const HELLO: Duration = Duration::from_secs(120);
/// For how long a hello holds, as those of R peers do.
const HELLO_HOLDS: Duration = Duration::from_secs(3600);
/// Waiting times before a list is tried again: from the first to the last, twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LAST_WAIT: Duration = Duration::from_secs(60);

/// What the log says when the access list is in force.
pub const HOSTING: &str = "hosting";

/// Why a cluster is hosted no longer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It could not even begin.
    #[error(transparent)]
    Join(#[from] BoardError),
    /// The board cannot be had again.
    #[error("the board was lost: {0}")]
    BoardLost(String),
}

/// A cluster that its owner hosts.
#[derive(Debug, Clone)]
pub struct Hosted {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its topic, as its owner types it.
    pub topic: Topic,
    /// The owner's name on the board.
    pub me: PeerName,
}

impl Hosted {
    /// Hosts until `shutdown`. `sharing` makes a board whose topics are shared with these accounts; `users` is the list,
    /// which may change. `told` hears each time that the list has come in force, and that it is no longer.
    ///
    /// # Errors
    /// [`HostError::Join`] for the first attempt, which is not repeated; [`HostError::BoardLost`] when trying again is of no
    /// use.
    pub async fn host<B: Board>(
        self,
        sharing: impl Fn(Vec<UserName>) -> B,
        mut users: watch::Receiver<Vec<UserName>>,
        shutdown: CancellationToken,
        told: impl Fn(bool),
    ) -> Result<(), HostError> {
        let list = users.borrow_and_update().clone();
        let board = sharing(list.clone());
        let first = tokio::select! {
            joined = board.join(&self.topic) => joined?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let (link, lost) = (Some(first), String::new());
        let mut stay = Stay { hosted: self, list, link, is_up: true, hosts: false, lost, change: None };
        let mut hello = interval(HELLO);
        hello.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first hello is said when the topic is joined.
        hello.tick().await;
        let mut fixed = false;
        loop {
            let hosted = stay.hosts;
            let retry = stay.change.as_ref().map_or_else(Instant::now, |change| change.at);
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = users.changed(), if !fixed => match changed {
                    Ok(()) => stay.want(users.borrow_and_update().clone()),
                    // Whoever could change it is gone.
                    Err(_) => fixed = true,
                },
                () = sleep_until(retry), if stay.change.is_some() => tokio::select! {
                    () = stay.try_change(&sharing) => {}
                    () = shutdown.cancelled() => break,
                },
                event = next(&mut stay.link) => stay.take(event).await?,
                _ = hello.tick() => stay.say_hello().await,
            }
            stay.hosts &= stay.link.is_some();
            if stay.hosts != hosted {
                told(stay.hosts);
            }
        }
        if let Some(link) = stay.link {
            link.leave().await;
        }
        Ok(())
    }

    /// What is said every two minutes: the hello, and a line that R peers ignore and people read.
    fn hello(&self, list: &[UserName], now: Timestamp) -> [String; 2] {
        let expires = now + HELLO_HOLDS;
        let hello = Message::Hello {
            role: Role::Cluster,
            from: self.me.clone(),
            protocols: Protocols { libp2p: true, wormhole: true },
            about: About::default(),
        };
        let head = format!("owner={},nusers={},users=", self.cluster.owner, list.len());
        let tail = format!(",expires={}", expires.unix_seconds());
        let mut names = String::new();
        for user in list {
            // A list that is too long for a line is cut; `nusers` has its length.
            if head.len() + names.len() + user.as_str().len() + 1 + tail.len() > MAX_LINE {
                break;
            }
            if !names.is_empty() {
                names.push(';');
            }
            names.push_str(user.as_str());
        }
        [hello.to_line(&clock::local_time(), expires), format!("{head}{names}{tail}")]
    }
}

/// A host that is there.
struct Stay {
    hosted: Hosted,
    /// The list of `link`.
    list: Vec<UserName>,
    link: Option<Link>,
    /// The connection of `link` is there, as far as it is known.
    is_up: bool,
    /// The list is in force, as far as it is known.
    hosts: bool,
    /// Why it was lost last.
    lost: String,
    change: Option<Change>,
}

/// A list that is to come in force.
struct Change {
    list: Vec<UserName>,
    at: Instant,
    wait: Duration,
}

/// The next event; none ever where there is no link.
async fn next(link: &mut Option<Link>) -> Option<BoardEvent> {
    match link {
        Some(link) => link.incoming.recv().await,
        None => std::future::pending().await,
    }
}

impl Stay {
    /// Another list is wanted. A link that is not up is not waited for: it would come back with the old one.
    fn want(&mut self, list: Vec<UserName>) {
        if !self.is_up {
            self.link = None;
        }
        self.change =
            (list != self.list || self.link.is_none()).then(|| Change { list, at: Instant::now(), wait: FIRST_WAIT });
    }

    /// Joins with the new list, and then leaves with the old one. Cancelled, it has changed nothing or is all done.
    async fn try_change<B: Board>(&mut self, sharing: &impl Fn(Vec<UserName>) -> B) {
        let Some(change) = &mut self.change else { return };
        match sharing(change.list.clone()).join(&self.hosted.topic).await {
            Ok(link) => {
                self.list = std::mem::take(&mut change.list);
                self.change = None;
                let old = self.link.replace(link);
                self.is_up = true;
                if let Some(old) = old {
                    old.leave().await;
                }
            }
            Err(error) => {
                let reason = error_chain(&error);
                tracing::warn!(reason, "cannot change the list of users yet");
                change.at = Instant::now() + change.wait;
                change.wait = change.wait.saturating_mul(2).min(LAST_WAIT);
                if self.link.is_some() && self.list.iter().any(|user| !change.list.contains(user)) {
                    tracing::warn!("nobody has access for now, because somebody is to have it no longer");
                    self.link = None;
                }
            }
        }
    }

    async fn take(&mut self, event: Option<BoardEvent>) -> Result<(), HostError> {
        match event {
            Some(BoardEvent::Joined) => {
                (self.is_up, self.hosts) = (true, true);
                let users = self.list.iter().map(UserName::as_str).collect::<Vec<_>>().join(",");
                tracing::info!(cluster = %self.hosted.cluster, users, "{HOSTING}");
                self.say_hello().await;
            }
            Some(BoardEvent::Lost(reason)) => {
                tracing::warn!(reason, "the board was lost");
                (self.is_up, self.hosts) = (false, false);
                self.lost = reason;
                if let Some(change) = &mut self.change {
                    self.link = None;
                    change.at = Instant::now() + FIRST_WAIT;
                }
            }
            Some(BoardEvent::Line(_) | BoardEvent::Skipped(_)) => {}
            None => return Err(HostError::BoardLost(std::mem::take(&mut self.lost))),
        }
        Ok(())
    }

    async fn say_hello(&mut self) {
        let Some(link) = &self.link else { return };
        for line in self.hosted.hello(&self.list, clock::now()) {
            // A link that ended says so on its other half.
            let _ = link.outgoing.send(line).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{sync::mpsc, time::timeout};

    use super::*;
    use crate::board::{hub::Hub, memory::MemoryBoard};

    fn names(names: &[&str]) -> Vec<UserName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn hosted() -> Hosted {
        Hosted {
            cluster: "alice/friends".parse().unwrap(),
            topic: "friends/future.p2p".parse().unwrap(),
            me: "alice@host:1".parse().unwrap(),
        }
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(60), work).await.expect("waited in vain")
    }

    async fn line(link: &mut Link) -> String {
        loop {
            match soon(link.incoming.recv()).await.expect("the link goes on") {
                BoardEvent::Line(line) => return String::from_utf8(line).unwrap(),
                BoardEvent::Joined => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// A host on a board in memory, and its list.
    fn start(hub: &Arc<Hub>, users: &[&str]) -> (watch::Sender<Vec<UserName>>, CancellationToken, Task) {
        let (list, lists) = watch::channel(names(users));
        let (hub, stop) = (Arc::clone(hub), CancellationToken::new());
        let alice: UserName = "alice".parse().unwrap();
        let sharing = move |guests| MemoryBoard::new(&hub, alice.clone()).sharing_with(guests);
        let task = tokio::spawn(hosted().host(sharing, lists, stop.clone(), |_| {}));
        (list, stop, task)
    }

    type Task = tokio::task::JoinHandle<Result<(), HostError>>;

    async fn joined(hub: &Arc<Hub>, user: &str) -> Link {
        let board = MemoryBoard::new(hub, user.parse().unwrap());
        soon(async {
            loop {
                match board.join(&"alice/friends/future.p2p".parse().unwrap()).await {
                    Ok(link) => return link,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_host_shares_says_hello_and_changes_its_list_without_a_gap() {
        let hub = Arc::new(Hub::default());
        let (list, stop, task) = start(&hub, &["bob", "carol"]);
        let (mut bob, mut carol) = (joined(&hub, "bob").await, joined(&hub, "carol").await);
        list.send(names(&["bob", "dave"])).unwrap();
        let dave = joined(&hub, "dave").await;
        // Bob, on both lists, stays; carol is cut off.
        loop {
            match soon(carol.incoming.recv()).await {
                Some(BoardEvent::Lost(reason)) => break assert!(reason.contains("does not share"), "{reason}"),
                Some(_) => {}
                None => panic!("the reason comes first"),
            }
        }
        dave.outgoing.send("from dave".to_owned()).await.unwrap();
        loop {
            let line = line(&mut bob).await;
            if line == "from dave" {
                break;
            }
            assert!(line.contains("type=cluster,from=alice@host:1,protocols=") || line.starts_with("owner=alice,"));
        }
        stop.cancel();
        soon(task).await.unwrap().unwrap();
        assert!(hub.channels(&"alice".parse().unwrap()).is_empty());
    }

    #[tokio::test]
    async fn it_is_told_when_the_list_is_in_force_and_when_it_is_no_longer() {
        let hub = Arc::new(Hub::default());
        let (list, lists) = watch::channel(names(&["bob", "carol"]));
        let (tell, mut told) = mpsc::channel(16);
        let (alices, alice) = (Arc::clone(&hub), "alice".parse::<UserName>().unwrap());
        let sharing = move |guests: Vec<UserName>| {
            let fails = guests.len() == 1;
            Moody(MemoryBoard::new(&alices, alice.clone()).sharing_with(guests), fails)
        };
        let stop = CancellationToken::new();
        let task =
            tokio::spawn(hosted().host(sharing, lists, stop.clone(), move |hosts| tell.try_send(hosts).unwrap()));
        assert_eq!(soon(told.recv()).await, Some(true));
        list.send(names(&["bob"])).unwrap();
        assert_eq!(soon(told.recv()).await, Some(false));
        list.send(names(&["bob", "dave"])).unwrap();
        assert_eq!(soon(told.recv()).await, Some(true));
        stop.cancel();
        soon(task).await.unwrap().unwrap();
    }

    #[test]
    fn a_hello_has_the_form_that_r_hosts_have() {
        let now = Timestamp(1_795_361_280_000);
        let [hello, owner] = hosted().hello(&names(&["bob", "carol"]), now);
        assert!(hello.starts_with("when=") && hello.contains(",expires=1795364880,type=cluster,from=alice@host:1,"));
        assert_eq!(owner, "owner=alice,nusers=2,users=bob;carol,expires=1795364880");
        let many: Vec<String> = (0..256).map(|at| format!("{at:064}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let [_, owner] = hosted().hello(&names(&many), now);
        assert!(owner.len() <= MAX_LINE && owner.contains("nusers=256,") && owner.ends_with(",expires=1795364880"));
    }

    /// A board that fails when it is told to.
    struct Moody(MemoryBoard, bool);

    impl Board for Moody {
        async fn user(&self) -> Result<UserName, BoardError> {
            self.0.user().await
        }
        async fn join(&self, topic: &Topic) -> Result<Link, BoardError> {
            if self.1 { Err(BoardError::NoKey) } else { self.0.join(topic).await }
        }
    }

    #[tokio::test]
    async fn who_is_to_lose_access_loses_it_though_the_new_list_cannot_be_had() {
        let hub = Arc::new(Hub::default());
        let (list, lists) = watch::channel(names(&["bob", "carol"]));
        let (tried, mut tries) = mpsc::channel(16);
        let (alices, alice) = (Arc::clone(&hub), "alice".parse::<UserName>().unwrap());
        let sharing = move |guests: Vec<UserName>| {
            let fails = guests.len() == 1;
            tried.try_send(guests.len()).unwrap();
            Moody(MemoryBoard::new(&alices, alice.clone()).sharing_with(guests), fails)
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(hosted().host(sharing, lists, stop.clone(), |_| {}));
        let mut carol = joined(&hub, "carol").await;
        list.send(names(&["bob"])).unwrap();
        while !matches!(soon(carol.incoming.recv()).await, Some(BoardEvent::Lost(_))) {}
        assert!(hub.channels(&"alice".parse().unwrap()).is_empty());
        list.send(names(&["bob", "carol", "dave"])).unwrap();
        joined(&hub, "dave").await;
        stop.cancel();
        soon(task).await.unwrap().unwrap();
        assert_eq!(tries.recv().await, Some(2));
    }
}
