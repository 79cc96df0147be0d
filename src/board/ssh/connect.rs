//! From an address to a connection that is signed in.

use std::{sync::Arc, time::Duration};

use russh::{
    ChannelMsg, Disconnect, Preferred, SshId,
    client::{self, AuthResult},
    keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    BoardAddress, SshBoardConfig,
    identity::{self, Identities, Identity},
    known_hosts::KnownHost,
};
use crate::board::BoardError;

/// How long each step may take: the TCP connection, the handshake, one sign-in, one command.
const STEP: Duration = Duration::from_secs(15);
/// Silence after which the board is asked whether it is there; after three such times the connection counts as broken.
const KEEPALIVE: Duration = Duration::from_secs(8);
/// How long nothing at all may move.
const DEAD: Duration = Duration::from_secs(30);
/// The most that the answer to a command may have, in bytes.
const MOST_ANSWER: usize = 256 * 1024;

/// A connection that is signed in. Dropping it closes it.
pub(super) struct Connection {
    pub(super) handle: client::Handle<Client>,
    pub(super) host: String,
}

/// What a command printed and how it ended.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) output: Vec<u8>,
    pub(super) errors: Vec<u8>,
    pub(super) status: Option<u32>,
}

impl Connection {
    /// Connects, checks the host's key and signs in.
    ///
    /// # Errors
    /// [`BoardError`], each with what to do about it where there is something.
    pub(super) async fn open(config: &SshBoardConfig, address: &BoardAddress) -> Result<Self, BoardError> {
        // Boxed, because what a handshake needs should not stay in every future that may have to connect again.
        Box::pin(Self::dial(config, address)).await
    }

    async fn dial(config: &SshBoardConfig, address: &BoardAddress) -> Result<Self, BoardError> {
        let identities = identity::gather(config).await?;
        let known = load_known(config, address).await?;
        let host = address.to_string();
        let tcp = TcpStream::connect((address.host(), address.port()));
        let tcp = within(&host, "the TCP connection", tcp).await?.map_err(|source| BoardError::Unreachable {
            host: address.host().to_owned(),
            port: address.port(),
            source,
        })?;
        // Lines are short and somebody waits for each.
        let _ = tcp.set_nodelay(true);
        let ssh = Arc::new(ssh_config(&known));
        let handshake = client::connect_stream(ssh, tcp, Client { known });
        let handle = within(&host, "the SSH handshake", handshake).await?.map_err(|error| error.at(&host))?;
        let mut connection = Self { handle, host };
        connection.sign_in(config.login(), identities).await?;
        Ok(connection)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`BoardError::TimedOut`], [`BoardError::Connection`]; that the command failed is no error here.
    pub(super) async fn command(&self, command: &str) -> Result<Answer, BoardError> {
        within(&self.host, "the answer to a command", async {
            let mut channel = self.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            let mut answer = Answer::default();
            while let Some(message) = channel.wait().await {
                if !answer.take(&message) {
                    break;
                }
            }
            Ok(answer)
        })
        .await?
        .map_err(|source| self.failed(source))
    }

    pub(super) fn failed(&self, source: russh::Error) -> BoardError {
        BoardError::Connection { host: self.host.clone(), source }
    }

    /// Says goodbye, so that the board knows at once.
    pub(super) async fn close(self) {
        // If this cannot be sent, the connection is gone already.
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
    }

    async fn sign_in(&mut self, login: String, identities: Identities) -> Result<(), BoardError> {
        let Identities { keys, mut agent } = identities;
        let hash = self.rsa_hash(&keys).await;
        let mut tried = Vec::new();
        for identity in &keys {
            if self.handle.is_closed() {
                break;
            }
            let host = self.host.clone();
            let attempt = async {
                match (identity, &mut agent) {
                    (Identity::File { key, .. }, _) => {
                        let key = PrivateKeyWithHashAlg::new(Arc::clone(key), Some(hash));
                        self.handle.authenticate_publickey(&login, key).await.ok()
                    }
                    (Identity::Agent { key }, Some(agent)) => {
                        let hash = key.algorithm().is_rsa().then_some(hash);
                        self.handle.authenticate_publickey_with(&login, key.clone(), hash, agent).await.ok()
                    }
                    (Identity::Agent { .. }, None) => None,
                }
            };
            let result = within(&host, "the sign-in", attempt).await?;
            if matches!(result, Some(AuthResult::Success)) {
                return Ok(());
            }
            tried.push(identity.describe());
        }
        if tried.is_empty() {
            return Err(self.failed(russh::Error::Disconnect));
        }
        Err(BoardError::SignInRefused { host: self.host.clone(), tried })
    }

    /// How an RSA key signs for this board; asked only where there is one, because the answer can take a second.
    async fn rsa_hash(&self, keys: &[Identity]) -> HashAlg {
        if !keys.iter().any(|identity| identity.public_key().algorithm().is_rsa()) {
            return HashAlg::Sha512;
        }
        self.handle.best_supported_rsa_hash().await.ok().flatten().flatten().unwrap_or(HashAlg::Sha512)
    }
}

impl Answer {
    /// Takes in a message of the channel; false when there will be no more.
    pub(super) fn take(&mut self, message: &ChannelMsg) -> bool {
        match message {
            ChannelMsg::Data { data } => append(&mut self.output, data),
            ChannelMsg::ExtendedData { data, .. } => append(&mut self.errors, data),
            ChannelMsg::ExitStatus { exit_status } => self.status = Some(*exit_status),
            ChannelMsg::Close | ChannelMsg::Failure => return false,
            _ => {}
        }
        true
    }

    /// The end of what it said about a failure, for a person.
    pub(super) fn complaint(&self) -> String {
        let text = if self.errors.is_empty() { &self.output } else { &self.errors };
        let printable = printable(text);
        match (printable.is_empty(), self.status) {
            (false, _) => printable,
            (true, Some(status)) => format!("exit status {status}"),
            (true, None) => "no answer".to_owned(),
        }
    }
}

fn append(to: &mut Vec<u8>, data: &[u8]) {
    to.extend(data.iter().take(MOST_ANSWER.saturating_sub(to.len())));
}

/// The beginning of a text of the board's, safe for a terminal: visible ASCII and single spaces, 200 characters.
pub(super) fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..1000).unwrap_or(text)).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    words.join(" ").chars().take(200).map(shown).collect()
}

async fn load_known(config: &SshBoardConfig, address: &BoardAddress) -> Result<KnownHost, BoardError> {
    let (config, address) = (config.clone(), address.clone());
    let host = address.to_string();
    let loaded = tokio::task::spawn_blocking(move || KnownHost::load(&config, address)).await;
    loaded.unwrap_or(Err(BoardError::Connection { host, source: russh::Error::Disconnect }))
}

/// Bounds a step in time.
pub(super) async fn within<T>(host: &str, step: &'static str, work: impl Future<Output = T>) -> Result<T, BoardError> {
    let late = |_| BoardError::TimedOut { host: host.to_owned(), step, seconds: STEP.as_secs() };
    timeout_at(Instant::now() + STEP, work).await.map_err(late)
}

fn ssh_config(known: &KnownHost) -> client::Config {
    client::Config {
        client_id: SshId::Standard(concat!("SSH-2.0-p2p-worker_", env!("CARGO_PKG_VERSION")).into()),
        window_size: 256 * 1024,
        channel_buffer_size: 16,
        preferred: Preferred { key: known.algorithms(&Preferred::DEFAULT.key), ..Preferred::DEFAULT },
        inactivity_timeout: Some(DEAD),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 2,
        nodelay: true,
        ..client::Config::default()
    }
}

/// What SSH calls back: it checks the host's key.
#[derive(Debug)]
pub(super) struct Client {
    known: KnownHost,
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
        match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.known.check(key).map_err(ClientError::Host)?;
                Ok(true)
            }
            // None was asked for.
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_board_says_is_harmless_on_a_terminal() {
        assert_eq!(printable(b"\x1b]0;x\x07 no\r\n such\ttopic \xff"), "?]0;x? no such topic ?");
        assert_eq!(printable(&[b'x'; 5000]).len(), 200);
    }
}
