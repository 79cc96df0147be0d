//! An SSH client that sends a board whatever it is told to, and believes any host key.

use std::{path::Path, sync::Arc};

use russh::{
    ChannelMsg, ChannelReadHalf, ChannelWriteHalf,
    client::{self, Handle, Msg},
    keys::{PrivateKeyWithHashAlg, load_secret_key},
};

use super::board_support::soon;

/// A connection that is signed in.
pub(crate) struct Raw(Handle<Anybody>);

struct Anybody;

impl client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// A command on its way.
pub(crate) struct Running {
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    pub(crate) heard: Heard,
}

/// What a command has answered so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) output: String,
    pub(crate) errors: String,
    pub(crate) status: Option<u32>,
    pub(crate) ended: bool,
}

impl Raw {
    /// Signs in with a key.
    pub(crate) async fn sign_in(port: u16, key: &Path) -> Self {
        let key = Arc::new(load_secret_key(key, None).unwrap());
        let connecting = client::connect(Arc::default(), ("127.0.0.1", port), Anybody);
        let mut handle = soon("a connection", connecting).await.unwrap();
        let result = soon("the sign-in", handle.authenticate_publickey("x", PrivateKeyWithHashAlg::new(key, None)));
        assert!(result.await.unwrap().success(), "signed in");
        Self(handle)
    }

    /// Sends a command; comes back when the board has taken it.
    pub(crate) async fn start(&self, command: &[u8]) -> Running {
        self.try_start(command).await.expect("the board has a channel for it")
    }

    /// The same; nothing when the board refuses the channel.
    pub(crate) async fn try_start(&self, command: &[u8]) -> Option<Running> {
        let channel = soon("a channel", self.0.channel_open_session()).await.ok()?;
        soon("the command", channel.exec(true, command)).await.unwrap();
        let (read, write) = channel.split();
        let mut running = Running { read, write, heard: Heard::default() };
        soon("that it is taken", running.until(|_, taken| taken)).await;
        Some(running)
    }

    /// Runs a command that ends by itself.
    pub(crate) async fn run(&self, command: &str) -> Heard {
        let mut running = self.start(command.as_bytes()).await;
        soon("the end of a command", running.until(|heard, _| heard.ended)).await;
        running.heard
    }
}

impl Running {
    pub(crate) async fn send(&self, text: &str) -> bool {
        self.write.data_bytes(text.as_bytes().to_vec()).await.is_ok()
    }

    /// Sends the same over and over, and reads and forgets what comes, until the board ends it.
    pub(crate) async fn flood(&mut self, piece: &str) {
        let writing = async { while self.write.data_bytes(piece.as_bytes().to_vec()).await.is_ok() {} };
        let reading = async { while self.read.wait().await.is_some() {} };
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
    }

    pub(crate) async fn end_input(&self) {
        // A command that has ended needs no end of input.
        let _ = self.write.eof().await;
    }

    /// Listens until something holds or the command has ended. The second argument: the board has taken the command.
    pub(crate) async fn until(&mut self, holds: impl Fn(&Heard, bool) -> bool) {
        let mut taken = false;
        while !holds(&self.heard, taken) && !self.heard.ended {
            match self.read.wait().await {
                Some(ChannelMsg::Data { data }) => self.heard.output.push_str(&String::from_utf8_lossy(&data)),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    self.heard.errors.push_str(&String::from_utf8_lossy(&data));
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => self.heard.status = Some(exit_status),
                Some(ChannelMsg::Success) => taken = true,
                Some(ChannelMsg::Failure | ChannelMsg::Close) | None => self.heard.ended = true,
                Some(_) => {}
            }
        }
    }

    pub(crate) async fn close(self) {
        let _ = self.write.close().await;
    }
}
