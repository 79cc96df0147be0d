//! What came from a stranger's machine: it is scanned before R reads it, and written into the folder, or refused.

use std::io::BufReader;

use tokio::task::spawn_blocking;

use super::{
    failed::{Class, Failed},
    journey::Road,
    line::Line,
    orders::Post,
};
use crate::{
    error_chain,
    ids::FutureId,
    rds::{Policy, Refusal, UnpackError, Wanted, examine, unpack},
    sandbox::Provenance,
    spool::Spooled,
    text,
};

/// How much of a result is looked at at once, in bytes.
const SCANNED_AT_ONCE: usize = 64 * 1024;

/// Conditions up to this size are looked at where they come; larger ones on a thread that may take its time.
const SMALL: usize = 64 * 1024;

/// The most characters of a reason in the log.
const MOST_REASON: usize = 500;

/// Why what came is not written.
enum Unfit {
    Refused(Refusal),
    Unwritten(super::folder::FolderError),
}

/// Scans a result and writes it for R; the line that says where.
pub(super) async fn take(road: &Road, post: &Post, result: Spooled, provenance: Provenance) -> Result<Line, Failed> {
    let folder = std::sync::Arc::clone(&road.folder);
    let name = format!("{}.result.rds", post.future);
    let (future, policy, most) = (post.future.clone(), post.results, road.max_result);
    let written = spawn_blocking(move || {
        let unpacked = unpack(&result, folder.path(), most).map_err(|error| match error {
            UnpackError::Spool(error) => Unfit::Unwritten(error.into()),
            error => Unfit::Refused(error.into()),
        });
        let result = unpacked?.unwrap_or(result);
        let bytes = BufReader::with_capacity(SCANNED_AT_ONCE, result.reader());
        let wanted = Wanted { policy, future: Some(&future) };
        examine(bytes, result.size(), wanted).map_err(Unfit::Refused)?;
        folder.write(&name, result.reader()).map_err(Unfit::Unwritten)
    });
    let file = match written.await {
        Ok(Ok(file)) => file,
        Ok(Err(Unfit::Refused(error))) => return Err(Failed::refused(&error)),
        Ok(Err(Unfit::Unwritten(error))) => return Err(Failed::not_written(&error)),
        Err(error) => return Err(Failed::new(Class::Local, &error)),
    };
    let Provenance { driver, profile, layers } = &provenance;
    let layers: Vec<String> = layers.iter().map(|(layer, state)| format!("{layer}:{}", state.in_words().0)).collect();
    let line = Line::new("done").with("future", &post.future).with("file", file);
    Ok(line.with("driver", driver).with("profile", profile).with("layers", layers.join(",")))
}

/// Scans a condition and writes it for R. What does not pass is left out: progress is worth no future.
pub(super) async fn progress(road: &Road, future: &FutureId, policy: Policy, condition: Vec<u8>) {
    let size = condition.len() as u64;
    let folder = std::sync::Arc::clone(&road.folder);
    let name = format!("{future}.progress.rds");
    let write = move || {
        let wanted = Wanted { policy, future: None };
        examine(condition.as_slice(), size, wanted).map_err(Unfit::Refused)?;
        folder.write(&name, condition.as_slice()).map_err(Unfit::Unwritten)
    };
    let written = if size > SMALL as u64 { spawn_blocking(write).await.ok() } else { Some(write()) };
    match written {
        Some(Ok(file)) => {
            let line = Line::new("progress").with("future", future).with("file", &file);
            road.outbox.progress(line, file, size);
        }
        Some(Err(Unfit::Refused(error))) => left_out(future, &error),
        Some(Err(Unfit::Unwritten(error))) => left_out(future, &error),
        None => {}
    }
}

fn left_out(future: &FutureId, error: &dyn std::error::Error) {
    let error = text::for_log(&error_chain(error), MOST_REASON);
    tracing::warn!(%future, %error, "a progress condition was left out");
}
