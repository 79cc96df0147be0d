//! One SSH connection: signing in by key, and commands.

use std::{collections::HashMap, mem, net::SocketAddr, sync::Arc};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, Pty,
    keys::{Algorithm, HashAlg, PublicKey},
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey},
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Identity, Shared, SignedIn, accounts,
    commands::{self, Command, Join},
    limits::{CHANNELS, CHANNELS_EVER},
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
    /// How many there were in all.
    opened: u32,
    /// The first key that was refused, because no account has it.
    refused: Option<String>,
    /// The first key without an account whose owner has proven to be there.
    proven: Option<PublicKey>,
    /// A stranger has an account now.
    joined: bool,
}

/// Who is at the other end.
enum Who {
    /// That is not known yet.
    Nobody,
    /// Somebody whose keys have no account.
    Stranger,
    /// Somebody with an account.
    Member(Identity, SignedIn),
}

/// A channel as its connection sees it.
struct Place {
    command: Awaited,
    /// Tells what carries its lines that the channel is gone, even while it waits for a client that does not read.
    _gone: DropGuard,
    /// Is cancelled when what carries its lines has ended.
    over: CancellationToken,
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
        Self {
            shared,
            address,
            cut,
            signed_in,
            who: Who::Nobody,
            channels: HashMap::new(),
            opened: 0,
            refused: None,
            proven: None,
            joined: false,
        }
    }

    async fn run(&mut self, channel: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let Some(place) = self.channels.get_mut(&channel) else { return session.channel_failure(channel) };
        let Awaited::Yes { joined, terminal } = mem::replace(&mut place.command, Awaited::No) else {
            return session.channel_failure(channel);
        };
        session.channel_success(channel)?;
        match (&self.who, commands::parse(command)) {
            (Who::Member(identity, seat), Ok(Command::Join(join))) => match self.join(identity, seat, join) {
                Ok(on_topic) => {
                    // If the channel's task has ended meanwhile, the client will hear of it from the SSH library.
                    let _ = joined.send(on_topic);
                    return Ok(());
                }
                Err(error) => refuse(channel, &format!("{error}\r\n"), session)?,
            },
            (Who::Member(identity, _), command) => self.tell(channel, identity, command, terminal, session)?,
            (Who::Stranger, command) => self.tell_stranger(channel, command, session).await?,
            (Who::Nobody, _) => end(channel, 1, session)?,
        }
        // The SSH library does not tell when a client closes a channel that the board has closed.
        self.channels.remove(&channel);
        Ok(())
    }

    /// Answers somebody without an account.
    async fn tell_stranger(
        &mut self,
        channel: ChannelId,
        command: Result<Command, String>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match command {
            Ok(Command::Redeem(code)) => match self.redeem(code).await {
                Ok(welcome) => answer(channel, &welcome, session),
                Err(why) => refuse(channel, &format!("{why}\r\n"), session),
            },
            _ => refuse(channel, &commands::no_account(&self.known_by()), session),
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
    async fn redeem(&mut self, code: String) -> Result<String, String> {
        let (failures, address, now) = (&self.shared.failures, self.address.ip(), Instant::now());
        if !failures.may_try(address, now) || !failures.may_try_code(now) {
            return Err("too many wrong codes lately: try again in a minute".to_owned());
        }
        // The same for every reason: that nobody is invited at the moment is nothing for strangers either.
        let wrong = || {
            failures.add_wrong_code(address, now);
            Err(format!(
                "{}, or your key could not be proven: ask the owner of the board for a new one",
                ServeError::Code
            ))
        };
        let Some(key) = self.proven.clone() else { return wrong() };
        let (accounts, fingerprint) = (self.shared.accounts.clone(), fingerprint(&key));
        let joined = tokio::task::spawn_blocking(move || accounts.join(&code, &key)).await;
        match joined {
            Ok(Ok(account)) => {
                tracing::info!(user = %account.name, key = fingerprint, %address, "joined by a code");
                self.joined = true;
                self.shared.counts.joined();
                Ok(format!("welcome, {}: your key {fingerprint} has this account from now on\n", account.name))
            }
            Ok(Err(ServeError::Code)) => wrong(),
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

    fn refuse_key(&mut self, key: &PublicKey) -> Auth {
        self.refused.get_or_insert_with(|| fingerprint(key));
        Auth::reject()
    }

    /// The key that a stranger would have an account by.
    fn known_by(&self) -> String {
        self.proven.as_ref().map(fingerprint).or_else(|| self.refused.clone()).unwrap_or_default()
    }

    /// Whether somebody's key may be proven though it has no account: it is the first, and there is a code to use it with.
    async fn may_prove(&self, key: &PublicKey) -> bool {
        if self.proven.is_some() || accounts::check_strength(key).is_err() {
            return false;
        }
        let accounts = self.shared.accounts.clone();
        let invites = tokio::task::spawn_blocking(move || accounts.invites()).await;
        invites.is_ok_and(|invites| invites.is_ok_and(|invites| !invites.is_empty()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let failed = match self.who {
            Who::Nobody => self.refused.is_some(),
            Who::Stranger => !self.joined,
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
        let key = offer.public_key;
        let may = self.identify(key).await.is_some() || self.may_prove(key).await;
        Ok(if may { Auth::Accept } else { self.refuse_key(key) })
    }

    /// A key without an account is noted once its owner has proven to be there, and then refused in a way ("partial
    /// success", RFC 4252 section 5.1) after which OpenSSH offers all keys from the beginning: were it let in at once,
    /// somebody with several keys would be a stranger whenever another one than the account's is offered first.
    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        // RSA with SHA-1 signatures is broken.
        if *key.algorithm == (Algorithm::Rsa { hash: None }) {
            return Ok(self.refuse_key(key.public_key));
        }
        let Some(identity) = self.identify(key.public_key).await else {
            let refused = self.refuse_key(key.public_key);
            if self.proven.is_some() {
                return Ok(refused);
            }
            self.proven = Some(key.public_key.clone());
            return Ok(Auth::Reject { proceed_with_methods: None, partial_success: true });
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

    /// A client asks for this when all of its keys were refused, and so tells that none has an account. It comes in as a
    /// stranger, who keeps a stranger's place and time, and can do nothing but use a code with the key that was proven.
    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        _: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        if self.refused.is_none() {
            return Ok(Auth::reject());
        }
        self.who = Who::Stranger;
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.retain(|_, place| !place.over.is_cancelled());
        if self.channels.len() >= CHANNELS || self.opened >= CHANNELS_EVER {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let (joined, to_join) = oneshot::channel();
        let (read, write) = channel.split();
        let id = write.id();
        self.opened = self.opened.saturating_add(1);
        let (gone, over) = (CancellationToken::new(), CancellationToken::new());
        let (running, ended) =
            (pipe::run(read, write, to_join, self.cut.clone(), gone.clone()), over.clone().drop_guard());
        tokio::spawn(async move {
            running.await;
            drop(ended);
        });
        let command = Awaited::Yes { joined, terminal: false };
        self.channels.insert(id, Place { command, _gone: gone.drop_guard(), over });
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
