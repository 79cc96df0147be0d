//! The receiver's side.

use std::time::Duration;

use p2p_wormhole_contract::message::Failure;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    failure, hex,
    letters::{self, Receipt, TransitLetter},
    meeting::Meeting,
    pipes::Output,
    time::within,
    transit::{RecordError, Records},
};

/// Waits for an offer of one file of at most so many bytes, and takes it. Returns its size and how the peer can be reached.
pub(crate) async fn consent(
    meeting: &mut Meeting,
    transit: &Value,
    most: u64,
) -> Result<(u64, TransitLetter), Failure> {
    let (mut theirs, mut offered) = (None, None);
    let (size, theirs) = loop {
        let letter = meeting.read().await?;
        theirs = letter.transit.or(theirs);
        if let Some(offer) = letter.offer {
            let size = offer.size()?;
            if size > most {
                return Err(Failure::TooLarge { size, limit: most });
            }
            offered = Some(size);
        }
        match (offered, theirs.take()) {
            (Some(size), Some(theirs)) => break (size, theirs),
            (_, still) => theirs = still,
        }
    };
    meeting.write(transit).await?;
    meeting.write(&letters::consent()).await?;
    Ok((size, theirs))
}

/// Passes on what the peer sends, just as many bytes as it announced, and acknowledges them.
pub(crate) async fn payload(
    output: &mut Output,
    records: &mut Records,
    size: u64,
    stall: Duration,
) -> Result<(), Failure> {
    let (mut done, mut digest) = (0, Sha256::new());
    while done < size {
        let lost = |why: String| Failure::Lost { done, size, why };
        let read = within(stall, records.read()).await;
        let piece = match read {
            None => return Err(lost(format!("nothing came for {} s", stall.as_secs()))),
            Some(Err(error @ (RecordError::Length(_) | RecordError::Crypto))) => {
                return Err(Failure::Protocol(failure::chain(&error)));
            }
            Some(Err(error)) => return Err(lost(failure::chain(&error))),
            Some(Ok(piece)) => piece,
        };
        let after = done + piece.len() as u64;
        if after > size {
            return Err(Failure::TooMany { announced: size });
        }
        output.data(piece).await?;
        digest.update(piece);
        done = after;
    }
    acknowledge(records, &digest.finalize(), stall).await;
    Ok(())
}

/// All bytes are there: a sender that has gone may not learn it, but nothing is missing.
async fn acknowledge(records: &mut Records, digest: &[u8], stall: Duration) {
    let receipt = Receipt { ack: "ok".to_owned(), sha256: Some(hex::encode(digest)) };
    let text = serde_json::to_vec(&receipt).unwrap_or_default();
    let _ = within(stall, records.write(&text)).await;
    records.finish();
}
