//! Where streams that other nodes open wait until they have shown a ticket: few at a time, and not for long.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::timeout;

use super::{
    Network,
    grants::{Admission, Attachment, Grants},
    link::Link,
};
use crate::{
    ids::NodeId,
    proto::{
        frames::{Frame, FromClient, FromWorker},
        refusal::Refusal,
    },
};

/// Streams without a ticket yet, of all peers and of one.
const SEATS: usize = 64;
const SEATS_PER_PEER: usize = 8;

/// Takes streams for as long as the network has any.
pub(super) async fn attend<N: Network>(network: Arc<N>, grants: Arc<Grants<N>>) {
    let seats = Seats::default();
    while let Some((peer, stream)) = network.accept().await {
        let Some(seat) = seats.take(&peer) else {
            tracing::debug!(%peer, "stream dropped: too many wait for their ticket to be seen");
            continue;
        };
        let grants = Arc::clone(&grants);
        tokio::spawn(async move {
            greet(&grants, &peer, Link::new(stream, &grants.config)).await;
            drop(seat);
        });
    }
}

/// Reads one hello and acts on it.
async fn greet<N: Network>(grants: &Grants<N>, peer: &NodeId, mut link: Link<N::Stream, FromWorker>) {
    let hello = match timeout(grants.config.hello, link.frames.next()).await {
        Ok(Ok(Frame::Control(FromWorker::Hello(hello)))) => hello,
        Ok(Ok(_)) => return refuse(peer, link, Refusal::Protocol("a stream begins with hello".into())).await,
        Ok(Err(error)) => return tracing::debug!(%peer, ?error, "stream ended before its hello"),
        Err(_) => return tracing::debug!(%peer, "stream dropped: no hello"),
    };
    match grants.admit(peer, &hello) {
        Ok(Admission::Acknowledge) => link.close_with(&FromClient::Acknowledge).await,
        Ok(Admission::Welcome(delivery)) => {
            if let Err(error) = delivery.try_send(Attachment { link, hello }) {
                refuse(peer, error.into_inner().link, Refusal::Busy).await;
            }
        }
        Err(refusal) => refuse(peer, link, refusal).await,
    }
}

async fn refuse<S>(peer: &NodeId, link: Link<S, FromWorker>, refusal: Refusal)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    tracing::warn!(%peer, %refusal, "stream refused");
    link.close_with(&FromClient::Refuse(refusal)).await;
}

/// Who waits.
#[derive(Clone, Default)]
struct Seats(Arc<Mutex<HashMap<NodeId, usize>>>);

impl Seats {
    fn taken(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, peer: &NodeId) -> Option<Seat> {
        let mut taken = self.taken();
        let theirs = taken.get(peer).copied().unwrap_or(0);
        if theirs >= SEATS_PER_PEER || taken.values().sum::<usize>() >= SEATS {
            return None;
        }
        taken.insert(peer.clone(), theirs + 1);
        Some(Seat { seats: self.clone(), peer: peer.clone() })
    }
}

/// One seat, free again when dropped.
struct Seat {
    seats: Seats,
    peer: NodeId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        match taken.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_cannot_take_every_seat_and_seats_come_back() {
        let seats = Seats::default();
        let (eve, bob): (NodeId, NodeId) = ("eve".parse().unwrap(), "bob".parse().unwrap());
        let taken: Vec<_> = std::iter::from_fn(|| seats.take(&eve)).collect();
        assert_eq!(taken.len(), SEATS_PER_PEER);
        assert!(seats.take(&bob).is_some());
        drop(taken);
        assert!(seats.take(&eve).is_some());
        assert!(seats.taken().is_empty());
    }
}
