//! From a request on the board to the offer, and from the accept to the future's bytes, to a real worker.
//!
//! The client's side is played here by hand, line by line, so that every step can be seen.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use p2p_worker::{
    board::{BoardEvent, Link},
    clock,
    ids::{FutureId, NodeId, PeerName, Ticket},
    proto::message::{Message, Protocols, Received, Via},
    runner::{RInstallation, Workbench},
    sandbox::{Driver, Known, Machine, Profile, Surroundings, select},
    spool::Spooled,
    transfer::{
        DeliveryEvent, Grant, Network, Transfer, TransferConfig,
        libp2p::{Listen, Node, NodeConfig},
    },
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure,
    figures::{Samples, Table, progress},
    programs,
    world::{World, patiently},
};

/// How long our lines are valid.
const VALIDITY: Duration = Duration::from_secs(30);

/// How long it may take until the worker has heard that its result is here.
const HEARD: Duration = Duration::from_millis(50);

pub(crate) async fn measure(offers: usize, futures: usize) -> Result<(), Failure> {
    let world = World::new().await?;
    let (real, payload) = real_future("1", world.folder.path()).await?;
    let payload = Arc::new(payload);
    let _worker = world.worker().await?;
    let (me, link) = world.link().await?;
    let mut client = Client { me, link, folder: world.folder.path().to_owned(), count: 0, real };

    let mut offered = Samples::of("request posted → offer heard");
    progress(&format!("{offers} offers"));
    for _ in 0..offers {
        let transfer = transfer().await?;
        let future = client.next()?;
        let (_, _, took) = client.request(&future, &payload).await?;
        offered.add(took);
        client.turn_down(future, &transfer).await?;
    }
    let mut cold = Steps::of("new connection");
    progress(&format!("{} futures over new connections", futures / 2));
    for _ in 0..futures / 2 {
        client.run(&transfer().await?, &payload, &mut cold).await?;
    }
    let mut warm = Steps::of("connection there");
    progress(&format!("{futures} futures over one connection"));
    let transfer = transfer().await?;
    client.run(&transfer, &payload, &mut Steps::of("the first")).await?;
    for _ in 0..futures {
        client.run(&transfer, &payload, &mut warm).await?;
    }

    let size = payload.size();
    let mut table =
        Table::new("The way of a future over a board and libp2p on loopback", &["", "median", "p95", "runs"]);
    table.samples(&offered);
    for steps in [&cold, &warm] {
        for samples in [&steps.connected, &steps.first, &steps.sent, &steps.begun, &steps.done] {
            table.samples(samples);
        }
    }
    table.print()?;
    progress(&format!("the future was R's `1`, {size} bytes"));
    Ok(())
}

/// A future as this machine's R makes it.
pub(crate) async fn real_future(code: &str, folder: &Path) -> Result<(FutureId, Arc<Spooled>), Failure> {
    let jail = Some(programs()?.join("p2p-jail"));
    let r = RInstallation::find()?.with_future()?;
    let profile = Profile::load("strict", &Surroundings::default())?;
    let machine = Machine::discover(&Known { jail, ..Known::default() })?;
    let ready = select(Driver::Jail, profile, machine.clone(), &r.shares(&machine))?;
    let workbench = Workbench::new(ready, r, folder.to_owned());
    Ok(workbench.make(code, &CancellationToken::new()).await?)
}

/// As [`p2p_worker::client::listening_transfer`], but on loopback alone.
pub(crate) async fn transfer() -> Result<Transfer<Node>, Failure> {
    let listen = Listen::On(vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse()?, "/ip4/127.0.0.1/tcp/0".parse()?]);
    let node = Node::start(NodeConfig { listen, ..NodeConfig::default() }).await?;
    Ok(Transfer::new(Arc::new(node), TransferConfig::default()))
}

/// What happens after an accept, all measured from there.
struct Steps {
    connected: Samples,
    first: Samples,
    sent: Samples,
    begun: Samples,
    done: Samples,
}

impl Steps {
    fn of(connection: &str) -> Self {
        let samples = |what| Samples::of(format!("accept posted → {what}, {connection}"));
        Self {
            connected: samples("worker connected"),
            first: samples("first bytes sent"),
            sent: samples("worker has it all"),
            begun: samples("worker begins"),
            done: samples("result is here"),
        }
    }
}

struct Client {
    me: PeerName,
    link: Link,
    folder: PathBuf,
    count: u32,
    /// What the future is called that is sent.
    real: FutureId,
}

impl Client {
    /// A name for a request that nobody is sent the future of.
    fn next(&mut self) -> Result<FutureId, Failure> {
        self.count += 1;
        Ok(format!("bench-{}", self.count).parse()?)
    }

    async fn say(&self, message: Message) -> Result<(), Failure> {
        let line = message.to_line(&clock::local_time(), clock::now() + VALIDITY);
        Ok(self.link.outgoing.send(line).await?)
    }

    /// Posts a request and waits for the offer: who takes it, and how long that took.
    async fn request(&mut self, future: &FutureId, payload: &Spooled) -> Result<(PeerName, NodeId, Duration), Failure> {
        let (from, size, protocols) = (self.me.clone(), payload.size(), Protocols { libp2p: true, wormhole: false });
        let request = Message::Request { from, future: future.clone(), size, protocols };
        let begin = Instant::now();
        self.say(request).await?;
        patiently("an offer", self.hear_offer(future)).await?.map(|(worker, node)| (worker, node, begin.elapsed()))
    }

    async fn hear_offer(&mut self, wanted: &FutureId) -> Result<(PeerName, NodeId), Failure> {
        loop {
            let line = match self.link.incoming.recv().await {
                Some(BoardEvent::Line(line)) => line,
                other => return Err(format!("no offer, but {other:?}").into()),
            };
            match Received::read(&line, clock::now())?.message {
                Message::Offer { from, future, peer: Some(node), .. } if future == *wanted => return Ok((from, node)),
                _ => {}
            }
        }
    }

    async fn accept(
        &self,
        future: FutureId,
        to: PeerName,
        ticket: Ticket,
        over: &Transfer<Node>,
    ) -> Result<(), Failure> {
        let via = Via::Libp2p { node: over.network().id().clone(), ticket };
        let at = over.network().addresses();
        self.say(Message::Accept { from: self.me.clone(), to, future, via, at }).await
    }

    /// Accepts somebody else, so that the worker has its slot back.
    async fn turn_down(&self, future: FutureId, over: &Transfer<Node>) -> Result<(), Failure> {
        self.accept(future, "nobody@elsewhere:1".parse()?, Ticket([0; 16]), over).await
    }

    /// The future the whole way. Under another name than its own it would be refused, and not evaluated.
    async fn run(&mut self, over: &Transfer<Node>, payload: &Arc<Spooled>, steps: &mut Steps) -> Result<(), Failure> {
        let future = self.real.clone();
        let (worker, node, _) = self.request(&future, payload).await?;
        let grant = Grant {
            worker: node,
            future: future.clone(),
            payload: Arc::clone(payload),
            max_result: 1 << 30,
            spool_directory: self.folder.clone(),
        };
        let mut delivery = over.grant(grant)?;
        let begin = Instant::now();
        self.accept(future, worker, delivery.ticket, over).await?;
        while let Some(event) = patiently("the next step", delivery.events.recv()).await? {
            let step = match event {
                DeliveryEvent::Connected => &mut steps.connected,
                DeliveryEvent::Sending { .. } => &mut steps.first,
                DeliveryEvent::Sent => &mut steps.sent,
                DeliveryEvent::Begun(_) => &mut steps.begun,
                DeliveryEvent::Done { .. } => &mut steps.done,
                DeliveryEvent::Failed(error) => return Err(error.into()),
                DeliveryEvent::Progress(_)
                | DeliveryEvent::Printed(_)
                | DeliveryEvent::Receiving { .. }
                | DeliveryEvent::Disconnected(_) => continue,
            };
            step.add(begin.elapsed());
        }
        // The worker passes over a request for what it still has, and this one is for the same future each time.
        sleep(HEARD).await;
        Ok(())
    }
}
