//! One SSH connection: signing in by key, and commands.

use std::{collections::HashMap, mem, net::SocketAddr, sync::Arc};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Pty,
    keys::{Algorithm, HashAlg, PublicKey},
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey},
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Identity, Shared, SignedIn, accounts,
    commands::{self, Command, Join},
    limits::CHANNELS,
    pipe::{self, Joined},
};
use crate::board::{
    ServeError,
    hub::{Entry, TooManyTopics},
};

/// The server's side of one connection.
pub(super) struct Connection {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Cuts this connection.
    cut: CancellationToken,
    /// Is cancelled when somebody with an account has signed in.
    signed_in: CancellationToken,
    who: Who,
    channels: HashMap<ChannelId, Place>,
    /// A key was refused, because no account has it.
    refused: bool,
    /// Every key of the client's was refused: now one without an account may come in, to use a code.
    at_the_door: bool,
    /// A stranger has an account now.
    joined: bool,
}

/// Who is at the other end.
enum Who {
    /// That is not known yet.
    Nobody,
    /// Somebody whose key has no account.
    Stranger(PublicKey),
    /// Somebody with an account.
    Member(Identity, SignedIn),
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
        let channels = HashMap::new();
        let who = Who::Nobody;
        Self { shared, address, cut, signed_in, who, channels, refused: false, at_the_door: false, joined: false }
    }

    async fn run(&mut self, channel: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let Some(place) = self.channels.get_mut(&channel) else { return session.channel_failure(channel) };
        let Awaited::Yes { joined, terminal } = mem::replace(&mut place.command, Awaited::No) else {
            return session.channel_failure(channel);
        };
        session.channel_success(channel)?;
        let command = commands::parse(command);
        match &self.who {
            Who::Member(identity, seat) => match command {
                Ok(Command::Join(join)) => match self.join(identity, seat, join) {
                    Ok(on_topic) => {
                        // If the channel's task has ended meanwhile, the client will hear of it from the SSH library.
                        let _ = joined.send(on_topic);
                        Ok(())
                    }
                    Err(error) => refuse(channel, &format!("{error}\r\n"), session),
                },
                command => self.tell(channel, identity, command, terminal, session),
            },
            Who::Stranger(key) => {
                let key = key.clone();
                match command {
                    Ok(Command::Redeem(code)) => match self.redeem(code, key).await {
                        Ok(welcome) => answer(channel, &welcome, session),
                        Err(why) => refuse(channel, &format!("{why}\r\n"), session),
                    },
                    _ => refuse(channel, &commands::no_account(&fingerprint(&key)), session),
                }
            }
            Who::Nobody => end(channel, 1, session),
        }
    }

    /// Answers what is no topic.
    fn tell(
        &self,
        channel: ChannelId,
        identity: &Identity,
        command: Result<Command, String>,
        terminal: bool,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match command {
            Ok(Command::User) => answer(channel, &commands::user(identity), session),
            Ok(Command::List) => {
                answer(channel, &commands::listing(&self.shared.hub.channels(&identity.user)), session)
            }
            Ok(Command::Redeem(_)) => {
                refuse(channel, &format!("your key has the account {} already\r\n", identity.user), session)
            }
            Ok(_) if terminal => answer(channel, &commands::HELP.replace('\n', "\r\n"), session),
            Ok(_) => answer(channel, commands::HELP, session),
            Err(why) => refuse(channel, &format!("{why}\r\n"), session),
        }
    }

    fn join(&self, identity: &Identity, seat: &SignedIn, join: Join) -> Result<Joined, TooManyTopics> {
        let direction = join.direction;
        let entry = Entry {
            user: identity.user.clone(),
            address: self.address.to_string(),
            topic: join.topic,
            direction,
            echo: join.echo,
            shares_with: join.shares_with,
            public: join.public,
        };
        let (member, inbox) = self.shared.hub.join_within(entry, self.shared.limits.topics_of_account)?;
        Ok(Joined { member, inbox, direction, pace: seat.pace.clone() })
    }

    /// Gives a stranger's key the account of a code; both sides of the answer are texts for the stranger.
    async fn redeem(&mut self, code: String, key: PublicKey) -> Result<String, String> {
        let (failures, address, now) = (&self.shared.failures, self.address.ip(), Instant::now());
        if !failures.may_try(address, now) || !failures.may_try_code(now) {
            return Err("too many wrong codes lately: try again in a minute".to_owned());
        }
        let (accounts, fingerprint) = (self.shared.accounts.clone(), fingerprint(&key));
        let joined = tokio::task::spawn_blocking(move || accounts.join(&code, &key)).await;
        match joined {
            Ok(Ok(account)) => {
                tracing::info!(user = %account.name, key = fingerprint, %address, "joined by a code");
                self.joined = true;
                self.shared.counts.joined();
                Ok(format!("welcome, {}: your key {fingerprint} has this account from now on\n", account.name))
            }
            Ok(Err(error @ ServeError::Code)) => {
                failures.add_wrong_code(address, now);
                Err(format!("{error}: ask the owner of the board for a new one"))
            }
            Ok(Err(error @ (ServeError::Account { .. } | ServeError::PublicKey { .. }))) => Err(error.to_string()),
            Ok(Err(error)) => {
                tracing::error!(error = crate::error_chain(&error), "cannot add a key");
                Err("this cannot be done now: tell the owner of the board".to_owned())
            }
            Err(_) => Err("this cannot be done now".to_owned()),
        }
    }

    async fn identify(&self, key: &PublicKey) -> Option<Identity> {
        self.shared.directory.identify(key).await
    }

    fn refuse_key(&mut self) -> Auth {
        self.refused = true;
        Auth::reject()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let failed = match self.who {
            Who::Nobody => self.refused,
            Who::Stranger(_) => !self.joined,
            Who::Member(..) => false,
        };
        if failed {
            tracing::debug!(address = %self.address, "nobody signed in: no account has the key");
            self.shared.failures.add(self.address.ip(), Instant::now());
            self.shared.counts.refused();
        }
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

fn refuse(channel: ChannelId, why: &str, session: &mut Session) -> Result<(), russh::Error> {
    session.extended_data(channel, 1, why.to_owned())?;
    end(channel, 1, session)
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
        let may_join = self.at_the_door && accounts::check_strength(offer.public_key).is_ok();
        Ok(if known || may_join { Auth::Accept } else { self.refuse_key() })
    }

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        // RSA with SHA-1 signatures is broken.
        if *key.algorithm == (Algorithm::Rsa { hash: None }) {
            return Ok(self.refuse_key());
        }
        let Some(identity) = self.identify(key.public_key).await else {
            if !self.at_the_door {
                return Ok(self.refuse_key());
            }
            // The place of a stranger is kept, and with it the time in which this connection ends.
            self.who = Who::Stranger(key.public_key.clone());
            return Ok(Auth::Accept);
        };
        let Some(seat) = self.shared.signed_in.enter(&identity, self.address, key.public_key, &self.cut) else {
            tracing::warn!(user = %identity.user, "too many connections of one account");
            return Ok(Auth::reject());
        };
        tracing::debug!(user = %identity.user, address = %self.address, "signed in");
        self.who = Who::Member(identity, seat);
        self.signed_in.cancel();
        Ok(Auth::Accept)
    }

    /// A client asks for this when all of its keys were refused, and so tells that it has no other. It is sent back to
    /// them once ("partial success", RFC 4252 section 5.1, after which OpenSSH offers every key again), and then a key
    /// without an account comes in to use a code. Were such keys let in at once, somebody with several keys would be a
    /// stranger whenever another one than the account's is offered first.
    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        _: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let partial_success = self.refused && !self.at_the_door;
        self.at_the_door |= self.refused;
        let only_keys = Some(MethodSet::from(&[MethodKind::PublicKey][..]));
        Ok(Auth::Reject { proceed_with_methods: only_keys, partial_success })
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
        tokio::spawn(pipe::run(read, write, to_join, self.cut.clone(), gone.clone()));
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
