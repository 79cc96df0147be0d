//! The keys to sign in with: files, and what an ssh-agent holds.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use russh::keys::{
    HashAlg, PrivateKey, PublicKey,
    agent::{AgentIdentity, client::AgentClient},
    decode_secret_key,
};
use tokio::{net::UnixStream, time::timeout};

use super::SshBoardConfig;
use crate::board::BoardError;

/// The names of key files that are tried if the user names none, as OpenSSH has them.
const USUAL: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Keys of an agent that are tried; servers give up after a handful.
const MOST_OF_AGENT: usize = 5;

/// How long an agent has to list its keys.
const AGENT_ANSWERS: Duration = Duration::from_secs(5);

/// A key that can sign.
#[derive(Debug)]
pub(super) enum Identity {
    /// Read from a file.
    File { path: PathBuf, key: Arc<PrivateKey> },
    /// Held by the agent.
    Agent { key: PublicKey },
}

impl Identity {
    pub(super) fn public_key(&self) -> &PublicKey {
        match self {
            Self::File { key, .. } => key.public_key(),
            Self::Agent { key } => key,
        }
    }

    /// The key as a person can find it.
    pub(super) fn describe(&self) -> String {
        let fingerprint = self.public_key().fingerprint(HashAlg::Sha256);
        match self {
            Self::File { path, .. } => format!("{} ({fingerprint})", path.display()),
            Self::Agent { .. } => format!("a key of the ssh-agent ({fingerprint})"),
        }
    }
}

/// What a key file holds.
enum KeyFile {
    Key(Arc<PrivateKey>),
    /// The secret is not readable here; the public half may be known.
    Locked(Option<Box<PublicKey>>),
}

/// The keys to try, in their order, and an agent for those that it holds.
#[derive(Default)]
pub(super) struct Identities {
    pub(super) keys: Vec<Identity>,
    pub(super) agent: Option<AgentClient<UnixStream>>,
}

/// Reads the key files and asks the agent.
///
/// # Errors
/// [`BoardError::KeyFile`] and [`BoardError::KeyFileEncrypted`] for a file that the user named; of the usual files, those
/// that cannot be used are passed over. [`BoardError::NoKey`] if none is left, [`BoardError::KeyFileEncrypted`] if that
/// is why.
pub(super) async fn gather(config: &SshBoardConfig) -> Result<Identities, BoardError> {
    let (agent, held) = ask_agent(config.agent.as_deref()).await;
    let (named, folder) = (config.identities.clone(), config.ssh_folder.clone());
    let of_agent = held.clone();
    let read =
        move || if named.is_empty() { usual(folder.as_deref(), &of_agent) } else { from_files(&named, &of_agent) };
    let mut keys = tokio::task::spawn_blocking(read).await.unwrap_or(Err(BoardError::NoKey))?;
    if config.identities.is_empty() {
        let is_new = |key: &PublicKey| !keys.iter().any(|other| other.public_key().key_data() == key.key_data());
        let more: Vec<_> =
            held.into_iter().filter(is_new).take(MOST_OF_AGENT).map(|key| Identity::Agent { key }).collect();
        keys.extend(more);
    }
    if keys.is_empty() {
        return Err(locked_usual(config.ssh_folder.as_deref()).unwrap_or(BoardError::NoKey));
    }
    Ok(Identities { keys, agent })
}

/// The keys that the user named, each of which must work.
fn from_files(paths: &[PathBuf], held: &[PublicKey]) -> Result<Vec<Identity>, BoardError> {
    let one = |path: &PathBuf| {
        let failed = |source| BoardError::KeyFile { path: path.clone(), source };
        match read(path).map_err(failed)? {
            KeyFile::Key(key) => Ok(Identity::File { path: path.clone(), key }),
            KeyFile::Locked(public) => public
                .filter(|public| holds(held, public))
                .map(|key| Identity::Agent { key: *key })
                .ok_or_else(|| BoardError::KeyFileEncrypted { path: path.clone() }),
        }
    };
    paths.iter().map(one).collect()
}

/// The usual keys, as far as they can be used.
fn usual(folder: Option<&Path>, held: &[PublicKey]) -> Result<Vec<Identity>, BoardError> {
    let paths = folder.into_iter().flat_map(|folder| USUAL.map(|name| folder.join(name)));
    Ok(paths.filter_map(|path| from_files(&[path], held).ok()).flatten().collect())
}

/// The error that names the first of the usual keys that has a passphrase.
fn locked_usual(folder: Option<&Path>) -> Option<BoardError> {
    let mut paths = USUAL.map(|name| folder.map(|folder| folder.join(name))).into_iter().flatten();
    let path = paths.find(|path| matches!(read(path), Ok(KeyFile::Locked(_))))?;
    Some(BoardError::KeyFileEncrypted { path })
}

fn read(path: &Path) -> Result<KeyFile, russh::keys::Error> {
    let text = fs::read_to_string(path)?;
    if let Ok(public) = PublicKey::from_openssh(&text) {
        return Ok(KeyFile::Locked(Some(Box::new(public))));
    }
    match decode_secret_key(&text, None) {
        Ok(key) => Ok(KeyFile::Key(Arc::new(key))),
        Err(russh::keys::Error::KeyIsEncrypted) => Ok(KeyFile::Locked(public_half(path, &text).map(Box::new))),
        Err(_) if text.contains("ENCRYPTED") => Ok(KeyFile::Locked(public_half(path, &text).map(Box::new))),
        Err(error) => Err(error),
    }
}

/// The public half of a key with a passphrase: OpenSSH's own format shows it, for others there may be a `.pub` file.
fn public_half(path: &Path, text: &str) -> Option<PublicKey> {
    let shown = PrivateKey::from_openssh(text).ok().map(|key| key.public_key().clone());
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    shown.or_else(|| PublicKey::from_openssh(&fs::read_to_string(beside).ok()?).ok())
}

fn holds(held: &[PublicKey], key: &PublicKey) -> bool {
    held.iter().any(|other| other.key_data() == key.key_data())
}

/// The agent and its plain keys; none of it if the agent does not answer.
async fn ask_agent(socket: Option<&Path>) -> (Option<AgentClient<UnixStream>>, Vec<PublicKey>) {
    let Some(socket) = socket else { return (None, Vec::new()) };
    let asked = timeout(AGENT_ANSWERS, async {
        let mut agent = AgentClient::connect_uds(socket).await?;
        let identities = agent.request_identities().await?;
        Ok::<_, russh::keys::Error>((agent, identities))
    });
    let Ok(Ok((agent, identities))) = asked.await else {
        tracing::debug!("the ssh-agent does not answer");
        return (None, Vec::new());
    };
    let plain = identities.into_iter().filter_map(|identity| match identity {
        AgentIdentity::PublicKey { key, .. } => Some(key),
        AgentIdentity::Certificate { .. } => None,
    });
    (Some(agent), plain.collect())
}
