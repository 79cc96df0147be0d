//! The system's ssh as the transport.

use std::time::Duration;

use p2p_worker::board::{
    Board, BoardError, BoardEvent, SshBoardConfig,
    ssh::{SshBoard, SshChoice, SshProgram},
};

use super::{
    board_support::{Served, event, line, make_key, names, send, soon},
    openssh_support::Sshd,
};

fn with_ssh(served: &Served, user: &str, arguments: &[&str]) -> SshBoardConfig {
    let mut config = served.config(user);
    let known = format!("UserKnownHostsFile={}", served.path("known_hosts").display());
    let usual = ["-F", "/dev/null", "-o", "IdentityAgent=none", "-o", "GlobalKnownHostsFile=/dev/null", "-o", &known];
    let arguments = [arguments, &usual].concat().iter().map(|argument| (*argument).to_owned()).collect();
    config.ssh = SshChoice::System(SshProgram { arguments, ..SshProgram::default() });
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_carries_commands_and_topics() {
    let served = Served::with(&["alice", "bob"]).await;
    let mut config = with_ssh(&served, "alice", &[]);
    config.shares_with = names(&["bob"]);
    let alice = SshBoard::new(config);
    assert_eq!(soon("user", alice.user()).await.unwrap().as_str(), "alice");
    let mut host = soon("joining", alice.join(&"friends/x".parse().unwrap())).await.unwrap();
    assert_eq!(event(&mut host).await, BoardEvent::Joined);

    let bob = SshBoard::new(with_ssh(&served, "bob", &[]));
    let mut guest = soon("joining", bob.join(&"alice/friends/x".parse().unwrap())).await.unwrap();
    assert_eq!(event(&mut guest).await, BoardEvent::Joined);
    let refused = soon("a refusal", bob.join(&"alice/secret/x".parse().unwrap())).await;
    assert!(matches!(refused, Err(BoardError::NoAccess { .. })), "{refused:?}");
    for number in 0..200 {
        send(&host, &format!("line {number} {}", "x".repeat(2000))).await;
    }
    for number in 0..200 {
        assert!(line(&mut guest).await.starts_with(&format!("line {number} ")));
        assert!(line(&mut host).await.starts_with(&format!("line {number} ")));
    }
    // What was posted before leaving is on the board.
    send(&guest, "last words").await;
    soon("leaving", guest.leave()).await;
    assert_eq!(line(&mut host).await, "last words");

    let port = served.port;
    let folder = served.stop().await;
    assert!(matches!(event(&mut host).await, BoardEvent::Lost(_)));
    let served = Served::start(folder, port).await;
    assert_eq!(event(&mut host).await, BoardEvent::Joined);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ssh_complains_about_is_passed_on() {
    let served = Served::with(&["alice"]).await;
    let error_of = async |config: SshBoardConfig| soon("an answer", SshBoard::new(config).user()).await.unwrap_err();
    make_key(served.folder.path(), "stranger", "");
    let refused = error_of(with_ssh(&served, "stranger", &[])).await;
    assert!(refused.to_string().contains("Permission denied") && !refused.is_configuration(), "{refused}");

    std::fs::write(served.path("known_hosts"), "").unwrap();
    let mut config = with_ssh(&served, "alice", &[]);
    let unknown = error_of(config.clone()).await;
    assert!(unknown.to_string().contains("Host key verification failed"), "{unknown}");
    assert!(unknown.hint().unwrap().contains("--accept-new"));
    config.accept_new = true;
    assert_eq!(soon("user", SshBoard::new(config.clone()).user()).await.unwrap().as_str(), "alice");

    config.ssh = SshChoice::System(SshProgram { program: "/no/such/ssh".into(), arguments: Vec::new() });
    let missing = error_of(config).await;
    assert!(missing.hint().is_some(), "{missing:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_arguments_go_through_another_host() {
    let served = Served::with(&["alice"]).await;
    let hop = Sshd::start("AllowTcpForwarding yes\n", |_| {});
    let known = [hop.known_line("ed25519"), std::fs::read_to_string(served.path("known_hosts")).unwrap()].concat();
    std::fs::write(served.path("known_hosts"), known).unwrap();
    // As `-J` does, with nothing of this machine's.
    let proxy = format!(
        "ProxyCommand=ssh -F /dev/null -o IdentityAgent=none -o BatchMode=yes -o UserKnownHostsFile={} -i {} -p {} -W %h:%p 127.0.0.1",
        served.path("known_hosts").display(),
        hop.path("alice").display(),
        hop.port
    );
    let config = with_ssh(&served, "alice", &["-o", &proxy]);
    assert_eq!(soon("user", SshBoard::new(config).user()).await.unwrap().as_str(), "alice");
    served.stop().await;
}

/// Set for the process that is killed: its folder and port.
const CHILD: &str = "P2P_WORKER_TEST_KILLED";

/// Not a test by itself: what is killed.
#[tokio::test(flavor = "multi_thread")]
async fn holds_a_topic() {
    let Ok(place) = std::env::var(CHILD) else { return };
    let (folder, port) = place.rsplit_once(':').unwrap();
    let folder = std::path::Path::new(folder);
    let mut config = SshBoardConfig::new(format!("127.0.0.1:{port}").parse().unwrap(), folder);
    config.ssh_folder = None;
    config.identities = vec![folder.join("alice")];
    let known = format!("UserKnownHostsFile={}", folder.join("known_hosts").display());
    let arguments = ["-F", "/dev/null", "-o", &known].map(str::to_owned).to_vec();
    config.ssh = SshChoice::System(SshProgram { arguments, ..SshProgram::default() });
    let mut link = SshBoard::new(config).join(&"killed".parse().unwrap()).await.unwrap();
    while let Some(event) = link.incoming.recv().await {
        println!("{event:?}");
    }
}

/// Processes whose command line has both texts.
fn processes(one: &str, other: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains(one) && line.contains(other))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_ends_with_us_however_we_end() {
    use tokio::io::AsyncBufReadExt;
    let served = Served::with(&["alice"]).await;
    let marker = served.path("known_hosts").display().to_string();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["board_ssh_program::holds_a_topic", "--exact", "--nocapture"])
        .env(CHILD, format!("{}:{}", served.folder.path().display(), served.port))
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    soon("the topic", async { while !lines.next_line().await.unwrap().expect("it joins").contains("Joined") {} }).await;
    assert_eq!(processes("pipe killed", &marker), 1);
    child.start_kill().unwrap();
    soon("the end", child.wait()).await.unwrap();
    soon("the end of ssh", async {
        while processes("pipe killed", &marker) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    served.stop().await;
}
