//! The worker's way to a client: dial, show the ticket, fetch; and dial again when a stream broke.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, Interval, sleep, timeout, timeout_at},
};

use super::{
    Begun, By, Cache, Network, Session, Transfer, TransferConfig, TransferError, Way,
    error::Interrupted,
    link::{Link, heartbeat, while_beating},
    payload::{Expected, Piece, Receiving},
    redials::Redials,
    trial::Trial,
};
use crate::{
    ids::{Address, FutureId, NodeId, Ticket},
    proto::{
        frames::{Frame, FromClient, FromWorker, Held, Hello, Stage, VERSION},
        refusal::{Payload, Refusal},
    },
    spool::Spooled,
};

/// The first pause before a worker dials again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a client's `accept` says.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// The client, which the handshake must prove.
    pub client: NodeId,
    /// Where it says it is.
    pub addresses: Vec<Address>,
    /// What lets this worker in.
    pub ticket: Ticket,
    /// The future that was claimed.
    pub future: FutureId,
    /// The largest future that is taken, in bytes.
    pub max_future: u64,
    /// The folder of the unnamed file that the future goes to.
    pub spool_directory: PathBuf,
}

/// A stream to a client.
pub(super) type ClientLink<N> = Link<<N as Network>::Stream, FromClient>;

impl<N: Network> Transfer<N> {
    /// Fetches the future of an invitation. The session that comes with it is how the result goes back; it tells the
    /// client all the while that this worker is alive.
    ///
    /// A stream that breaks while the future is fetched is dialled again for [`TransferConfig::grace`], and the future
    /// goes on at the byte where it broke; that nobody can be reached at first is an error at once. Dropping this future
    /// leaves the client to find out by itself.
    ///
    /// # Errors
    /// [`TransferError::Network`], [`TransferError::Refused`], [`TransferError::Cancelled`],
    /// [`TransferError::TooLarge`] (told before a byte of the future flows), [`TransferError::Digest`],
    /// [`TransferError::Stalled`], [`TransferError::ClientGone`], [`TransferError::Spool`] (a full disk),
    /// [`TransferError::Frame`], [`TransferError::Protocol`]. The client is told of each.
    pub async fn fetch(&self, invitation: Invitation) -> Result<(Spooled, Session), TransferError> {
        let (_, stays) = watch::channel(invitation.addresses.clone());
        self.fetch_from(invitation, stays, None).await
    }

    /// The same from a client that may move: whenever other addresses are said, a stream that is broken is dialled there at
    /// once, beside the addresses of the invitation. If the future begins as one that was made ready, its file is that one.
    ///
    /// # Errors
    /// As [`Transfer::fetch`].
    pub async fn fetch_from(
        &self,
        invitation: Invitation,
        moves: watch::Receiver<Vec<Address>>,
        begun: Option<Begun>,
    ) -> Result<(Spooled, Session), TransferError> {
        let redials = Redials::new(self.config);
        let due = Instant::now() + self.config.payload;
        let way = self.ways.to(&invitation.client);
        let (network, config, cache) = (Arc::clone(&self.network), self.config, self.cache.clone());
        let mut caller = Caller { network, config, invitation, moves, due, redials, way, cache, begun };
        let stream = caller.dial().await?;
        let mut call = caller.greet(stream, Stage::Fetch { held: None }).await;
        let mut partial = Partial::default();
        let mut trial = Trial::new(caller.way, Instant::now());
        loop {
            caller.redials.connected(partial.received());
            trial.stream(caller.way, Instant::now());
            let fetched = match call {
                Ok((link, answer)) => caller.receive(link, answer, &mut partial, &mut trial).await,
                Err(interrupted) => Err(interrupted),
            };
            caller.redials.broke(partial.received());
            call = match fetched {
                Ok(Received::Whole(link, future, max_result)) => {
                    self.ways.keep(&caller.invitation.client, &trial);
                    caller.begun = None;
                    return Ok((future, Session::over(caller, link, max_result)));
                }
                Ok(Received::Other(before, stream)) => {
                    let held = match caller.held(&mut partial).await {
                        Ok(held) => held,
                        Err(error) => {
                            before.close_with(&FromWorker::Refuse(error.refusal())).await;
                            return Err(error);
                        }
                    };
                    let call = caller.greet(stream, Stage::Fetch { held }).await;
                    // Only now, so that the client sees the new stream before the end of this one.
                    drop(before);
                    call
                }
                Err(Interrupted::Failed(error)) => return Err(error),
                Err(Interrupted::Broken(_)) if caller.due <= Instant::now() => return Err(caller.stalled()),
                Err(Interrupted::Broken(cause)) => match caller.held(&mut partial).await {
                    Ok(held) => Ok(caller.again(Stage::Fetch { held }, cause).await?),
                    Err(error) => {
                        // The client waits for another stream, on which it learns why there is no third one.
                        if let Ok((link, _)) = caller.again(Stage::Fetch { held: None }, cause).await {
                            link.close_with(&FromWorker::Refuse(error.refusal())).await;
                        }
                        return Err(error);
                    }
                },
            };
        }
    }
}

/// How fetching over one stream ended.
enum Received<N: Network> {
    /// The future, and the largest result that the client takes.
    Whole(ClientLink<N>, Spooled, u64),
    /// Another stream is there, by the other way, and should be tried.
    Other(ClientLink<N>, N::Stream),
}

/// What is here of a future, over all streams.
#[derive(Default)]
struct Partial {
    receiving: Option<Receiving>,
    /// Some of it was kept of earlier futures, so if it is not right, that may be why.
    has_kept: bool,
}

impl Partial {
    fn received(&self) -> u64 {
        self.receiving.as_ref().map_or(0, Receiving::received)
    }

    async fn held(&mut self) -> Result<Option<Held>, TransferError> {
        match &mut self.receiving {
            Some(receiving) => receiving.held().await,
            None => Ok(None),
        }
    }
}

/// Who dials whom with what.
pub(super) struct Caller<N: Network> {
    network: Arc<N>,
    pub(super) config: TransferConfig,
    pub(super) invitation: Invitation,
    /// Where the client says it is now.
    moves: watch::Receiver<Vec<Address>>,
    /// When the whole future must be here, however often the stream breaks.
    due: Instant,
    /// How often it may still dial again.
    pub(super) redials: Redials,
    /// The way that is tried first.
    way: Way,
    /// What is kept of earlier futures.
    pub(super) cache: Option<Cache>,
    /// What this one may begin with.
    pub(super) begun: Option<Begun>,
}

impl<N: Network> Caller<N> {
    /// Dials by the way that is kept, or by another one if that is not there.
    async fn dial(&mut self) -> Result<N::Stream, TransferError> {
        let by = By::First(self.way);
        let (stream, way) = self.network.dial(&self.invitation.client, &self.addresses(), by).await?;
        self.way = way;
        Ok(stream)
    }

    /// Where the client may be: as it said last and as it said first, in turns. Anybody can have said either, so neither may
    /// leave no room for the other.
    fn addresses(&self) -> Vec<Address> {
        let (last, first) = (self.moves.borrow(), &self.invitation.addresses);
        let mut both: Vec<Address> = Vec::new();
        for place in 0..last.len().max(first.len()) {
            for address in [last.get(place), first.get(place)].into_iter().flatten() {
                if !both.contains(address) {
                    both.push(address.clone());
                }
            }
        }
        both
    }

    fn stalled(&self) -> TransferError {
        TransferError::Stalled { what: Payload::Future, after: self.config.payload }
    }

    /// Says hello on a new stream and waits for the answer, for as long as the client says that it is alive: it may have
    /// to read what this side holds already.
    async fn greet(&self, stream: N::Stream, stage: Stage) -> Result<(ClientLink<N>, FromClient), Interrupted> {
        let mut link = Link::new(stream, &self.config);
        let Invitation { ticket, future, max_future, .. } = &self.invitation;
        let (version, ticket, future, max_future) = (VERSION, *ticket, future.clone(), *max_future);
        let keeps = self.cache.as_ref().map_or(0, Cache::largest);
        link.out.say(&FromWorker::Hello(Hello { version, ticket, future, max_future, keeps, stage })).await?;
        let answered = async {
            loop {
                match timeout(self.config.hello, link.frames.next()).await.map_err(io::Error::from)?? {
                    Frame::Control(FromClient::Heartbeat) => {}
                    answer => return Ok::<_, Interrupted>(answer),
                }
            }
        };
        let answer = timeout(self.config.payload, answered).await.map_err(io::Error::from)??;
        match answer {
            Frame::Control(FromClient::Refuse(Refusal::Busy)) => {
                Err(io::Error::other("the client is still busy with the stream before").into())
            }
            Frame::Control(FromClient::Refuse(refusal)) => Err(TransferError::from(refusal).into()),
            Frame::Control(FromClient::Cancel) => Err(TransferError::Cancelled.into()),
            Frame::Control(answer) => Ok((link, answer)),
            Frame::Progress(_) | Frame::Data(_) | Frame::Packed(_) => {
                Err(TransferError::Protocol("no answer to hello").into())
            }
        }
    }

    /// Dials again, with growing pauses, for as long as the client may wait for it.
    pub(super) async fn again(
        &mut self,
        stage: Stage,
        mut cause: io::Error,
    ) -> Result<(ClientLink<N>, FromClient), TransferError> {
        let after = self.config.grace;
        let until = Instant::now() + after;
        let (mut pause, mut moves) = (FIRST_PAUSE, self.moves.clone());
        tracing::info!(client = %self.invitation.client, future = %self.invitation.future, %cause, "stream broken");
        while self.redials.take() {
            let attempt = async {
                sleep(pause).await;
                let stream = self.dial().await.map_err(|error| Interrupted::Broken(io::Error::other(error)))?;
                self.greet(stream, stage).await
            };
            let attempted = tokio::select! {
                attempted = timeout_at(until, attempt) => attempted,
                // Whoever moved is not where this attempt looks for it.
                () = moved(&mut moves) => {
                    pause = FIRST_PAUSE;
                    continue;
                }
            };
            match attempted {
                Ok(Ok(call)) => return Ok(call),
                Ok(Err(Interrupted::Failed(error))) => return Err(error),
                Ok(Err(Interrupted::Broken(error))) => cause = error,
                Err(_) => break,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(TransferError::ClientGone { after, source: cause })
    }

    /// Receives the future that the answer announces, and says so, or why not.
    async fn receive(
        &mut self,
        mut link: ClientLink<N>,
        answer: FromClient,
        partial: &mut Partial,
        trial: &mut Trial,
    ) -> Result<Received<N>, Interrupted> {
        match self.spool(&mut link, answer, partial, trial).await {
            Ok(Spooling::Whole(future, max_result)) => {
                link.out.say(&FromWorker::Received).await?;
                Ok(Received::Whole(link, future, max_result))
            }
            Ok(Spooling::Other(stream)) => Ok(Received::Other(link, stream)),
            Err(Interrupted::Failed(TransferError::Digest { .. })) if partial.has_kept => {
                *partial = Partial::default();
                Err(self.distrust().await.into())
            }
            Err(Interrupted::Failed(error)) => {
                link.close_with(&FromWorker::Refuse(error.refusal())).await;
                Err(error.into())
            }
            Err(broken) => Err(broken),
        }
    }

    /// What is here of the future, for the next stream to go on with.
    async fn held(&mut self, partial: &mut Partial) -> Result<Option<Held>, TransferError> {
        match partial.held().await {
            Err(TransferError::Digest { .. }) if partial.has_kept => {
                *partial = Partial::default();
                self.distrust().await;
                Ok(None)
            }
            held => held,
        }
    }

    /// What was kept may be damaged: it is dropped, and the future begins anew without it.
    async fn distrust(&mut self) -> io::Error {
        tracing::warn!(client = %self.invitation.client, "pieces that were kept are damaged and dropped");
        let client = self.invitation.client.clone();
        if let Some(cache) = self.cache.take() {
            drop(spawn_blocking(move || cache.forget(&client)).await);
        }
        io::Error::other("pieces that were kept of earlier futures are damaged")
    }

    async fn spool(
        &mut self,
        link: &mut ClientLink<N>,
        answer: FromClient,
        partial: &mut Partial,
        trial: &mut Trial,
    ) -> Result<Spooling<N::Stream>, Interrupted> {
        let FromClient::Future { size, digest, max_result, start, pieces, whole } = answer else {
            return Err(TransferError::Protocol("no future").into());
        };
        let expected = Expected { what: Payload::Future, size, digest }.within(self.invitation.max_future)?;
        let (directory, cache) = (&self.invitation.spool_directory, &self.cache);
        let receiving = partial
            .receiving
            .get_or_insert_with(|| Receiving::new(expected, directory.clone(), cache.clone(), self.due, self.config));
        receiving.resume(expected, start)?;
        match whole {
            Some(_) if pieces > 0 => return Err(TransferError::Protocol("a whole future in pieces").into()),
            Some(whole) => drop(receiving.take(Piece::AsItIs(whole)).await?),
            None if pieces > 0 => partial.has_kept |= self.agree(link, receiving, size, pieces).await?,
            None => {}
        }
        if let Some((stream, way)) = self.pull(link, receiving, trial).await? {
            self.way = way;
            return Ok(Spooling::Other(stream));
        }
        let whole = partial.receiving.take().ok_or(TransferError::Over)?;
        let mut beat = heartbeat(&self.config);
        let whole = while_beating(&mut beat, &FromWorker::Heartbeat, &link.out, whole.finish()).await??;
        Ok(Spooling::Whole(whole, max_result))
    }

    /// Takes pieces until all are here, or until the other way to the client is open and worth a trial.
    async fn pull(
        &self,
        link: &mut ClientLink<N>,
        receiving: &mut Receiving,
        trial: &mut Trial,
    ) -> Result<Option<(N::Stream, Way)>, Interrupted> {
        let mut beat = heartbeat(&self.config);
        let (client, addresses) = (&self.invitation.client, self.addresses());
        let mut dialling = None;
        while !receiving.is_whole() {
            let heard = tokio::select! {
                heard = self.hear(link, &mut beat, receiving.late()) => heard?,
                error = receiving.failed() => return Err(error.into()),
                dialled = other(&mut dialling) => {
                    match dialled {
                        Ok(other) => return Ok(Some(other)),
                        Err(error) => {
                            tracing::debug!(%client, %error, "no other way");
                            trial.give_up();
                            dialling = None;
                        }
                    }
                    continue;
                }
            };
            let piece = match heard {
                Frame::Data(piece) => Piece::AsItIs(piece),
                Frame::Packed(piece) => Piece::Packed(piece),
                _ => return Err(TransferError::Protocol("a frame in the wrong place").into()),
            };
            // The piece before may be followed by many that were kept.
            while_beating(&mut beat, &FromWorker::Heartbeat, &link.out, receiving.take(piece)).await??;
            let (arrived, left) = receiving.way();
            if dialling.is_none()
                && let Some(way) = trial.note(arrived, left, Instant::now())
            {
                dialling = Some(Box::pin(self.network.dial(client, &addresses, By::Only(way))));
            }
        }
        Ok(None)
    }

    /// The next frame that is no heartbeat, while this side says that it is alive. Cancel-safe.
    pub(super) async fn hear(
        &self,
        link: &mut ClientLink<N>,
        beat: &mut Interval,
        late: impl Future<Output = TransferError>,
    ) -> Result<Frame<FromClient>, Interrupted> {
        tokio::pin!(late);
        loop {
            tokio::select! {
                frame = link.frames.next() => match frame? {
                    Frame::Control(FromClient::Heartbeat) => {}
                    Frame::Control(FromClient::Cancel) => return Err(TransferError::Cancelled.into()),
                    Frame::Control(FromClient::Refuse(refusal)) => return Err(TransferError::from(refusal).into()),
                    frame => return Ok(frame),
                },
                _ = beat.tick() => link.out.beat(&FromWorker::Heartbeat)?,
                error = &mut late => return Err(error.into()),
            }
        }
    }
}

/// How spooling from one stream ended.
enum Spooling<S> {
    Whole(Spooled, u64),
    Other(S),
}

/// Waits until other addresses are said; for ever when none will be. Cancel-safe.
async fn moved(moves: &mut watch::Receiver<Vec<Address>>) {
    if moves.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Waits for a dial, or for ever when there is none.
async fn other<F: Future + Unpin>(dialling: &mut Option<F>) -> F::Output {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}
