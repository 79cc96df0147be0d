//! The keys to sign in with: files, certificates beside them, and what an ssh-agent holds.
//!
//! Their order is that of ssh(1): certificates; keys of the agent that are also named or usual files; other keys of the
//! agent; files that the agent does not hold. Where the user named keys, only those count.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use russh::keys::{
    Certificate, HashAlg, PrivateKey, PublicKey,
    agent::{AgentIdentity, AgentSessionBinding, client::AgentClient},
    decode_secret_key,
    ssh_key::certificate::CertType,
};
use tokio::{net::UnixStream, time::timeout};

use super::{SshBoardConfig, settings::Host, short_scalar};
use crate::board::BoardError;

/// The names of key files that are tried if the user names none, in OpenSSH's order.
const USUAL: [&str; 5] = ["id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"];

/// Keys that are tried; servers give up after a handful.
const MOST: usize = 16;

/// How long an agent has to list its keys.
const AGENT_ANSWERS: Duration = Duration::from_secs(5);

/// Who signs for a key.
#[derive(Debug, Clone)]
pub(super) enum Secret {
    /// Read from a file.
    File(Arc<PrivateKey>),
    /// A file with a passphrase, which is asked for when the board wants this key.
    Locked,
    /// The agent.
    Agent,
}

/// A key that can sign.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) key: PublicKey,
    /// What is shown to the board in place of the key.
    pub(super) certificate: Option<Box<Certificate>>,
    /// Whether the agent knows the key by its certificate.
    pub(super) held_as_certificate: bool,
    pub(super) secret: Secret,
    /// Where the key is from, unless it is the agent's alone.
    pub(super) path: Option<PathBuf>,
}

impl Identity {
    /// The key as a person can find it.
    pub(super) fn describe(&self) -> String {
        let fingerprint = self.key.fingerprint(HashAlg::Sha256);
        let kind = if self.certificate.is_some() { "a certificate of " } else { "" };
        match &self.path {
            Some(path) => format!("{kind}{} ({fingerprint})", path.display()),
            None => format!("{kind}a key of the ssh-agent ({fingerprint})"),
        }
    }

    /// The name of its algorithm in a sign-in.
    pub(super) fn algorithm(&self) -> String {
        let name = self.key.algorithm().as_str().to_owned();
        let name = if self.key.algorithm().is_rsa() { "rsa-sha2-512".to_owned() } else { name };
        match &self.certificate {
            Some(_) => format!("{}-cert-v01@openssh.com", name.trim_end_matches("@openssh.com")),
            None => name,
        }
    }
}

/// What a key file holds.
#[derive(Debug)]
enum KeyFile {
    Key(Arc<PrivateKey>),
    /// A passphrase protects it; the public half may be known.
    Locked(Option<PublicKey>),
    /// The public half alone, or the handle of a security key: the agent signs.
    Public(PublicKey),
}

/// The key files of a host, read.
#[derive(Debug, Default)]
pub(super) struct Files {
    keys: Vec<(PathBuf, KeyFile)>,
    certificates: Vec<(PathBuf, Certificate)>,
    /// No other key counts.
    is_all: bool,
    /// Whether each must work.
    is_named: bool,
    /// Whether a passphrase can be asked for.
    can_ask: bool,
    /// Why some were passed over.
    passed_over: Vec<String>,
}

impl Files {
    /// Reads the key files of a host. Blocks on the disk.
    ///
    /// # Errors
    /// [`BoardError::KeyFile`] for a file that the user named.
    pub(super) fn read(config: &SshBoardConfig, host: &Host) -> Result<Self, BoardError> {
        // The user's keys are for the board; hosts on the way have those of the configuration.
        let named = if host.is_hop { &[][..] } else { &config.identities };
        let usual = config.ssh_folder.iter().flat_map(|folder| USUAL.map(|name| folder.join(name)));
        let paths = match &host.identities {
            _ if !named.is_empty() => named.to_vec(),
            Some(paths) => paths.clone(),
            None => usual.collect(),
        };
        let is_named = !named.is_empty();
        let can_ask = config.passphrases && !host.is_batch && super::prompt::is_possible();
        let mut files = Self { is_all: is_named || host.identities_only, is_named, can_ask, ..Self::default() };
        for path in paths {
            files.add_certificate(&beside(&path, "-cert.pub"));
            let known = config.memory.unlocked(&path).map(KeyFile::Key);
            match known.map_or_else(|| read(&path), Ok) {
                Ok(key) => files.keys.push((path, key)),
                Err(source) if is_named => return Err(BoardError::KeyFile { path, source }),
                Err(russh::keys::Error::IO(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => files.passed_over.push(format!("{}: {error}", path.display())),
            }
        }
        for path in &host.certificates {
            files.add_certificate(path);
        }
        Ok(files)
    }

    fn add_certificate(&mut self, path: &Path) {
        let Ok(text) = fs::read_to_string(path) else { return };
        match Certificate::from_openssh(text.trim()) {
            Ok(certificate) if certificate.cert_type() == CertType::User => {
                self.certificates.push((path.to_owned(), certificate));
            }
            _ => self.passed_over.push(format!("{} is no certificate of a user", path.display())),
        }
    }

    /// The keys to try, in their order, and why others are passed over.
    ///
    /// # Errors
    /// [`BoardError::KeyFileEncrypted`] and [`BoardError::KeyNotHeld`] for a key that the user named and that nobody can
    /// sign with, or if that is why none is left; [`BoardError::NoKey`] if there is no other reason.
    pub(super) fn order(self, held: &[AgentIdentity], host: &Host) -> Result<(Vec<Identity>, Vec<String>), BoardError> {
        let mut unusable = None;
        let mut passed_over = self.passed_over;
        let (mut in_agent, mut in_files) = (Vec::new(), Vec::new());
        for (path, file) in self.keys {
            let public = file.public().cloned();
            let is_held = public.as_ref().is_some_and(|key| holds(held, key));
            let secret = match file {
                _ if is_held => Some(Secret::Agent),
                KeyFile::Key(key) => Some(Secret::File(key)),
                KeyFile::Locked(_) if self.can_ask && public.is_some() => Some(Secret::Locked),
                KeyFile::Locked(_) => {
                    passed_over.push(format!("{} has a passphrase", path.display()));
                    unusable.get_or_insert(BoardError::KeyFileEncrypted { path: path.clone() });
                    None
                }
                KeyFile::Public(_) => {
                    passed_over.push(format!("{} is not in the ssh-agent", path.display()));
                    unusable.get_or_insert(BoardError::KeyNotHeld { path: path.clone() });
                    None
                }
            };
            let (Some(key), Some(secret)) = (public, secret) else { continue };
            let list = if is_held { &mut in_agent } else { &mut in_files };
            list.push(Identity { key, certificate: None, held_as_certificate: false, secret, path: Some(path) });
        }
        if self.is_named
            && let Some(unusable) = unusable
        {
            return Err(unusable);
        }
        let is_new = |key: &PublicKey| !in_agent.iter().any(|one: &Identity| one.key.key_data() == key.key_data());
        let others = held.iter().filter(|_| !self.is_all).filter_map(plain_of_agent);
        let others: Vec<Identity> = others.filter(|one| is_new(&one.key)).collect();
        let plain: Vec<Identity> = [in_agent, others, in_files].concat();
        let mut all = with_certificates(self.certificates, held, &plain, self.is_all);
        all.extend(plain);
        all.retain(|one| host.public_keys.allows(&one.algorithm()) && host.is_long_enough(&one.key));
        all.truncate(MOST);
        if all.is_empty() { Err(unusable.unwrap_or(BoardError::NoKey)) } else { Ok((all, passed_over)) }
    }
}

impl KeyFile {
    fn public(&self) -> Option<&PublicKey> {
        match self {
            Self::Key(key) => Some(key.public_key()),
            Self::Locked(key) => key.as_ref(),
            Self::Public(key) => Some(key),
        }
    }
}

/// Certificates for which somebody can sign: those in files, then those that the agent holds as such.
fn with_certificates(
    certificates: Vec<(PathBuf, Certificate)>,
    held: &[AgentIdentity],
    plain: &[Identity],
    only_files: bool,
) -> Vec<Identity> {
    let in_files = certificates.into_iter().filter_map(|(path, certificate)| {
        let of_key = plain.iter().find(|one| one.key.key_data() == certificate.public_key());
        let as_certificate = held.iter().any(|one| is_certificate(one, &certificate));
        let key = PublicKey::new(certificate.public_key().clone(), "");
        let (secret, held_as_certificate) = match of_key {
            Some(one) => (one.secret.clone(), false),
            None if as_certificate => (Secret::Agent, true),
            None if holds(held, &key) => (Secret::Agent, false),
            None => return None,
        };
        // A locked key is opened by its own path.
        let path = of_key.and_then(|one| one.path.clone()).unwrap_or(path);
        Some(Identity { key, certificate: Some(certificate.into()), held_as_certificate, secret, path: Some(path) })
    });
    let mut all: Vec<Identity> = in_files.collect();
    for one in held.iter().filter_map(certificate_of_agent) {
        let of_file = plain.iter().any(|plain| plain.path.is_some() && plain.key.key_data() == one.key.key_data());
        let is_new = !all.iter().any(|other| other.certificate == one.certificate);
        if is_new && (!only_files || of_file) {
            all.push(one);
        }
    }
    all
}

fn is_certificate(held: &AgentIdentity, certificate: &Certificate) -> bool {
    matches!(held, AgentIdentity::Certificate { certificate: other, .. } if other == certificate)
}

fn plain_of_agent(held: &AgentIdentity) -> Option<Identity> {
    let AgentIdentity::PublicKey { key, .. } = held else { return None };
    Some(Identity {
        key: key.clone(),
        certificate: None,
        held_as_certificate: false,
        secret: Secret::Agent,
        path: None,
    })
}

fn certificate_of_agent(held: &AgentIdentity) -> Option<Identity> {
    let AgentIdentity::Certificate { certificate, .. } = held else { return None };
    Some(Identity {
        key: PublicKey::new(certificate.public_key().clone(), ""),
        certificate: Some(Box::new(certificate.clone())),
        held_as_certificate: true,
        secret: Secret::Agent,
        path: None,
    })
}

fn read(path: &Path) -> Result<KeyFile, russh::keys::Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        // The agent may have the key whose public half is all that is here.
        Err(error) => return of_pub(path).map(KeyFile::Public).ok_or(error.into()),
    };
    if let Ok(public) = PublicKey::from_openssh(text.trim()) {
        return Ok(KeyFile::Public(public));
    }
    match decode_secret_key(&text, None) {
        Ok(key) if is_hardware(&key) => Ok(KeyFile::Public(key.public_key().clone())),
        Ok(key) => Ok(KeyFile::Key(Arc::new(key))),
        Err(russh::keys::Error::KeyIsEncrypted) => Ok(KeyFile::Locked(public_half(path, &text))),
        Err(_) if text.contains("ENCRYPTED") => Ok(KeyFile::Locked(public_half(path, &text))),
        Err(error) => short_scalar::read(&text).map(|key| KeyFile::Key(Arc::new(key))).ok_or(error),
    }
}

/// Opens a key file that has a passphrase.
pub(super) fn open(path: &Path, passphrase: &str) -> Option<PrivateKey> {
    decode_secret_key(&fs::read_to_string(path).ok()?, Some(passphrase)).ok()
}

/// Whether the file has a handle alone, and the secret is in a security key.
fn is_hardware(key: &PrivateKey) -> bool {
    key.algorithm().as_str().starts_with("sk-")
}

/// The public half of a key with a passphrase: OpenSSH's own format shows it, for others there may be a `.pub` file.
fn public_half(path: &Path, text: &str) -> Option<PublicKey> {
    let shown = PrivateKey::from_openssh(text).ok().map(|key| key.public_key().clone());
    shown.or_else(|| of_pub(path))
}

fn of_pub(path: &Path) -> Option<PublicKey> {
    PublicKey::from_openssh(fs::read_to_string(beside(path, ".pub")).ok()?.trim()).ok()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn holds(held: &[AgentIdentity], key: &PublicKey) -> bool {
    let is_it = |one: &AgentIdentity| matches!(one, AgentIdentity::PublicKey { key: other, .. } if other.key_data() == key.key_data());
    held.iter().any(is_it)
}

/// An agent and its keys; none of it if the agent does not answer. Tells it which connection it is for, so that keys that
/// are meant for certain hosts alone can be used.
pub(super) async fn ask_agent(
    socket: Option<&Path>,
    binding: Option<&AgentSessionBinding>,
) -> (Option<AgentClient<UnixStream>>, Vec<AgentIdentity>) {
    let Some(socket) = socket else { return (None, Vec::new()) };
    let asked = timeout(AGENT_ANSWERS, async {
        let mut agent = AgentClient::connect_uds(socket).await?;
        if let Some(binding) = binding {
            // An agent that does not know of this refuses, and has no such keys.
            let _ = agent.bind_session(binding, false).await;
        }
        let identities = agent.request_identities().await?;
        Ok::<_, russh::keys::Error>((agent, identities))
    });
    match asked.await {
        Ok(Ok((agent, identities))) => (Some(agent), identities),
        Ok(Err(reason)) => {
            tracing::debug!(%reason, "the ssh-agent does not answer");
            (None, Vec::new())
        }
        Err(_) => {
            tracing::warn!("the ssh-agent does not answer in {} s; its keys are not tried", AGENT_ANSWERS.as_secs());
            (None, Vec::new())
        }
    }
}
