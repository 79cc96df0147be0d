//! A board on loopback, keys, and waiting with a bound.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use p2p_worker::{
    board::{
        BoardEvent, Link,
        server::{BoardServer, BoardServerConfig},
        ssh::{SshBoard, SshBoardConfig},
    },
    ids::UserName,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

/// Far beyond what anything here takes; only a failing test waits for so long.
pub(crate) const LONG: Duration = Duration::from_secs(40);

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(LONG, work).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A board that serves, with a folder for everything.
pub(crate) struct Served {
    pub(crate) folder: TempDir,
    pub(crate) port: u16,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Served {
    /// A board with these accounts, each with a key of its own in `folder/NAME`.
    pub(crate) async fn with(users: &[&str]) -> Self {
        let served = Self::start(tempfile::tempdir().unwrap(), 0).await;
        for user in users {
            let key = make_key(served.folder.path(), user, "");
            served.add(user, &key);
        }
        served
    }

    pub(crate) async fn start(folder: TempDir, port: u16) -> Self {
        let config = BoardServerConfig { listen: format!("127.0.0.1:{port}"), state: folder.path().join("board") };
        let server = BoardServer::bind(config).await.unwrap();
        let port = server.local_addr().port();
        let host_key = server.host_key().to_openssh().unwrap();
        std::fs::write(folder.path().join("known_hosts"), format!("[127.0.0.1]:{port} {host_key}\n")).unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { folder, port, stop, task }
    }

    /// Stops it; gives back its folder.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        soon("the board's end", self.task).await.unwrap();
        self.folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn add(&self, user: &str, key: &Path) {
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        self.accounts().add(&user.parse().unwrap(), &public).unwrap();
    }

    pub(crate) fn accounts(&self) -> p2p_worker::board::server::Accounts {
        p2p_worker::board::server::Accounts::open(&self.path("board")).unwrap()
    }

    /// How to sign in as somebody, with nothing taken from the machine that runs the test.
    pub(crate) fn config(&self, user: &str) -> SshBoardConfig {
        let address = format!("127.0.0.1:{}", self.port).parse().unwrap();
        let mut config = SshBoardConfig::new(address, self.folder.path());
        config.ssh_folder = None;
        config.agent = None;
        config.identities = vec![self.path(user)];
        config
    }

    pub(crate) fn board(&self, user: &str, shares_with: &[&str]) -> SshBoard {
        let mut config = self.config(user);
        config.shares_with = names(shares_with);
        SshBoard::new(config)
    }
}

pub(crate) fn names(names: &[&str]) -> Vec<UserName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Makes a key with ssh-keygen.
pub(crate) fn make_key(folder: &Path, name: &str, passphrase: &str) -> PathBuf {
    let path = folder.join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-C", "test key", "-N", passphrase, "-f"])
        .arg(&path)
        .status()
        .expect("ssh-keygen is installed");
    assert!(made.success());
    path
}

/// The next event of a link.
pub(crate) async fn event(link: &mut Link) -> BoardEvent {
    soon("an event", link.incoming.recv()).await.expect("the link goes on")
}

/// The next line of a link, which must be the next event.
pub(crate) async fn line(link: &mut Link) -> String {
    match event(link).await {
        BoardEvent::Line(line) => String::from_utf8(line).unwrap(),
        other => panic!("a line is expected, not {other:?}"),
    }
}

pub(crate) async fn send(link: &Link, line: &str) {
    link.outgoing.send(line.to_owned()).await.unwrap();
}
