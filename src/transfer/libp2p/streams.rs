//! The libp2p behaviour of a node: raw streams of our one protocol, and who may connect.
//!
//! This does what `libp2p-stream` does, and three things that it does not: a peer that is not allowed is turned away as
//! soon as its handshake has proven who it is, streams that arrive together are queued (up to a bound) instead of
//! dropped, and a stream is opened on the connection that was meant.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Interval, interval},
};

use super::listen::way;
use crate::{
    proto::frames::PROTOCOL,
    transfer::{By, Way},
};

/// Where a stream goes that was opened, or why it was not.
pub(super) type Opened = oneshot::Sender<io::Result<Stream>>;

/// The shortest time between two looks at a connection.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);

/// The peers that may connect to this node.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowed(Arc<Mutex<HashSet<PeerId>>>);

impl Allowed {
    pub(super) fn set(&self) -> MutexGuard<'_, HashSet<PeerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection from a peer that nobody invited.
#[derive(Debug, thiserror::Error)]
#[error("nobody invited this peer")]
struct Uninvited;

/// Opens streams and takes them.
pub(super) struct Behaviour {
    allowed: Allowed,
    incoming: mpsc::Sender<(PeerId, Stream)>,
    connections: HashMap<PeerId, Vec<(ConnectionId, Way)>>,
    requests: VecDeque<(PeerId, ConnectionId, Request)>,
    waker: Option<Waker>,
    /// How long connections without streams are kept.
    idle: Duration,
}

impl Behaviour {
    /// Streams that other nodes open go to `incoming`, and are dropped when it is full.
    pub(super) fn new(allowed: Allowed, incoming: mpsc::Sender<(PeerId, Stream)>, idle: Duration) -> Self {
        Self { allowed, incoming, connections: HashMap::new(), requests: VecDeque::new(), waker: None, idle }
    }

    /// The newest connection to a peer, by this way or, if that will do, by the other one.
    pub(super) fn connection(&self, peer: &PeerId, by: By) -> Option<(ConnectionId, Way)> {
        let newest = |by: Way| self.connections.get(peer)?.iter().rev().find(|(_, way)| *way == by).copied();
        match by {
            By::Only(way) => newest(way),
            By::First(way) => newest(way).or_else(|| newest(way.other())),
        }
    }

    /// Opens a stream on a connection. If the connection ends first, the sender is dropped.
    pub(super) fn open(&mut self, peer: PeerId, connection: ConnectionId, opened: Opened) {
        self.requests.push_back((peer, connection, Request(opened)));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        let look = interval((self.idle / 2).max(SHORTEST_LOOK));
        Handler { peer, incoming: self.incoming.clone(), requests: VecDeque::new(), look }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.allowed.set().contains(&peer) { Ok(self.handler(peer)) } else { Err(ConnectionDenied::new(Uninvited)) }
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                let way = way(event.endpoint.get_remote_address());
                self.connections.entry(event.peer_id).or_default().push((event.connection_id, way));
            }
            FromSwarm::ConnectionClosed(event) => {
                if let Some(ids) = self.connections.get_mut(&event.peer_id) {
                    ids.retain(|(id, _)| *id != event.connection_id);
                    if ids.is_empty() {
                        self.connections.remove(&event.peer_id);
                    }
                }
                self.requests.retain(|(_, connection, _)| *connection != event.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection, event)) = self.requests.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Asks a connection for a stream.
#[derive(Debug)]
pub(super) struct Request(Opened);

/// One connection.
pub(super) struct Handler {
    peer: PeerId,
    incoming: mpsc::Sender<(PeerId, Stream)>,
    requests: VecDeque<Opened>,
    /// When the connection is looked at although nothing happens. libp2p sees only then that it has no streams any more,
    /// since the end of a QUIC stream wakes nobody.
    look: Interval,
}

fn protocol() -> ReadyUpgrade<StreamProtocol> {
    ReadyUpgrade::new(StreamProtocol::new(PROTOCOL))
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Request;
    type ToBehaviour = std::convert::Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(protocol(), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opened, Self::ToBehaviour>> {
        while self.look.poll_tick(cx).is_ready() {}
        // A connection polls its handler again after each event that it gives it, so no waker is needed.
        match self.requests.pop_front() {
            Some(opened) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(protocol(), opened),
            }),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, Request(opened): Request) {
        self.requests.push_back(opened);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Opened>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                let queued = self.incoming.try_send((self.peer, protocol)).is_ok();
                tracing::debug!(peer = %self.peer, queued, "stream opened by a peer");
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let _ = info.send(Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let _ = info.send(Err(match error {
                    StreamUpgradeError::Timeout => io::ErrorKind::TimedOut.into(),
                    StreamUpgradeError::Io(error) => error,
                    StreamUpgradeError::NegotiationFailed => {
                        io::Error::new(io::ErrorKind::Unsupported, "the peer does not speak our protocol")
                    }
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            _ => {}
        }
    }
}
