//! The real program `p2p-worker` as a board, a host and the owner's commands, each a process.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use super::board_support::{make_key, soon};

/// A folder for a board and its friends.
pub(crate) struct Town {
    pub(crate) folder: TempDir,
}

/// A board that serves.
pub(crate) struct Board {
    child: Child,
    pub(crate) port: u16,
    _lines: Lines<BufReader<ChildStdout>>,
}

/// A host that hosts.
pub(crate) struct Host {
    pub(crate) child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Town {
    /// With an account and a key, `folder/NAME`, for each of these.
    pub(crate) async fn with(users: &[&str]) -> Self {
        let town = Self { folder: tempfile::tempdir().unwrap() };
        for user in users {
            let key = make_key(town.folder.path(), user, "").with_extension("pub");
            town.must(&["user", "add", user, key.to_str().unwrap()]).await;
        }
        town
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("board")
    }

    /// The program with a clean environment.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2p-worker"));
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.folder.path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// `p2p-worker board …` on this state.
    pub(crate) fn board(&self, arguments: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("board").args(arguments).arg("--state").arg(self.state());
        command
    }

    pub(crate) async fn try_to(&self, arguments: &[&str]) -> Output {
        soon("a command of the owner", self.board(arguments).output()).await.unwrap()
    }

    /// Its output; it must succeed.
    pub(crate) async fn must(&self, arguments: &[&str]) -> String {
        let output = self.try_to(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its errors; it must fail with this status.
    pub(crate) async fn must_not(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.try_to(arguments).await;
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts the board, on a port that it had before or on any.
    pub(crate) async fn serve(&self, port: u16, arguments: &[&str]) -> Board {
        let listen = format!("127.0.0.1:{port}");
        let mut command = self.board(&[&["--listen", &listen], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = soon("the board", lines.next_line()).await.unwrap().expect("the board starts");
        let port = first.rsplit(':').next().unwrap().parse().unwrap();
        let key = std::fs::read_to_string(self.path("board/host_key")).unwrap();
        let key = russh::keys::PrivateKey::from_openssh(key).unwrap().public_key().to_openssh().unwrap();
        std::fs::write(self.path("known_hosts"), format!("[127.0.0.1]:{port} {key}\n")).unwrap();
        Board { child, port, _lines: lines }
    }

    /// OpenSSH with nothing taken from the machine that runs the test. Not in batch mode, as people use it.
    pub(crate) fn ssh(&self, port: u16, keys: &[&str], command: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=/dev/null", "-o"])
            .arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()));
        for key in keys {
            ssh.arg("-i").arg(self.path(key));
        }
        ssh.args(["-p", &port.to_string(), "someone@127.0.0.1"]).args(command).stdin(Stdio::null()).kill_on_drop(true);
        ssh
    }

    /// Standard output, standard error and exit status of OpenSSH.
    pub(crate) async fn say(&self, port: u16, keys: &[&str], command: &[&str]) -> (String, String, i32) {
        let output = soon("ssh", self.ssh(port, keys, command).output()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap())
    }

    /// Starts a host as this account.
    pub(crate) fn host(&self, port: u16, user: &str, arguments: &[&str]) -> Host {
        let mut command = self.program();
        command.args(["host", "--board", &format!("127.0.0.1:{port}"), "--accept-new", "--identity"]);
        command.arg(self.path(user)).arg("--state").arg(self.path("host")).args(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Host { child, log }
    }
}

impl Board {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub(crate) async fn signalled(mut self, signal: Signal) -> std::process::ExitStatus {
        send(&self.child, signal);
        soon("the board's end", self.child.wait()).await.unwrap()
    }
}

impl Host {
    /// Waits for a line of the log that has all of these words.
    pub(crate) async fn says(&mut self, words: &[&str]) -> String {
        let found = async {
            let mut seen = String::new();
            while let Some(line) = self.log.next_line().await.unwrap() {
                if words.iter().all(|word| line.contains(word)) {
                    return line;
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            panic!("the host ended and never said {words:?}:\n{seen}");
        };
        soon("a line of the host's log", found).await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits for its end: exit status and log.
    pub(crate) async fn output(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        while let Some(line) = self.log.next_line().await.unwrap() {
            log.push_str(&line);
            log.push('\n');
        }
        (self.child.wait().await.unwrap().code(), log)
    }
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().expect("it runs")).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// A number of kB in `/proc/PID/status`.
pub(crate) fn kilobytes(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
