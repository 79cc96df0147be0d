//! Connections that break: half-open ones, boards that are killed, peers that stop in the middle.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use p2p_worker::board::{
    Board, BoardEvent, Link, SshBoard,
    ssh::{SshBoardConfig, SshChoice, SshProgram},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::board_support::{Served, event, line, send, soon};

/// A way to the board that can swallow everything, as a network does whose state was lost: no byte and no end comes.
struct Way {
    address: SocketAddr,
    swallows: Arc<AtomicBool>,
}

impl Way {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let swallows = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&swallows);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (near_read, near_write) = near.into_split();
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (far_read, far_write) = far.into_split();
                tokio::spawn(carry(near_read, far_write, Arc::clone(&flag)));
                tokio::spawn(carry(far_read, near_write, Arc::clone(&flag)));
            }
        });
        Self { address, swallows }
    }

    fn config(&self, served: &Served, user: &str) -> SshBoardConfig {
        let known = std::fs::read_to_string(served.path("known_hosts")).unwrap();
        let known = known.replace(&format!(":{} ", served.port), &format!(":{} ", self.address.port()));
        let mut config = served.config(user);
        config.address = self.address.to_string().parse().unwrap();
        config.known_hosts = served.path(&format!("known_hosts_{}", self.address.port()));
        std::fs::write(&config.known_hosts, known).unwrap();
        config
    }
}

/// Carries bytes in small and uneven pieces; what is read once it swallows is gone.
async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, swallows: Arc<AtomicBool>) {
    let mut piece = [0; 1021];
    let mut is_lost = false;
    while let Ok(count) = from.read(&mut piece).await {
        is_lost |= swallows.load(Ordering::Relaxed);
        if is_lost && count == 0 {
            std::future::pending::<()>().await;
        }
        if count == 0 || !is_lost && to.write_all(&piece[..count]).await.is_err() {
            break;
        }
    }
}

async fn joined(config: SshBoardConfig, topic: &str) -> Link {
    let mut link = soon("joining", SshBoard::new(config).join(&topic.parse().unwrap())).await.unwrap();
    assert_eq!(event(&mut link).await, BoardEvent::Joined);
    link
}

/// Waits until a link is lost, and says how long that took.
async fn lost(link: &mut Link) -> Duration {
    let began = tokio::time::Instant::now();
    loop {
        if let BoardEvent::Lost(_) = soon("the loss", link.incoming.recv()).await.expect("the link goes on") {
            return began.elapsed();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_noticed_in_half_a_minute_and_made_anew() {
    let served = Served::with(&["alice"]).await;
    let way = Way::to(served.port).await;
    let config = way.config(&served, "alice");
    let mut idle = joined(config.clone(), "idle").await;
    let mut busy = joined(config.clone(), "busy").await;
    let mut by_ssh = config.clone();
    let known = format!("UserKnownHostsFile={}", config.known_hosts.display());
    let arguments = ["-F", "/dev/null", "-o", "IdentityAgent=none", "-o", &known].map(str::to_owned).to_vec();
    by_ssh.ssh = SshChoice::System(SshProgram { arguments, ..SshProgram::default() });
    let mut by_ssh = joined(by_ssh, "by-ssh").await;
    send(&busy, "in small pieces").await;
    assert_eq!(line(&mut busy).await, "in small pieces");

    way.swallows.store(true, Ordering::Relaxed);
    let outgoing = busy.outgoing.clone();
    // Somebody who writes all the time, more than any buffer holds.
    let writer = tokio::spawn(async move { while outgoing.send("x".repeat(4000)).await.is_ok() {} });
    let times = tokio::join!(lost(&mut idle), lost(&mut busy), lost(&mut by_ssh));
    writer.abort();
    for time in [times.0, times.1, times.2] {
        assert!(time < Duration::from_secs(30), "{times:?}");
    }
    println!("noticed after {times:?}");
    way.swallows.store(false, Ordering::Relaxed);
    for link in [&mut idle, &mut by_ssh] {
        assert_eq!(event(link).await, BoardEvent::Joined);
        send(link, "again").await;
        assert_eq!(line(link).await, "again");
    }
    served.stop().await;
}

/// The real program as a board.
async fn board(state: &std::path::Path, listen: &str) -> (tokio::process::Child, String) {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_p2p-worker"))
        .args(["board", "--listen", listen, "--state"])
        .arg(state)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = soon("the board", lines.next_line()).await.unwrap().expect("it says where it listens");
    let address = first.split_whitespace().nth(1).unwrap().to_owned();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_that_is_killed_is_joined_again() {
    let served = Served::with(&["alice"]).await;
    let (port, known) = (served.port, std::fs::read_to_string(served.path("known_hosts")).unwrap());
    let config = served.config("alice");
    let folder = served.stop().await;
    let state = folder.path().join("board");
    let listen = format!("127.0.0.1:{port}");
    let (mut child, _) = board(&state, &listen).await;
    std::fs::write(&config.known_hosts, known).unwrap();
    let mut link = joined(config, "x").await;
    for round in 0..3 {
        send(&link, &format!("round {round}")).await;
        assert_eq!(line(&mut link).await, format!("round {round}"));
        child.kill().await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(matches!(event(&mut link).await, BoardEvent::Lost(_)));
        assert!(began.elapsed() < Duration::from_secs(30));
        // What is posted meanwhile waits for nobody.
        for _ in 0..1000 {
            soon("room", send(&link, "into the void")).await;
        }
        child = board(&state, &listen).await.0;
        assert_eq!(event(&mut link).await, BoardEvent::Joined);
    }
}

/// A board that speaks in ways which a pipe may: CRLF, lines in pieces and together.
#[tokio::test(flavor = "multi_thread")]
async fn lines_come_with_any_ends_and_in_any_pieces() {
    let sshd = super::openssh_support::Sshd::start("", |folder| {
        let board = "#!/bin/sh\ncase \"$SSH_ORIGINAL_COMMAND\" in\nuser) printf 'alice\\r\\nid\\r\\n2026-01-01T00:00:00Z\\r\\n' ;;\n\
            pipe*) read -r mark; printf '%s\\r\\n' \"$mark\"; printf 'one\\r\\ntwo\\nthr'; sleep 0.2; printf 'ee\\r'; sleep 0.2; printf '\\nfo'; cat ;;\n\
            esac\n";
        std::fs::write(folder.join("board.sh"), board).unwrap();
    });
    let mut link = joined(sshd.config(), "x").await;
    for expected in ["one", "two", "three"] {
        assert_eq!(line(&mut link).await, expected);
    }
    send(&link, "ur").await;
    assert_eq!(line(&mut link).await, "four");
}
