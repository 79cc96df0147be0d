//! A board that is no program of ours, and pings as pipe.pico.sh does.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use p2p_worker::board::{
    Board, BoardEvent, Link, SshBoard, SshBoardConfig,
    ssh::{SshChoice, SshProgram},
};

use super::board_support::{event, line, make_key, send, soon};

struct Pico {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Pico {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = make_key(folder.path(), "host", "");
        make_key(folder.path(), "alice", "");
        let mut process = Command::new("/usr/bin/python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pico.py"))
            .arg(&key)
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's python3 is installed");
        let mut first = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let port = first.trim().parse().expect("python3-paramiko is installed");
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        std::fs::write(folder.path().join("known_hosts"), format!("[127.0.0.1]:{port} {public}")).unwrap();
        Self { process, folder, port }
    }

    fn config(&self) -> SshBoardConfig {
        let mut config = SshBoardConfig::new(format!("127.0.0.1:{}", self.port).parse().unwrap(), self.folder.path());
        config.ssh_folder = None;
        config.agent = None;
        config.identities = vec![self.folder.path().join("alice")];
        config
    }

    /// The same by the system's ssh.
    fn config_of_ssh(&self) -> SshBoardConfig {
        let mut config = self.config();
        let known = format!("UserKnownHostsFile={}", config.known_hosts.display());
        let arguments = ["-F", "/dev/null", "-o", "IdentityAgent=none", "-o", &known].map(str::to_owned).to_vec();
        config.ssh = SshChoice::System(SshProgram { arguments, ..SshProgram::default() });
        config
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal).unwrap();
    }

    fn count(&self, name: &str) -> u64 {
        std::fs::metadata(self.folder.path().join(name)).map_or(0, |found| found.len())
    }
}

impl Drop for Pico {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Two links that talk to each other while the board pings them.
async fn talk(pico: &Pico, config: SshBoardConfig) {
    let board = SshBoard::new(config);
    assert_eq!(soon("user", board.user()).await.unwrap().as_str(), "alice");
    let topic = "friends/future.p2p".parse().unwrap();
    let mut one = soon("joining", board.join(&topic)).await.unwrap();
    let mut two = soon("joining", board.join(&topic)).await.unwrap();
    assert_eq!((event(&mut one).await, event(&mut two).await), (BoardEvent::Joined, BoardEvent::Joined));
    let enough = pico.count("pings") + 60;
    let mut number = 0;
    while pico.count("pings") < enough {
        number += 1;
        let text = format!("line {number} {}", "x".repeat(number % 3000));
        send(&one, &text).await;
        for link in [&mut one, &mut two] {
            assert_eq!(line(link).await, text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_that_pings_is_no_trouble() {
    let pico = Pico::start();
    talk(&pico, pico.config_of_ssh()).await;
    // With ssh no ping is answered, since no answer is wanted. Our library answers, which is why ssh is usual there.
    assert_eq!(pico.count("unasked"), 0);
    talk(&pico, pico.config()).await;
}

/// Passes over what is left of before, until the link is lost.
async fn lost(link: &mut Link) {
    while !matches!(event(link).await, BoardEvent::Lost(_)) {}
}

/// Joined again, and lines get through.
async fn works_again(link: &mut Link) {
    assert_eq!(event(link).await, BoardEvent::Joined);
    // Whatever was on its way when the connection broke may have been lost, what is sent now is not.
    send(link, "again").await;
    while line(link).await != "again" {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_that_closes_or_falls_silent_is_joined_again() {
    let pico = Pico::start();
    let topic = "personal/future.p2p".parse().unwrap();
    let (own, by_ssh) = (SshBoard::new(pico.config()), SshBoard::new(pico.config_of_ssh()));
    let mut own = soon("joining", own.join(&topic)).await.unwrap();
    let mut by_ssh = soon("joining", by_ssh.join(&topic)).await.unwrap();
    assert_eq!((event(&mut own).await, event(&mut by_ssh).await), (BoardEvent::Joined, BoardEvent::Joined));

    std::fs::write(pico.folder.path().join("close"), "").unwrap();
    tokio::join!(lost(&mut own), lost(&mut by_ssh));
    tokio::join!(works_again(&mut own), works_again(&mut by_ssh));
    assert!(!pico.folder.path().join("close").exists());

    // The connections stay; nothing comes through them.
    pico.signal(Signal::SIGSTOP);
    tokio::join!(lost(&mut own), lost(&mut by_ssh));
    pico.signal(Signal::SIGCONT);
    tokio::join!(works_again(&mut own), works_again(&mut by_ssh));
}
