//! Signing in with our own SSH client, and keeping a topic up.

use p2p_worker::board::{
    Board, BoardError, BoardEvent,
    ssh::{SshBoard, SshBoardConfig},
};

use super::{
    board_openssh::Pipe,
    board_support::{Served, event, line, make_key, send, soon},
    openssh_support::Agent,
};

async fn error_of(config: SshBoardConfig) -> BoardError {
    soon("an answer", SshBoard::new(config).user()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_unknown_then_accepted_then_known_and_never_changes() {
    let served = Served::with(&["alice"]).await;
    std::fs::remove_file(served.path("known_hosts")).unwrap();
    let mut config = served.config("alice");
    let unknown = error_of(config.clone()).await;
    assert!(matches!(&unknown, BoardError::UnknownHost { fingerprint, .. } if fingerprint.starts_with("SHA256:")));
    assert!(unknown.hint().unwrap().contains("--accept-new"));

    config.accept_new = true;
    assert_eq!(SshBoard::new(config.clone()).user().await.unwrap().as_str(), "alice");
    let remembered = std::fs::read_to_string(&config.known_hosts).unwrap();
    assert!(remembered.starts_with(&format!("[127.0.0.1]:{} ssh-ed25519 ", served.port)), "{remembered}");
    config.accept_new = false;
    assert_eq!(SshBoard::new(config.clone()).user().await.unwrap().as_str(), "alice");

    let port = served.port;
    let folder = served.stop().await;
    std::fs::remove_file(folder.path().join("board/host_key")).unwrap();
    let served = Served::start(folder, port).await;
    std::fs::write(&config.known_hosts, remembered).unwrap();
    config.accept_new = true;
    let changed = error_of(config).await;
    assert!(matches!(changed, BoardError::HostKeyChanged { .. }), "{changed:?}");
    assert!(changed.hint().unwrap().contains("ssh-keygen"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_sign_in_names_its_keys_and_the_remedy() {
    let served = Served::with(&["alice"]).await;
    let stranger = make_key(served.folder.path(), "stranger", "");
    let mut config = served.config("alice");
    config.identities = vec![stranger.clone()];
    let refused = error_of(config).await;
    let BoardError::SignInRefused { tried, .. } = &refused else { panic!("{refused:?}") };
    assert!(tried[0].contains("stranger") && tried[0].contains("SHA256:"), "{tried:?}");
    assert!(refused.hint().unwrap().contains("board user add"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_passphrase_needs_an_agent_and_works_with_one() {
    let served = Served::with(&["alice"]).await;
    let locked = make_key(served.folder.path(), "locked", "a passphrase");
    served.add("alice", &locked);
    let mut config = served.config("alice");
    config.identities = vec![locked.clone()];
    let error = error_of(config.clone()).await;
    assert!(matches!(error, BoardError::KeyFileEncrypted { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("ssh-agent"));

    // The usual keys: one that cannot be used is named when there is no other.
    let ssh_folder = served.path("dot-ssh");
    std::fs::create_dir(&ssh_folder).unwrap();
    std::fs::copy(&locked, ssh_folder.join("id_ed25519")).unwrap();
    std::fs::copy(served.path("known_hosts"), ssh_folder.join("known_hosts")).unwrap();
    config.identities.clear();
    config.ssh_folder = Some(ssh_folder.clone());
    assert!(matches!(error_of(config.clone()).await, BoardError::KeyFileEncrypted { .. }));
    std::fs::remove_file(ssh_folder.join("id_ed25519")).unwrap();
    assert!(matches!(error_of(config.clone()).await, BoardError::NoKey));

    let agent = Agent::start(served.folder.path());
    agent.add(&locked, "a passphrase");
    config.agent = Some(agent.socket.clone());
    assert_eq!(SshBoard::new(config.clone()).user().await.unwrap().as_str(), "alice");
    config.identities = vec![locked];
    assert_eq!(SshBoard::new(config).user().await.unwrap().as_str(), "alice");
    drop(agent);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_kinds_of_key_sign_in_too() {
    let served = Served::with(&["alice"]).await;
    for kind in [&["-t", "rsa", "-b", "3072"][..], &["-t", "ecdsa"], &["-t", "rsa", "-m", "PEM"]] {
        let path = served.path(&kind.join(""));
        let made = std::process::Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(&path).args(kind).status();
        assert!(made.unwrap().success());
        served.add("alice", &path);
        let mut config = served.config("alice");
        config.identities = vec![path];
        assert_eq!(SshBoard::new(config).user().await.unwrap().as_str(), "alice", "{kind:?}");
    }
    // One whose secret number begins with a zero byte, as one in 256 does.
    let path = served.path("short-scalar");
    std::fs::write(&path, include_str!("../data/short-scalar")).unwrap();
    std::fs::write(path.with_extension("pub"), include_str!("../data/short-scalar.pub")).unwrap();
    served.add("alice", &path);
    let mut config = served.config("alice");
    config.identities = vec![path];
    assert_eq!(SshBoard::new(config).user().await.unwrap().as_str(), "alice");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_joined_again_after_the_board_comes_back() {
    let served = Served::with(&["alice"]).await;
    let board = served.board("alice", &[]);
    let topic = "friends/future.p2p".parse().unwrap();
    let mut link = soon("joining", board.join(&topic)).await.unwrap();
    assert_eq!(event(&mut link).await, BoardEvent::Joined);
    let port = served.port;
    let folder = served.stop().await;
    assert!(matches!(event(&mut link).await, BoardEvent::Lost(_)));
    send(&link, "into the void").await;
    let served = Served::start(folder, port).await;
    assert_eq!(event(&mut link).await, BoardEvent::Joined);
    send(&link, "here again").await;
    assert_eq!(line(&mut link).await, "here again");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_for_good_when_the_host_key_changed_meanwhile() {
    let served = Served::with(&["alice"]).await;
    let config = served.config("alice");
    let known = std::fs::read_to_string(&config.known_hosts).unwrap();
    let topic = "friends/future.p2p".parse().unwrap();
    let mut link = soon("joining", SshBoard::new(config.clone()).join(&topic)).await.unwrap();
    assert_eq!(event(&mut link).await, BoardEvent::Joined);
    let port = served.port;
    let folder = served.stop().await;
    std::fs::remove_file(folder.path().join("board/host_key")).unwrap();
    let served = Served::start(folder, port).await;
    std::fs::write(&config.known_hosts, known).unwrap();
    assert!(matches!(event(&mut link).await, BoardEvent::Lost(_)));
    let BoardEvent::Lost(reason) = event(&mut link).await else { panic!() };
    assert!(reason.contains("HAS CHANGED"), "{reason}");
    assert_eq!(soon("the end", link.incoming.recv()).await, None);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_off_and_delays_nobody() {
    let served = Served::with(&["alice"]).await;
    let board = served.board("alice", &[]);
    let topic = "busy".parse().unwrap();
    // Our own link always reads; OpenSSH stops when nobody takes its output.
    let slow = Pipe::open(&served, "alice", &["busy"]).await;
    let mut links = Vec::new();
    for _ in 0..6 {
        links.push(soon("joining", board.join(&topic)).await.unwrap());
    }
    // What the pipe, the SSH window and the queue can hold is some 6.5 MiB; this is more.
    let (lines, text) = (600, "x".repeat(4000));
    let writers = links.into_iter().map(|mut link| {
        let text = text.clone();
        tokio::spawn(async move {
            let (incoming, outgoing) = (&mut link.incoming, &link.outgoing);
            let write = async {
                for _ in 0..lines {
                    outgoing.send(text.clone()).await.unwrap();
                }
            };
            let read = async {
                let mut left = 6 * lines;
                while left > 0 {
                    match incoming.recv().await.unwrap() {
                        BoardEvent::Line(_) => left -= 1,
                        BoardEvent::Joined => {}
                        other => panic!("{other:?}"),
                    }
                }
            };
            tokio::join!(write, read);
            link
        })
    });
    let writers: Vec<_> = writers.collect();
    for writer in writers {
        drop(soon("every line", writer).await.unwrap());
    }
    slow.drained().await;
    served.stop().await;
}
