//! How a node gets a stream to a peer: over a connection that is there, or over the first of several that it tries.

use libp2p::{Multiaddr, PeerId};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{Command, HEAD_START, Node, OnConnection, Target, listen};
use crate::transfer::{NetworkError, Way};

impl Node {
    /// Opens a stream on such a connection, which may take until then.
    pub(super) async fn open(
        &self,
        peer: PeerId,
        target: Target,
        until: Instant,
    ) -> Result<(libp2p::Stream, Way), NetworkError> {
        let (opened, connection) = oneshot::channel();
        self.commands.send(Command { peer, target, opened }).await.map_err(|_| NetworkError::Ended)?;
        let late = || NetworkError::Timeout { after: self.dial };
        let connection = timeout_at(until, connection).await.map_err(|_| late())?;
        let OnConnection { way, stream } = connection.map_err(|_| NetworkError::Ended)??;
        match timeout_at(until, stream).await {
            Ok(Ok(Ok(stream))) => Ok((stream, way)),
            Ok(Ok(Err(error))) => Err(NetworkError::Unreachable(error.to_string())),
            Ok(Err(_)) => Err(NetworkError::Closed),
            Err(_) => Err(late()),
        }
    }

    /// A stream on whichever new connection is there first.
    pub(super) async fn race(
        &self,
        peer: PeerId,
        first: Way,
        addresses: &[Multiaddr],
        until: Instant,
    ) -> Result<(libp2p::Stream, Way), NetworkError> {
        let by = |way| addresses.iter().filter(|address| listen::way(address) == way).cloned().collect::<Vec<_>>();
        let (early, late) = (by(first), by(first.other()));
        let (early, late) = if early.is_empty() { (late, early) } else { (early, late) };
        let leader = self.open(peer, Target::At(early), until);
        tokio::pin!(leader);
        let lead = tokio::select! {
            lead = &mut leader => Some(lead),
            () = sleep(HEAD_START) => None,
        };
        match lead {
            Some(Err(error)) if late.is_empty() => Err(error),
            // The other way's error says more only if this one has none.
            Some(Err(error)) => self.open(peer, Target::At(late), until).await.map_err(|_| error),
            Some(lead) => lead,
            None if late.is_empty() => leader.await,
            None => {
                let follower = self.open(peer, Target::At(late), until);
                tokio::pin!(follower);
                tokio::select! {
                    lead = &mut leader => match lead {
                        Err(error) => follower.await.map_err(|_| error),
                        lead => lead,
                    },
                    follow = &mut follower => match follow {
                        Err(_) => leader.await,
                        follow => follow,
                    },
                }
            }
        }
    }
}
