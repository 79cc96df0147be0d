//! The real network: libp2p over QUIC, and over TCP with Noise and Yamux beside it.
//!
//! One task owns the swarm. It acts on commands and on the network's events and does nothing else: there is no ping, no
//! discovery, nothing periodic but a look at each connection, so a node without connections sleeps. Connections are kept for a minute after their last stream, so
//! that the next future of the same client needs no handshake.
//!
//! A peer is dialled at all its addresses at once, first by one [`Way`] and, when that is not there within [`HEAD_START`],
//! by the other one too; the first connection is taken. So neither dead addresses nor a network that swallows UDP cost
//! more than that.

mod crowd;
mod dial;
mod driver;
mod key;
mod listen;
mod streams;
mod warm;

use std::{
    collections::HashMap,
    num::NonZeroU8,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ::libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    noise, quic,
    swarm::NetworkBehaviour,
    tcp, yamux,
};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt},
    task::AbortOnDropHandle,
};

pub use key::NodeKey;
pub use listen::{Listen, announced};

use self::{
    driver::Driver,
    listen::{diallable, listen, tellable},
    streams::Allowed,
};
use super::{By, Network, NetworkError, Way};
use crate::ids::{Address, NodeId};

/// The most addresses that a node tells, and that it tries of those that it is told.
pub const MAX_ADDRESSES: usize = 16;
/// Streams that wait to be accepted.
const BACKLOG: usize = 64;
/// How long a connection that is there already may take for a new stream before another connection is made: it may
/// be dead without anybody having noticed.
const REUSE: Duration = Duration::from_secs(1);
/// How long one way to a peer is tried before the other one is tried too.
const HEAD_START: Duration = Duration::from_millis(100);
/// Connections: being made by strangers, made by others, to one peer.
const MAX_PENDING: u32 = 256;
const MAX_INCOMING: u32 = 512;
const MAX_PER_PEER: u32 = 16;
/// Streams of one connection at a time, which is more futures than a worker has slots.
const MAX_STREAMS: u32 = 128;
/// Bytes of one stream, and of one connection, that a peer may send by QUIC before they were read: what a link of 1 Gbit/s
/// holds in 120 ms, so that distance alone slows nothing down.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its key.
    pub key: NodeKey,
    /// Where it listens.
    pub listen: Listen,
    /// Where it can be reached besides, as through a router that passes a port on; told before the others.
    pub announce: Vec<Address>,
    /// Whether loopback addresses are told to others even when there are other ones.
    pub loopback: bool,
    /// How long a dial may take, over all addresses: 10 s.
    pub dial: Duration,
    /// For how long a connection without streams is kept: 60 s.
    pub idle: Duration,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            key: NodeKey::Ephemeral,
            listen: Listen::No,
            announce: Vec::new(),
            loopback: false,
            dial: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// A libp2p node. Ends when dropped.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    announce: Vec<Address>,
    loopback: bool,
    dial: Duration,
    commands: mpsc::Sender<Command>,
    incoming: AsyncMutex<mpsc::Receiver<(PeerId, libp2p::Stream)>>,
    allowed: Allowed,
    listening: Listening,
    moves: watch::Receiver<u64>,
    connections: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

/// Where the node listens at the moment, without wildcards.
type Listening = Arc<Mutex<Vec<Multiaddr>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    crowd: crowd::Behaviour,
    streams: streams::Behaviour,
}

/// Asks for a stream to a peer.
#[derive(Debug)]
struct Command {
    peer: PeerId,
    target: Target,
    opened: oneshot::Sender<Result<OnConnection, NetworkError>>,
}

/// On which connection.
#[derive(Debug)]
enum Target {
    /// The newest that there is, by this way, or else by the other one if that will do too.
    There(By),
    /// A new one.
    At(Vec<Multiaddr>),
}

/// A connection on which the stream was asked for.
#[derive(Debug)]
struct OnConnection {
    way: Way,
    stream: oneshot::Receiver<std::io::Result<libp2p::Stream>>,
}

impl Node {
    /// Starts a node and waits until it listens.
    ///
    /// # Errors
    /// [`NetworkError::Key`], [`NetworkError::KeyFormat`], [`NetworkError::KeyMode`], [`NetworkError::Listen`],
    /// [`NetworkError::Start`].
    pub async fn start(config: NodeConfig) -> Result<Self, NetworkError> {
        warm::warm_up();
        let key = config.key.clone();
        let key = tokio::task::spawn_blocking(move || key.load()).await;
        let key = key.map_err(|error| NetworkError::Start(error.to_string()))??;
        let id: NodeId = key.public().to_peer_id().to_string().parse()?;
        let (incoming, incoming_queue) = mpsc::channel(BACKLOG);
        let (allowed, listening) = (Allowed::default(), Listening::default());
        let mut swarm = swarm(key, streams::Behaviour::new(allowed.clone(), incoming, config.idle), config.idle)?;
        listen(&mut swarm, &config.listen, &listening).await?;
        let (commands, command_queue) = mpsc::channel(BACKLOG);
        let connections = Arc::default();
        let (moved, moves) = watch::channel(0);
        let driver = Driver {
            swarm,
            listening: Arc::clone(&listening),
            moved,
            connections: Arc::clone(&connections),
            dialling: HashMap::new(),
        };
        Ok(Self {
            id,
            announce: config.announce,
            loopback: config.loopback,
            dial: config.dial,
            commands,
            incoming: AsyncMutex::new(incoming_queue),
            allowed,
            listening,
            moves,
            connections,
            _task: AbortOnDropHandle::new(tokio::spawn(driver.run(command_queue))),
        })
    }

    /// How many connections there are at the moment, to and from others, those without streams included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Network for Node {
    type Stream = Compat<libp2p::Stream>;

    fn id(&self) -> &NodeId {
        &self.id
    }

    fn addresses(&self) -> Vec<Address> {
        let listening = lock(&self.listening).clone();
        let mut told = self.announce.clone();
        let found = tellable(listening, self.loopback);
        let found = found.iter().filter_map(|address| address.to_string().parse().ok());
        told.extend(found.filter(|address| !self.announce.contains(address)));
        told.truncate(MAX_ADDRESSES);
        told
    }

    fn moves(&self) -> watch::Receiver<u64> {
        self.moves.clone()
    }

    async fn dial(&self, peer: &NodeId, addresses: &[Address], by: By) -> Result<(Self::Stream, Way), NetworkError> {
        let peer = peer_id(peer)?;
        let until = Instant::now() + self.dial;
        let mut addresses: Vec<_> = addresses.iter().filter_map(diallable).take(MAX_ADDRESSES).collect();
        let first = match by {
            By::First(way) => way,
            By::Only(way) => {
                addresses.retain(|address| listen::way(address) == way);
                way
            }
        };
        let there = self.open(peer, Target::There(by), until.min(Instant::now() + REUSE)).await;
        let (stream, way) = match there {
            Ok(opened) => opened,
            Err(NetworkError::Ended) => return Err(NetworkError::Ended),
            Err(_) => self.race(peer, first, &addresses, until).await?,
        };
        Ok((stream.compat(), way))
    }

    async fn accept(&self) -> Option<(NodeId, Self::Stream)> {
        let (peer, stream) = self.incoming.lock().await.recv().await?;
        Some((peer.to_string().parse().ok()?, stream.compat()))
    }

    fn allow(&self, peer: &NodeId) {
        if let Ok(peer) = peer_id(peer) {
            self.allowed.set().insert(peer);
        }
    }

    fn disallow(&self, peer: &NodeId) {
        if let Ok(peer) = peer_id(peer) {
            self.allowed.set().remove(&peer);
        }
    }
}

fn peer_id(peer: &NodeId) -> Result<PeerId, NetworkError> {
    peer.as_str().parse().map_err(|_| NetworkError::PeerId(peer.to_string()))
}

fn swarm(
    key: libp2p::identity::Keypair,
    streams: streams::Behaviour,
    idle: Duration,
) -> Result<Swarm<Behaviour>, NetworkError> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established_incoming(Some(MAX_INCOMING))
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let limits = connection_limits::Behaviour::new(limits);
    let failed = |error: &dyn std::error::Error| NetworkError::Start(error.to_string());
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::new(), noise::Config::new, multiplexer)
        .map_err(|error| failed(&error))?
        .with_quic_config(quic)
        .with_behaviour(|_| Behaviour { limits, crowd: crowd::Behaviour::default(), streams })
        .map_err(|error| failed(&error))?;
    let all_at_once = u8::try_from(MAX_ADDRESSES).ok().and_then(NonZeroU8::new).unwrap_or(NonZeroU8::MIN);
    Ok(builder
        .with_swarm_config(|config| config.with_idle_connection_timeout(idle).with_dial_concurrency_factor(all_at_once))
        .build())
}

fn multiplexer() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS as usize);
    config
}

fn quic(mut config: quic::Config) -> quic::Config {
    config.max_concurrent_stream_limit = MAX_STREAMS;
    config.max_stream_data = STREAM_WINDOW;
    config.max_connection_data = CONNECTION_WINDOW;
    config
}
