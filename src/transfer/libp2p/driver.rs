//! The task that owns the swarm: it acts on commands and on the network's events, and does nothing else.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use libp2p::{
    Multiaddr, Swarm,
    futures::StreamExt,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Behaviour, BehaviourEvent, Command, Listening, OnConnection, Target, listen, lock, streams::Opened};
use crate::transfer::{NetworkError, Way};

/// Owns the swarm.
pub(super) struct Driver {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) listening: Listening,
    pub(super) moved: watch::Sender<u64>,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) dialling: HashMap<ConnectionId, Command>,
}

impl Driver {
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
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
        let addresses = match command.target {
            Target::There(by) => {
                return match self.swarm.behaviour().streams.connection(&command.peer, by) {
                    Some((connection, way)) => self.open(connection, way, command),
                    None => drop(command.opened.send(Err(NetworkError::Closed))),
                };
            }
            Target::At(ref addresses) => addresses.clone(),
        };
        if addresses.is_empty() {
            return drop(command.opened.send(Err(NetworkError::NoAddress)));
        }
        let options = DialOpts::peer_id(command.peer).addresses(addresses).condition(PeerCondition::Always).build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => drop(self.dialling.insert(connection, command)),
            Err(error) => drop(command.opened.send(Err(NetworkError::Unreachable(error.to_string())))),
        }
    }

    fn open(&mut self, connection: ConnectionId, way: Way, command: Command) {
        let (opened, stream): (Opened, _) = oneshot::channel();
        if command.opened.send(Ok(OnConnection { way, stream })).is_ok() {
            self.swarm.behaviour_mut().streams.open(command.peer, connection, opened);
        }
    }

    /// Changes where the node listens, and tells those who told others.
    fn listen(&self, change: impl FnOnce(&mut Vec<Multiaddr>)) {
        change(&mut lock(&self.listening));
        self.moved.send_modify(|moves| *moves = moves.wrapping_add(1));
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { connection_id, peer_id, endpoint, .. } => {
                tracing::debug!(peer = %peer_id, address = %endpoint.get_remote_address(), "connected");
                self.connections.fetch_add(1, Ordering::Relaxed);
                if let Some(command) = self.dialling.remove(&connection_id) {
                    self.open(connection_id, listen::way(endpoint.get_remote_address()), command);
                }
            }
            SwarmEvent::ConnectionClosed { .. } => drop(self.connections.fetch_sub(1, Ordering::Relaxed)),
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(command) = self.dialling.remove(&connection_id) {
                    let _ = command.opened.send(Err(NetworkError::Unreachable(one_line(&error.to_string()))));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, peer_id, .. } => {
                tracing::debug!(address = %send_back_addr, peer = ?peer_id, %error, "connection refused");
            }
            SwarmEvent::NewListenAddr { address, .. } => self.listen(|listening| listening.push(address)),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listen(|listening| listening.retain(|a| *a != address))
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                self.listen(|listening| listening.retain(|known| !addresses.contains(known)));
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
