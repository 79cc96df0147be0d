//! Two peers on a mailbox: the exchange of keys, and letters.

use std::{collections::BTreeSet, time::Duration};

use p2p_wormhole_contract::message::{self, Failure};
use serde_json::{Value, json};

use crate::{
    code::Code,
    failure,
    keys::{self, Secret},
    letters::{self, Letter},
    mailbox::{Mailbox, Mood},
    time::within,
};

/// The application that `wormhole send` is.
const APPLICATION: &str = "lothar.com/wormhole/text-or-file-xfer";
/// How long the mailbox server has to take our last letter.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long we wait for the peer's first sealed letter before we send ours, where only that shows which secret it has. All
/// known programs but this one send it at once, so only two of ours ever wait that long.
const PATIENCE: Duration = Duration::from_secs(2);
/// The name of the first sealed letter.
const VERSION: &str = "version";
/// The most letters of one peer.
const MOST_LETTERS: usize = 32;

/// A place on the mailbox server, where the peer may come. It must be left, whatever happens.
pub(crate) struct Place {
    code: Code,
    mailbox: Option<Mailbox>,
}

impl Place {
    pub(crate) fn new(code: Code) -> Self {
        Self { code, mailbox: None }
    }

    /// Opens the mailbox of the code. What is there when this is cancelled is left by [`Place::leave`].
    pub(crate) async fn open(&mut self, server: &message::Mailbox) -> Result<(), Failure> {
        let mailbox = Mailbox::connect(server, APPLICATION).await?;
        self.mailbox.insert(mailbox).enter(&self.code.nameplate).await
    }

    /// Waits for the peer and exchanges keys. Nothing is known of whoever comes before its second message is there, which
    /// only somebody who knows the password can have sealed.
    pub(crate) async fn agree(&mut self) -> Result<Agreement, Failure> {
        let Self { code, mailbox } = self;
        let mailbox = mailbox.as_mut().ok_or_else(|| Failure::Fault("no mailbox is open".to_owned()))?;
        let (exchange, pake) = keys::begin(&code.whole, APPLICATION)?;
        mailbox.add("pake", &pake).await?;
        let theirs = loop {
            let letter = mailbox.next().await?;
            if letter.phase == "pake" {
                break letter;
            }
        };
        let outcome = exchange.finish(&theirs.body()?)?;
        let peer = theirs.side;
        let early =
            if outcome.is_certain() { None } else { within(PATIENCE, version_of(mailbox, &peer)).await.transpose()? };
        let secret = outcome.settle(&peer, VERSION, early.as_deref());
        let versions = json!({ "app_versions": {} }).to_string();
        let sealed = secret.seal(mailbox.side(), VERSION, versions.as_bytes());
        mailbox.add(VERSION, &sealed.ok_or_else(failure::no_random_bits)?).await?;
        let version = match early {
            Some(version) => version,
            None => version_of(mailbox, &peer).await?,
        };
        secret.open(&peer, VERSION, &version).ok_or(Failure::Password)?;
        mailbox.release().await?;
        Ok(Agreement { secret, peer })
    }

    /// The mailbox, with a peer that knows the password.
    pub(crate) fn with(self, agreement: Agreement) -> Result<Meeting, Failure> {
        let mailbox = self.mailbox.ok_or_else(|| Failure::Fault("no mailbox is open".to_owned()))?;
        Ok(Meeting { mailbox, agreement, written: 0, read: BTreeSet::new() })
    }

    /// Gives the place back to the server.
    pub(crate) async fn leave(self, why: &Failure) {
        let mood = match why {
            Failure::Password => Mood::Scary,
            Failure::TimedOut { .. } | Failure::Cancelled => Mood::Lonely,
            _ => Mood::Errory,
        };
        if let Some(mailbox) = self.mailbox {
            mailbox.leave(mood).await;
        }
    }
}

/// The first sealed letter of this side. Cancel-safe.
async fn version_of(mailbox: &mut Mailbox, side: &str) -> Result<Vec<u8>, Failure> {
    loop {
        let letter = mailbox.next().await?;
        if letter.side == side && letter.phase == VERSION {
            return letter.body();
        }
    }
}

/// What two peers know that have exchanged keys.
pub(crate) struct Agreement {
    secret: Secret,
    /// The other's side.
    peer: String,
}

/// A peer that knows the password.
pub(crate) struct Meeting {
    mailbox: Mailbox,
    agreement: Agreement,
    /// How many letters we sent.
    written: u64,
    /// The numbers of those that came.
    read: BTreeSet<u64>,
}

impl Meeting {
    /// The key from which all of the transit protocol are made.
    pub(crate) fn transit_key(&self) -> Option<Secret> {
        self.agreement.secret.derive(format!("{APPLICATION}/transit-key").as_bytes())
    }

    /// Sends a letter.
    pub(crate) async fn write(&mut self, letter: &Value) -> Result<(), Failure> {
        let phase = self.written.to_string();
        let sealed = self.agreement.secret.seal(self.mailbox.side(), &phase, letter.to_string().as_bytes());
        self.written += 1;
        self.mailbox.add(&phase, &sealed.ok_or_else(failure::no_random_bits)?).await
    }

    /// The next letter. A letter that says that the peer gives up is an error. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Result<Letter, Failure> {
        let bytes = loop {
            let letter = self.mailbox.next().await?;
            // Other phases are other protocols', which were not agreed on. Servers may repeat themselves.
            let Ok(number) = letter.phase.parse() else { continue };
            if letter.side != self.agreement.peer || !self.read.insert(number) {
                continue;
            }
            if self.read.len() > MOST_LETTERS {
                return Err(Failure::Protocol("too many messages".to_owned()));
            }
            let opened = self.agreement.secret.open(&letter.side, &letter.phase, &letter.body()?);
            break opened.ok_or_else(|| Failure::Protocol("a message that cannot be decrypted".to_owned()))?;
        };
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

    /// Leaves the mailbox; tells the peer first why, unless all went well or it knows.
    pub(crate) async fn leave(mut self, result: &Result<(), Failure>) {
        match result {
            Ok(()) => self.mailbox.leave(Mood::Happy).await,
            Err(why) => {
                if !matches!(why, Failure::Peer(_)) {
                    let _ = within(LAST_WORDS, self.write(&letters::error(&why.to_string()))).await;
                }
                self.mailbox.leave(Mood::Errory).await;
            }
        }
    }
}
