//! The mailbox: finding the peer, the exchange of keys, and letters.

use std::{borrow::Cow, time::Duration};

use magic_wormhole::{
    AppConfig, AppID, Code, Key, KeyPurpose, MailboxConnection, Wormhole, WormholeError, rendezvous::RendezvousError,
};
use p2p_wormhole_contract::message::{Failure, Mailbox};
use serde_json::Value;

use crate::{failure, letters::Letter, time::within};

/// The application that `wormhole send` is.
const APPLICATION: &str = "lothar.com/wormhole/text-or-file-xfer";
/// How long the mailbox server has for each part of our leave.
const LEAVE: Duration = Duration::from_secs(1);
/// The most letters of one peer.
const MOST_LETTERS: usize = 32;

/// A place on the mailbox, where the peer may come.
pub(crate) type Place = MailboxConnection<Value>;

/// Opens the mailbox of the code on the first of the server's addresses that answers.
pub(crate) async fn open(mailbox: &Mailbox, code: &Code) -> Result<Place, Failure> {
    let mut last = Failure::Request("no address of the mailbox server".to_owned());
    for address in &mailbox.addresses {
        let config = AppConfig {
            id: AppID::new(APPLICATION),
            rendezvous_url: Cow::Owned(format!("ws://{address}{}", mailbox.path)),
            app_version: serde_json::json!({}),
        };
        match MailboxConnection::connect(config, code.clone(), true).await {
            Ok(place) => return Ok(place),
            Err(error @ WormholeError::ServerError(RendezvousError::IO(_))) => {
                last = Failure::Mailbox(failure::bounded(&format!("{address}: {}", failure::chain(&error))));
            }
            Err(error) => return Err(failure::of_library(&error)),
        }
    }
    Err(last)
}

/// A peer that knows the password.
pub(crate) struct Meeting {
    wormhole: Wormhole,
    letters: usize,
}

/// A key of the transit protocol.
#[derive(Debug)]
pub(crate) struct TransitKey;

impl KeyPurpose for TransitKey {}

impl Meeting {
    /// Waits for the peer and exchanges keys.
    pub(crate) async fn with_peer(place: Place) -> Result<Self, Failure> {
        let wormhole = Wormhole::connect(place).await.map_err(|error| failure::of_library(&error))?;
        Ok(Self { wormhole, letters: 0 })
    }

    /// The key from which all of the transit protocol are made.
    pub(crate) fn transit_key(&self) -> Key<TransitKey> {
        self.wormhole.key().derive_subkey_from_purpose(&format!("{APPLICATION}/transit-key"))
    }

    /// Sends a letter.
    pub(crate) async fn write(&mut self, letter: &Value) -> Result<(), Failure> {
        let bytes = letter.to_string().into_bytes();
        self.wormhole.send(bytes).await.map_err(|error| failure::of_library(&error))
    }

    /// The next letter. A letter that says that the peer gives up is an error.
    pub(crate) async fn read(&mut self) -> Result<Letter, Failure> {
        self.letters += 1;
        if self.letters > MOST_LETTERS {
            return Err(Failure::Protocol("too many messages".to_owned()));
        }
        let bytes = self.wormhole.receive().await.map_err(|error| failure::of_library(&error))?;
        let letter = Letter::read(&bytes)?;
        match letter.error {
            Some(why) => Err(Failure::Peer(failure::bounded(&why))),
            None => Ok(letter),
        }
    }

    /// Waits until the peer says that it gives up. A mailbox that breaks while the payload flows does no harm.
    pub(crate) async fn complaint(&mut self) -> Failure {
        loop {
            match self.read().await {
                Err(failure @ Failure::Peer(_)) => return failure,
                Ok(_) => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }

    /// Tells the peer why there is nothing more, if there is a reason, and leaves the mailbox.
    pub(crate) async fn leave(mut self, why: Option<&str>) {
        if let Some(why) = why {
            let _ = within(LEAVE, self.write(&crate::letters::error(why))).await;
        }
        let _ = within(LEAVE, self.wormhole.close()).await;
    }
}
