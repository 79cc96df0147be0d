//! What is said over one stream of a delivery.

use std::{io, time::Duration};

use tokio::time::{Instant, Interval, sleep_until, timeout};

use super::{DeliveryEvent, Outcome, Run};
use crate::{
    proto::{
        frames::{Frame, FromClient, FromWorker, Held, Hello, Stage},
        manifest::{NAMES_PER_FRAME, PieceSet},
        refusal::Payload,
    },
    sandbox::Provenance,
    transfer::{
        Grant, Network, TransferError,
        error::Interrupted,
        grants::Attachment,
        link::{LAST_WORD, Link, Outbox, heartbeat, while_beating},
        payload::{Cutting, Expected, Opening, Piece, Receiving, Sending, advance},
    },
};

/// How a conversation over one stream ended well.
pub(super) enum End<S> {
    Delivered(Outcome),
    /// The worker dialled again before this side saw that the stream is broken.
    Replaced(Attachment<S>),
}

/// What is under way on one stream.
struct Talk {
    /// The future's pieces were named, and the worker has not said yet which it lacks.
    named: Option<Opening>,
    sending: Option<Sending>,
    /// The result was announced on this stream.
    announced: bool,
    /// When the worker must have the whole future.
    due: Instant,
    beat: Interval,
}

impl Hello {
    /// Bytes of the future that the worker says it holds.
    pub(super) fn held(&self) -> u64 {
        match self.stage {
            Stage::Fetch { held: Some(held) } => held.size,
            _ => 0,
        }
    }
}

impl<N: Network> Run<N> {
    /// Talks over one stream and ends it with the word that belongs there. `bytes` is how far the payload that is on its
    /// way came.
    pub(super) async fn converse(
        &mut self,
        attachment: Attachment<N::Stream>,
        bytes: &mut u64,
    ) -> Result<End<N::Stream>, Interrupted> {
        let Attachment { mut link, hello } = attachment;
        self.events.mention(DeliveryEvent::Connected);
        let end = match self.answer(&link.out, &hello).await {
            Ok(mut talk) => {
                let end = self.talk(&mut link, &mut talk).await;
                *bytes = self.received() + talk.sending.as_ref().map_or(0, Sending::sent);
                end
            }
            Err(error) => Err(error),
        };
        let end = match end {
            Err(Interrupted::Broken(cause)) => self.part(&mut link, cause).await,
            end => end,
        };
        match &end {
            Ok(End::Delivered(_)) => link.close_with(&FromClient::Acknowledge).await,
            Err(Interrupted::Failed(TransferError::Cancelled)) => link.close_with(&FromClient::Cancel).await,
            Err(Interrupted::Failed(error)) => link.close_with(&FromClient::Refuse(error.refusal())).await,
            Ok(End::Replaced(_)) | Err(Interrupted::Broken(_)) => drop(link),
        }
        end
    }

    /// A worker that will not go on says why and takes nothing more: when writing to it fails, that may still have to be
    /// heard. A stream that is really broken ends at once.
    async fn part(
        &mut self,
        link: &mut Link<N::Stream, FromWorker>,
        cause: io::Error,
    ) -> Result<End<N::Stream>, Interrupted> {
        let refused = async {
            loop {
                match link.frames.next().await {
                    Ok(Frame::Control(FromWorker::Refuse(refusal))) => return Some(refusal),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        };
        tokio::select! {
            () = self.cancel.cancelled() => Err(TransferError::Cancelled.into()),
            Some(next) = self.attachments.recv() => Ok(End::Replaced(next)),
            refused = timeout(LAST_WORD, refused) => match refused {
                Ok(Some(refusal)) => Err(TransferError::from(refusal).into()),
                Ok(None) | Err(_) => Err(cause.into()),
            },
        }
    }

    /// Answers the hello.
    async fn answer(&mut self, out: &Outbox, hello: &Hello) -> Result<Talk, Interrupted> {
        let mut beat = heartbeat(&self.grants.config);
        let (named, sending) = match hello.stage {
            Stage::Resume => {
                let held = match &mut self.receiving {
                    Some((receiving, _)) => receiving.held().await?,
                    None => None,
                };
                out.say(&FromClient::Resume { held }).await?;
                self.note_sent();
                (None, None)
            }
            Stage::Fetch { .. } if self.sent => return Err(TransferError::Protocol("fetched twice").into()),
            Stage::Fetch { held } => self.offer(out, &mut beat, hello, held).await?,
        };
        let due = *self.future_due.get_or_insert_with(|| Instant::now() + self.grants.config.payload);
        Ok(Talk { named, sending, announced: false, due, beat })
    }

    /// Announces the future, from where the worker has it, and names its pieces to a worker that keeps them; else what
    /// follows is known.
    async fn offer(
        &mut self,
        out: &Outbox,
        beat: &mut Interval,
        hello: &Hello,
        held: Option<Held>,
    ) -> Result<(Option<Opening>, Option<Sending>), Interrupted> {
        let Self { grant: Grant { payload, max_result, .. }, cutting, cancel, .. } = self;
        let (size, digest, max_result) = (payload.size(), payload.digest(), *max_result);
        Expected { what: Payload::Future, size, digest }.within(hello.max_future)?;
        let file = payload.file();
        let announcing = async {
            let opening = Opening::new(file, size, held);
            let opening = while_beating(beat, &FromClient::Heartbeat, out, opening).await??;
            let manifest = if size <= hello.keeps && opening.start < size {
                let cutting = match cutting {
                    Some(cutting) => cutting,
                    None => cutting.insert(Cutting::new(payload)?),
                };
                while_beating(beat, &FromClient::Heartbeat, out, cutting.manifest()).await??
            } else {
                None
            };
            let names = manifest.map_or(&[][..], |manifest| manifest.names());
            let pieces = u32::try_from(names.len()).unwrap_or(0);
            let (start, whole) = (opening.start, opening.whole.clone());
            out.say(&FromClient::Future { size, digest, max_result, start, pieces, whole }).await?;
            for names in names.chunks(NAMES_PER_FRAME) {
                let names = FromClient::Pieces(names.to_vec());
                while_beating(beat, &FromClient::Heartbeat, out, out.follow(&names)).await??;
            }
            Ok::<_, Interrupted>((opening, pieces > 0))
        };
        let (opening, is_named) = tokio::select! {
            () = cancel.cancelled() => return Err(TransferError::Cancelled.into()),
            announced = announcing => announced?,
        };
        Ok(if is_named { (Some(opening), None) } else { (None, Some(opening.rest())) })
    }

    async fn talk(
        &mut self,
        link: &mut Link<N::Stream, FromWorker>,
        talk: &mut Talk,
    ) -> Result<End<N::Stream>, Interrupted> {
        loop {
            let listens = self.events.has_room();
            let receiving =
                self.receiving.as_ref().filter(|_| talk.announced && listens).map(|(receiving, _)| receiving);
            let sending = talk.sending.as_mut().filter(|sending| !sending.is_done());
            tokio::select! {
                () = self.cancel.cancelled() => return Err(TransferError::Cancelled.into()),
                Some(next) = self.attachments.recv() => return Ok(End::Replaced(next)),
                frame = link.frames.next(), if listens => self.hear(frame?, talk).await?,
                () = self.events.room(), if !listens => self.excuse(link),
                sent = advance(sending, &link.out) => {
                    let total = self.grant.payload.size();
                    sent?.into_iter().for_each(|bytes| self.events.mention(DeliveryEvent::Sending { bytes, total }));
                }
                _ = talk.beat.tick() => link.out.beat(&FromClient::Heartbeat)?,
                error = late(receiving, talk.due, self.sent, self.grants.config.payload) => return Err(error.into()),
            }
            let whole = |(receiving, _): &mut (Receiving, Provenance)| talk.announced && receiving.is_whole();
            if let Some((receiving, provenance)) = self.receiving.take_if(whole) {
                return Ok(End::Delivered((receiving.finish().await?, provenance)));
            }
        }
    }

    /// The reader of the events took its time, in which nobody listened to the worker.
    fn excuse(&mut self, link: &mut Link<N::Stream, FromWorker>) {
        link.frames.excuse();
        self.receiving.iter_mut().for_each(|(receiving, _)| receiving.excuse());
    }

    /// Acts on one frame.
    async fn hear(&mut self, frame: Frame<FromWorker>, talk: &mut Talk) -> Result<(), Interrupted> {
        match frame {
            Frame::Control(FromWorker::Heartbeat) => {}
            Frame::Control(FromWorker::Lacks(lacking)) => self.send(&lacking, talk).await?,
            Frame::Control(FromWorker::Received) => match &talk.sending {
                Some(sending) if sending.is_done() => self.note_sent(),
                _ => return Err(TransferError::Protocol("received what was not sent").into()),
            },
            Frame::Control(FromWorker::Begin { provenance }) if self.sent => {
                if !std::mem::replace(&mut self.begun, true) {
                    self.events.must(DeliveryEvent::Begun(provenance));
                }
            }
            Frame::Control(FromWorker::Result { size, digest, provenance, start, whole })
                if self.sent && !talk.announced =>
            {
                let expected = Expected { what: Payload::Result, size, digest }.within(self.grant.max_result)?;
                self.expect(expected, provenance, start)?;
                talk.announced = true;
                if let Some(whole) = whole {
                    self.take(Piece::AsItIs(whole), talk).await?;
                }
            }
            Frame::Control(FromWorker::Printed(text)) if self.begun && !talk.announced => {
                if !std::mem::replace(&mut self.printed, true) {
                    self.events.must(DeliveryEvent::Printed(text.into()));
                }
            }
            Frame::Control(FromWorker::Refuse(refusal)) => return Err(TransferError::from(refusal).into()),
            Frame::Progress(rds) if self.begun => self.events.must(DeliveryEvent::Progress(rds)),
            Frame::Data(piece) => self.take(Piece::AsItIs(piece), talk).await?,
            Frame::Packed(piece) => self.take(Piece::Packed(piece), talk).await?,
            Frame::Control(_) | Frame::Progress(_) => {
                return Err(TransferError::Protocol("a frame in the wrong place").into());
            }
        }
        Ok(())
    }

    /// Begins to send the pieces that the worker lacks.
    async fn send(&mut self, lacking: &PieceSet, talk: &mut Talk) -> Result<(), TransferError> {
        let unasked = || TransferError::Protocol("an answer that nobody asked for");
        let opening = talk.named.take().ok_or_else(unasked)?;
        let manifest = match &mut self.cutting {
            Some(cutting) => cutting.manifest().await?,
            None => None,
        };
        let manifest = manifest.filter(|manifest| lacking.is_of(manifest.names().len())).ok_or_else(unasked)?;
        let sending = talk.sending.insert(opening.pieces(manifest, lacking));
        let (bytes, total) = (sending.sent(), self.grant.payload.size());
        self.events.mention(DeliveryEvent::Sending { bytes, total });
        Ok(())
    }

    /// Expects a result from this position on.
    fn expect(&mut self, expected: Expected, provenance: Provenance, start: u64) -> Result<(), TransferError> {
        let config = self.grants.config;
        let end = *self.result_due.get_or_insert_with(|| Instant::now() + config.payload);
        let mut receiving = match self.receiving.take() {
            Some((receiving, _)) => receiving,
            None => Receiving::new(expected, self.grant.spool_directory.clone(), None, end, config),
        };
        receiving.resume(expected, start)?;
        self.receiving = Some((receiving, provenance));
        Ok(())
    }

    async fn take(&mut self, piece: Piece, talk: &Talk) -> Result<(), TransferError> {
        let unasked = TransferError::Protocol("data that were not announced");
        let (receiving, _) = self.receiving.as_mut().filter(|_| talk.announced).ok_or(unasked)?;
        let total = receiving.size();
        if let Some(bytes) = receiving.take(piece).await? {
            self.events.mention(DeliveryEvent::Receiving { bytes, total });
        }
        Ok(())
    }

    fn note_sent(&mut self) {
        if !std::mem::replace(&mut self.sent, true) {
            // Of a small future, or one whose last pieces were kept, nothing was told yet.
            let total = self.grant.payload.size();
            self.events.mention(DeliveryEvent::Sending { bytes: total, total });
            self.events.must(DeliveryEvent::Sent);
        }
    }
}

/// Waits until a payload is late; for ever while none is under way.
async fn late(receiving: Option<&Receiving>, due: Instant, sent: bool, after: Duration) -> TransferError {
    match receiving {
        Some(receiving) => receiving.late().await,
        None if sent => std::future::pending().await,
        None => {
            sleep_until(due).await;
            TransferError::Stalled { what: Payload::Future, after }
        }
    }
}
