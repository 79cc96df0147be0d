//! One SSH connection: signing in by key, and commands.

use std::{
    collections::HashMap,
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, Pty,
    keys::{Algorithm, PublicKey},
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey},
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Identity, Shared, SignedIn,
    commands::{self, Command, Join},
    limits::{CHANNELS, Pace},
    pipe::{self, Joined},
};
use crate::board::hub::Entry;

/// The server's side of one connection.
pub(super) struct Connection {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Cuts this connection.
    cut: CancellationToken,
    /// Is cancelled when somebody has signed in.
    signed_in: CancellationToken,
    account: Option<(Identity, SignedIn)>,
    channels: HashMap<ChannelId, Place>,
    pace: Arc<Mutex<Pace>>,
}

/// A channel as its connection sees it.
struct Place {
    command: Awaited,
    /// Tells what carries its lines that the channel is gone, even while it waits for a client that does not read.
    _gone: DropGuard,
}

/// Whether a channel has had its command.
enum Awaited {
    /// Not yet.
    Yes { joined: oneshot::Sender<Joined>, terminal: bool },
    /// Each has one.
    No,
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        address: SocketAddr,
        cut: CancellationToken,
        signed_in: CancellationToken,
    ) -> Self {
        let pace = Arc::new(Mutex::new(Pace::new(Instant::now())));
        Self { shared, address, cut, signed_in, account: None, channels: HashMap::new(), pace }
    }

    async fn run(&mut self, channel: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let (Some(place), Some((identity, _))) = (self.channels.get_mut(&channel), &self.account) else {
            return session.channel_failure(channel);
        };
        let Awaited::Yes { joined, terminal } = mem::replace(&mut place.command, Awaited::No) else {
            return session.channel_failure(channel);
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
                // If the channel's task has ended meanwhile, the client will hear of it from the SSH library.
                let _ = joined.send(self.join(identity, join));
                Ok(())
            }
            Err(why) => {
                session.extended_data(channel, 1, format!("{why}\r\n"))?;
                end(channel, 1, session)
            }
        }
    }

    fn join(&self, identity: &Identity, join: Join) -> Joined {
        let direction = join.direction;
        let (member, inbox) = self.shared.hub.join(Entry {
            user: identity.user.clone(),
            address: self.address.to_string(),
            topic: join.topic,
            direction,
            echo: join.echo,
            shares_with: join.shares_with,
            public: join.public,
        });
        Joined { member, inbox, direction }
    }

    async fn identify(&self, key: &PublicKey) -> Option<Identity> {
        self.shared.directory.identify(key).await
    }
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
        let (joined, to_join) = oneshot::channel();
        let (read, write) = channel.split();
        let id = write.id();
        let gone = CancellationToken::new();
        tokio::spawn(pipe::run(read, write, to_join, Arc::clone(&self.pace), self.cut.clone(), gone.clone()));
        let command = Awaited::Yes { joined, terminal: false };
        self.channels.insert(id, Place { command, _gone: gone.drop_guard() });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
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
            Some(Place { command: Awaited::Yes { terminal, .. }, .. }) => {
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
