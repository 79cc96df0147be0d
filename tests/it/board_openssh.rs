//! The board's server against the real OpenSSH client.

use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::board_support::{Served, make_key, soon};

/// `ssh` with nothing taken from the machine that runs the test.
fn ssh(served: &Served, key: &Path, command: &[&str]) -> Command {
    ssh_with(served, key, &[], command)
}

fn ssh_with(served: &Served, key: &Path, options: &[&str], command: &[&str]) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(options);
    ssh.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
        .args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=/dev/null", "-o"])
        .arg(format!("UserKnownHostsFile={}", served.path("known_hosts").display()))
        .arg("-i")
        .arg(key)
        .args(["-p", &served.port.to_string(), "someone@127.0.0.1"])
        .args(command)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    ssh
}

/// Standard output, standard error and exit status.
async fn run(served: &Served, user: &str, command: &[&str]) -> (String, String, i32) {
    let output = soon("ssh", ssh(served, &served.path(user), command).output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// A running `ssh … pipe`.
pub(crate) struct Pipe {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Pipe {
    /// Starts one and waits until its own first line comes back, as R clients do.
    pub(crate) async fn open(served: &Served, user: &str, arguments: &[&str]) -> Self {
        let command = [&["pipe"], arguments, &["-r"]].concat();
        let mut process = ssh(served, &served.path(user), &command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ssh is installed");
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut pipe = Self { process, input, output };
        pipe.send(&format!("hello of {user}\n")).await;
        assert_eq!(pipe.line().await, format!("hello of {user}"));
        pipe
    }

    async fn send(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
    }

    async fn line(&mut self) -> String {
        soon("a line", self.output.next_line()).await.unwrap().expect("the pipe goes on")
    }

    /// Reads what is left until the board ends it.
    pub(crate) async fn drained(mut self) {
        soon("the end", async { while let Ok(Some(_)) = self.output.next_line().await {} }).await;
        soon("the exit", self.process.wait()).await.unwrap();
    }

    /// Waits for the end that the board makes: exit status and standard error.
    async fn ended(mut self) -> (i32, String) {
        assert_eq!(soon("the end", self.output.next_line()).await.unwrap(), None);
        let mut errors = String::new();
        soon("the errors", self.process.stderr.take().unwrap().read_to_string(&mut errors)).await.unwrap();
        (soon("the exit", self.process.wait()).await.unwrap().code().unwrap(), errors)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn user_answers_three_lines_and_nothing_else() {
    let served = Served::with(&["alice"]).await;
    let (output, errors, status) = run(&served, "alice", &["user"]).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((lines.len(), lines[0], errors.as_str(), status), (3, "alice", "", 0));
    let account = served.accounts().list().unwrap().remove(0);
    assert_eq!((lines[1], lines[2]), (account.id.as_str(), account.created.as_str()));
    assert!(lines[2].ends_with('Z') && lines[2].len() == 20, "{}", lines[2]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn help_is_given_on_demand_and_other_commands_fail() {
    let served = Served::with(&["alice"]).await;
    let key = served.path("alice");
    let help = soon("ssh", ssh(&served, &key, &["help"]).output()).await.unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("pipe TOPIC"), "{help:?}");
    let shell = soon("ssh", ssh(&served, &key, &[]).output()).await.unwrap();
    assert_eq!((shell.stdout, shell.status), (help.stdout.clone(), help.status));
    let terminal = soon("ssh", ssh_with(&served, &key, &["-tt"], &[]).output()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&terminal.stdout).replace("\r\n", "\n").as_bytes(), help.stdout);
    for command in ["rm -rf /", "pipe", "pipe a b", "scp -t /", "pipe a -x"] {
        let (output, errors, status) = run(&served, "alice", &[command]).await;
        assert_eq!((output.as_str(), status), ("", 1), "{command}");
        assert!(!errors.is_empty());
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ls_has_the_form_that_r_clients_read() {
    let served = Served::with(&["alice", "bob"]).await;
    assert_eq!(run(&served, "alice", &["ls"]).await.0, "no pubsub channels found\r\n");
    let _host = Pipe::open(&served, "alice", &["friends/future.p2p", "-a", "bob,carol", "-c"]).await;
    let _guest = Pipe::open(&served, "bob", &["alice/friends/future.p2p"]).await;
    let _stranger = Pipe::open(&served, "bob", &["alice/secret/future.p2p"]).await;
    let (listing, ..) = run(&served, "alice", &["ls"]).await;
    let lines: Vec<&str> = listing.split("\r\n").collect();
    assert_eq!(
        lines[..3],
        ["Channel Information", "- alice/friends/future.p2p: (Access List: bob, carol)", "  Pipes:"]
    );
    assert!(lines[3].starts_with("  - ") && lines[3].contains(" (alice@127.0.0.1:"), "{listing}");
    assert!(lines[4].contains(" (bob@127.0.0.1:"), "{listing}");
    assert_eq!(lines[5..], [""]);
    let (listing, ..) = run(&served, "bob", &["ls"]).await;
    assert_eq!(listing.matches("\r\n- ").count(), 1, "{listing}");
    assert!(listing.contains("\r\n- bob/alice/secret/future.p2p:\r\n"), "{listing}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_to_the_others_and_never_mix() {
    let served = Served::with(&["alice"]).await;
    let mut one = Pipe::open(&served, "alice", &["x"]).await;
    let mut two = Pipe::open(&served, "alice", &["alice/x"]).await;
    assert_eq!(one.line().await, "hello of alice");
    one.send("half a li").await;
    two.send("whole\r\n").await;
    assert_eq!((one.line().await, two.line().await), ("whole".to_owned(), "whole".to_owned()));
    one.send(&format!("ne\n{}\nnext\n", "z".repeat(5000))).await;
    for pipe in [&mut one, &mut two] {
        assert_eq!(pipe.line().await, "half a line");
        assert_eq!(pipe.line().await, "next");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_its_owners_and_its_guests_as_long_as_it_is_hosted() {
    let served = Served::with(&["alice", "bob", "carol"]).await;
    let mut host = Pipe::open(&served, "alice", &["friends/x", "-a", "bob"]).await;
    let mut bob = Pipe::open(&served, "bob", &["alice/friends/x"]).await;
    let mut carol = Pipe::open(&served, "carol", &["alice/friends/x"]).await;
    assert_eq!(host.line().await, "hello of bob");
    host.send("secret\n").await;
    assert_eq!((host.line().await, bob.line().await), ("secret".to_owned(), "secret".to_owned()));
    // Were carol on the topic, the secret would be there before this.
    carol.send("mine\n").await;
    assert_eq!(carol.line().await, "mine");
    // A second client of alice's that does not share the topic does not keep it open.
    let mut other = Pipe::open(&served, "alice", &["friends/x"]).await;
    assert_eq!(bob.line().await, "hello of alice");
    host.process.kill().await.unwrap();
    let (status, errors) = bob.ended().await;
    assert_eq!(status, 1);
    assert!(errors.contains("does not share"), "{errors}");
    let mut late = Pipe::open(&served, "bob", &["alice/friends/x"]).await;
    other.send("secret again\n").await;
    assert_eq!(other.line().await, "secret again");
    late.send("mine\n").await;
    assert_eq!(late.line().await, "mine");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_topics_and_one_way_forms() {
    let served = Served::with(&["alice", "bob"]).await;
    let mut one = Pipe::open(&served, "alice", &["square", "-p"]).await;
    let mut two = Pipe::open(&served, "bob", &["square", "-p"]).await;
    assert_eq!(one.line().await, "hello of bob");
    one.send("to all\n").await;
    assert_eq!(two.line().await, "to all");

    let mut reader = Pipe::open(&served, "alice", &["x"]).await;
    let mut publish = ssh(&served, &served.path("alice"), &["pub", "x"]);
    let mut publish = publish.stdin(Stdio::piped()).spawn().unwrap();
    publish.stdin.take().unwrap().write_all(b"one way, no line end").await.unwrap();
    assert_eq!(reader.line().await, "one way, no line end");
    assert!(soon("pub", publish.wait()).await.unwrap().success());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_known_refused_added_and_removed_while_it_serves() {
    let served = Served::with(&["alice"]).await;
    let key = make_key(served.folder.path(), "bob", "");
    let (output, errors, status) = run(&served, "bob", &["user"]).await;
    assert_eq!((output.as_str(), status), ("", 255));
    assert!(errors.contains("Permission denied (publickey"), "{errors}");

    served.add("bob", &key);
    assert_eq!(run(&served, "bob", &["user"]).await.0.lines().next(), Some("bob"));
    let second = make_key(served.folder.path(), "bob2", "");
    served.add("bob", &second);
    assert_eq!(run(&served, "bob2", &["user"]).await.0, run(&served, "bob", &["user"]).await.0);

    let open = Pipe::open(&served, "bob", &["x"]).await;
    // A file that somebody spoilt changes nothing for the others, and is not overwritten.
    let file = served.path("board/accounts");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{good}half a li")).unwrap();
    assert_eq!(run(&served, "alice", &["user"]).await.2, 0);
    assert!(served.accounts().remove(&"bob".parse().unwrap()).unwrap_err().to_string().contains("line 4"));
    std::fs::write(&file, good).unwrap();

    served.accounts().remove(&"bob".parse().unwrap()).unwrap();
    assert_eq!(run(&served, "bob", &["user"]).await.2, 255);
    assert_eq!(open.ended().await.0, 255, "a removed account's connections are cut");
    assert_eq!(run(&served, "alice", &["user"]).await.2, 0);
    served.stop().await;
}
