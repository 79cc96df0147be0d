//! The sender's side.

use std::time::Duration;

use p2p_wormhole_contract::message::{Event, Failure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    courier::out_of_order,
    failure, hex,
    letters::{self, Receipt, TransitLetter},
    meeting::Meeting,
    pipes::Pipes,
    time::within,
    transit::{RecordError, Records},
};

/// Bytes after which progress is reported again.
const REPORT: u64 = 1024 * 1024;

/// Offers the file, and waits until the peer takes it. Returns how the peer can be reached.
pub(crate) async fn offer(meeting: &mut Meeting, transit: &Value, size: u64) -> Result<TransitLetter, Failure> {
    meeting.write(transit).await?;
    meeting.write(&letters::offer(size)).await?;
    let mut theirs = None;
    loop {
        let letter = meeting.read().await?;
        theirs = letter.transit.or(theirs);
        if let Some(answer) = letter.answer {
            return if answer.takes_file() { Ok(theirs.unwrap_or_default()) } else { Err(out_of_order("a file_ack")) };
        }
    }
}

/// Sends what p2p-worker gives, and waits for the receipt.
pub(crate) async fn payload(
    pipes: &mut Pipes,
    records: &mut Records,
    size: u64,
    stall: Duration,
) -> Result<(), Failure> {
    let (mut done, mut reported, mut digest) = (0, 0, Sha256::new());
    if size == 0 {
        // wormhole-william waits for a record before it acknowledges anything.
        let written = within(stall, records.write(&[])).await.unwrap_or(Err(RecordError::Closed));
        written.map_err(|error| Failure::Lost { done, size, why: failure::chain(&error) })?;
    }
    while done < size {
        let piece = pipes.input.data().await?;
        let after = done + piece.len() as u64;
        if after > size {
            return Err(Failure::Contract(format!("more than the {size} bytes that it announced")));
        }
        let lost = |why: String| Failure::Lost { done, size, why };
        let written = within(stall, records.write(&piece)).await;
        let written = written.ok_or_else(|| lost(format!("the peer took nothing for {} s", stall.as_secs())))?;
        written.map_err(|error| lost(failure::chain(&error)))?;
        digest.update(&piece);
        done = after;
        if done - reported >= REPORT || done == size {
            reported = done;
            pipes.output.say(&Event::Progress(done)).await?;
        }
    }
    receipt(records, size, &digest.finalize(), stall).await
}

async fn receipt(records: &mut Records, size: u64, sent: &[u8], stall: Duration) -> Result<(), Failure> {
    let lost = |why: String| Failure::Lost { done: size, size, why };
    let read = within(stall, records.read()).await;
    let text = match read {
        None => return Err(lost(format!("the peer did not acknowledge them within {} s", stall.as_secs()))),
        Some(Err(RecordError::Closed)) => return Err(lost("the peer did not acknowledge them".to_owned())),
        Some(Err(error)) => return Err(lost(failure::chain(&error))),
        Some(Ok(text)) => text,
    };
    let receipt: Receipt = serde_json::from_slice(text).map_err(|_| out_of_order("a receipt"))?;
    let same = receipt.sha256.is_none_or(|digest| digest.eq_ignore_ascii_case(&hex::encode(sent)));
    if receipt.ack == "ok" && same { Ok(()) } else { Err(Failure::Digest) }
}
