//! `p2p-worker host` as a process, with guests who use OpenSSH as R peers do.

use std::{fs, process::Stdio};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use super::{board_program::Town, board_raw::Raw, board_support::soon};

/// What an R peer does to join `alice/friends`: it lists its channels, opens the pipe, sends a hello with `-r` and waits for
/// it, lists its channels again, and takes a new one of its own with a `/` in its name for "you have no access".
struct Peer {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    has_access: bool,
}

impl Peer {
    async fn join(town: &Town, port: u16, user: &str) -> Self {
        let before = channels(town, port, user).await;
        let mut ssh = town.ssh(port, &[user], &["pipe", "alice/friends/future.p2p", "-r"]);
        let mut process =
            ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ssh is installed");
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut peer = Self { process, input, output: BufReader::new(output).lines(), has_access: false };
        let hello = format!("when=2026-11-22T14:03:59,expires=1,type=client,from={user}@host:1,protocols=wormhole");
        peer.send(&hello).await;
        peer.until(&hello).await;
        let after = channels(town, port, user).await;
        let new = after.iter().filter(|name| !before.contains(name));
        peer.has_access = new.filter(|name| name.matches('/').count() >= 2).count() == 0;
        peer
    }

    async fn send(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
    }

    async fn until(&mut self, wanted: &str) {
        let found = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                if line.contains(wanted) {
                    return;
                }
            }
            panic!("the pipe ended without {wanted:?}");
        };
        soon(wanted, found).await;
    }

    async fn until_cut_off(mut self) {
        soon("the end", async { while let Ok(Some(_)) = self.output.next_line().await {} }).await;
        assert!(!soon("the exit", self.process.wait()).await.unwrap().success());
    }
}

/// The names of `ls`, read as R clients do: lines end in CRLF.
async fn channels(town: &Town, port: u16, user: &str) -> Vec<String> {
    let (output, errors, status) = town.say(port, &[user], &["ls"]).await;
    assert_eq!((status, errors.as_str()), (0, ""), "{output}");
    let lines: Vec<&str> = output.strip_suffix("\r\n").expect("a line ends in CRLF").split("\r\n").collect();
    match lines.as_slice() {
        ["no pubsub channels found"] => Vec::new(),
        ["Channel Information", rest @ ..] => {
            let names = rest.iter().filter_map(|line| line.strip_prefix("- "));
            names.map(|name| name.split(':').next().unwrap().to_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_hosted_changed_while_it_runs_and_comes_back_with_the_board() {
    let town = Town::with(&["alice", "bob", "carol"]).await;
    let board = town.serve(0, &[]).await;
    let (port, users) = (board.port, town.path("users"));
    assert!(!Peer::join(&town, port, "bob").await.has_access, "nobody hosts");

    fs::write(&users, "bob\n").unwrap();
    let file = users.to_str().unwrap().to_owned();
    let mut host = town.host(port, "alice", &["--cluster", "alice/friends", "--users-file", &file]);
    host.says(&["hosting", "alice/friends", "bob"]).await;
    let mut bob = Peer::join(&town, port, "bob").await;
    let carol = Peer::join(&town, port, "carol").await;
    assert!(bob.has_access && !carol.has_access);

    // The owner's own client hears the hello of a host that has just changed its list, and so do guests that stay.
    let alice = Raw::sign_in(port, &town.path("alice")).await;
    let mut listening = alice.start(b"sub friends/future.p2p").await;
    fs::write(&users, "bob, carol # since today\n").unwrap();
    host.signal(Signal::SIGHUP);
    host.says(&["hosting", "bob,carol"]).await;
    soon("a hello", listening.until(|heard, _| heard.output.contains("nusers=2,users=bob;carol,"))).await;
    assert!(listening.heard.output.contains("type=cluster,from=alice@"), "{:?}", listening.heard);
    bob.until("owner=alice,nusers=2,users=bob;carol,expires=").await;
    let mut carol = Peer::join(&town, port, "carol").await;
    assert!(carol.has_access);
    carol.send("from carol").await;
    bob.until("from carol").await;

    // A list that cannot be read changes nothing; one without bob takes his access, without a signal.
    fs::write(&users, "bob, a/b\n").unwrap();
    host.signal(Signal::SIGHUP);
    host.says(&["stays as it was"]).await;
    carol.send("carol again").await;
    bob.until("carol again").await;
    fs::write(town.path("users.new"), "carol\n").unwrap();
    fs::rename(town.path("users.new"), &users).unwrap();
    bob.until_cut_off().await;
    assert!(!Peer::join(&town, port, "bob").await.has_access);
    carol.send("and again").await;
    carol.until("and again").await;

    // The board goes away and comes back.
    board.signalled(Signal::SIGKILL).await;
    host.says(&["the board was lost"]).await;
    let board = town.serve(port, &[]).await;
    host.says(&["hosting", "carol"]).await;
    assert!(Peer::join(&town, port, "carol").await.has_access);
    assert!(!Peer::join(&town, port, "bob").await.has_access);

    host.signal(Signal::SIGTERM);
    assert!(soon("the host's end", host.child.wait()).await.unwrap().success());
    assert!(!Peer::join(&town, port, "carol").await.has_access);
    board.signalled(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_hosted_is_said() {
    let town = Town::with(&["alice"]).await;
    let board = town.serve(0, &[]).await;
    for (arguments, status, words) in [
        (&["--cluster", "bob/friends", "--users", "carol"][..], 2, "hosted by bob, and you are alice"),
        (&["--cluster", "alice/friends"], 2, "--users"),
        (&["--users", "bob"], 2, "--cluster"),
        (&["--cluster", "alice/friends", "--users", "a/b"], 2, "a/b"),
        (&["--cluster", "alice/friends", "--users-file", "/nowhere"], 2, "/nowhere"),
    ] {
        let host = town.host(board.port, "alice", arguments);
        let output = soon("its end", host.output()).await;
        assert_eq!(output.0, Some(status), "{arguments:?}: {}", output.1);
        assert!(output.1.contains(words), "{arguments:?}: {}", output.1);
    }
    board.signalled(Signal::SIGTERM).await;
}
