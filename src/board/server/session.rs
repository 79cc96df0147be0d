//! One SSH connection: signing in by key, commands, and the lines of its pipes.
//!
//! Reading never waits for writing: lines that come in are posted by the connection's own loop, lines that go out have a
//! task and a queue for each pipe. So a client that does not read delays itself alone.

use std::{collections::HashMap, mem, net::SocketAddr, sync::Arc};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty,
    keys::{Algorithm, PublicKey},
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey},
};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Identity, Shared, SignedIn,
    commands::{self, Command, Join},
    limits::{CHANNELS, Pace},
};
use crate::{
    board::hub::{Direction, Ended, Entry, Inbox, Member},
    proto::lines::LineSplitter,
};

/// How many bytes are posted before the pace is looked at.
const STEP: usize = 1024;

/// How many bytes of waiting lines are sent as one piece.
const BATCH: usize = 16 * 1024;

/// The server's side of one connection.
pub(super) struct Connection {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Cuts this connection.
    cut: CancellationToken,
    /// Is cancelled when somebody has signed in.
    signed_in: CancellationToken,
    account: Option<(Identity, SignedIn)>,
    channels: HashMap<ChannelId, State>,
    pace: Pace,
}

/// What a channel is doing.
enum State {
    /// Waiting for its command.
    Open { write: ChannelWriteHalf<Msg>, terminal: bool },
    /// On a topic.
    Joined(Joined),
    /// Answered, or cut off.
    Done,
}

struct Joined {
    member: Member,
    direction: Direction,
    splitter: LineSplitter,
    /// Ends with the channel, even while it waits for a client that does not read.
    _writer: AbortOnDropHandle<()>,
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        address: SocketAddr,
        cut: CancellationToken,
        signed_in: CancellationToken,
    ) -> Self {
        let pace = Pace::new(Instant::now());
        Self { shared, address, cut, signed_in, account: None, channels: HashMap::new(), pace }
    }

    async fn run(&mut self, channel: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        // One command a channel: what is running already goes on.
        let (Some(state), Some((identity, _))) = (self.channels.get_mut(&channel), &self.account) else {
            return session.channel_failure(channel);
        };
        let (write, terminal) = match mem::replace(state, State::Done) {
            State::Open { write, terminal } => (write, terminal),
            other => {
                *state = other;
                return session.channel_failure(channel);
            }
        };
        session.channel_success(channel)?;
        match commands::parse(command) {
            Ok(Command::User) => answer(channel, &commands::user(identity), session),
            Ok(Command::List) => {
                answer(channel, &commands::listing(&self.shared.hub.channels(&identity.user)), session)
            }
            Ok(Command::Help) if terminal => answer(channel, &commands::HELP.replace('\n', "\r\n"), session),
            Ok(Command::Help) => answer(channel, commands::HELP, session),
            Ok(Command::Join(join)) => {
                let joined = self.join(identity, join, write);
                self.channels.insert(channel, State::Joined(joined));
                Ok(())
            }
            Err(why) => {
                session.extended_data(channel, 1, format!("{why}\r\n"))?;
                end(channel, 1, session)
            }
        }
    }

    fn join(&self, identity: &Identity, join: Join, write: ChannelWriteHalf<Msg>) -> Joined {
        let (member, inbox) = self.shared.hub.join(Entry {
            user: identity.user.clone(),
            address: self.address.to_string(),
            topic: join.topic,
            direction: join.direction,
            echo: join.echo,
            shares_with: join.shares_with,
            public: join.public,
        });
        let writer = tokio::spawn(deliver(inbox, write, self.cut.clone()));
        Joined {
            member,
            direction: join.direction,
            splitter: LineSplitter::new(),
            _writer: AbortOnDropHandle::new(writer),
        }
    }

    async fn identify(&self, key: &PublicKey) -> Option<Identity> {
        self.shared.directory.identify(key).await
    }
}

/// Sends the lines that wait for a client, until it is off the topic.
async fn deliver(mut inbox: Inbox, write: ChannelWriteHalf<Msg>, cut: CancellationToken) {
    let overflowed = inbox.overflowed();
    let sent = tokio::select! {
        () = overflowed.cancelled() => return cut.cancel(),
        sent = send_lines(&mut inbox, &write) => sent,
    };
    if sent.is_ok() && inbox.ended() == Ended::AccessEnded {
        // If this cannot be sent, the connection is gone, which is what it would say.
        let _ = say_goodbye(&write).await;
    }
}

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

async fn say_goodbye(write: &ChannelWriteHalf<Msg>) -> Result<(), russh::Error> {
    write.extended_data_bytes(1, format!("{}\r\n", Ended::AccessEnded)).await?;

    write.exit_status(1).await?;
    write.eof().await?;
    write.close().await
}

fn answer(channel: ChannelId, text: &str, session: &mut Session) -> Result<(), russh::Error> {
    session.data(channel, text.to_owned())?;
    end(channel, 0, session)
}

fn end(channel: ChannelId, status: u32, session: &mut Session) -> Result<(), russh::Error> {
    session.exit_status_request(channel, status)?;
    session.eof(channel)?;
    session.close(channel)
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        let known = self.identify(offer.public_key).await.is_some();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        // RSA with SHA-1 signatures is broken.
        let is_sound = *key.algorithm != Algorithm::Rsa { hash: None };
        let Some(identity) = self.identify(key.public_key).await.filter(|_| is_sound) else {
            return Ok(Auth::reject());
        };
        let Some(seat) = self.shared.signed_in.enter(&identity, key.public_key, &self.cut) else {
            tracing::warn!(user = %identity.user, "too many connections of one account");
            return Ok(Auth::reject());
        };
        tracing::debug!(user = %identity.user, address = %self.address, "signed in");
        self.account = Some((identity, seat));
        self.signed_in.cancel();
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.channels.len() >= CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // What comes in is taken from the callbacks below, so the reading half is not needed.
        let (_, write) = channel.split();
        self.channels.insert(write.id(), State::Open { write, terminal: false });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        let Some(State::Joined(joined)) = self.channels.get_mut(&channel) else { return Ok(()) };
        let member = &joined.member;
        joined.splitter.finish(|line| member.post(line));
        if joined.direction == Direction::Publish {
            self.channels.insert(channel, State::Done);
            return end(channel, 0, session);
        }
        // A reader whose standard input has ended goes on reading.
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        let Some(State::Joined(joined)) = self.channels.get_mut(&channel) else { return Ok(()) };
        for step in data.chunks(STEP) {
            let (member, mut cost) = (&joined.member, 0.0);
            joined.splitter.push(step, |line| {
                cost += Pace::cost(line);
                if !line.is_empty() {
                    member.post(line);
                }
            });
            if let Some(wait) = self.pace.spend(cost, Instant::now()) {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.cut.cancelled() => return Ok(()),
                }
            }
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.get_mut(&channel) {
            Some(State::Open { terminal, .. }) => {
                *terminal = true;
                session.channel_success(channel)
            }
            _ => session.channel_failure(channel),
        }
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.run(channel, b"help", session).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.run(channel, command, session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}
