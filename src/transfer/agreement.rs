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
        &self,
        link: &mut ClientLink<N>,
        receiving: &mut Receiving,
        size: u64,
        count: u32,
    ) -> Result<bool, Interrupted> {
        let unasked = TransferError::Protocol("pieces that nobody asked for");
        let cache = self.cache.as_ref().filter(|cache| size <= cache.largest()).ok_or(unasked)?;
        let manifest = Arc::new(self.gather(link, receiving, size, count).await?);
        let supply = self.supply(link, receiving, cache, &manifest).await?;
        let has_kept = supply.has_kept();
        let kept = supply.pieces.iter().flatten().count();
        link.out.say(&FromWorker::Lacks(supply.lacking())).await?;
        receiving.assemble(manifest, supply).await?;
        let (_, bytes) = receiving.way();
        tracing::debug!(future = %self.invitation.future, pieces = count, kept, bytes, "agreed on what is sent");
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
        manifest: &Arc<Manifest>,
    ) -> Result<Supply, Interrupted> {
        let mut beat = heartbeat(&self.config);
        let mut changes = cache.changes();
        loop {
            let (cache, client) = (cache.clone(), self.invitation.client.clone());
            let (manifest, start) = (Arc::clone(manifest), receiving.received());
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
