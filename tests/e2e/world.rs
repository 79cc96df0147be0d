//! A small world for one test: a board, accounts, workers and clients, each a process of the real program, on loopback.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Who runs workers and clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Whoever runs the tests.
    Me,
    /// An ordinary user without any right: another one where root runs the tests, as CI does.
    Ordinary,
}

/// The ordinary user's number: nobody.
const ORDINARY: u32 = 65534;

/// How long a condition is waited for before the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    who: Who,
    programs: PathBuf,
    address: String,
    port: u16,
    _board: Running,
}

/// A process of a test with its log, killed when dropped.
pub(crate) struct Running {
    child: Child,
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

/// How long something took.
#[expect(clippy::disallowed_methods, reason = "a measurement")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let result = work();
    (result, start.elapsed())
}

impl World {
    /// A board with one account, `alice`, and a home folder with a key for it.
    pub(crate) fn new(who: Who) -> Self {
        Self::with_board(who, "127.0.0.1", &[])
    }

    /// The same, with the board at this address, executed by another program.
    pub(crate) fn with_board(who: Who, address: &str, wrapper: &[&str]) -> Self {
        // Whoever is no root is an ordinary user already.
        let who = if nix::unistd::geteuid().is_root() { who } else { Who::Me };
        let folder = tempfile::Builder::new().prefix("p2p-e2e-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let programs = folder.path().join("bin");
        fs::create_dir(&programs).unwrap();
        // The build folder may be where an ordinary user cannot go.
        let worker = Path::new(env!("CARGO_BIN_EXE_p2p-worker"));
        // Of another package, so that cargo does not say where it is: `cargo test --workspace` builds it.
        let wormhole = worker.with_file_name("p2p-wormhole");
        assert!(wormhole.exists(), "no {}: run cargo build first", wormhole.display());
        for program in [worker, Path::new(env!("CARGO_BIN_EXE_p2p-jail")), &wormhole] {
            let name = program.file_name().unwrap();
            fs::hard_link(program, programs.join(name))
                .or_else(|_| fs::copy(program, programs.join(name)).map(drop))
                .unwrap();
        }
        let home = folder.path().join("home");
        fs::create_dir_all(home.join(".ssh")).unwrap();
        let key = home.join(".ssh/id_ed25519");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        fs::write(home.join("thesis.txt"), "ten years of work\n").unwrap();
        let state = folder.path().join("board");
        let add = Command::new(programs.join("p2p-worker"))
            .args(["board", "user", "add", "alice"])
            .arg(key.with_extension("pub"))
            .arg("--state")
            .arg(&state)
            .output()
            .unwrap();
        assert!(add.status.success(), "{add:?}");
        if who == Who::Ordinary {
            for path in [&home, &home.join(".ssh"), &key, &home.join("thesis.txt")] {
                chown(path, Some(ORDINARY), Some(ORDINARY)).unwrap();
            }
        }
        let program = programs.join("p2p-worker").display().to_string();
        let mut line = [wrapper, &[&program]].concat().into_iter();
        let mut board = Command::new(line.next().unwrap());
        board.args(line).args(["board", "--listen", &format!("{address}:0"), "--state"]).arg(&state);
        let board = Running::start(board);
        let port = board
            .wait_for("board:")
            .rsplit(':')
            .next()
            .map(|port| port.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap());
        Self { folder, who, programs, address: address.to_owned(), port: port.unwrap(), _board: board }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("home").join(name)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The board, as `--board` takes it.
    pub(crate) fn board(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// The folder of the programs.
    #[allow(dead_code, reason = "for the tests of sabotage, which share this file")]
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// The program with a clean environment, run by whoever this world is for.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.wrapped(&[], arguments)
    }

    /// The same, executed by another program, which whoever this world is for executes.
    pub(crate) fn wrapped(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        self.started(&self.programs, wrapper, arguments)
    }

    fn started(&self, programs: &Path, wrapper: &[&str], arguments: &[&str]) -> Command {
        let program = programs.join("p2p-worker").display().to_string();
        let mut command = self.by_whom(&[wrapper, &[&program]].concat());
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.home()).stdin(Stdio::null());
        command
    }

    /// Any program, run by whoever this world is for.
    pub(crate) fn by_whom(&self, program: &[&str]) -> Command {
        let id = ORDINARY.to_string();
        let become_ordinary = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all", "--"];
        let mut line: Vec<&str> = if self.who == Who::Ordinary { become_ordinary.to_vec() } else { Vec::new() };
        line.extend(program);
        let mut command = Command::new(line[0]);
        command.args(&line[1..]);
        command
    }

    /// Starts a worker and waits until it has joined.
    pub(crate) fn worker(&self, arguments: &[&str]) -> Running {
        self.wrapped_worker(&[], arguments)
    }

    /// The same, executed by another program.
    pub(crate) fn wrapped_worker(&self, wrapper: &[&str], arguments: &[&str]) -> Running {
        let board = self.board();
        let mut command = self.wrapped(wrapper, &["--board", &board, "--accept-new"]);
        command.args(arguments).env("P2P_WORKER_LOG", "info");
        let worker = Running::start(command);
        worker.wait_for("joined the cluster");
        worker
    }

    /// `p2p-worker submit`, ready to be run.
    pub(crate) fn submit(&self, arguments: &[&str]) -> Command {
        self.submit_with(&self.programs, arguments)
    }

    /// The same with the programs of another folder.
    pub(crate) fn submit_with(&self, programs: &Path, arguments: &[&str]) -> Command {
        let board = self.board();
        let mut command = self.started(programs, &[], &["submit", "--board", &board, "--accept-new"]);
        // Older kernels confine p2p-wormhole in part, which is said on stderr.
        command.env("P2P_WORKER_VIA", "libp2p");
        command.args(arguments);
        command
    }

    /// Submits an expression and waits for what it prints.
    pub(crate) fn evaluate(&self, code: &str) -> Output {
        self.submit(&["-e", code]).output().unwrap()
    }

    /// A profile like strict, with these limits instead.
    pub(crate) fn profile(&self, name: &str, limits: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("inherits = \"strict\"\n\n[limits]\n{limits}\n")).unwrap();
        path.display().to_string()
    }

    /// What an attack must not touch.
    pub(crate) fn treasures(&self) -> Vec<Option<Vec<u8>>> {
        [".ssh/id_ed25519", "thesis.txt"].iter().map(|name| fs::read(self.home().join(name)).ok()).collect()
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
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

    /// Waits for a line of the log that holds this text.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let find = || self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
        let mut found = None;
        let came = within_patience(|| {
            found = find();
            found.is_some()
        });
        assert!(came, "no line with {text:?} in the log:\n{}", self.log());
        found.unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the end; the exit status, `None` after a signal.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        let child = &mut self.child;
        eventually("the process ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes of this machine that have this text as an argument.
pub(crate) fn processes_with(argument: &str) -> Vec<i32> {
    let has = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        line.split(|byte| *byte == 0).any(|text| text == argument.as_bytes()).then_some(pid)
    };
    fs::read_dir("/proc").unwrap().filter_map(has).collect()
}

/// A process, by number and start, as numbers are used again.
pub(crate) type Process = (i32, String);

/// All processes below that one, with their parents and names.
pub(crate) fn below(pid: i32) -> Vec<(Process, i32, String)> {
    let read = |entry: std::io::Result<fs::DirEntry>| -> Option<(Process, i32, String)> {
        let number = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(((number, fields[19].to_owned()), fields[1].parse().ok()?, name.to_owned()))
    };
    let all: Vec<_> = fs::read_dir("/proc").unwrap().filter_map(read).collect();
    let (mut found, mut parents) = (Vec::new(), vec![pid]);
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|(_, of, _)| *of == parent) {
            parents.push(process.0.0);
            found.push(process.clone());
        }
    }
    found
}

pub(crate) fn is_gone((pid, start): &Process) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    fields.is_empty() || fields.starts_with('Z') || fields.split(' ').nth(19) != Some(start)
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
