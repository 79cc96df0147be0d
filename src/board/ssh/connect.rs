//! From an address to a connection that is signed in, with our own SSH; through other hosts where that is configured.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use russh::{
    ChannelMsg, Disconnect, Preferred, SshId,
    client::{self, DisconnectReason},
    keys::PublicKeyOrCertificate,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    SshBoardConfig,
    identity::Files,
    known_hosts::KnownHost,
    session::{Answer, Channel, Reading, Said, Writing},
    settings::{self, Family, Host, Target},
    sign_in::sign_in,
};
use crate::{board::BoardError, text};

/// How long each step may take, unless `ConnectTimeout` says otherwise: the TCP connection, the handshake, one command.
const STEP: Duration = Duration::from_secs(15);
/// Silence after which the board is asked whether it is there; after three such times the connection counts as broken.
const KEEPALIVE: Duration = Duration::from_secs(8);
/// How long nothing at all may move.
const DEAD: Duration = Duration::from_secs(26);
/// What the board may send of a channel before we say that it was taken, in bytes. Saying so waits behind the lines that we
/// post, which a board lets in no faster than its pace: with little room, whoever posts much would be too slow a reader.
const WINDOW: u32 = 2 << 20;
/// Addresses of one host that are tried.
const MOST_ADDRESSES: usize = 16;

/// A connection that is signed in. Dropping it closes it.
pub(super) struct Connection {
    handle: client::Handle<Client>,
    pub(super) host: String,
    /// The address of this machine from which it goes, to the first host.
    pub(super) from: Option<IpAddr>,
    /// The connections that this one goes through, the nearest first.
    _through: Vec<client::Handle<Client>>,
}

/// What carries the bytes of a connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A host that is to be connected to, with everything read that is read from the disk.
pub(super) struct Stop {
    pub(super) host: Host,
    known: KnownHost,
    files: Files,
}

/// Reads what there is to know about a host and those on the way to it.
///
/// # Errors
/// Those of [`settings::route`], [`KnownHost::load`] and [`Files::read`].
pub(super) async fn plan(config: &SshBoardConfig, target: &Target) -> Result<Vec<Stop>, BoardError> {
    let (config, target) = (config.clone(), target.clone());
    let host = target.host.clone();
    let read = move || {
        let stop = |host: Host| {
            let accept_new = host.accept_new.unwrap_or(false) || config.accept_new && !host.is_hop;
            let known = KnownHost::load(&host, &config.known_hosts, accept_new)?;
            Ok(Stop { files: Files::read(&config, &host)?, known, host })
        };
        settings::route(&config, &target)?.into_iter().map(stop).collect()
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or(Err(BoardError::Connection { host, source: russh::Error::Disconnect }))
}

impl Connection {
    /// Connects, checks each host's key and signs in.
    ///
    /// # Errors
    /// [`BoardError`], each with what to do about it where there is something.
    pub(super) async fn open(config: &SshBoardConfig, target: &Target) -> Result<Self, BoardError> {
        let open_before = config.memory.count();
        // Boxed, because what a handshake needs should not stay in every future that may have to connect again.
        match Box::pin(Self::dial(config, target)).await {
            // Whoever asks for a passphrase may wait for longer than the board does.
            Err(error) if config.memory.count() > open_before => {
                tracing::debug!(%error, "once more, with the key that is open now");
                Box::pin(Self::dial(config, target)).await
            }
            result => result,
        }
    }

    async fn dial(config: &SshBoardConfig, target: &Target) -> Result<Self, BoardError> {
        let (mut through, mut from) = (Vec::new(), None);
        let mut last: Option<(client::Handle<Client>, String)> = None;
        for stop in plan(config, target).await? {
            let Stop { host, known, files } = stop;
            let stream: Box<dyn Stream> = match &last {
                None => {
                    let stream = tcp(&host).await?;
                    from = stream.local_addr().ok().map(|address| address.ip());
                    Box::new(stream)
                }
                Some((hop, name)) => Box::new(tunnel(hop, name, &host).await?),
            };
            let said = Arc::new(OnceLock::new());
            let ssh = Arc::new(ssh_config(&host, &known)?);
            let client = Client { known, said: Arc::clone(&said) };
            let handshake = client::connect_stream(ssh, stream, client);
            let step = host.connect_timeout.unwrap_or(STEP);
            let handle = within_of(&host.known_as, "the SSH handshake", step, handshake).await?;
            let mut handle = handle.map_err(|error| error.at(&host.known_as))?;
            sign_in(&mut handle, config, &host, files).await.map_err(|error| error.with_last_words(said.get()))?;
            through.extend(last.replace((handle, host.known_as)).map(|(hop, _)| hop));
        }
        let (handle, host) = last.ok_or(BoardError::NoKey)?;
        Ok(Self { handle, host, from, _through: through })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`BoardError::TimedOut`], [`BoardError::Connection`]; that the command failed is no error here.
    pub(super) async fn command(&self, command: &str) -> Result<Answer, BoardError> {
        within(&self.host, "the answer to a command", async {
            let Channel { mut read, .. } = self.channel(command).await?;
            let mut answer = Answer::default();
            while let Some(said) = read.next().await {
                if !answer.take(&said) {
                    break;
                }
            }
            Ok(answer)
        })
        .await?
    }

    /// A channel on which a command runs.
    ///
    /// # Errors
    /// [`BoardError::TimedOut`], [`BoardError::Connection`].
    pub(super) async fn channel(&self, command: &str) -> Result<Channel, BoardError> {
        let opened = within(&self.host, "a channel for a command", async {
            let channel = self.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            Ok(channel)
        });
        let (read, write) = opened.await?.map_err(|source| self.failed(source))?.split();
        Ok(Channel { read: Reading::Own(read), write: Writing::Own(write) })
    }

    fn failed(&self, source: russh::Error) -> BoardError {
        BoardError::Connection { host: self.host.clone(), source }
    }

    /// Says goodbye, so that the board knows at once.
    pub(super) async fn close(self) {
        // If this cannot be sent, the connection is gone already.
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
    }
}

/// What a message of a channel says.
pub(super) fn said(message: ChannelMsg) -> Said {
    match message {
        ChannelMsg::Data { data } => Said::Output(data.to_vec()),
        ChannelMsg::ExtendedData { data, .. } => Said::Errors(data.to_vec()),
        ChannelMsg::ExitStatus { exit_status } => Said::Status(exit_status),
        ChannelMsg::Close | ChannelMsg::Failure => Said::Closed,
        _ => Said::Nothing,
    }
}

/// A TCP connection to the first address of a host that answers.
async fn tcp(host: &Host) -> Result<TcpStream, BoardError> {
    let step = host.connect_timeout.unwrap_or(STEP);
    let connected = within_of(&host.known_as, "the TCP connection", step, async {
        let found = tokio::net::lookup_host((host.name.as_str(), host.port)).await?;
        let is_wanted = |address: &SocketAddr| match host.family {
            Family::Any => true,
            Family::Inet => address.is_ipv4(),
            Family::Inet6 => address.is_ipv6(),
        };
        let mut failed =
            io::Error::new(io::ErrorKind::NotFound, "it has no address of the family that AddressFamily says");
        for address in found.filter(is_wanted).take(MOST_ADDRESSES) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    });
    let stream = connected.await?.map_err(|source| BoardError::Unreachable {
        host: host.name.clone(),
        port: host.port,
        source,
    })?;
    // Lines are short and somebody waits for each.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A connection to a host from another one, as `ssh -J` makes it.
async fn tunnel(hop: &client::Handle<Client>, hop_name: &str, host: &Host) -> Result<impl Stream + use<>, BoardError> {
    let step = host.connect_timeout.unwrap_or(STEP);
    let opened = hop.channel_open_direct_tcpip(host.name.clone(), u32::from(host.port), "127.0.0.1", 0);
    let opened = within_of(hop_name, "a connection from there", step, opened).await?;
    let channel = opened.map_err(|source| BoardError::Jump {
        through: hop_name.to_owned(),
        host: host.known_as.clone(),
        source: Box::new(source),
    })?;
    Ok(channel.into_stream())
}

/// Bounds a step in time.
pub(super) async fn within<T>(host: &str, step: &'static str, work: impl Future<Output = T>) -> Result<T, BoardError> {
    within_of(host, step, STEP, work).await
}

/// Bounds a step in a time of its own.
pub(super) async fn within_of<T>(
    host: &str,
    step: &'static str,
    time: Duration,
    work: impl Future<Output = T>,
) -> Result<T, BoardError> {
    let late = |_| BoardError::TimedOut { host: host.to_owned(), step, seconds: time.as_secs() };
    timeout_at(Instant::now() + time, work).await.map_err(late)
}

fn ssh_config(host: &Host, known: &KnownHost) -> Result<client::Config, BoardError> {
    let usual = Preferred::DEFAULT;
    // Names that are no algorithms, but say what else we know of the protocol.
    let is_sign = |name: &str| name.starts_with("ext-info") || name.starts_with("kex-strict");
    let (signs, exchanges): (Vec<_>, Vec<_>) = usual.kex.iter().copied().partition(|kex| is_sign(kex.as_ref()));
    let exchanges = host.key_exchanges.of(&exchanges, |kex| kex.as_ref().to_owned());
    let ciphers = host.ciphers.of(&usual.cipher, |cipher| cipher.as_ref().to_owned());
    let macs = host.macs.of(&usual.mac, |mac| mac.as_ref().to_owned());
    let keys = known.algorithms(&usual.key);
    let empty = [
        (exchanges.is_empty(), &host.key_exchanges),
        (ciphers.is_empty(), &host.ciphers),
        (macs.is_empty(), &host.macs),
        (keys.is_empty(), &host.host_keys),
    ];
    if let Some(error) =
        empty.into_iter().filter(|(is_empty, _)| *is_empty).find_map(|(_, choice)| settings::none_left(choice))
    {
        return Err(error);
    }
    Ok(client::Config {
        client_id: SshId::Standard(concat!("SSH-2.0-p2p-worker_", env!("CARGO_PKG_VERSION")).into()),
        window_size: WINDOW,
        channel_buffer_size: 16,
        preferred: Preferred {
            kex: [exchanges, signs].concat().into(),
            cipher: ciphers.into(),
            mac: macs.into(),
            key: keys,
            host_key_certificates: known.certificates(&usual.key),
            ..usual
        },
        inactivity_timeout: Some(DEAD),
        keepalive_interval: Some(host.keepalive.map_or(KEEPALIVE, |often| often.min(KEEPALIVE))),
        keepalive_max: 2,
        nodelay: true,
        ..client::Config::default()
    })
}

/// What SSH calls back: it checks the host's key.
#[derive(Debug)]
pub(super) struct Client {
    known: KnownHost,
    /// What the host said when it closed the connection.
    said: Arc<OnceLock<String>>,
}

/// Why the handshake failed.
#[derive(Debug)]
pub(super) enum ClientError {
    Ssh(russh::Error),
    Host(BoardError),
}

impl ClientError {
    fn at(self, host: &str) -> BoardError {
        match self {
            Self::Ssh(source) => BoardError::Connection { host: host.to_owned(), source },
            Self::Host(error) => error,
        }
    }
}

impl From<russh::Error> for ClientError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for Client {
    type Error = ClientError;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, ClientError> {
        let checked = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.known.check(key),
            PublicKeyOrCertificate::Certificate(certificate) => self.known.check_certificate(certificate),
        };
        checked.map(|()| true).map_err(ClientError::Host)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<ClientError>) -> Result<(), ClientError> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                // The first is the one that counts.
                let _ = self.said.set(text::for_log(&info.message, 200));
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }
}
