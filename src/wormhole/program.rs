//! `p2p-wormhole`: started for one transfer, and gone after it.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use p2p_wormhole_contract::{
    GRACE,
    message::{Layer, MAX_RELAYS, Mailbox, Reach, Relay, Request, Task},
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Code, Progress, Wormhole, WormholeConfig, WormholeError,
    conversation::{Conversation, Ends, layers},
    names,
};
use crate::{
    spool::{SpoolWriter, Spooled},
    text,
};

/// How long beyond [`GRACE`] the program may take to end.
const SLACK: Duration = Duration::from_secs(5);
/// How much of what it prints is repeated, in bytes.
const PRINTED: u64 = 1024;

/// The real thing.
#[derive(Debug, Clone)]
pub struct Program {
    config: WormholeConfig,
}

impl Program {
    /// Transfers by this configuration. Starts nothing yet.
    #[must_use]
    pub fn new(config: WormholeConfig) -> Self {
        Self { config }
    }

    /// Starts the program for nothing but its first message: whether it is there, of our build, and which layers of its own
    /// sandbox hold on this machine.
    ///
    /// # Errors
    /// [`WormholeError::Execute`], [`WormholeError::OtherBuild`], and [`WormholeError::Died`] or another one where it does not
    /// keep to its contract.
    pub async fn probe(&self) -> Result<Vec<Layer>, WormholeError> {
        let mut child = self.start()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or(WormholeError::Contract("it has no pipes"))?;
        let layers = layers(output).await;
        drop(input);
        if let Err(WormholeError::Died { .. }) = layers {
            return Err(died(child).await);
        }
        bury(child);
        layers
    }

    async fn run(
        &self,
        task: Task,
        code: &Code,
        ends: Ends<'_>,
        progress: impl FnMut(Progress) + Send,
        cancel: &CancellationToken,
    ) -> Result<(), WormholeError> {
        let request = self.request(task, code);
        let request = tokio::select! { biased;
            () = cancel.cancelled() => return Err(WormholeError::Cancelled),
            request = request => request?,
        };
        let mut child = self.start()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or(WormholeError::Contract("it has no pipes"))?;
        let talk = Conversation::new(&self.config, request, ends, progress);
        let result = tokio::select! { biased;
            () = cancel.cancelled() => Err(WormholeError::Cancelled),
            result = talk.hold(input, output) => result,
        };
        // Both pipes are closed now: the program tells its peer, if there is something to tell, and ends.
        match result {
            Err(WormholeError::Died { .. }) => return Err(died(child).await),
            // Whoever cancels and waits for this waits for the program's farewell too.
            Err(WormholeError::Cancelled) => last_words(child).await,
            _ => bury(child),
        }
        result
    }

    /// Everything that the program has to know. It cannot resolve names itself.
    async fn request(&self, task: Task, code: &Code) -> Result<Box<Request>, WormholeError> {
        let WormholeConfig { mailbox, relay, relayed, reach, patience, .. } = &self.config;
        let addresses = names::addresses(&mailbox.host, patience.names).await?;
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, mailbox.host.port)).collect();
        let mut relays = Vec::with_capacity(MAX_RELAYS);
        if *relayed {
            match names::addresses(&relay.0, patience.names).await {
                Ok(addresses) => relays.push(Relay { host: relay.0.clone(), addresses }),
                Err(error) if *reach == Reach::Nowhere => return Err(error),
                Err(error) => tracing::warn!(error = %crate::error_chain(&error), "going without the transit relay"),
            }
        }
        let mailbox = Mailbox { addresses, path: mailbox.path.clone() };
        let (code, times) = (code.as_str().to_owned(), patience.times());
        Ok(Box::new(Request { task, code, mailbox, relays, relayed: *relayed, reach: *reach, times }))
    }

    fn start(&self) -> Result<Child, WormholeError> {
        let program = &self.config.program;
        Command::new(program)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| WormholeError::Execute { program: program.display().to_string(), source })
    }
}

impl Wormhole for Program {
    async fn send(
        &self,
        code: &Code,
        payload: &Spooled,
        progress: impl FnMut(Progress) + Send,
        cancel: &CancellationToken,
    ) -> Result<(), WormholeError> {
        let task = Task::Send { size: payload.size() };
        self.run(task, code, Ends::Payload(payload.reader()), progress, cancel).await
    }

    async fn receive(
        &self,
        code: &Code,
        most: u64,
        directory: &Path,
        progress: impl FnMut(Progress) + Send,
        cancel: &CancellationToken,
    ) -> Result<Spooled, WormholeError> {
        let mut writer = SpoolWriter::new(directory, most)?;
        self.run(Task::Receive { most }, code, Ends::Spool(&mut writer), progress, cancel).await?;
        Ok(writer.finish())
    }
}

/// Waits for the end of a program that has nothing more to say, elsewhere.
fn bury(child: Child) {
    tokio::spawn(last_words(child));
}

async fn last_words(mut child: Child) {
    if timeout(GRACE + SLACK, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// How the program ended that should not have.
async fn died(mut child: Child) -> WormholeError {
    let mut printed = Vec::new();
    if let Some(errors) = child.stderr.take() {
        let _ = timeout(SLACK, errors.take(PRINTED).read_to_end(&mut printed)).await;
    }
    let status = match timeout(SLACK, child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => {
            let _ = child.kill().await;
            "it closed its pipe and went on".to_owned()
        }
    };
    let printed = text::for_log(String::from_utf8_lossy(&printed).trim(), 200);
    let how = if printed.is_empty() { status } else { format!("{status}: {printed}") };
    WormholeError::Died { how }
}
