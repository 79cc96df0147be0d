//! Networks to run the transfer's contract over, streams that break on command, and peers that are played by hand.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use p2p_worker::{
    ids::{Address, FutureId, NodeId, Ticket},
    proto::frames::{Frame, FromClient, FromWorker, Hello, Stage, VERSION, encode},
    sandbox::{Enforcement, Layer, Provenance},
    spool::Spooled,
    transfer::{
        By, Cache, Delivery, DeliveryEvent, Grant, Invitation, Network, NetworkError, Transfer, TransferConfig, Way,
        libp2p::{Listen, Node, NodeConfig},
        memory::{Hub, MemoryNode},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// No test waits longer for anything.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Any way.
pub(crate) const ANY: By = By::First(Way::Quic);

/// The first stage of a worker.
pub(crate) const FETCH: Stage = Stage::Fetch { held: None };

/// A kind of network.
pub(crate) trait Site {
    type Net: Network;
    fn node(&self) -> impl Future<Output = Self::Net>;
}

/// Pipes.
#[derive(Default)]
pub(crate) struct Memory {
    hub: Hub,
    made: AtomicU64,
}

impl Site for Memory {
    type Net = MemoryNode;
    async fn node(&self) -> MemoryNode {
        let name = format!("node{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.hub.node(name.parse().unwrap())
    }
}

/// libp2p, on loopback by QUIC alone.
#[derive(Default)]
pub(crate) struct Quic;

/// libp2p, on loopback by TCP alone.
#[derive(Default)]
pub(crate) struct Tcp;

/// libp2p, on loopback by both.
#[derive(Default)]
pub(crate) struct Both;

impl Site for Both {
    type Net = Node;
    async fn node(&self) -> Node {
        libp2p(&["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"]).await
    }
}

async fn libp2p(addresses: &[&str]) -> Node {
    let listen = Listen::On(addresses.iter().map(|address| address.parse().unwrap()).collect());
    Node::start(NodeConfig { listen, ..NodeConfig::default() }).await.unwrap()
}

impl Site for Quic {
    type Net = Node;
    async fn node(&self) -> Node {
        libp2p(&["/ip4/127.0.0.1/udp/0/quic-v1"]).await
    }
}

impl Site for Tcp {
    type Net = Node;
    async fn node(&self) -> Node {
        libp2p(&["/ip4/127.0.0.1/tcp/0"]).await
    }
}

/// A node whose dialled streams break on command.
pub(crate) struct Breaking<N> {
    inner: N,
    switch: Mutex<CancellationToken>,
    meter: Arc<Meter>,
}

/// What is read from the streams of a node, and when they break by themselves.
pub(crate) struct Meter {
    /// How many bytes they may still read before the next break.
    allowance: AtomicU64,
    /// The breaks after that one.
    cuts: Mutex<VecDeque<u64>>,
    read: AtomicU64,
}

impl Meter {
    /// Whether a stream that has read so much breaks now.
    fn breaks(&self, read: u64) -> bool {
        self.read.fetch_add(read, Ordering::SeqCst);
        let left = self.allowance.load(Ordering::SeqCst);
        if left > read {
            self.allowance.store(left.saturating_sub(if left == u64::MAX { 0 } else { read }), Ordering::SeqCst);
            return false;
        }
        self.allowance.store(self.cuts.lock().unwrap().pop_front().unwrap_or(u64::MAX), Ordering::SeqCst);
        true
    }
}

impl<N> Breaking<N> {
    /// Breaks the streams that there are; later ones work.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.switch.lock().unwrap()).cancel();
    }

    /// Breaks the stream that has read so many more bytes, once.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.meter.allowance.store(bytes, Ordering::SeqCst);
    }

    /// Breaks streams again and again, each time after so many more bytes were read.
    pub(crate) fn cut_at(&self, cuts: &[u64]) {
        *self.meter.cuts.lock().unwrap() = cuts.iter().copied().skip(1).collect();
        self.cut_after(cuts[0]);
    }

    /// Bytes that were read from all streams.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.meter.read.load(Ordering::SeqCst)
    }

    /// Breaks that did not happen yet.
    pub(crate) fn cuts_left(&self) -> usize {
        let waiting = self.meter.cuts.lock().unwrap().len();
        waiting + usize::from(self.meter.allowance.load(Ordering::SeqCst) != u64::MAX)
    }
}

impl<N: Network> Network for Breaking<N> {
    type Stream = Breakable<N::Stream>;

    fn id(&self) -> &NodeId {
        self.inner.id()
    }

    fn addresses(&self) -> Vec<Address> {
        self.inner.addresses()
    }

    fn moves(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.moves()
    }

    async fn dial(&self, peer: &NodeId, addresses: &[Address], by: By) -> Result<(Self::Stream, Way), NetworkError> {
        let (stream, way) = self.inner.dial(peer, addresses, by).await?;
        Ok((self.wrap(stream), way))
    }

    async fn accept(&self) -> Option<(NodeId, Self::Stream)> {
        self.inner.accept().await.map(|(peer, stream)| (peer, self.wrap(stream)))
    }

    fn allow(&self, peer: &NodeId) {
        self.inner.allow(peer);
    }

    fn disallow(&self, peer: &NodeId) {
        self.inner.disallow(peer);
    }
}

impl<N: Network> Breaking<N> {
    fn wrap(&self, stream: N::Stream) -> Breakable<N::Stream> {
        let cut = Box::pin(self.switch.lock().unwrap().clone().cancelled_owned());
        Breakable { stream, cut, meter: Arc::clone(&self.meter) }
    }
}

/// A stream that can be cut.
pub(crate) struct Breakable<S> {
    stream: S,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    meter: Arc<Meter>,
}

impl<S> Breakable<S> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.cut = Box::pin(std::future::ready(()));
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Breakable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        if self.meter.breaks(read) {
            self.cut = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Breakable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client and a worker.
pub(crate) struct Pair<N: Network> {
    pub(crate) client: Transfer<Breaking<N>>,
    pub(crate) worker: Transfer<Breaking<N>>,
    pub(crate) directory: TempDir,
}

pub(crate) async fn transfer<S: Site>(site: &S, config: TransferConfig) -> Transfer<Breaking<S::Net>> {
    let meter = Meter { allowance: u64::MAX.into(), cuts: Mutex::default(), read: 0.into() };
    let node = Breaking { inner: site.node().await, switch: Mutex::default(), meter: Arc::new(meter) };
    Transfer::new(Arc::new(node), config)
}

impl<N: Network> Pair<N> {
    pub(crate) async fn new<S: Site<Net = N>>(site: &S) -> Self {
        Self::with(site, TransferConfig::default()).await
    }

    pub(crate) async fn with<S: Site<Net = N>>(site: &S, config: TransferConfig) -> Self {
        let (client, worker) = (transfer(site, config).await, transfer(site, config).await);
        Self { client, worker, directory: tempfile::tempdir().unwrap() }
    }

    /// A pair whose worker keeps so many bytes of pieces.
    pub(crate) async fn keeping<S: Site<Net = N>>(site: &S, limit: u64) -> Self {
        let Self { client, worker, directory } = Self::new(site).await;
        let worker = worker.keeping(Cache::new(directory.path().to_owned(), limit));
        Self { client, worker, directory }
    }

    pub(crate) fn spool(&self, bytes: &[u8]) -> Spooled {
        Spooled::from_bytes(self.directory.path(), bytes).unwrap()
    }

    pub(crate) fn grant(&self, payload: &[u8]) -> Delivery {
        self.grant_to(self.worker.network().id(), payload)
    }

    pub(crate) fn grant_to(&self, worker: &NodeId, payload: &[u8]) -> Delivery {
        let grant = Grant {
            worker: worker.clone(),
            future: future(),
            payload: Arc::new(self.spool(payload)),
            max_result: 64 << 20,
            spool_directory: self.directory.path().to_owned(),
        };
        self.client.grant(grant).unwrap()
    }

    pub(crate) fn invitation(&self, ticket: Ticket) -> Invitation {
        Invitation {
            client: self.client.network().id().clone(),
            addresses: self.client.network().addresses(),
            ticket,
            future: future(),
            max_future: 64 << 20,
            spool_directory: self.directory.path().to_owned(),
        }
    }

    /// A worker that is played by hand.
    pub(crate) async fn hand(&self) -> Hand<Breakable<N::Stream>> {
        let (client, worker) = (self.client.network(), self.worker.network());
        Hand::new(worker.dial(client.id(), &client.addresses(), ANY).await.unwrap().0)
    }
}

/// A site with a client that is played by hand: no [`Transfer`] takes its streams.
pub(crate) async fn hand_client<S: Site>(site: &S, worker: &NodeId) -> S::Net {
    let node = site.node().await;
    node.allow(worker);
    node
}

/// Messages of which one is a heartbeat.
pub(crate) trait Beats {
    fn is_heartbeat(&self) -> bool;
}

impl Beats for FromWorker {
    fn is_heartbeat(&self) -> bool {
        matches!(self, Self::Heartbeat)
    }
}

impl Beats for FromClient {
    fn is_heartbeat(&self) -> bool {
        matches!(self, Self::Heartbeat)
    }
}

/// One end of a stream, played by hand.
pub(crate) struct Hand<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Hand<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn say(&mut self, message: &impl Serialize) {
        self.write(&encode(message).unwrap()).await;
    }

    /// Writes, or not: the other side may have ended the stream already, which is heard next.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).await.is_ok() {
            let _ = self.stream.flush().await;
        }
    }

    /// The next frame that is not a heartbeat; `None` when the stream ended.
    pub(crate) async fn hear<M: DeserializeOwned + Beats>(&mut self) -> Option<Frame<M>> {
        loop {
            match self.hear_all::<M>().await {
                Some(Frame::Control(message)) if message.is_heartbeat() => {}
                heard => return heard,
            }
        }
    }

    /// The next frame; `None` when the stream ended.
    pub(crate) async fn hear_all<M: DeserializeOwned>(&mut self) -> Option<Frame<M>> {
        next_frame(&mut self.stream, &mut self.buffer).await
    }

    /// Writes for as long as the other side takes it, and listens meanwhile: a side that stops to read does not make the
    /// other one stuck. The next message that `pick` takes.
    pub(crate) async fn pour<M, T>(&mut self, bytes: &[u8], pick: impl Fn(Frame<M>) -> Option<T>) -> T
    where
        M: DeserializeOwned,
    {
        let Self { stream, buffer } = self;
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = async {
            if write.write_all(bytes).await.is_ok() {
                let _ = write.flush().await;
            }
            std::future::pending().await
        };
        let hearing = async {
            loop {
                let frame = next_frame(&mut read, buffer).await.expect("the stream ended too early");
                if let Some(found) = pick(frame) {
                    return found;
                }
            }
        };
        tokio::select! {
            found = hearing => found,
            never = writing => never,
        }
    }

    /// The next message that `pick` takes; the test fails when the stream ends before.
    pub(crate) async fn until<M: DeserializeOwned + Beats, T>(&mut self, pick: impl Fn(Frame<M>) -> Option<T>) -> T {
        self.before_end(pick).await.expect("the stream ended too early")
    }

    /// The next message that `pick` takes; `None` when the stream ended before.
    pub(crate) async fn before_end<M, T>(&mut self, pick: impl Fn(Frame<M>) -> Option<T>) -> Option<T>
    where
        M: DeserializeOwned + Beats,
    {
        loop {
            if let Some(found) = pick(self.hear().await?) {
                return Some(found);
            }
        }
    }
}

/// The next frame of a stream, of which some bytes may be here; `None` when the stream ended.
async fn next_frame<M: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<Frame<M>> {
    loop {
        if let Some((frame, rest)) = Frame::decode(buffer).unwrap() {
            *buffer = rest.to_vec();
            return Some(frame);
        }
        let read = timeout(LONG, stream.read_buf(buffer)).await.expect("a frame in time");
        if read.unwrap_or(0) == 0 {
            return None;
        }
    }
}

pub(crate) fn future() -> FutureId {
    "0b5e7c4a-1".parse().unwrap()
}

pub(crate) fn hello(ticket: Ticket, stage: Stage) -> Hello {
    Hello { version: VERSION, ticket, future: future(), max_future: 1 << 20, keeps: 0, stage }
}

pub(crate) fn provenance() -> Provenance {
    Provenance {
        driver: "jail".into(),
        profile: "strict".into(),
        layers: vec![(Layer::Network, Enforcement::Enforced("a namespace of its own".into()))],
    }
}

/// Bytes that no piece repeats.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn read(spooled: &Spooled) -> Vec<u8> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut spooled.reader(), &mut bytes).unwrap();
    bytes
}

/// The next event, in time.
pub(crate) async fn event(delivery: &mut Delivery) -> Option<DeliveryEvent> {
    timeout(LONG, delivery.events.recv()).await.expect("an event in time")
}

/// All events to the last.
pub(crate) async fn all_events(delivery: &mut Delivery) -> Vec<DeliveryEvent> {
    let mut events = Vec::new();
    while let Some(event) = event(delivery).await {
        events.push(event);
    }
    events
}

/// The event that `pick` takes; the test fails when there is none.
pub(crate) async fn wait_for<T>(delivery: &mut Delivery, pick: impl Fn(&DeliveryEvent) -> Option<T>) -> T {
    loop {
        let event = event(delivery).await.expect("the delivery ended too early");
        if let Some(found) = pick(&event) {
            return found;
        }
        assert!(!matches!(event, DeliveryEvent::Done { .. } | DeliveryEvent::Failed(_)), "{event:?}");
    }
}

/// The one error that a delivery ended with.
pub(crate) async fn failure(delivery: &mut Delivery) -> p2p_worker::transfer::TransferError {
    let mut events = all_events(delivery).await;
    match events.pop() {
        Some(DeliveryEvent::Failed(error)) => error,
        other => panic!("not a failure: {other:?}, after {events:?}"),
    }
}
