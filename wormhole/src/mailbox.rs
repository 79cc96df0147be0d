//! The mailbox server: JSON over a WebSocket, where two peers that know the same nameplate leave each other messages.
//!
//! Source: magic-wormhole-protocols, `server-protocol.md`. A nameplate and its mailbox are held for a side until that side gives
//! them back, also when its connection is gone, and no more than two sides can hold them. So whoever has connected must
//! [`Mailbox::leave`], whatever happened meanwhile: both codes of a future have the same nameplate.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use async_io::Async;
use async_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};
use futures_lite::StreamExt;
use p2p_wormhole_contract::message::{self, Failure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{failure, hex, time::within};

/// How long the mailbox server has to take back what it holds for us.
const LEAVE: Duration = Duration::from_secs(1);
/// The longest message of a server that is taken, in bytes. A letter of known peers has some hundred.
const LONGEST: usize = 1024 * 1024;
/// Bytes that are read at a time.
const BUFFER: usize = 16 * 1024;

/// What we say.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Command<'a> {
    Bind { appid: &'a str, side: &'a str },
    Claim { nameplate: &'a str },
    Open { mailbox: &'a str },
    Add { phase: &'a str, body: String },
    Release { nameplate: String },
    Close { mailbox: String, mood: Mood },
}

/// What the server says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Word {
    Welcome {
        welcome: Welcome,
    },
    Claimed {
        mailbox: String,
    },
    Message(Letter),
    Released,
    Closed,
    Error {
        error: String,
    },
    /// An acknowledgement, or what later servers may say.
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Welcome {
    error: Option<String>,
    #[serde(rename = "permission-required")]
    permission: Option<Map<String, Value>>,
}

/// A message that a side left.
#[derive(Debug, Deserialize)]
pub(crate) struct Letter {
    /// Whose it is.
    pub(crate) side: String,
    /// Which of its messages.
    pub(crate) phase: String,
    body: String,
}

impl Letter {
    /// What it holds.
    pub(crate) fn body(&self) -> Result<Vec<u8>, Failure> {
        hex::decode(&self.body).ok_or_else(|| Failure::Mailbox("it sends a message that is not hexadecimal".to_owned()))
    }
}

/// How it went, which servers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mood {
    /// Well.
    Happy,
    /// Nobody came.
    Lonely,
    /// Something failed.
    Errory,
    /// Somebody came who did not know the password.
    Scary,
}

/// A connection to a mailbox server, with what the server holds for it.
pub(crate) struct Mailbox {
    socket: WebSocketStream<Async<TcpStream>>,
    side: String,
    /// Claimed, or asked for, and not given back.
    nameplate: Option<String>,
    /// Opened and not closed.
    mailbox: Option<String>,
}

impl Mailbox {
    /// Connects to the first of the server's addresses that answers, for an application. Nothing is claimed by that.
    pub(crate) async fn connect(server: &message::Mailbox, application: &str) -> Result<Self, Failure> {
        let mut last = Failure::Request("no address of the mailbox server".to_owned());
        for address in &server.addresses {
            match dial(*address, &server.path).await {
                Ok(socket) => return Self::greet(socket, application).await,
                Err(error) => {
                    last = Failure::Mailbox(failure::bounded(&format!("{address}: {}", failure::chain(&error))));
                }
            }
        }
        Err(last)
    }

    async fn greet(socket: WebSocketStream<Async<TcpStream>>, application: &str) -> Result<Self, Failure> {
        let mut side = [0; 5];
        getrandom::fill(&mut side).map_err(|_| failure::no_random_bits())?;
        let mut this = Self { socket, side: hex::encode(&side), nameplate: None, mailbox: None };
        let Word::Welcome { welcome } = this.hear().await? else {
            return Err(Failure::Mailbox("it does not say welcome".to_owned()));
        };
        if let Some(error) = welcome.error {
            return Err(failure::of_server(&error));
        }
        if let Some(permission) = welcome.permission.filter(|ways| !ways.contains_key("none")) {
            let ways: Vec<&str> = permission.keys().map(String::as_str).collect();
            let what = format!("it asks everybody for one of: {}; choose another mailbox server", ways.join(", "));
            return Err(Failure::Mailbox(failure::bounded(&what)));
        }
        let side = this.side.clone();
        this.say(&Command::Bind { appid: application, side: &side }).await?;
        Ok(this)
    }

    /// The name that the server knows us by.
    pub(crate) fn side(&self) -> &str {
        &self.side
    }

    /// Claims the nameplate and opens its mailbox.
    pub(crate) async fn enter(&mut self, nameplate: &str) -> Result<(), Failure> {
        self.nameplate = Some(nameplate.to_owned());
        self.say(&Command::Claim { nameplate }).await?;
        let mailbox = loop {
            match self.hear().await? {
                Word::Claimed { mailbox } => break mailbox,
                Word::Other => {}
                word => return Err(out_of_order(&word)),
            }
        };
        self.mailbox = Some(mailbox.clone());
        self.say(&Command::Open { mailbox: &mailbox }).await
    }

    /// Leaves a message.
    pub(crate) async fn add(&mut self, phase: &str, body: &[u8]) -> Result<(), Failure> {
        self.say(&Command::Add { phase, body: hex::encode(body) }).await
    }

    /// The next message that another side left. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Letter, Failure> {
        loop {
            match self.hear().await? {
                Word::Message(letter) if letter.side != self.side => return Ok(letter),
                Word::Message(_) | Word::Released | Word::Other => {}
                word => return Err(out_of_order(&word)),
            }
        }
    }

    /// Gives the nameplate back: both sides are in the mailbox, and nobody else is to come.
    pub(crate) async fn release(&mut self) -> Result<(), Failure> {
        match self.nameplate.take() {
            Some(nameplate) => self.say(&Command::Release { nameplate }).await,
            None => Ok(()),
        }
    }

    /// Gives everything back that the server holds for us, as far as it answers within [`LEAVE`].
    pub(crate) async fn leave(mut self, mood: Mood) {
        let leaving = async {
            let _ = self.give_back(mood).await;
            let _ = self.socket.close(None).await;
        };
        within(LEAVE, leaving).await;
    }

    /// Waits for the answers: a connection that is closed with words of the server unread may be reset, and our last words lost.
    async fn give_back(&mut self, mood: Mood) -> Result<(), Failure> {
        let mut unanswered = 0;
        if self.nameplate.is_some() {
            self.release().await?;
            unanswered += 1;
        }
        if let Some(mailbox) = self.mailbox.take() {
            self.say(&Command::Close { mailbox, mood }).await?;
            unanswered += 1;
        }
        while unanswered > 0 {
            match self.word().await? {
                // It was claimed while we gave up.
                Word::Claimed { mailbox } => {
                    self.say(&Command::Close { mailbox, mood }).await?;
                    unanswered += 1;
                }
                Word::Released | Word::Closed | Word::Error { .. } => unanswered -= 1,
                Word::Welcome { .. } | Word::Message(_) | Word::Other => {}
            }
        }
        Ok(())
    }

    async fn say(&mut self, command: &Command<'_>) -> Result<(), Failure> {
        let text = serde_json::to_string(command).map_err(|error| Failure::Fault(failure::chain(&error)))?;
        self.socket.send(Message::text(text)).await.map_err(|error| broken(&error))
    }

    /// The next word. That something went wrong is an error.
    async fn hear(&mut self) -> Result<Word, Failure> {
        match self.word().await? {
            Word::Error { error } => Err(failure::of_server(&error)),
            word => Ok(word),
        }
    }

    async fn word(&mut self) -> Result<Word, Failure> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let no_word =
                        |error| Failure::Mailbox(format!("it says what is no message: {}", failure::chain(&error)));
                    return serde_json::from_str(&text).map_err(no_word);
                }
                Some(Ok(Message::Binary(_))) => return Err(Failure::Mailbox("it sends bytes, not text".to_owned())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => {
                    return Err(Failure::Mailbox("it closed the connection".to_owned()));
                }
                Some(Err(error)) => return Err(broken(&error)),
            }
        }
    }
}

async fn dial(address: SocketAddr, path: &str) -> Result<WebSocketStream<Async<TcpStream>>, Error> {
    let stream = Async::<TcpStream>::connect(address).await?;
    stream.get_ref().set_nodelay(true)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST));
    let (socket, _) = client_async_with_config(format!("ws://{address}{path}"), stream, Some(config)).await?;
    Ok(socket)
}

fn broken(error: &Error) -> Failure {
    Failure::Mailbox(failure::chain(error))
}

fn out_of_order(word: &Word) -> Failure {
    Failure::Mailbox(failure::bounded(&format!("it says {word:?}, which does not belong there")))
}
