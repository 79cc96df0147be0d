//! Which transfers a worker or a client speaks, and what that takes on this machine.

use std::path::PathBuf;

use super::{Failure, Status};
use crate::{
    client::{Wormholes, listening_transfer},
    config::ConfigFile,
    error_chain,
    ids::Address,
    transfer::{
        Transfer, TransferError,
        libp2p::{Listen, Node, announced},
    },
    wormhole::{Layer, Program, WormholeConfig, WormholeError},
};

/// The environment variable by which wormhole-william, which future.p2p calls, is told its mailbox server.
const WILLIAMS_MAILBOX: &str = "WORMHOLE_RELAY_URL";

/// The layer that older kernels have only in part, and beside which the filter of system calls still denies all files.
const LANDLOCK: &str = "Landlock";

/// What to do about a missing program.
const NO_PROGRAM: &str = "put p2p-wormhole beside p2p-worker (cargo build and scripts/install make both), or say --via \
                          libp2p; until then, peers of the R package future.p2p cannot be served";

/// By which transfers futures and results travel.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct TransferArgs {
    /// How futures and results travel: libp2p (ours), wormhole (that of the R package future.p2p), or auto: both
    /// [default: auto]
    #[arg(long, value_name = "TRANSFER", env = "P2P_WORKER_VIA")]
    via: Option<String>,
    /// Mailbox server for wormholes, the same for both sides [default: $WORMHOLE_RELAY_URL, else
    /// ws://relay.magic-wormhole.io:4000/v1]
    #[arg(long, value_name = "URL", env = "P2P_WORKER_WORMHOLE_MAILBOX")]
    wormhole_mailbox: Option<String>,
    /// Transit relay for wormholes [default: tcp:transit.magic-wormhole.io:4001]
    #[arg(long, value_name = "tcp:HOST:PORT", env = "P2P_WORKER_WORMHOLE_RELAY")]
    wormhole_relay: Option<String>,
}

/// Where workers find a client.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ListenArgs {
    /// Where workers reach this client by libp2p: PORT of UDP and TCP on every interface, or ADDRESS:PORT, which may be
    /// repeated; one client at a time can have a port [default: every interface, free ports]
    #[arg(long, value_name = "[ADDRESS:]PORT", env = "P2P_WORKER_LISTEN", value_delimiter = ',')]
    listen: Vec<String>,
    /// An address that workers are told besides, as that of a router that passes the port of --listen on; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", env = "P2P_WORKER_ANNOUNCE", value_delimiter = ',')]
    announce: Vec<String>,
}

impl ListenArgs {
    /// Where to listen, and what to tell besides.
    pub(super) fn resolve(&self, file: &ConfigFile) -> Result<Listening, Failure> {
        let typed = |typed: &[String], file: &Option<Vec<String>>| match (typed, file) {
            ([], Some(file)) => file.clone(),
            (typed, _) => typed.to_vec(),
        };
        let usage = |error| Failure::new(Status::Usage, error);
        let listen = Listen::from_words(&typed(&self.listen, &file.listen)).map_err(usage)?;
        let announce = announced(&typed(&self.announce, &file.announce)).map_err(usage)?;
        Ok(Listening { listen, announce })
    }
}

/// Where a client listens, and what it tells besides.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    listen: Listen,
    announce: Vec<Address>,
}

/// The transfers that there are; at least one.
#[derive(Debug, Clone)]
pub(super) struct Transfers {
    /// Whether libp2p is one of them.
    pub libp2p: bool,
    /// Whether wormholes are, and how.
    pub wormhole: Option<WormholeConfig>,
}

impl Transfers {
    /// A client's ways to workers. It listens only if somebody may come.
    pub(super) async fn of_client(
        self,
        Listening { listen, announce }: Listening,
    ) -> Result<(Option<Transfer<Node>>, Option<Wormholes>), TransferError> {
        let transfer = if self.libp2p { Some(listening_transfer(listen, announce).await?) } else { None };
        Ok((transfer, self.wormhole.map(|config| Wormholes::new(Program::new(config)))))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Auto,
    Libp2p,
    Wormhole,
}

impl TransferArgs {
    /// Finds out what there is. What was asked for by name and is missing is an error; what is missing of "auto" is named in
    /// the log, with the fix.
    pub(super) async fn resolve(&self, file: &ConfigFile) -> Result<Transfers, Failure> {
        let via = self.via(file)?;
        let config = self.config(file)?;
        let only_libp2p = Transfers { libp2p: true, wormhole: None };
        if via == Via::Libp2p {
            return Ok(only_libp2p);
        }
        let wormhole = match usable(config).await {
            Ok(config) => config,
            Err(Failure { error, hint, .. }) if via == Via::Auto => {
                let (why, fix) = (error.map(|error| error_chain(&*error)), hint);
                tracing::warn!(
                    why = why.unwrap_or_default(),
                    fix = fix.unwrap_or_default(),
                    "no wormholes, only libp2p"
                );
                return Ok(only_libp2p);
            }
            Err(failure) => return Err(failure),
        };
        Ok(Transfers { libp2p: via == Via::Auto, wormhole: Some(wormhole) })
    }

    fn via(&self, file: &ConfigFile) -> Result<Via, Failure> {
        match self.via.as_deref().or(file.via.as_deref()).unwrap_or("auto") {
            "auto" => Ok(Via::Auto),
            "libp2p" => Ok(Via::Libp2p),
            "wormhole" => Ok(Via::Wormhole),
            other => Err(Failure::new(Status::Usage, format!("--via {other}: it is auto, libp2p or wormhole"))),
        }
    }

    fn config(&self, file: &ConfigFile) -> Result<WormholeConfig, Failure> {
        let usage = |error| Failure::new(Status::Usage, error);
        let mut config = WormholeConfig::new(program()?);
        let williams = || std::env::var(WILLIAMS_MAILBOX).ok().filter(|url| !url.is_empty());
        if let Some(url) = self.wormhole_mailbox.clone().or_else(williams).or_else(|| file.wormhole_mailbox.clone()) {
            config.mailbox = url.parse().map_err(usage)?;
        }
        if let Some(relay) = self.wormhole_relay.as_ref().or(file.wormhole_relay.as_ref()) {
            config.relay = relay.parse().map_err(usage)?;
        }
        Ok(config)
    }
}

/// `p2p-wormhole` belongs beside the running program.
fn program() -> Result<PathBuf, Failure> {
    let me = std::env::current_exe().map_err(|error| Failure::new(Status::Usage, error))?;
    Ok(me.with_file_name("p2p-wormhole"))
}

/// Whether the program is there, is of our build, and confines itself.
async fn usable(mut config: WormholeConfig) -> Result<WormholeConfig, Failure> {
    let layers = Program::new(config.clone()).probe().await.map_err(|error| match error {
        WormholeError::Execute { .. } => Failure::new(Status::Usage, error).hint(NO_PROGRAM),
        error => Failure::new(Status::Usage, error).hint("install p2p-worker and p2p-wormhole anew, together"),
    })?;
    let shown = |layer: &Layer| format!("{}: {}", layer.name, layer.detail);
    let missing: Vec<&Layer> = layers.iter().filter(|layer| !layer.enforced).collect();
    if missing.iter().any(|layer| layer.name != LANDLOCK) {
        let missing = missing.into_iter().map(shown).collect::<Vec<_>>().join("; ");
        return Err(Failure::new(Status::Sandbox, WormholeError::Weaker { missing }).hint("say --via libp2p"));
    }
    if let Some(landlock) = missing.first() {
        tracing::warn!(
            missing = shown(landlock),
            fix = "Linux 6.12",
            "p2p-wormhole, which speaks with strangers, is held by seccomp alone"
        );
        config.weaker = true;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> ConfigFile {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn flags_come_before_the_file() {
        let file = file("via = \"wormhole\"\nwormhole-mailbox = \"ws://a:1/v1\"\nwormhole-relay = \"tcp:b:2\"\n");
        let typed = TransferArgs {
            via: Some("auto".to_owned()),
            wormhole_relay: Some("c:3".to_owned()),
            ..TransferArgs::default()
        };
        assert_eq!(typed.via(&file).unwrap(), Via::Auto);
        let config = typed.config(&file).unwrap();
        assert_eq!(config.relay.to_string(), "tcp:c:3");
        assert_eq!(TransferArgs::default().via(&file).unwrap(), Via::Wormhole);
        assert_eq!(TransferArgs::default().via(&ConfigFile::default()).unwrap(), Via::Auto);
    }

    #[test]
    fn where_a_client_listens_is_typed_or_in_the_file() {
        let file = file("listen = [\"4001\"]\nannounce = [\"203.0.113.7:4001\"]\n");
        let found = ListenArgs::default().resolve(&file).unwrap();
        assert_eq!((found.listen, found.announce.len()), (Listen::Port(4001), 2));
        let typed = ListenArgs { listen: vec!["4002".to_owned()], announce: Vec::new() };
        assert_eq!(typed.resolve(&file).unwrap().listen, Listen::Port(4002));
        let nothing = ListenArgs::default().resolve(&ConfigFile::default()).unwrap();
        assert_eq!((nothing.listen, nothing.announce.len()), (Listen::Everywhere, 0));
        for (listen, announce) in [("70000", "203.0.113.7:1"), ("4001", "here")] {
            let typed = ListenArgs { listen: vec![listen.to_owned()], announce: vec![announce.to_owned()] };
            assert_eq!(typed.resolve(&file).unwrap_err().status, Status::Usage);
        }
    }

    #[test]
    fn what_is_none_is_wrong_usage() {
        let typed = TransferArgs { via: Some("carrier pigeon".to_owned()), ..TransferArgs::default() };
        let failure = typed.via(&ConfigFile::default()).unwrap_err();
        assert_eq!(failure.status, Status::Usage);
        let typed = TransferArgs { wormhole_mailbox: Some("wss://x".to_owned()), ..TransferArgs::default() };
        assert!(typed.config(&ConfigFile::default()).unwrap_err().message().unwrap().contains("TLS"));
    }
}
