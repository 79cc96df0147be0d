//! Workers and clients as they are, and around them a model of everything else: the board, the transfer with its tickets,
//! tasks that take their time, and virtual time. What happens follows from the seed alone.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    time::Duration,
};

use p2p_worker::{
    clock::Timestamp,
    ids::{FutureId, NodeId, PeerName, Ticket},
    proto::{
        claim::{self, Claims, Job, Key, Settings},
        message::{About, Message, Via},
        posting::{self, Postings},
    },
};

use super::board::{Chance, Manners, Reader};

/// As the client's transfer has them: when silence is noticed, for how long a silent worker is waited for, and for how long
/// one that does not come.
const SILENCE: Duration = Duration::from_millis(3500);
const GRACE: Duration = Duration::from_secs(30);
const NOBODY_CAME: Duration = Duration::from_secs(30);

/// No run of any seed takes as many steps; one that does goes round in circles.
const MOST_STEPS: u64 = 3_000_000;

pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) workers: usize,
    pub(super) slots: usize,
    pub(super) clients: usize,
    pub(super) manners: Manners,
    /// How long after one another the peers join, in milliseconds.
    pub(super) apart: u64,
    /// How long a task takes, in milliseconds.
    pub(super) task: (u64, u64),
    /// Workers die, fall silent and come again; the board restarts. All of it ends after some minutes.
    pub(super) trouble: bool,
    /// Before the client gives up on a future.
    pub(super) attempts: u32,
}

enum What {
    Line { peer: usize, life: u32, line: String },
    Tick { peer: usize, life: u32, number: u64 },
    Join { peer: usize, life: u32 },
    Post { client: usize, future: FutureId },
    Dial { worker: usize, life: u32, client: usize, job: Box<Job> },
    TaskEnds { ticket: Ticket },
    Released { worker: usize, life: u32, key: Key },
    Noticed { ticket: Ticket, what: Notice },
    BoardDies,
    LinkBreaks { peer: usize },
    Dies { worker: usize },
    Comes { worker: usize },
    Freezes { worker: usize, until: Timestamp },
    Thaws { worker: usize },
}

#[derive(Clone, Copy)]
enum Notice {
    NobodyCame,
    Silent,
    Gone,
    Back,
    Result,
}

#[expect(clippy::large_enum_variant, reason = "there are fifty of them")]
enum Role {
    Worker(Claims),
    Client(Postings),
}

struct Peer {
    role: Role,
    name: PeerName,
    node: NodeId,
    /// Counts restarts; what was under way to an earlier one is lost.
    life: u32,
    connected: bool,
    alive: bool,
    frozen_until: Option<Timestamp>,
    /// What it has not read yet because it is frozen.
    unread: Vec<What>,
    reader: Reader,
    tick: u64,
    /// How far its clock is wrong, in milliseconds, plus the largest that there is.
    skew: u64,
}

/// One run that a client allowed.
struct Run {
    client: usize,
    future: FutureId,
    worker_name: PeerName,
    /// The worker that came, in which life.
    worker: Option<(usize, u32)>,
    /// It is still the client's present one.
    good: bool,
}

/// What became of a future.
#[derive(Default)]
pub(super) struct Fate {
    pub(super) posted: Timestamp,
    pub(super) results: u32,
    pub(super) gave_up: bool,
    pub(super) ended: Timestamp,
    pub(super) offers: u64,
    /// How often its request was on the board.
    pub(super) requests: u64,
    pub(super) first_offer: Option<Timestamp>,
    ticket: Option<Ticket>,
}

pub(super) struct World {
    plan: Plan,
    chance: Chance,
    now: Timestamp,
    queue: BinaryHeap<Reverse<(Timestamp, u64)>>,
    due: HashMap<u64, What>,
    peers: Vec<Peer>,
    runs: BTreeMap<[u8; 16], Run>,
    pub(super) fates: BTreeMap<(usize, FutureId), Fate>,
    board_up: bool,
    steps: u64,
    numbers: u64,
    pub(super) lines: u64,
    /// How often a worker was in doubt, and how often another one had its future then.
    pub(super) doubted: usize,
    pub(super) replaced: usize,
}

const START: Timestamp = Timestamp(1_795_361_280_000);

/// Whom an accept names, and with what.
fn invitation(job: &Job) -> (&NodeId, Ticket) {
    let Via::Libp2p { node, ticket } = &job.via else { unreachable!("nobody speaks by wormhole here") };
    (node, *ticket)
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let mut chance = Chance::new(plan.seed);
        let count = plan.workers + plan.clients;
        let skews: Vec<u64> = (0..count).map(|_| chance.between(0, plan.manners.skew)).collect();
        let mut world = Self {
            chance,
            now: START,
            queue: BinaryHeap::new(),
            due: HashMap::new(),
            peers: Vec::new(),
            runs: BTreeMap::new(),
            fates: BTreeMap::new(),
            board_up: true,
            steps: 0,
            numbers: 0,
            lines: 0,
            doubted: 0,
            replaced: 0,
            plan,
        };
        for (number, skew) in skews.into_iter().enumerate() {
            let peer = world.peer(number, skew);
            world.peers.push(peer);
            let after = Duration::from_millis(number as u64 * world.plan.apart);
            world.schedule(after, What::Join { peer: number, life: 0 });
        }
        if world.plan.trouble {
            world.plan_trouble();
        }
        world
    }

    fn peer(&self, number: usize, skew: u64) -> Peer {
        let kind = if number < self.plan.workers { "w" } else { "c" };
        let name: PeerName = format!("{kind}{number}@host:1").parse().unwrap();
        let node: NodeId = format!("12D3KooW{kind}{number}").parse().unwrap();
        let role = self.role(number, &name, &node);
        let reader = Reader::new(self.plan.manners.splits);
        let (unread, frozen_until) = (Vec::new(), None);
        Peer { role, name, node, life: 0, connected: false, alive: true, frozen_until, unread, reader, tick: 0, skew }
    }

    fn role(&self, number: usize, name: &PeerName, node: &NodeId) -> Role {
        if number < self.plan.workers {
            let (me, node, slots) = (name.clone(), Some(node.clone()), self.plan.slots);
            let about = About::default();
            Role::Worker(Claims::new(Settings { me, node, wormhole: false, slots, max_future: 1 << 30, about }))
        } else {
            Role::Client(Postings::new(name.clone(), self.plan.attempts))
        }
    }

    fn plan_trouble(&mut self) {
        let seconds = |chance: &mut Chance, most| Duration::from_secs(chance.between(1, most));
        for _ in 0..self.chance.between(0, 6) {
            let at = seconds(&mut self.chance, 240);
            self.schedule(at, What::BoardDies);
        }
        for _ in 0..self.chance.between(0, 10) {
            let (at, peer) = (seconds(&mut self.chance, 240), self.chance.between(0, self.peers.len() as u64 - 1));
            self.schedule(at, What::LinkBreaks { peer: peer as usize });
        }
        for worker in 0..self.plan.workers {
            for _ in 0..self.chance.between(0, 2) {
                let at = seconds(&mut self.chance, 240);
                self.schedule(at, What::Dies { worker });
            }
            if self.chance.happens(300) {
                let (at, long) = (seconds(&mut self.chance, 240), seconds(&mut self.chance, 60));
                let until = self.now + at + long;
                self.schedule(at, What::Freezes { worker, until });
            }
        }
    }

    fn schedule(&mut self, after: Duration, what: What) {
        self.numbers += 1;
        self.queue.push(Reverse((self.now + after, self.numbers)));
        self.due.insert(self.numbers, what);
    }

    /// A client has a future, so many milliseconds from the start.
    pub(super) fn post(&mut self, client: usize, future: usize, after: u64) {
        let future: FutureId = format!("f-{client}-{future}").parse().unwrap();
        let posted = START + Duration::from_millis(after);
        self.fates.insert((client, future.clone()), Fate { posted, ..Fate::default() });
        self.schedule(Duration::from_millis(after), What::Post { client: self.plan.workers + client, future });
    }

    /// Lets time pass until every future has its fate.
    pub(super) fn run(&mut self, at_most: Duration) {
        while self.fates.values().any(|fate| fate.results == 0 && !fate.gave_up) {
            assert!(self.now < START + at_most, "{}: futures without a result: {}", self.describe(), self.missing());
            self.pass();
        }
        // What is under way may still do harm.
        let end = self.now + Duration::from_secs(120);
        while self.now < end && !self.queue.is_empty() {
            self.pass();
        }
        for (which, fate) in &self.fates {
            let ends = fate.results + u32::from(fate.gave_up);
            assert_eq!(ends, 1, "{}: {which:?} has {} results", self.describe(), fate.results);
        }
    }

    pub(super) fn describe(&self) -> String {
        let Plan { seed, workers, slots, clients, trouble, .. } = &self.plan;
        format!("seed {seed}: {workers} workers of {slots} slots, {clients} clients, trouble {trouble}")
    }

    fn missing(&self) -> String {
        let missing = self.fates.iter().filter(|(_, fate)| fate.results == 0 && !fate.gave_up);
        missing.map(|((client, future), fate)| format!("{client} {future} ({} offers) ", fate.offers)).collect()
    }

    fn pass(&mut self) {
        let Some(Reverse((at, number))) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        self.steps += 1;
        assert!(self.steps < MOST_STEPS, "{}: this does not end", self.describe());
        let Some(what) = self.due.remove(&number) else { return };
        self.happens(what);
    }

    fn happens(&mut self, what: What) {
        let whose = match &what {
            What::Line { peer, life, .. } | What::Tick { peer, life, .. } | What::Join { peer, life } => {
                Some((*peer, *life))
            }
            What::Dial { worker, life, .. } | What::Released { worker, life, .. } => Some((*worker, *life)),
            _ => None,
        };
        if let Some((peer, life)) = whose {
            let peer = &mut self.peers[peer];
            if !peer.alive || peer.life != life {
                return;
            }
            if peer.frozen_until.is_some() {
                return peer.unread.push(what);
            }
        }
        match what {
            What::Line { peer, line, .. } => self.line(peer, &line),
            What::Tick { peer, number, .. } => {
                if self.peers[peer].tick == number {
                    self.tick(peer);
                }
            }
            What::Join { peer, life } => self.join(peer, life),
            What::Post { client, future } => {
                self.postings(client, posting::Event::Post { future, size: 100, deadline: None });
            }
            What::Dial { worker, life, client, job } => self.dial(worker, life, client, *job),
            What::TaskEnds { ticket } => self.task_ends(ticket),
            What::Released { worker, key, .. } => self.claims(worker, claim::Event::Ended(key)),
            What::Noticed { ticket, what } => self.notice(ticket, what),
            What::BoardDies => self.board_dies(),
            What::LinkBreaks { peer } => self.link_breaks(peer),
            What::Dies { worker } => self.dies(worker),
            What::Comes { worker } => self.comes(worker),
            What::Freezes { worker, until } => self.freezes(worker, until),
            What::Thaws { worker } => self.thaws(worker),
        }
    }

    // ---- the board ----

    fn say(&mut self, from: usize, message: &Message, expires: Timestamp) {
        self.lines += 1;
        if let Message::Offer { to, future, .. } = message {
            let client: usize = to.as_str()[1..].split('@').next().unwrap().parse().unwrap();
            let now = self.now;
            if let Some(fate) = self.fates.get_mut(&(client - self.plan.workers, future.clone())) {
                fate.offers += 1;
                fate.first_offer.get_or_insert(now);
            }
        }
        if let Message::Request { future, .. } = message
            && let Some(fate) = self.fates.get_mut(&(from - self.plan.workers, future.clone()))
        {
            fate.requests += 1;
        }
        if !self.peers[from].connected {
            return;
        }
        let line = message.to_line("2026-11-22T15:28:00", expires);
        for peer in 0..self.peers.len() {
            if self.peers[peer].connected {
                for way in self.plan.manners.copies(&mut self.chance) {
                    let life = self.peers[peer].life;
                    self.schedule(way, What::Line { peer, life, line: line.clone() });
                }
            }
        }
    }

    fn line(&mut self, peer: usize, line: &str) {
        if !self.peers[peer].connected {
            return;
        }
        for line in self.peers[peer].reader.read(line, &mut self.chance) {
            match &self.peers[peer].role {
                Role::Worker(_) => self.claims(peer, claim::Event::Line(line)),
                Role::Client(_) => self.postings(peer, posting::Event::Line(line)),
            }
        }
    }

    fn join(&mut self, peer: usize, life: u32) {
        if !self.board_up {
            let wait = self.chance.milliseconds((500, 4000));
            return self.schedule(wait, What::Join { peer, life });
        }
        self.peers[peer].connected = true;
        match &self.peers[peer].role {
            Role::Worker(_) => self.claims(peer, claim::Event::Joined),
            Role::Client(_) => self.postings(peer, posting::Event::Joined),
        }
    }

    fn link_breaks(&mut self, peer: usize) {
        if !self.peers[peer].connected {
            return;
        }
        let state = &mut self.peers[peer];
        state.connected = false;
        state.reader = Reader::new(self.plan.manners.splits);
        let life = state.life;
        if state.alive && state.frozen_until.is_none() {
            match &state.role {
                Role::Worker(_) => self.claims(peer, claim::Event::Lost),
                Role::Client(_) => self.postings(peer, posting::Event::Lost),
            }
        }
        let wait = self.chance.milliseconds((500, 4000));
        self.schedule(wait, What::Join { peer, life });
    }

    fn board_dies(&mut self) {
        self.board_up = !self.board_up;
        if !self.board_up {
            (0..self.peers.len()).for_each(|peer| self.link_breaks(peer));
            let back = self.chance.milliseconds((500, 60_000));
            self.schedule(back, What::BoardDies);
        }
    }

    // ---- the state machines ----

    fn clock(&self, peer: usize) -> Timestamp {
        self.now + Duration::from_millis(self.peers[peer].skew)
    }

    fn tick(&mut self, peer: usize) {
        match &self.peers[peer].role {
            Role::Worker(_) => self.claims(peer, claim::Event::Tick),
            Role::Client(_) => self.postings(peer, posting::Event::Tick),
        }
    }

    fn schedule_tick(&mut self, peer: usize, at: Option<Timestamp>) {
        let clock = self.clock(peer);
        let state = &mut self.peers[peer];
        state.tick += 1;
        let (number, life) = (state.tick, state.life);
        if let Some(at) = at {
            self.schedule(at - clock, What::Tick { peer, life, number });
        }
    }

    fn claims(&mut self, worker: usize, event: claim::Event) {
        let clock = self.clock(worker);
        let slots = self.plan.slots;
        let Role::Worker(claims) = &mut self.peers[worker].role else { unreachable!() };
        let actions = claims.handle(event, clock);
        assert!(claims.running() <= slots && claims.open_requests() <= 1024);
        let wakeup = claims.next_wakeup(clock);
        assert!(wakeup.is_none_or(|at| at > clock), "seed {}: a wakeup that changes nothing", self.plan.seed);
        self.schedule_tick(worker, wakeup);
        for action in actions {
            match action {
                claim::Action::Say(message, expires) => self.say(worker, &message, expires),
                // A dial goes to whoever accepted, wherever it is.
                claim::Action::Moved(_) => {}
                claim::Action::Stop(_) => unreachable!("nobody speaks by wormhole here"),
                claim::Action::Start(job) => {
                    let (node, _) = invitation(&job);
                    let client = self.peers.iter().position(|peer| peer.node == *node).unwrap();
                    let way = self.chance.milliseconds((10, 800));
                    let life = self.peers[worker].life;
                    self.schedule(way, What::Dial { worker, life, client, job: Box::new(job) });
                }
            }
        }
    }

    fn postings(&mut self, client: usize, event: posting::Event) {
        let clock = self.clock(client);
        let Role::Client(postings) = &mut self.peers[client].role else { unreachable!() };
        let actions = postings.handle(event, clock);
        let wakeup = postings.next_wakeup();
        assert!(wakeup.is_none_or(|at| at > clock), "seed {}: a wakeup that changes nothing", self.plan.seed);
        self.schedule_tick(client, wakeup);
        for action in actions {
            self.client_acts(client, action);
        }
    }

    fn client_acts(&mut self, client: usize, action: posting::Action) {
        match action {
            posting::Action::Say(message, expires) => self.say(client, &message, expires),
            posting::Action::Grant { future, worker, .. } => {
                let mut bits = [0; 16];
                bits[..8].copy_from_slice(&self.chance.next().to_be_bytes());
                let before = self.fate(client, &future).ticket.replace(Ticket(bits));
                self.replaced += before.iter().count();
                before.into_iter().for_each(|ticket| self.void(ticket));
                let run = Run { client, future: future.clone(), worker_name: worker.clone(), worker: None, good: true };
                self.runs.insert(bits, run);
                self.schedule(NOBODY_CAME, What::Noticed { ticket: Ticket(bits), what: Notice::NobodyCame });
                self.accept(client, future, worker);
            }
            posting::Action::Confirm { future, worker } => self.accept(client, future, worker),
            posting::Action::GaveUp { future, .. } => {
                let now = self.now;
                let fate = self.fate(client, &future);
                (fate.gave_up, fate.ended) = (true, now);
            }
            posting::Action::TimedOut(_) => unreachable!("no deadlines here"),
            posting::Action::Doubted(_) => self.doubted += 1,
            posting::Action::Fetch { .. } => unreachable!("no wormholes here"),
        }
    }

    fn fate(&mut self, client: usize, future: &FutureId) -> &mut Fate {
        self.fates.get_mut(&(client - self.plan.workers, future.clone())).unwrap()
    }

    fn accept(&mut self, client: usize, future: FutureId, worker: PeerName) {
        let Some(ticket) = self.fate(client, &future).ticket else { return };
        let clock = self.clock(client);
        let (Role::Client(postings), node) = (&self.peers[client].role, self.peers[client].node.clone()) else {
            unreachable!()
        };
        let said = postings.accept(future, worker, node, ticket, Vec::new(), clock);
        self.client_acts(client, said);
    }

    // ---- the transfer ----

    fn dial(&mut self, worker: usize, life: u32, client: usize, job: Job) {
        let name = self.peers[worker].name.clone();
        let (_, ticket) = invitation(&job);
        let run = self.runs.get_mut(&ticket.0).filter(|run| run.good && run.worker_name == name);
        let Some(run) = run.filter(|run| run.client == client) else {
            return self.schedule(Duration::from_millis(50), What::Released { worker, life, key: job.key });
        };
        run.worker = Some((worker, life));
        let future = run.future.clone();
        let took = self.chance.milliseconds(self.plan.task);
        self.schedule(took, What::TaskEnds { ticket });
        self.postings(client, posting::Event::Came(future));
    }

    fn task_ends(&mut self, ticket: Ticket) {
        let Some(run) = self.runs.get(&ticket.0) else { return };
        let Some((worker, life)) = run.worker else { return };
        let (peer, good) = (&self.peers[worker], run.good);
        if !peer.alive || peer.life != life {
            return;
        }
        if let Some(until) = peer.frozen_until {
            return self.schedule(until - self.now + Duration::from_secs(1), What::TaskEnds { ticket });
        }
        if good {
            self.notice(ticket, Notice::Result);
        }
    }

    /// The client has somebody else, or nobody: the worker learns it when it is there.
    fn void(&mut self, ticket: Ticket) {
        let Some(run) = self.runs.get_mut(&ticket.0) else { return };
        run.good = false;
        if let Some((worker, life)) = run.worker.take() {
            let client = self.peers[run.client].name.clone();
            let key = Key { client, future: run.future.clone() };
            let life = self.peers[worker].life.max(life);
            let late = self.peers[worker].frozen_until.map_or(Duration::ZERO, |until| until - self.now);
            self.schedule(late + Duration::from_millis(50), What::Released { worker, life, key });
        }
    }

    fn notice(&mut self, ticket: Ticket, what: Notice) {
        let Some(run) = self.runs.get(&ticket.0).filter(|run| run.good) else { return };
        let (client, future) = (run.client, run.future.clone());
        let away = run.worker.is_none_or(|(worker, life)| {
            let peer = &self.peers[worker];
            !peer.alive || peer.life != life || peer.frozen_until.is_some()
        });
        match what {
            Notice::NobodyCame if run.worker.is_none() => self.fails(ticket, client, future, false),
            Notice::Silent if away => {
                self.schedule(GRACE, What::Noticed { ticket, what: Notice::Gone });
                self.postings(client, posting::Event::Silent(future));
            }
            Notice::Gone if away => self.fails(ticket, client, future, true),
            Notice::Back => self.postings(client, posting::Event::Came(future)),
            Notice::Result => {
                let now = self.now;
                let fate = self.fate(client, &future);
                fate.results += 1;
                fate.ended = now;
                fate.ticket = None;
                self.void(ticket);
                self.postings(client, posting::Event::Done(future));
            }
            Notice::NobodyCame | Notice::Silent | Notice::Gone => {}
        }
    }

    fn fails(&mut self, ticket: Ticket, client: usize, future: FutureId, came: bool) {
        self.fate(client, &future).ticket = None;
        self.void(ticket);
        self.postings(client, posting::Event::Failed { future, came });
    }

    // ---- trouble ----

    fn falls_silent(&mut self, worker: usize) {
        let theirs = self.runs.iter().filter(|(_, run)| run.good && run.worker.is_some_and(|(who, _)| who == worker));
        let theirs: Vec<Ticket> = theirs.map(|(bits, _)| Ticket(*bits)).collect();
        for ticket in theirs {
            self.schedule(SILENCE, What::Noticed { ticket, what: Notice::Silent });
        }
    }

    fn dies(&mut self, worker: usize) {
        if !self.peers[worker].alive {
            return;
        }
        self.falls_silent(worker);
        let peer = &mut self.peers[worker];
        (peer.alive, peer.connected, peer.frozen_until) = (false, false, None);
        peer.unread.clear();
        // Its node key is on its disk, its name is another one.
        let back = self.chance.milliseconds((1000, 40_000));
        self.schedule(back, What::Comes { worker });
    }

    fn comes(&mut self, worker: usize) {
        let life = self.peers[worker].life + 1;
        let name: PeerName = format!("w{worker}@host:{}", life + 1).parse().unwrap();
        let role = self.role(worker, &name, &self.peers[worker].node.clone());
        let splits = self.plan.manners.splits;
        let peer = &mut self.peers[worker];
        (peer.life, peer.name, peer.role, peer.alive) = (life, name, role, true);
        peer.reader = Reader::new(splits);
        self.schedule(Duration::from_millis(300), What::Join { peer: worker, life });
    }

    fn freezes(&mut self, worker: usize, until: Timestamp) {
        if self.peers[worker].alive && self.peers[worker].frozen_until.is_none() {
            self.peers[worker].frozen_until = Some(until);
            self.falls_silent(worker);
            self.schedule(until - self.now, What::Thaws { worker });
        }
    }

    fn thaws(&mut self, worker: usize) {
        if self.peers[worker].frozen_until.take().is_none() {
            return;
        }
        let connected = self.peers[worker].connected;
        let unread = std::mem::take(&mut self.peers[worker].unread);
        let theirs = self.runs.iter().filter(|(_, run)| run.good && run.worker.is_some_and(|(who, _)| who == worker));
        let theirs: Vec<Ticket> = theirs.map(|(bits, _)| Ticket(*bits)).collect();
        for ticket in theirs {
            self.schedule(Duration::from_millis(200), What::Noticed { ticket, what: Notice::Back });
        }
        if !connected {
            self.claims(worker, claim::Event::Lost);
        }
        unread.into_iter().for_each(|what| self.happens(what));
        self.tick(worker);
    }
}
