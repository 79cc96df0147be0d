//! The real network: libp2p over QUIC, and over TCP with Noise and Yamux beside it.
//!
//! One task owns the swarm. It acts on commands and on the network's events and does nothing else: there is no ping, no
//! discovery, nothing periodic, so an idle node sleeps. Connections are kept for a minute after their last stream, so
//! that the next future of the same client needs no handshake.

mod key;
mod listen;
mod streams;
mod warm;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    futures::StreamExt,
    noise,
    swarm::{
        ConnectionId, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt},
    task::AbortOnDropHandle,
};

pub use key::NodeKey;
pub use listen::Listen;

use self::{
    listen::{diallable, listen, tellable},
    streams::{Allowed, Opened},
};
use super::{Network, NetworkError};
use crate::ids::{Address, NodeId};

/// The most addresses that a node tells, and that it tries of those that it is told.
pub const MAX_ADDRESSES: usize = 16;
/// Streams that wait to be accepted.
const BACKLOG: usize = 64;
/// How long a connection that is there already may take for a new stream before another connection is made: it may
/// be dead without anybody having noticed.
const REUSE: Duration = Duration::from_secs(3);
/// Connections: being made by strangers, made by others, to one peer.
const MAX_PENDING: u32 = 64;
const MAX_INCOMING: u32 = 512;
const MAX_PER_PEER: u32 = 16;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its key.
    pub key: NodeKey,
    /// Where it listens.
    pub listen: Listen,
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
    loopback: bool,
    dial: Duration,
    commands: mpsc::Sender<Command>,
    incoming: AsyncMutex<mpsc::Receiver<(PeerId, libp2p::Stream)>>,
    allowed: Allowed,
    listening: Listening,
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
    streams: streams::Behaviour,
}

/// Asks for a stream to a peer.
#[derive(Debug)]
struct Command {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    /// Whether a connection that is there already will not do.
    fresh: bool,
    opened: oneshot::Sender<Result<OnConnection, NetworkError>>,
}

/// A connection on which the stream was asked for.
#[derive(Debug)]
struct OnConnection {
    reused: bool,
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
        let mut swarm = swarm(key, streams::Behaviour::new(allowed.clone(), incoming), config.idle)?;
        listen(&mut swarm, &config.listen, &listening).await?;
        let (commands, command_queue) = mpsc::channel(BACKLOG);
        let driver = Driver { swarm, listening: Arc::clone(&listening), dialling: HashMap::new() };
        Ok(Self {
            id,
            loopback: config.loopback,
            dial: config.dial,
            commands,
            incoming: AsyncMutex::new(incoming_queue),
            allowed,
            listening,
            _task: AbortOnDropHandle::new(tokio::spawn(driver.run(command_queue))),
        })
    }

    /// Opens a stream on a connection of the swarm's choice.
    async fn open(
        &self,
        peer: PeerId,
        addresses: &[Multiaddr],
        fresh: bool,
        until: Instant,
    ) -> Result<libp2p::Stream, Unopened> {
        let (opened, connection) = oneshot::channel();
        let command = Command { peer, addresses: addresses.to_vec(), fresh, opened };
        self.commands.send(command).await.map_err(|_| NetworkError::Ended)?;
        let after = self.dial;
        let connection = timeout_at(until, connection).await.map_err(|_| NetworkError::Timeout { after })?;
        let OnConnection { reused, stream } = connection.map_err(|_| NetworkError::Ended)??;
        let patience = if reused { until.min(Instant::now() + REUSE) } else { until };
        let error = match timeout_at(patience, stream).await {
            Ok(Ok(Ok(stream))) => return Ok(stream),
            Ok(Ok(Err(error))) => NetworkError::Unreachable(error.to_string()),
            Ok(Err(_)) => NetworkError::Closed,
            Err(_) => NetworkError::Timeout { after },
        };
        Err(Unopened { reused, error })
    }
}

/// Why there is no stream, and whether another connection may help.
struct Unopened {
    reused: bool,
    error: NetworkError,
}

impl From<NetworkError> for Unopened {
    fn from(error: NetworkError) -> Self {
        Self { reused: false, error }
    }
}

impl Network for Node {
    type Stream = Compat<libp2p::Stream>;

    fn id(&self) -> &NodeId {
        &self.id
    }

    fn addresses(&self) -> Vec<Address> {
        let listening = lock(&self.listening).clone();
        tellable(listening, self.loopback).iter().filter_map(|address| address.to_string().parse().ok()).collect()
    }

    async fn dial(&self, peer: &NodeId, addresses: &[Address]) -> Result<Self::Stream, NetworkError> {
        let peer = peer_id(peer)?;
        let addresses: Vec<_> = addresses.iter().filter_map(diallable).take(MAX_ADDRESSES).collect();
        let until = Instant::now() + self.dial;
        let stream = match self.open(peer, &addresses, false, until).await {
            Err(Unopened { reused: true, .. }) => self.open(peer, &addresses, true, until).await,
            result => result,
        };
        stream.map(FuturesAsyncReadCompatExt::compat).map_err(|unopened| unopened.error)
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
        .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
        .map_err(|error| failed(&error))?
        .with_quic()
        .with_behaviour(|_| Behaviour { limits, streams })
        .map_err(|error| failed(&error))?;
    Ok(builder.with_swarm_config(|config| config.with_idle_connection_timeout(idle).with_smart_dial()).build())
}

/// Owns the swarm.
struct Driver {
    swarm: Swarm<Behaviour>,
    listening: Listening,
    dialling: HashMap<ConnectionId, Command>,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let there = self.swarm.behaviour().streams.connection(&command.peer).filter(|_| !command.fresh);
        if let Some(connection) = there {
            return self.open(connection, command, true);
        }
        if command.addresses.is_empty() {
            return drop(command.opened.send(Err(NetworkError::NoAddress)));
        }
        let options = DialOpts::peer_id(command.peer)
            .addresses(command.addresses.clone())
            .condition(PeerCondition::Always)
            .build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => drop(self.dialling.insert(connection, command)),
            Err(error) => drop(command.opened.send(Err(NetworkError::Unreachable(error.to_string())))),
        }
    }

    fn open(&mut self, connection: ConnectionId, command: Command, reused: bool) {
        let (opened, stream): (Opened, _) = oneshot::channel();
        self.swarm.behaviour_mut().streams.open(command.peer, connection, opened);
        let _ = command.opened.send(Ok(OnConnection { reused, stream }));
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { connection_id, peer_id, endpoint, .. } => {
                tracing::debug!(peer = %peer_id, address = %endpoint.get_remote_address(), "connected");
                if let Some(command) = self.dialling.remove(&connection_id) {
                    self.open(connection_id, command, false);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(command) = self.dialling.remove(&connection_id) {
                    let _ = command.opened.send(Err(NetworkError::Unreachable(one_line(&error.to_string()))));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, peer_id, .. } => {
                tracing::debug!(address = %send_back_addr, peer = ?peer_id, %error, "connection refused");
            }
            SwarmEvent::NewListenAddr { address, .. } => lock(&self.listening).push(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => lock(&self.listening).retain(|known| *known != address),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                lock(&self.listening).retain(|known| !addresses.contains(known));
                tracing::warn!(?addresses, ?reason, "stopped listening");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener"),
            _ => {}
        }
    }
}

/// What libp2p says of several addresses, on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
