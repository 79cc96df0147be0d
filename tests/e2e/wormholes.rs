//! Magic-Wormhole for one test: Python's mailbox server and transit relay on loopback, wormhole-william as future.p2p calls
//! it, and peers of future.p2p, which are R scripts of ours that play what that package was seen to do.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::world::{Running, World, eventually};

/// The port of wormhole-william's relay, which cannot be told another one.
const RELAY_PORT: u16 = 4001;

/// An account of the board, and how the system's ssh signs in to it.
pub(crate) struct Account {
    /// The configuration for ssh, by which `board` and `pipe.board` are the board.
    config: PathBuf,
    key: PathBuf,
}

pub(crate) struct Wormholes {
    folder: tempfile::TempDir,
    pub(crate) mailbox: String,
    pub(crate) relay: String,
    _servers: [Running; 2],
}

/// An address of loopback of which nobody uses the relay's port. The whole of 127.0.0.0/8 is this machine (RFC 1122).
fn free_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(8).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, a, b, c] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, a, b, c.clamp(1, 254));
        if TcpListener::bind((address, RELAY_PORT)).is_ok() {
            return address;
        }
    }
}

impl Wormholes {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("p2p-wormholes-").tempdir().unwrap();
        let place = std::env::var_os("P2P_TEST_WORMHOLE").unwrap_or("/var/tmp/p2p-worker-test-wormhole".into());
        let twist = PathBuf::from(place).join("bin/twist");
        assert!(twist.exists(), "run scripts/test-wormhole first: no {}", twist.display());
        let relay = free_address();
        let start = |arguments: &[&str]| {
            let mut command = Command::new(&twist);
            Running::start({
                command.args(["--log-format=text"]).args(arguments).current_dir(folder.path());
                command
            })
        };
        let port = format!("--port=tcp:{RELAY_PORT}:interface={relay}");
        let relays = start(&["transitrelay", &port]);
        let mailboxes = start(&["wormhole-mailbox", "--port=tcp:0:interface=127.0.0.1", "--channel-db=:memory:"]);
        relays.wait_for("starting on");
        let line = mailboxes.wait_for("starting on");
        let mailbox = format!("ws://127.0.0.1:{}/v1", line.rsplit(' ').next().unwrap());
        let hosts = folder.path().join("hosts");
        fs::write(&hosts, format!("{relay} transit.magic-wormhole.io\n127.0.0.1 localhost\n")).unwrap();
        let william = folder.path().join("wormhole-william");
        let bwrap = format!(
            "#!/bin/sh\nexec bwrap --dev-bind / / --ro-bind '{}' /etc/hosts --die-with-parent -- wormhole-william \"$@\"\n",
            hosts.display()
        );
        fs::write(&william, bwrap).unwrap();
        fs::set_permissions(&william, fs::Permissions::from_mode(0o755)).unwrap();
        Self { mailbox, relay: format!("tcp:{relay}:{RELAY_PORT}"), folder, _servers: [relays, mailboxes] }
    }

    /// Has p2p-worker come here by wormhole.
    pub(crate) fn for_ours(&self, command: &mut Command) {
        command.env("P2P_WORKER_WORMHOLE_MAILBOX", &self.mailbox).env("P2P_WORKER_WORMHOLE_RELAY", &self.relay);
        command.env("P2P_WORKER_VIA", "auto");
    }

    /// An R script of `tests/e2e/peers`, as this account, on the world's board.
    pub(crate) fn peer(
        &self,
        script: &str,
        account: &Account,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Running {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/peers").join(script);
        let mut command = Command::new("Rscript");
        command.arg("--vanilla").arg(script).arg("pipe.board").args(arguments).current_dir(self.folder.path());
        command.env("PEER_SSH_ARGS", format!("-F '{}'", account.config.display()));
        command.env("PEER_WORMHOLE", self.folder.path().join("wormhole-william"));
        command.env("WORMHOLE_RELAY_URL", &self.mailbox).envs(environment.iter().copied());
        Running::start(command)
    }

    /// A worker that serves the cluster.
    pub(crate) fn worker(&self, account: &Account, cluster: &str, environment: &[(&str, &str)]) -> Running {
        let worker = self.peer("r_worker.R", account, &[cluster], environment);
        worker.wait_for("serving as");
        worker
    }

    /// A worker of ours as this account, which has joined.
    pub(crate) fn our_worker(&self, world: &World, account: &Account, arguments: &[&str]) -> Running {
        let state = account.key.with_extension("state");
        let mut command = world.command(&["--board", &world.board(), "--accept-new", "--identity"]);
        command.arg(&account.key).arg("--state").arg(&state).args(arguments).env("P2P_WORKER_LOG", "info");
        self.for_ours(&mut command);
        let worker = Running::start(command);
        worker.wait_for("joined the cluster");
        worker
    }

    /// The lines of a topic, as the system's ssh reads them.
    pub(crate) fn listen(&self, account: &Account, topic: &str) -> Running {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&account.config).args(["pipe.board", "sub", topic]).stdin(Stdio::null());
        let listener = Running::start(command);
        eventually("the listener is there", || self.channels(account).contains("Subs:"));
        listener
    }

    /// The channels of an account.
    pub(crate) fn channels(&self, account: &Account) -> String {
        let output = Command::new("ssh").arg("-F").arg(&account.config).args(["pipe.board", "ls"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The world's own account, `alice`.
    pub(crate) fn alice(&self, world: &World) -> Account {
        self.account(world, "alice", &world.home().join(".ssh/id_ed25519"))
    }

    /// One more account of the world's board.
    pub(crate) fn add(&self, world: &World, name: &str) -> Account {
        let key = self.folder.path().join(name);
        let make = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        assert!(make.unwrap().success());
        let add = Command::new(world.programs().join("p2p-worker"))
            .args(["board", "user", "add", name])
            .arg(key.with_extension("pub"))
            .arg("--state")
            .arg(world.folder.path().join("board"))
            .output()
            .unwrap();
        assert!(add.status.success(), "{add:?}");
        self.account(world, name, &key)
    }

    fn account(&self, world: &World, name: &str, key: &Path) -> Account {
        // ssh refuses a key that somebody else owns, and ours may be the ordinary user's.
        let own = self.folder.path().join(format!("{name}.key"));
        fs::copy(key, &own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).unwrap();
        let config = self.folder.path().join(format!("{name}.config"));
        let text = format!(
            "Host board pipe.board\n  HostName 127.0.0.1\n  Port {}\n  User {name}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             IdentityAgent none\n  BatchMode yes\n  LogLevel ERROR\n  StrictHostKeyChecking accept-new\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
            world.port(),
            own.display(),
            self.folder.path().join("known_hosts").display(),
        );
        fs::write(&config, text).unwrap();
        Account { config, key: own }
    }
}
