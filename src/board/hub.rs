//! Topics and who is on them: what a board is, without its network.
//!
//! A topic belongs to one account and is stored as `account/topic`. Others reach it while a client of its owner that is
//! on it has them on its access list, and are cut off when the last such client leaves. [`super::server`] serves a hub
//! over SSH, [`super::memory`] within one process. The rules are those of the public board, pipe.pico.sh.
//!
//! Posting never waits: each client has a bounded queue, its [`Inbox`], and who lets it overflow is cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::inbox::{ALL_BYTES, LEAST_BYTES, Queue, queue};
pub use super::inbox::{Ended, Inbox};
use crate::ids::{Topic, UserName};

/// What public topics are stored under; no account may have this name.
pub const PUBLIC: &str = "public";

/// What a client of a topic does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It writes alone.
    Publish,
    /// It reads alone.
    Subscribe,
    /// It reads and writes.
    Pipe,
}

/// A client that wants to be on a topic.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its account.
    pub user: UserName,
    /// Where it comes from, as other members may see it.
    pub address: String,
    /// The topic as it was typed.
    pub topic: Topic,
    /// What it does there.
    pub direction: Direction,
    /// Whether its own lines come back to it.
    pub echo: bool,
    /// Who else may use the topic while it stays; counts only on a topic of its own account.
    pub shares_with: Vec<UserName>,
    /// Whether the topic is open to everybody and belongs to nobody.
    pub public: bool,
}

/// One topic, as its owner may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The name that it is stored under, `account/topic`.
    pub name: String,
    /// Who else may use it now.
    pub shared_with: BTreeSet<UserName>,
    /// What each client does, and its text: `<id> (<user>@<address>)`.
    pub clients: Vec<(Direction, String)>,
}

/// What went over a board since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Lines that were posted.
    pub posted: u64,
    /// Their bytes, without line ends.
    pub posted_bytes: u64,
    /// Lines that were put into queues, each counted once for every reader.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Clients that were cut off because they did not read.
    pub too_slow: u64,
    /// Guests that were cut off because nobody let them in any more.
    pub access_ended: u64,
}

/// An account is on as many topics as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this account is on {most} topics already, which is as many as it may be")]
pub struct TooManyTopics {
    /// The bound.
    pub most: usize,
}

/// All topics of one board.
#[derive(Debug, Default)]
pub struct Hub {
    topics: Mutex<Topics>,
    /// Bytes that wait in all queues.
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: BTreeMap<String, Vec<Client>>,
    last_id: u64,
    traffic: Traffic,
}

#[derive(Debug)]
struct Client {
    id: u64,
    /// What its owner sees in place of the id, which would tell how many clients others have.
    shown: u32,
    user: UserName,
    address: String,
    direction: Direction,
    echo: bool,
    shares_with: Vec<UserName>,
    queue: Queue,
}

impl Hub {
    /// Puts a client on a topic. It stays there until the [`Member`] is dropped or it is cut off.
    pub fn join(self: &Arc<Self>, entry: Entry) -> (Member, Inbox) {
        let mut topics = self.topics();
        let name = topics.stored_name(&entry);
        self.put(&mut topics, name, entry)
    }

    /// As [`Hub::join`], unless its account would be on more than `most` topics then.
    ///
    /// # Errors
    /// [`TooManyTopics`].
    pub fn join_within(self: &Arc<Self>, entry: Entry, most: usize) -> Result<(Member, Inbox), TooManyTopics> {
        let mut topics = self.topics();
        let name = topics.stored_name(&entry);
        let is_on = |clients: &[Client]| clients.iter().any(|client| client.user == entry.user);
        let others = topics.by_name.iter().filter(|(other, clients)| **other != name && is_on(clients)).count();
        if others >= most {
            return Err(TooManyTopics { most });
        }
        Ok(self.put(&mut topics, name, entry))
    }

    /// What went over it so far, and how many bytes wait now.
    #[must_use]
    pub fn traffic(&self) -> (Traffic, usize) {
        (self.topics().traffic, self.waiting.load(Ordering::Relaxed))
    }

    /// All topics, for the owner of the board.
    #[must_use]
    pub fn all_channels(&self) -> Vec<Channel> {
        self.topics().by_name.iter().map(|(name, clients)| Channel::new(name, clients)).collect()
    }

    fn put(self: &Arc<Self>, topics: &mut Topics, name: String, entry: Entry) -> (Member, Inbox) {
        let (queue, inbox) = queue(Arc::clone(&self.waiting));
        topics.last_id = topics.last_id.saturating_add(1);
        let id = topics.last_id;
        topics.by_name.entry(name.clone()).or_default().push(Client {
            id,
            // Without randomness, the ids are equal, and nobody needs them to differ.
            shown: getrandom::u32().unwrap_or_default(),
            user: entry.user,
            address: entry.address,
            direction: entry.direction,
            echo: entry.echo,
            shares_with: entry.shares_with,
            queue,
        });
        (Member { hub: Arc::clone(self), name, id }, inbox)
    }

    /// The topics of an account that somebody is on.
    #[must_use]
    pub fn channels(&self, user: &UserName) -> Vec<Channel> {
        let own = format!("{user}/");
        let topics = self.topics();
        let mine = topics.by_name.range(own.clone()..).take_while(|(name, _)| name.starts_with(&own));
        mine.map(|(name, clients)| Channel::new(name, clients)).collect()
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    fn new(name: &str, clients: &[Client]) -> Self {
        let text =
            |client: &Client| (client.direction, format!("{:08x} ({}@{})", client.shown, client.user, client.address));
        Self {
            name: name.to_owned(),
            shared_with: sharing(name, clients).cloned().collect(),
            clients: clients.iter().map(text).collect(),
        }
    }
}

impl Topics {
    /// The name under which a topic that was typed by a user is stored.
    fn stored_name(&self, entry: &Entry) -> String {
        let (user, typed) = (&entry.user, entry.topic.as_str());
        if entry.public {
            let bare = typed.strip_prefix(PUBLIC).and_then(|rest| rest.strip_prefix('/')).unwrap_or(typed);
            return format!("{PUBLIC}/{bare}");
        }
        let is_own = owner(typed).is_some_and(|owner| owner == user.as_str());
        let is_shared =
            || self.by_name.get(typed).is_some_and(|clients| sharing(typed, clients).any(|guest| guest == user));
        if is_own || is_shared() { typed.to_owned() } else { format!("{user}/{typed}") }
    }

    /// Takes out the clients that `gone` names, and then the guests whom nobody lets in any more.
    fn remove(&mut self, name: &str, gone: &[u64], why: Ended) {
        let Some(clients) = self.by_name.get_mut(name) else { return };
        for client in clients.extract_if(.., |client| gone.contains(&client.id)) {
            self.traffic.too_slow += u64::from(why == Ended::TooSlow);
            client.queue.end(why);
        }
        let barred = |client: &&Client| !may_use(name, clients, &client.user);
        let guests: Vec<u64> = clients.iter().filter(barred).map(|client| client.id).collect();
        for client in clients.extract_if(.., |client| guests.contains(&client.id)) {
            self.traffic.access_ended += 1;
            client.queue.end(Ended::AccessEnded);
        }
        if clients.is_empty() {
            self.by_name.remove(name);
        }
    }

    /// Cuts off whoever has the fullest queue, until all together are within bounds.
    fn relieve(&mut self, waiting: &AtomicUsize) {
        while waiting.load(Ordering::Relaxed) > ALL_BYTES {
            let all = self.by_name.iter().flat_map(|(name, clients)| clients.iter().map(move |client| (name, client)));
            let fullest = all.max_by_key(|(_, client)| client.queue.waiting());
            // The rest may wait for clients that are off their topics already, who still may read it.
            let Some((name, client)) = fullest.filter(|(_, client)| client.queue.waiting() > LEAST_BYTES) else {
                return;
            };
            let (name, id) = (name.clone(), client.id);
            self.remove(&name, &[id], Ended::TooSlow);
        }
    }

    fn post(&mut self, name: &str, from: u64, line: &[u8]) {
        let Some(clients) = self.by_name.get(name) else { return };
        let may_write = |client: &Client| client.id == from && client.direction != Direction::Subscribe;
        if !clients.iter().any(may_write) {
            return;
        }
        let line: Arc<[u8]> = line.into();
        let reads = |client: &&Client| client.direction != Direction::Publish && (client.echo || client.id != from);
        let overflowed = |client: &&Client| !client.queue.put(&line);
        let readers = clients.iter().filter(reads).count() as u64;
        let slow: Vec<u64> = clients.iter().filter(reads).filter(overflowed).map(|client| client.id).collect();
        let (bytes, delivered) = (line.len() as u64, readers.saturating_sub(slow.len() as u64));
        self.traffic.posted += 1;
        self.traffic.posted_bytes += bytes;
        self.traffic.delivered += delivered;
        self.traffic.delivered_bytes += bytes * delivered;
        if !slow.is_empty() {
            self.remove(name, &slow, Ended::TooSlow);
        }
    }
}

/// The account that a stored name belongs to.
fn owner(name: &str) -> Option<&str> {
    name.split_once('/').map(|(owner, _)| owner)
}

/// Whom the clients of its owner let onto a topic.
fn sharing<'a>(name: &'a str, clients: &'a [Client]) -> impl Iterator<Item = &'a UserName> {
    let owners = clients.iter().filter(move |client| owner(name) == Some(client.user.as_str()));
    owners.flat_map(|client| &client.shares_with)
}

fn may_use(name: &str, clients: &[Client], user: &UserName) -> bool {
    let owner = owner(name);
    owner == Some(PUBLIC) || owner == Some(user.as_str()) || sharing(name, clients).any(|guest| guest == user)
}

/// A client's place on a topic. Dropping it leaves the topic.
#[derive(Debug)]
pub struct Member {
    hub: Arc<Hub>,
    name: String,
    id: u64,
}

impl Member {
    /// The name that the topic is stored under, `account/topic`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Posts a line, without its end, to the other clients of the topic. Never waits; does nothing once cut off.
    pub fn post(&self, line: &[u8]) {
        let mut topics = self.hub.topics();
        topics.post(&self.name, self.id, line);
        topics.relieve(&self.hub.waiting);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.hub.topics().remove(&self.name, &[self.id], Ended::Left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::inbox::{ALL_BYTES, QUEUE_BYTES, QUEUE_LINES};

    fn entry(user: &str, topic: &str, shares_with: &[&str]) -> Entry {
        Entry {
            user: user.parse().unwrap(),
            address: "192.0.2.1:1".to_owned(),
            topic: topic.parse().unwrap(),
            direction: Direction::Pipe,
            echo: false,
            shares_with: shares_with.iter().map(|name| name.parse().unwrap()).collect(),
            public: false,
        }
    }

    fn names(hub: &Hub, user: &str) -> Vec<String> {
        hub.channels(&user.parse().unwrap()).into_iter().map(|channel| channel.name).collect()
    }

    #[test]
    fn a_guest_is_on_the_topic_as_long_as_some_client_of_the_owner_shares_it() {
        let hub = Arc::new(Hub::default());
        let (first, _a) = hub.join(entry("alice", "friends/x", &["bob"]));
        let (second, _b) = hub.join(entry("alice", "alice/friends/x", &["carol", "bob"]));
        let (third, _c) = hub.join(entry("alice", "friends/x", &[]));
        let (bob, mut inbox) = hub.join(entry("bob", "alice/friends/x", &["mallory"]));
        assert_eq!(names(&hub, "alice"), ["alice/friends/x"]);
        assert_eq!(names(&hub, "bob"), Vec::<String>::new());
        let shared = &hub.channels(&"alice".parse().unwrap())[0].shared_with;
        assert_eq!(shared.iter().map(UserName::as_str).collect::<Vec<_>>(), ["bob", "carol"]);
        drop(first);
        third.post(b"still here");
        assert_eq!(inbox.try_next().as_deref(), Some(&b"still here"[..]));
        drop(second);
        third.post(b"secret");
        bob.post(b"nobody hears this");
        assert_eq!(inbox.try_next(), None);
        assert_eq!(inbox.ended(), Ended::AccessEnded);
        drop((third, bob));
        assert!(hub.topics().by_name.is_empty());
    }

    #[test]
    fn who_has_no_access_gets_a_private_topic_of_the_same_name() {
        let hub = Arc::new(Hub::default());
        let (alice, _inbox) = hub.join(entry("alice", "friends/x", &["carol"]));
        let (_bob, mut inbox) = hub.join(entry("bob", "alice/friends/x", &[]));
        alice.post(b"secret");
        assert_eq!(inbox.try_next(), None);
        assert_eq!(names(&hub, "bob"), ["bob/alice/friends/x"]);
    }

    #[test]
    fn nobody_owns_public_topics() {
        let hub = Arc::new(Hub::default());
        let (alice, _a) = hub.join(Entry { public: true, ..entry("alice", "square", &[]) });
        let (_bob, mut inbox) = hub.join(Entry { public: true, ..entry("bob", "public/square", &[]) });
        let (_carol, mut private) = hub.join(entry("carol", "public/square", &[]));
        alice.post(b"hello");
        drop(alice);
        assert_eq!(inbox.try_next().as_deref(), Some(&b"hello"[..]));
        assert_eq!(private.try_next(), None);
    }

    #[test]
    fn an_account_is_on_so_many_topics_and_no_more() {
        let hub = Arc::new(Hub::default());
        let held: Vec<_> = (0..3).map(|at| hub.join_within(entry("bob", &format!("t{at}"), &[]), 3).unwrap()).collect();
        assert!(hub.join_within(entry("bob", "t0", &[]), 3).is_ok(), "a topic that it is on already");
        assert_eq!(hub.join_within(entry("bob", "t9", &[]), 3).unwrap_err(), TooManyTopics { most: 3 });
        assert!(hub.join_within(entry("alice", "t9", &[]), 3).is_ok());
        drop(held);
        assert!(hub.join_within(entry("bob", "t9", &[]), 3).is_ok());
    }

    #[test]
    fn what_went_over_it_is_counted() {
        let hub = Arc::new(Hub::default());
        let (writer, _w) = hub.join(entry("alice", "t", &[]));
        let _readers: Vec<_> = (0..3).map(|_| hub.join(entry("alice", "t", &[]))).collect();
        writer.post(b"1234");
        let (traffic, waiting) = hub.traffic();
        let expected = Traffic { posted: 1, posted_bytes: 4, delivered: 3, delivered_bytes: 12, ..Traffic::default() };
        assert_eq!((traffic, waiting), (expected, 12));
        assert_eq!(hub.all_channels().len(), 1);
    }

    #[test]
    fn a_slow_reader_is_cut_off_and_delays_nobody() {
        let hub = Arc::new(Hub::default());
        let (writer, _w) = hub.join(entry("alice", "t", &[]));
        let (_slow, slow) = hub.join(entry("alice", "t", &[]));
        let (_quick, mut quick) = hub.join(entry("alice", "t", &[]));
        for _ in 0..=QUEUE_LINES {
            writer.post(b"x");
            assert!(quick.try_next().is_some());
        }
        assert!(slow.overflowed().is_cancelled());
        assert_eq!(slow.ended(), Ended::TooSlow);
        let big = vec![b'x'; QUEUE_BYTES / 2];
        let (_slow, slow) = hub.join(entry("alice", "t", &[]));
        for _ in 0..3 {
            writer.post(&big);
            quick.try_next();
        }
        assert_eq!(slow.ended(), Ended::TooSlow);
        assert_eq!(quick.ended(), Ended::Left);
        assert!(!quick.overflowed().is_cancelled());
    }

    #[test]
    fn all_queues_together_are_bounded_and_the_fullest_pays() {
        let hub = Arc::new(Hub::default());
        let (writer, mut own) = hub.join(Entry { echo: true, ..entry("alice", "t", &[]) });
        let slow: Vec<_> = (0..40).map(|_| hub.join(entry("alice", "t", &[]))).collect();
        let big = vec![b'x'; 256 * 1024];
        for _ in 0..QUEUE_BYTES / big.len() {
            // A quarter of its queue waits for who reads, too.
            writer.post(&big);
            while own.waiting() > QUEUE_BYTES / 4 {
                assert!(own.try_next().is_some());
            }
            assert!(hub.waiting.load(Ordering::Relaxed) <= ALL_BYTES);
        }
        let cut = slow.iter().filter(|(_, inbox)| inbox.overflowed().is_cancelled()).count();
        assert!((20..40).contains(&cut), "{cut}");
        assert!(!own.overflowed().is_cancelled(), "who reads stays");
        drop(slow);
        while own.try_next().is_some() {}
        assert_eq!(hub.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_way_clients_do_one_thing() {
        let hub = Arc::new(Hub::default());
        let (publisher, mut p) = hub.join(Entry { direction: Direction::Publish, ..entry("a", "t", &[]) });
        let (subscriber, mut s) = hub.join(Entry { direction: Direction::Subscribe, ..entry("a", "t", &[]) });
        publisher.post(b"one");
        subscriber.post(b"two");
        assert_eq!(s.try_next().as_deref(), Some(&b"one"[..]));
        assert_eq!((p.try_next(), s.try_next()), (None, None));
    }
}
