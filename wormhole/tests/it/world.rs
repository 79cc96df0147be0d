//! A mailbox server and a transit relay for one test, and peers that use them.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use p2p_worker::{
    spool::{SpoolWriter, Spooled},
    wormhole::{Code, Patience, Program, Progress, Reach, WormholeConfig},
};

use crate::servers;

/// How long a condition is waited for before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Which program is the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// wormhole-william, in Go, which future.p2p calls.
    William,
    /// magic-wormhole, in Python.
    Python,
}

/// By which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Without any relay on our side.
    Direct,
    /// Without any direct connection on our side.
    Relayed,
}

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    python: PathBuf,
    pub(crate) mailbox: String,
    pub(crate) relay: String,
    _servers: [Running; 2],
}

/// A process of a test with what it prints, killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(within_patience(holds), "in vain: {what}");
}

#[expect(clippy::disallowed_methods, reason = "the one place of these tests that waits, and for a condition")]
fn within_patience(mut holds: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("p2p-wormhole-").tempdir().unwrap();
        let relay = servers::free_address();
        let relays = Running::start(servers::relay(relay, folder.path()));
        let mailboxes = Running::start(servers::mailbox(folder.path()));
        relays.wait_for("starting on");
        let mailbox = servers::mailbox_url(&mailboxes.wait_for("starting on"));
        fs::write(folder.path().join("hosts"), servers::hosts(relay)).unwrap();
        let (python, relay) = (servers::python(), format!("tcp:{relay}:{}", servers::RELAY_PORT));
        Self { python, mailbox, relay, folder, _servers: [relays, mailboxes] }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Our side, patient.
    pub(crate) fn config(&self, way: Way) -> WormholeConfig {
        let mut config = WormholeConfig::new(env!("CARGO_BIN_EXE_p2p-wormhole").into());
        config.mailbox = self.mailbox.parse().unwrap();
        config.relay = self.relay.parse().unwrap();
        (config.relayed, config.reach) = match way {
            Way::Direct => (false, Reach::Loopback),
            Way::Relayed => (true, Reach::Nowhere),
        };
        config.patience = Patience {
            names: PATIENCE,
            mailbox: PATIENCE,
            peer: PATIENCE,
            offer: PATIENCE,
            connect: PATIENCE,
            stall: PATIENCE,
            payload: PATIENCE,
        };
        config
    }

    pub(crate) fn ours(&self, way: Way) -> Program {
        Program::new(self.config(way))
    }

    /// A peer that sends a file.
    pub(crate) fn sender(&self, peer: Peer, code: &str, file: &Path) -> Running {
        let file = file.to_str().unwrap();
        Running::start(match peer {
            Peer::William => self.william(&["send", "--hide-progress", "--code", code, file], self.folder.path()),
            Peer::Python => self.python(&["send", "--hide-progress", "--code", code, file]),
        })
    }

    /// A peer that receives a file, and where it puts it.
    pub(crate) fn receiver(&self, peer: Peer, code: &str) -> (Running, PathBuf) {
        let folder = self.path(&format!("received-{code}"));
        fs::create_dir(&folder).unwrap();
        let file = folder.join(if peer == Peer::William { "future.rds" } else { "as-it-likes" });
        let output = file.to_str().unwrap();
        let mut running = Running::start(match peer {
            Peer::William => self.william(&["receive", "--hide-progress", code], &folder),
            Peer::Python => self.python(&["receive", "--hide-progress", "--accept-file", "-o", output, code]),
        });
        if peer == Peer::William {
            running.child.stdin.take().unwrap().write_all(b"y\n").unwrap();
        }
        (running, file)
    }

    /// wormhole-william, for which the name of its relay means ours.
    pub(crate) fn william(&self, arguments: &[&str], folder: &Path) -> Command {
        let mut command = Command::new("bwrap");
        command.args(["--dev-bind", "/", "/", "--ro-bind"]).arg(self.path("hosts")).arg("/etc/hosts");
        command.args(["--die-with-parent", "--", "wormhole-william"]).args(arguments);
        command.current_dir(folder).env("WORMHOLE_RELAY_URL", &self.mailbox);
        command
    }

    /// Python's `wormhole`.
    pub(crate) fn python(&self, arguments: &[&str]) -> Command {
        self.python_with(&self.relay, arguments)
    }

    /// The same with another relay.
    pub(crate) fn python_with(&self, relay: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.python.join("wormhole"));
        command.args(["--relay-url", &self.mailbox, "--transit-helper", relay]).args(arguments);
        command.current_dir(self.folder.path());
        command
    }

    /// One more relay, with a name in its address.
    pub(crate) fn relay_on_localhost(&self) -> (Running, String) {
        let mut command = Command::new(self.python.join("twist"));
        command.args(["--log-format=text", "transitrelay", "--port=tcp:0:interface=127.0.0.1"]);
        let server = Running::start(command);
        let line = server.wait_for("starting on");
        let address = format!("tcp:localhost:{}", line.rsplit(' ').next().unwrap());
        (server, address)
    }

    /// Our program, started by a script that tells which process it is.
    pub(crate) fn traceable(&self) -> (PathBuf, Pidfile) {
        let (script, pidfile) = (self.path("traceable"), self.path("pid"));
        let program = env!("CARGO_BIN_EXE_p2p-wormhole");
        let text = format!("#!/bin/sh\necho $$ >'{}'\nexec '{program}'\n", pidfile.display());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        (script, Pidfile(pidfile))
    }

    /// A script of ours with Python's libraries.
    pub(crate) fn script(&self, name: &str, arguments: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(name);
        let mut command = Command::new(self.python.join("python"));
        command.arg(script).args([&self.mailbox, &self.relay]).args(arguments).current_dir(self.folder.path());
        command
    }

    /// A file of so many bytes that do not repeat.
    pub(crate) fn file(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        let mut file = fs::File::create(&path).unwrap();
        std::io::copy(&mut std::io::Read::take(noise(), size), &mut file).unwrap();
        path
    }

    pub(crate) fn spooled(&self, size: u64) -> Spooled {
        let mut writer = SpoolWriter::new(self.folder.path(), size).unwrap();
        let (mut noise, mut piece) = (std::io::Read::take(noise(), size), vec![0; 1 << 16]);
        loop {
            let read = std::io::Read::read(&mut noise, &mut piece).unwrap();
            if read == 0 {
                return writer.finish();
            }
            writer.write(&piece[..read]).unwrap();
        }
    }
}

/// The same bytes as [`World::file`] and [`World::spooled`] have.
fn noise() -> impl std::io::Read {
    struct Noise(u64);
    impl std::io::Read for Noise {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            for piece in buffer.chunks_mut(8) {
                self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                piece.copy_from_slice(&self.0.to_be_bytes()[..piece.len()]);
            }
            Ok(buffer.len() / 8 * 8 + if buffer.len() < 8 { buffer.len() } else { 0 })
        }
    }
    Noise(1)
}

/// The code of one test: its number is the nameplate.
pub(crate) fn code(nameplate: u32) -> String {
    format!("{nameplate:04}-32543fbc7bc7-f")
}

pub(crate) fn parsed(code: &str) -> Code {
    code.parse().unwrap()
}

/// For those that do not look at it.
pub(crate) fn quiet(_: Progress) {}

/// Runs on threads like those of p2p-worker.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, future).await });
    result.expect("it does not end")
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self::collect(out, Arc::clone(&log));
        Self::collect(err, Arc::clone(&log));
        Self { child, log }
    }

    fn collect(from: impl std::io::Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                into.lock().unwrap().push(line);
            }
        });
    }

    /// Waits for a line that holds this text.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let find = || self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
        let mut found = None;
        let came = within_patience(|| {
            found = find();
            found.is_some()
        });
        assert!(came, "no line with {text:?}:\n{}", self.log());
        found.unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for the end; whether it was a good one.
    pub(crate) fn ends(&mut self) -> bool {
        let (mut status, child) = (None, &mut self.child);
        eventually("the process ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().success()
    }
}

/// Where a process wrote which one it is.
pub(crate) struct Pidfile(PathBuf);

impl Pidfile {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = fs::read_to_string(&self.0).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
