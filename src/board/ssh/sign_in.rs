//! Signs in with one key after the other.

use std::{sync::Arc, time::Duration};

use russh::{
    AgentAuthError, SendError, Signer,
    client::{self, AuthResult},
    keys::{
        HashAlg, PrivateKey,
        agent::{AgentIdentity, client::AgentClient},
        signature,
        ssh_encoding::Encode,
        ssh_key::private::KeypairData,
    },
};
use tokio::net::UnixStream;

use super::{
    SshBoardConfig,
    connect::{Client, within_of},
    identity::{self, Files, Identity, Secret},
    prompt,
    settings::Host,
};
use crate::board::BoardError;

/// How long one key may take: an agent may ask its user first, or wait for a touch.
const ONE_KEY: Duration = Duration::from_secs(60);

/// Signs in.
///
/// # Errors
/// Those of [`Files::order`]; [`BoardError::SignInRefused`], [`BoardError::MoreThanAKey`], [`BoardError::TimedOut`].
pub(super) async fn sign_in(
    handle: &mut client::Handle<Client>,
    config: &SshBoardConfig,
    host: &Host,
    files: Files,
) -> Result<(), BoardError> {
    let (mut agent, held) = identity::ask_agent(host.agent.as_deref(), handle.agent_session_binding()).await;
    let (identities, passed_over) = files.order(&held, host)?;
    let hash = rsa_hash(handle, &identities).await;
    let mut tried = Vec::new();
    for identity in &identities {
        if handle.is_closed() {
            break;
        }
        let work = try_one(handle, host, identity, hash, agent.as_mut());
        let mut outcome = within_of(&host.known_as, "the sign-in", ONE_KEY, work).await?;
        if outcome == Outcome::Wanted {
            let Some(key) = unlock(config, identity).await else {
                tried.push(format!("{} (its passphrase was not given)", identity.describe()));
                continue;
            };
            let opened = Identity { secret: Secret::File(key), ..identity.clone() };
            let work = try_one(handle, host, &opened, hash, None);
            outcome = within_of(&host.known_as, "the sign-in", ONE_KEY, work).await?;
        }
        match outcome {
            Outcome::Success => return Ok(()),
            Outcome::MoreWanted => return Err(BoardError::MoreThanAKey { host: host.known_as.clone() }),
            Outcome::Refused | Outcome::Wanted => tried.push(identity.describe()),
            Outcome::Failed(why) => tried.push(format!("{}: {why}", identity.describe())),
        }
    }
    if handle.is_closed() && tried.len() < identities.len() {
        tried.push("then it closed the connection".to_owned());
    }
    Err(BoardError::SignInRefused { host: host.known_as.clone(), tried, passed_over })
}

/// How the attempt with one key ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    Refused,
    /// The board would take the key, whose file is locked.
    Wanted,
    /// The key was right, and the board wants something else besides.
    MoreWanted,
    Failed(String),
}

async fn try_one(
    handle: &mut client::Handle<Client>,
    host: &Host,
    identity: &Identity,
    hash: HashAlg,
    agent: Option<&mut AgentClient<UnixStream>>,
) -> Outcome {
    let hash = identity.key.algorithm().is_rsa().then_some(hash);
    let mut hand = Hand { identity, agent };
    let login = host.login.clone();
    let result = match &identity.certificate {
        Some(certificate) => {
            handle.authenticate_certificate_with(login, (**certificate).clone(), hash, &mut hand).await
        }
        None => handle.authenticate_publickey_with(login, identity.key.clone(), hash, &mut hand).await,
    };
    match result {
        Ok(AuthResult::Success) => Outcome::Success,
        Ok(AuthResult::Failure { partial_success: true, .. }) => Outcome::MoreWanted,
        Ok(AuthResult::Failure { .. }) => Outcome::Refused,
        Err(SignError::Locked) => Outcome::Wanted,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// Asks for the passphrase of a key, one question at a time; a key that is open stays so in this process.
async fn unlock(config: &SshBoardConfig, identity: &Identity) -> Option<Arc<PrivateKey>> {
    let path = identity.path.clone()?;
    let memory = config.memory.clone();
    let _turn = memory.turn_to_ask().await;
    if let Some(key) = memory.unlocked(&path) {
        return Some(key);
    }
    let asked = path.clone();
    let ask = move || prompt::unlock(&asked, |passphrase| identity::open(&asked, passphrase));
    let key = tokio::task::spawn_blocking(ask).await.ok().flatten()?;
    Some(memory.remember(path, key))
}

/// How an RSA key signs for this board; asked only where there is one, because the answer can take a second.
async fn rsa_hash(handle: &client::Handle<Client>, identities: &[Identity]) -> HashAlg {
    if !identities.iter().any(|identity| identity.key.algorithm().is_rsa()) {
        return HashAlg::Sha512;
    }
    handle.best_supported_rsa_hash().await.ok().flatten().flatten().unwrap_or(HashAlg::Sha512)
}

/// What signs for one identity.
struct Hand<'a> {
    identity: &'a Identity,
    agent: Option<&'a mut AgentClient<UnixStream>>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("its file has a passphrase")]
    Locked,
    #[error("the ssh-agent does not sign with it")]
    Agent(#[from] AgentAuthError),
    #[error("it cannot sign")]
    Key,
    #[error("the connection is gone")]
    Gone(#[from] SendError),
}

impl Signer for Hand<'_> {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        match (&self.identity.secret, &mut self.agent) {
            (Secret::File(key), _) => sign(key, hash, to_sign).ok_or(SignError::Key),
            (Secret::Locked, _) => Err(SignError::Locked),
            (Secret::Agent, Some(agent)) => {
                let known_as = self.identity.known_to_agent();
                let signed = agent.sign_request(&known_as, hash, to_sign).await;
                signed.map_err(|error| SignError::Agent(error.into()))
            }
            (Secret::Agent, None) => Err(SignError::Key),
        }
    }
}

impl Identity {
    /// The agent signs for a certificate in a file with the plain key, which is what it may hold.
    fn known_to_agent(&self) -> AgentIdentity {
        match &self.certificate {
            Some(certificate) if self.held_as_certificate => {
                AgentIdentity::Certificate { certificate: (**certificate).clone(), comment: String::new() }
            }
            _ => AgentIdentity::PublicKey { key: self.key.clone(), comment: String::new() },
        }
    }
}

/// What is to be signed with the signature behind it, as RFC 4252 section 7 has it; RSA signs with the hash.
fn sign(key: &PrivateKey, hash: Option<HashAlg>, mut data: Vec<u8>) -> Option<Vec<u8>> {
    let signed = match key.key_data() {
        KeypairData::Rsa(pair) => signature::Signer::try_sign(&(pair, hash), data.as_slice()),
        pair => signature::Signer::try_sign(pair, data.as_slice()),
    };
    let signed: russh::keys::ssh_key::Signature = signed.ok()?;
    let mut bytes = Vec::new();
    signed.encode(&mut bytes).ok()?;
    bytes.as_slice().encode(&mut data).ok()?;
    Some(data)
}
