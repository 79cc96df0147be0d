//! Magic-Wormhole for one test: Python's mailbox server and transit relay on loopback, wormhole-william as future.p2p calls
//! it, and peers of future.p2p, which are R scripts of ours that play what that package was seen to do.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    servers,
    world::{Running, World, eventually, stdout},
};

/// An account of the board, and how the system's ssh signs in to it.
pub(crate) struct Account {
    name: String,
    /// The configuration for ssh, by which `board` and `pipe.board` are the board.
    config: PathBuf,
    key: PathBuf,
}

/// Which R the peers are run by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeersR {
    OfThisMachine,
    /// That of the test root, which is newer, as is its package future.
    OfTheTestRoot,
}

pub(crate) struct Wormholes {
    pub(crate) folder: tempfile::TempDir,
    r: PeersR,
    pub(crate) mailbox: String,
    pub(crate) relay: String,
    _servers: [Running; 2],
}

/// The root file system of `scripts/test-root`.
pub(crate) fn test_root() -> PathBuf {
    let root = std::env::var_os("P2P_TEST_ROOT");
    assert!(root.is_some(), "P2P_TEST_ROOT must be set, see scripts/test-root");
    root.unwrap().into()
}

/// A script that starts a program of this machine where this machine's root is /mnt, with the libraries that it has here.
fn borrowed(program: &str) -> String {
    let path = path_of(program);
    let linked = stdout(&Command::new("ldd").arg(&path).output().unwrap());
    // NAME => PATH (ADDRESS), and the interpreter alone.
    let files = linked.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let interpreter = linked.lines().map(str::trim).find(|line| line.starts_with('/')).unwrap();
    // The link to it is an absolute one.
    let interpreter = fs::canonicalize(interpreter.split(' ').next().unwrap()).unwrap();
    let folders: Vec<String> =
        files.map(|file| format!("/mnt{}", Path::new(file).parent().unwrap().display())).collect();
    format!("#!/bin/sh\nexec /mnt{} --library-path {} /mnt{} \"$@\"\n", interpreter.display(), folders.join(":"), path)
}

/// Where a program is that this machine has.
fn path_of(program: &str) -> String {
    let which = Command::new("sh").args(["-c", "command -v \"$1\"", "sh", program]).output().unwrap();
    stdout(&which).trim().to_owned()
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Wormholes {
    pub(crate) fn new(r: PeersR) -> Self {
        let folder = tempfile::Builder::new().prefix("p2p-wormholes-").tempdir().unwrap();
        let relay = servers::free_address();
        let relays = Running::start(servers::relay(relay, folder.path()));
        let mailboxes = Running::start(servers::mailbox(folder.path()));
        relays.wait_for("starting on");
        let mailbox = servers::mailbox_url(&mailboxes.wait_for("starting on"));
        let hosts = folder.path().join("hosts");
        fs::write(&hosts, servers::hosts(relay)).unwrap();
        let william = folder.path().join("wormhole-william");
        let bwrap = format!(
            "#!/bin/sh\nexec bwrap --dev-bind / / --ro-bind '{}' /etc/hosts --die-with-parent -- wormhole-william \"$@\"\n",
            hosts.display()
        );
        executable(&william, &bwrap);
        if r == PeersR::OfTheTestRoot {
            let tools = folder.path().join("tools");
            fs::create_dir(&tools).unwrap();
            executable(&tools.join("ssh"), &borrowed("ssh"));
            // It links nothing but the C library, of which a newer one does; and it does not bear another loader than its own.
            executable(
                &tools.join("wormhole-william"),
                &format!("#!/bin/sh\nexec /mnt{} \"$@\"\n", path_of("wormhole-william")),
            );
        }
        Self {
            mailbox,
            relay: format!("tcp:{relay}:{}", servers::RELAY_PORT),
            folder,
            r,
            _servers: [relays, mailboxes],
        }
    }

    /// An R script, by the R of the peers; it finds this test's files where they are here.
    pub(crate) fn rscript(&self, script: &Path) -> Command {
        let mut command = match self.r {
            PeersR::OfThisMachine => {
                let mut command = Command::new("Rscript");
                command.arg("--vanilla").arg(script);
                command
            }
            PeersR::OfTheTestRoot => self.in_the_test_root(script),
        };
        command.current_dir(self.folder.path());
        command
    }

    /// The same in the test root, whose /etc is made of its own and of what names hosts and users here.
    fn in_the_test_root(&self, script: &Path) -> Command {
        let (root, folder) = (test_root(), self.folder.path());
        let top: PathBuf = folder.components().take(2).collect();
        let mut command = Command::new("bwrap");
        command.arg("--ro-bind").arg(&root).args(["/", "--dev", "/dev", "--bind", "/proc", "/proc", "--tmpfs", "/tmp"]);
        command.args(["--ro-bind", "/", "/mnt", "--tmpfs", "/etc"]);
        for entry in fs::read_dir(root.join("etc")).unwrap().map(Result::unwrap) {
            let there = Path::new("/etc").join(entry.file_name());
            if entry.file_type().unwrap().is_symlink() {
                command.arg("--symlink").arg(fs::read_link(entry.path()).unwrap()).arg(there);
            } else if entry.file_name() != "passwd" {
                command.arg("--ro-bind").arg(entry.path()).arg(there);
            }
        }
        command
            .args(["--ro-bind", "/etc/passwd", "/etc/passwd", "--ro-bind"])
            .arg(folder.join("hosts"))
            .arg("/etc/hosts");
        if top != Path::new("/tmp") {
            command.arg("--tmpfs").arg(top);
        }
        command.arg("--bind").args([folder, folder]).arg("--chdir").arg(folder);
        let path = format!("{}:/usr/bin:/bin", folder.join("tools").display());
        command.args(["--setenv", "PATH", &path, "--setenv", "TMPDIR", "/tmp", "--setenv", "LC_ALL", "C.UTF-8"]);
        command.args(["--die-with-parent", "--", "/usr/bin/Rscript", "--vanilla"]);
        command.arg(Path::new("/mnt").join(script.strip_prefix("/").unwrap()));
        command
    }

    /// wormhole-william as peers start it.
    pub(crate) fn william(&self) -> PathBuf {
        match self.r {
            PeersR::OfThisMachine => self.folder.path().join("wormhole-william"),
            PeersR::OfTheTestRoot => self.folder.path().join("tools/wormhole-william"),
        }
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
        let mut command = self.rscript(&script);
        command.arg("pipe.board").args(arguments);
        command.env("PEER_SSH_ARGS", format!("-F '{}'", account.config.display()));
        command.env("PEER_WORMHOLE", self.william());
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
        // Its own, as it may be another's process than that of the account's peers.
        let (key, owner) = (world.path(&account.name), fs::metadata(world.home()).unwrap());
        fs::copy(&account.key, &key).unwrap();
        chown(&key, Some(owner.uid()), Some(owner.gid())).unwrap();
        let mut command = world.command(&["--board", &world.board(), "--accept-new", "--identity"]);
        command.arg(&key).arg("--state").arg(key.with_extension("state")).args(arguments).env("P2P_WORKER_LOG", "info");
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
        Account { name: name.to_owned(), config, key: own }
    }
}
