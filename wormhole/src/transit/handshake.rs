//! What is said on a new connection before the first record.

use std::{net::TcpStream, os::linux::net::TcpStreamExt};

use async_io::Async;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::Role;
use crate::{hex, keys::Secret};

/// The lines of one transfer, and the keys of its records.
pub(crate) struct Words {
    role: Role,
    ours: String,
    theirs: String,
    relay: String,
    seal: [u8; 32],
    open: [u8; 32],
}

impl Words {
    /// Makes them from the key of the transfer. `None` without random bits.
    pub(crate) fn new(role: Role, key: &Secret) -> Option<Self> {
        let bytes = |purpose: &str| Some(key.derive(purpose.as_bytes())?.bytes());
        let hex = |purpose: &str| Some(hex::encode(&bytes(purpose)?));
        let sender = format!("transit sender {} ready\n\n", hex("transit_sender")?);
        let receiver = format!("transit receiver {} ready\n\n", hex("transit_receiver")?);
        let (from_sender, from_receiver) = (bytes("transit_record_sender_key")?, bytes("transit_record_receiver_key")?);
        let mut side = [0; 8];
        getrandom::fill(&mut side).ok()?;
        let side = u64::from_be_bytes(side);
        let relay = format!("please relay {} for side {side:016x}\n", hex("transit_relay_token")?);
        Some(match role {
            Role::Sender => {
                Self { role, ours: sender, theirs: receiver, relay, seal: from_sender, open: from_receiver }
            }
            Role::Receiver => {
                Self { role, ours: receiver, theirs: sender, relay, seal: from_receiver, open: from_sender }
            }
        })
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The keys for what we send and for what we receive.
    pub(super) fn keys(&self) -> ([u8; 32], [u8; 32]) {
        (self.seal, self.open)
    }

    /// Asks the relay for the peer; it answers when the peer has asked too.
    pub(super) async fn ask_relay(&self, stream: &mut Async<TcpStream>) -> Result<(), String> {
        say(stream, &self.relay).await?;
        hear(stream, "ok\n").await.map_err(|why| format!("the relay did not find the peer: {why}"))
    }

    /// Both say that they are there; whoever does not know the key cannot. The sender begins. It would be as good if both did at
    /// once, but for `wormhole-william` as a sender: it may close the connection that it chooses if, from the relay's "ok" to
    /// that choice, it never had to wait (file_transport.go of version 1.0.6: the goroutine of `waitForRelayPeer` then
    /// finds both of its channels closed, and takes either).
    pub(super) async fn greet(&self, stream: &mut Async<TcpStream>) -> Result<(), String> {
        match self.role {
            Role::Sender => {
                say(stream, &self.ours).await?;
                hear(stream, &self.theirs).await
            }
            Role::Receiver => {
                hear(stream, &self.theirs).await?;
                say(stream, &self.ours).await
            }
        }
    }

    /// The sender's decision for this connection.
    pub(super) async fn go(stream: &mut Async<TcpStream>) -> Result<(), String> {
        say(stream, "go\n").await
    }

    /// Waits for the sender's decision.
    pub(super) async fn wait_for_go(stream: &mut Async<TcpStream>) -> Result<(), String> {
        hear(stream, "go\n").await.map_err(|why| format!("the peer did not choose it: {why}"))
    }
}

/// Has what was read acknowledged now (tcp(7), `TCP_QUICKACK`). A relay that does not set `TCP_NODELAY`, as Python's, holds its
/// next short line back until then, which the kernel would put off for 40 ms.
pub(super) fn acknowledge_at_once(stream: &Async<TcpStream>) {
    let _ = stream.get_ref().set_quickack(true);
}

async fn say(stream: &mut Async<TcpStream>, line: &str) -> Result<(), String> {
    stream.write_all(line.as_bytes()).await.map_err(|error| error.to_string())
}

/// Reads just as many bytes as are expected, so that what follows them stays.
async fn hear(stream: &mut Async<TcpStream>, line: &str) -> Result<(), String> {
    let mut heard = vec![0; line.len()];
    stream.read_exact(&mut heard).await.map_err(|error| error.to_string())?;
    acknowledge_at_once(stream);
    let differs = heard.iter().zip(line.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    if differs == 0 { Ok(()) } else { Err("the other end does not say what it should".to_owned()) }
}
