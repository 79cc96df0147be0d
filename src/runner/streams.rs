//! The task's three pipes: the future goes in, frames and text come out. Each pump is cancel-safe: what it has read is in
//! the caller's hands, and it can be dropped at any await.

use std::{
    io,
    os::fd::AsFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::fcntl::{FcntlArg, fcntl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
    time::timeout,
};

use crate::{
    runner::{
        frames::{FrameError, Frames, Item},
        outcome::{AttemptEvent, Text},
    },
    spool::{Reader, Relief, SpoolError, SpoolWriter, Spooled},
};

/// How much is read at once; a pipe holds as much.
const CHUNK: usize = 64 * 1024;

/// How much of a future is read at once, in bytes, and how much of it its pipe may hold: as much as an ordinary user may ask
/// for (`pipe(7)`, `/proc/sys/fs/pipe-max-size`). Where there is less, it is slower.
const FED: usize = 1 << 20;

/// How much of the end of the text is kept besides its beginning.
const TAIL: usize = 2048;

/// How long an event waits for its queue. Meanwhile the task's own pipe fills, which slows the task
/// down and nobody else.
const PATIENCE: Duration = Duration::from_secs(1);

/// The most bytes of progress conditions that are passed on for one task.
const MAX_ALL_PROGRESS: u64 = 64 << 20;

/// Why the frames are not read any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The stream is not of the right form.
    Frame(FrameError),
    /// The result is over the limit.
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The result cannot be stored.
    Spool(String),
    /// The pipe cannot be read.
    Read(String),
}

impl From<SpoolError> for Fault {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::TooLarge { limit } => Self::TooLarge { limit },
            other => Self::Spool(crate::error_chain(&other)),
        }
    }
}

/// What came through the frames pipe.
#[derive(Debug, Default)]
pub(crate) struct FramesSeen {
    /// The result, as far as it came.
    pub(crate) result: Option<SpoolWriter>,
    /// The result, if its end was marked, so that it is whole whatever becomes of the task.
    pub(crate) whole: Option<Arc<Spooled>>,
    /// What went wrong.
    pub(crate) fault: Option<Fault>,
    /// Progress conditions that were not passed on.
    pub(crate) progress_dropped: u64,
    /// Bytes of those that were.
    pub(crate) progress: u64,
}

/// Where the frames go.
pub(crate) struct FramesTo<'a> {
    /// For the result.
    pub(crate) directory: &'a Path,
    /// What gives way to the result on a full disk.
    pub(crate) relief: Option<&'a Relief>,
    /// The largest result, in bytes.
    pub(crate) limit: u64,
    /// For everything else. Nobody has to listen.
    pub(crate) events: &'a mpsc::Sender<AttemptEvent>,
    /// What marks the end of a result.
    pub(crate) ending: Option<Vec<u8>>,
}

/// Reads the frames to their end, to that of the result, or to the first fault.
pub(crate) async fn pump_frames(from: pipe::Receiver, to: &FramesTo<'_>, seen: &mut FramesSeen) {
    seen.fault = take_all(from, to, seen).await.err();
}

async fn take_all(mut from: pipe::Receiver, to: &FramesTo<'_>, seen: &mut FramesSeen) -> Result<(), Fault> {
    let mut frames = Frames::new(to.ending.clone());
    let mut buffer = vec![0u8; CHUNK];
    while seen.whole.is_none() {
        match from.read(&mut buffer).await.map_err(|error| Fault::Read(error.to_string()))? {
            0 => {
                let last = frames.finish().map_err(Fault::Frame)?;
                return if last.is_empty() { Ok(()) } else { seen.take_part(&last, to) };
            }
            length => take_frames(&mut frames, buffer.get(..length).unwrap_or_default(), to, seen).await?,
        }
    }
    Ok(())
}

async fn take_frames(
    frames: &mut Frames,
    mut bytes: &[u8],
    to: &FramesTo<'_>,
    seen: &mut FramesSeen,
) -> Result<(), Fault> {
    while let Some(item) = frames.next(&mut bytes).map_err(Fault::Frame)? {
        match item {
            Item::Begun => {
                tell(to.events, AttemptEvent::Begun).await;
            }
            Item::Progress(condition) => pass_on(condition, to, seen).await,
            Item::Result(part) => seen.take_part(&part, to)?,
            Item::Last(part) => {
                seen.take_part(&part, to)?;
                seen.whole = seen.result.take().map(|result| Arc::new(result.finish()));
            }
        }
    }
    Ok(())
}

impl FramesSeen {
    /// Whether there is anything of a result.
    pub(crate) fn has_result(&self) -> bool {
        self.whole.as_ref().map_or(0, |whole| whole.size()).max(self.result.as_ref().map_or(0, SpoolWriter::size)) > 0
    }

    /// The result, as far as it came.
    pub(crate) fn into_result(self) -> Option<Arc<Spooled>> {
        self.whole.or_else(|| self.result.map(|result| Arc::new(result.finish())))
    }

    fn take_part(&mut self, part: &[u8], to: &FramesTo<'_>) -> Result<(), Fault> {
        let result = match &mut self.result {
            Some(result) => result,
            None => self.result.insert(SpoolWriter::new(to.directory, to.limit)?.relieved_by(to.relief.cloned())),
        };
        Ok(result.write(part)?)
    }
}

/// Whether somebody took it, or will.
pub(crate) async fn tell(events: &mpsc::Sender<AttemptEvent>, event: AttemptEvent) -> bool {
    matches!(timeout(PATIENCE, events.send(event)).await, Ok(Ok(())))
}

async fn pass_on(condition: Vec<u8>, to: &FramesTo<'_>, seen: &mut FramesSeen) {
    let total = seen.progress.saturating_add(condition.len() as u64);
    if total <= MAX_ALL_PROGRESS && tell(to.events, AttemptEvent::Progress(condition)).await {
        seen.progress = total;
    } else {
        seen.progress_dropped += 1;
    }
}

/// Reads the text to its end, and keeps the beginning and the end of it.
pub(crate) async fn pump_text(mut from: pipe::Receiver, most: u64, text: &Mutex<Text>) {
    let mut buffer = vec![0u8; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
        keep(buffer.get(..length).unwrap_or_default(), most, &mut text);
    }
}

fn keep(bytes: &[u8], most: u64, text: &mut Text) {
    let room = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(text.kept.len());
    let (kept, dropped) = bytes.split_at(room.min(bytes.len()));
    text.kept.extend_from_slice(kept);
    text.dropped = text.dropped.saturating_add(dropped.len() as u64);
    text.tail.extend_from_slice(bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default());
    text.tail.drain(..text.tail.len().saturating_sub(TAIL));
}

/// Writes bytes of a future to the task, between what it is told before and after them. A task that does not read it to its end
/// is none of our business.
///
/// # Errors
/// What reading the future says.
pub(crate) async fn pump_input(first: &str, mut from: Reader, last: &str, to: &mut pipe::Sender) -> io::Result<()> {
    if to.write_all(first.as_bytes()).await.is_err() {
        return Ok(());
    }
    let fed = usize::try_from(from.left()).unwrap_or(FED).clamp(CHUNK, FED);
    if fed > CHUNK {
        let _ = fcntl(to.as_fd(), FcntlArg::F_SETPIPE_SZ(i32::try_from(fed).unwrap_or(i32::MAX)));
    }
    let mut next = from.next(fed).await?;
    while !next.is_empty() {
        // The next bytes are read while these are written.
        let chunk = std::mem::take(&mut next);
        let (written, read) = tokio::join!(to.write_all(&chunk), from.next(fed));
        if written.is_err() {
            return Ok(());
        }
        next = read?;
    }
    let _ = to.write_all(last.as_bytes()).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_the_beginning_and_the_end_are_kept() {
        let mut text = Text::default();
        for number in 0..1000 {
            keep(format!("line {number}\n").as_bytes(), 10, &mut text);
        }
        assert_eq!(text.kept, b"line 0\nlin");
        assert_eq!(text.last_words(), "line 999");
        assert_eq!(text.tail.len(), TAIL);
        assert!(text.for_log().ends_with("[8880 more bytes were dropped]"), "{}", text.for_log());
    }
}
