//! The worker's part in what travels of a large future: it hears the names of the pieces, and says which it lacks.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{
    Cache, Network, TransferError,
    cache::{Plan, Supply},
    error::Interrupted,
    link::heartbeat,
    payload::{Receiving, ended},
    worker::{Caller, ClientLink},
};
use crate::proto::{
    frames::{Frame, FromClient, FromWorker},
    manifest::{Gathering, Manifest},
};

const WRONG_PLACE: TransferError = TransferError::Protocol("a frame in the wrong place");

impl<N: Network> Caller<N> {
    /// Agrees with the client on what it sends; says whether anything comes from the cache.
    pub(super) async fn agree(
        &mut self,
        link: &mut ClientLink<N>,
        receiving: &mut Receiving,
        size: u64,
        count: u32,
    ) -> Result<bool, Interrupted> {
        let unasked = TransferError::Protocol("pieces that nobody asked for");
        let cache = self.cache.clone().filter(|cache| size <= cache.largest()).ok_or(unasked)?;
        let manifest = Arc::new(self.gather(link, receiving, size, count).await?);
        // Made ready for the next future, whichever that is.
        let begun = self.begun.take().filter(|_| receiving.received() == 0);
        let (first, begun) = match begun.as_ref().and_then(|begun| begun.pieces_of(&manifest)) {
            Some(first) => (first, begun),
            None => (0, None),
        };
        let start = begun.as_ref().map_or(receiving.received(), |begun| begun.beginning().bytes());
        let supply = self.supply(link, receiving, &cache, (&manifest, start)).await?;
        let has_kept = supply.has_kept() || begun.is_some();
        let kept = supply.pieces.iter().flatten().count();
        let lacking = supply.lacking(first);
        link.out.say(&FromWorker::Lacks(lacking.clone())).await?;
        receiving.assemble(manifest, supply, begun, &lacking).await?;
        let (_, bytes) = receiving.way();
        tracing::debug!(future = %self.invitation.future, pieces = count, first, kept, bytes, "agreed on what is sent");
        Ok(has_kept)
    }

    /// Hears all names.
    async fn gather(
        &self,
        link: &mut ClientLink<N>,
        receiving: &mut Receiving,
        size: u64,
        count: u32,
    ) -> Result<Manifest, Interrupted> {
        let mut beat = heartbeat(&self.config);
        let mut gathering = Gathering::new(size, count as usize).map_err(TransferError::from)?;
        loop {
            let Frame::Control(FromClient::Pieces(names)) = self.hear(link, &mut beat, receiving.late()).await? else {
                return Err(WRONG_PLACE.into());
            };
            receiving.excuse();
            if let Some(manifest) = gathering.take(names).map_err(TransferError::from)? {
                return Ok(manifest);
            }
        }
    }

    /// Where the pieces come from; waits while another future brings some of them.
    async fn supply(
        &self,
        link: &mut ClientLink<N>,
        receiving: &Receiving,
        cache: &Cache,
        (manifest, start): (&Arc<Manifest>, u64),
    ) -> Result<Supply, Interrupted> {
        let mut beat = heartbeat(&self.config);
        let mut changes = cache.changes();
        loop {
            let (cache, client) = (cache.clone(), self.invitation.client.clone());
            let manifest = Arc::clone(manifest);
            let plan = spawn_blocking(move || cache.plan(&client, &manifest, start)).await;
            match plan.map_err(ended)? {
                Plan::Go(supply) => return Ok(supply),
                Plan::Wait => tokio::select! {
                    // The cache is there, so this is never the end of its changes.
                    _ = changes.changed() => {}
                    heard = self.hear(link, &mut beat, receiving.over()) => {
                        heard?;
                        return Err(WRONG_PLACE.into());
                    }
                },
            }
        }
    }
}
