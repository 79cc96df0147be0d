//! One channel of a connection: it waits for its command, and carries the lines of a topic both ways.
//!
//! The SSH library stops reading a connection while a channel's packets are not taken, so whoever holds the reading half
//! takes them or drops it. A channel that is on a topic takes them at the pace that is allowed; its connection goes on
//! meanwhile, until [`super::limits::PACKETS`] wait.

use std::{pin::pin, time::Duration};

use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, server::Msg};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{limits::COMMAND, pace::Pace};
use crate::{
    board::hub::{Direction, Ended, Inbox, Member},
    proto::lines::LineSplitter,
};

/// How many bytes are posted before the pace is looked at.
const STEP: usize = 1024;

/// How many bytes of waiting lines are sent as one piece.
const BATCH: usize = 16 * 1024;

/// How long what a client wrote before it went may take to be posted.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a channel is to do once it is on a topic.
pub(super) struct Joined {
    pub(super) member: Member,
    pub(super) inbox: Inbox,
    pub(super) direction: Direction,
    pub(super) pace: Pace,
}

/// The life of one channel. It ends, and lets go of the packets, when the command is answered elsewhere (the sender of
/// `joined` is dropped), when there is none in time, or when the connection is cut. When the client goes (`gone`), what it
/// wrote before is still posted: the last line of a peer that leaves is the one that withdraws its futures.
pub(super) async fn run(
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    joined: oneshot::Receiver<Joined>,
    cut: CancellationToken,
    gone: CancellationToken,
) {
    let joined = tokio::select! {
        joined = joined => joined,
        () = cut.cancelled() => return,
        () = sleep(COMMAND) => {
            // If this cannot be sent, the connection is gone, which is as good.
            let _ = write.close().await;
            return;
        }
    };
    if let Ok(Joined { member, mut inbox, direction, pace }) = joined {
        let overflowed = inbox.overflowed();
        let mut posting = pin!(post_lines(read, &member, direction, &pace, &gone));
        let status = tokio::select! {
            () = cut.cancelled() => return,
            () = overflowed.cancelled() => return cut.cancel(),
            () = &mut posting => 0,
            Ok(()) = send_lines(&mut inbox, &write) => 1,
            () = gone.cancelled() => {
                // Who wrote more than the pace allows and went has lost the rest.
                let _ = timeout(LAST_WORDS, posting).await;
                return;
            }
        };
        // As above.
        let _ = say_goodbye(&write, status).await;
    }
}

/// Posts what the client writes. Ends with the client's input if that is all that it came for, else when it is gone.
async fn post_lines(
    mut read: ChannelReadHalf,
    member: &Member,
    direction: Direction,
    pace: &Pace,
    gone: &CancellationToken,
) {
    let mut splitter = LineSplitter::new();
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => post(&data, &mut splitter, member, pace).await,
            ChannelMsg::Eof => {
                splitter.finish(|line| member.post(line));
                break;
            }
            _ => {}
        }
    }
    // Nothing comes any more; if something does, it must not wait here.
    drop(read);
    if direction != Direction::Publish {
        gone.cancelled().await;
    }
}

async fn post(data: &[u8], splitter: &mut LineSplitter, member: &Member, pace: &Pace) {
    for step in data.chunks(STEP) {
        let mut lines = 0u32;
        splitter.push(step, |line| {
            lines = lines.saturating_add(1);
            if !line.is_empty() {
                member.post(line);
            }
        });
        let wait = pace.spend(Pace::cost(lines, step.len()), Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

/// Sends the lines that wait for a client, until it is off the topic.
async fn send_lines(inbox: &mut Inbox, write: &ChannelWriteHalf<Msg>) -> Result<(), russh::Error> {
    while let Some(line) = inbox.next().await {
        let mut batch = Vec::with_capacity(line.len().saturating_add(1));
        let mut next = Some(line);
        while let Some(line) = next {
            batch.extend_from_slice(&line);
            batch.push(b'\n');
            next = if batch.len() < BATCH { inbox.try_next() } else { None };
        }
        write.data_bytes(batch).await?;
    }
    Ok(())
}

async fn say_goodbye(write: &ChannelWriteHalf<Msg>, status: u32) -> Result<(), russh::Error> {
    if status != 0 {
        write.extended_data_bytes(1, format!("{}\r\n", Ended::AccessEnded)).await?;
    }
    write.exit_status(status).await?;
    write.eof().await?;
    write.close().await
}
