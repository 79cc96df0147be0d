//! Who is not on the access list of a topic can neither read, write nor learn anything of it: every command in every
//! spelling, while the topic has never been there, is there without a list, is shared with somebody else, and is gone again.
//!
//! What the stranger hears is compared over these four: if a single byte of an answer differed, it would tell something.

use std::time::Duration;

use super::{
    board_raw::{Heard, Raw, Running},
    board_support::{Served, soon},
};

/// The topic that is protected, as its guests type it.
const TOPIC: &str = "alice/friends/future.p2p";

/// `T` stands for the topic.
const COMMANDS: [&str; 24] = [
    "pipe T",
    "pipe T -r",
    "pipe -r T",
    "pipe T -c -r",
    "pipe T -a mallory",
    "pipe T -a alice",
    "pipe T -a alice,bob,mallory -r",
    "pipe T -a=mallory -r",
    "pipe T -p",
    "pipe T -p -a mallory -r",
    "pub T",
    "pub T -a mallory",
    "pub T -p",
    "sub T",
    "sub T -a mallory",
    "sub T -p",
    "PIPE T",
    "pipe T T",
    "pipe T -x",
    "ls T",
    "ls -a",
    "user alice",
    "help T",
    "join T",
];

fn spellings() -> Vec<String> {
    let mut all: Vec<String> = [
        TOPIC,
        "/alice/friends/future.p2p",
        "//alice/friends/future.p2p",
        "alice//friends/future.p2p",
        "alice/friends//future.p2p",
        "alice/friends/future.p2p/",
        "alice/./friends/future.p2p",
        "./alice/friends/future.p2p",
        "../alice/friends/future.p2p",
        "alice/../alice/friends/future.p2p",
        "mallory/../alice/friends/future.p2p",
        "mallory/alice/friends/future.p2p",
        "ALICE/friends/future.p2p",
        "Alice/Friends/Future.P2P",
        "alice/friends/future.p2p\r",
        "alice/friends/future.p2p\t",
        "alice/friends/future.p2p  ",
        "alice/friends/future.p2p\u{a0}",
        "alice/friends/future.p2p\0",
        "\"alice/friends/future.p2p\"",
        "'alice'/friends/future.p2p",
        "alice\\friends\\future.p2p",
        "alice%2ffriends%2ffuture.p2p",
        "\u{430}lice/friends/future.p2p",
        "\u{ff41}lice/friends/future.p2p",
        "alice\u{2215}friends\u{2215}future.p2p",
        "al\u{ad}ice/friends/future.p2p",
        "alice/friends/future.p2p\u{200b}",
        "friends/future.p2p",
        "~alice/friends/future.p2p",
        "alice/friends",
        "alice/*",
        "*",
        "public/alice/friends/future.p2p",
        "public/../alice/friends/future.p2p",
        "alice:friends/future.p2p",
        "alice@127.0.0.1/friends/future.p2p",
    ]
    .map(str::to_owned)
    .into();
    all.push(format!("{TOPIC}/{}", "x".repeat(300)));
    all.push(format!("{}{TOPIC}", "/".repeat(200)));
    all
}

/// What mallory heard of one spelling: every command's answer, and the list of own topics meanwhile.
type Transcript = Vec<(String, Heard)>;

struct Stage {
    served: Served,
}

impl Stage {
    /// Connections of mallory's: for eight channels each, and one for other things. A connection may have some channels and no
    /// more.
    async fn connections(&self) -> Vec<Raw> {
        let mut connections = Vec::new();
        for _ in 0..=COMMANDS.len().div_ceil(8) {
            connections.push(Raw::sign_in(self.served.port, &self.served.path("mallory")).await);
        }
        connections
    }

    /// Tries everything; `secret` posts a line where mallory must not hear it, and comes back when it is posted.
    async fn try_everything(&self, secret: &mut impl AsyncFnMut()) -> Transcript {
        let mut transcript = Transcript::new();
        let mut all = self.connections().await;
        for (number, spelling) in spellings().into_iter().enumerate() {
            if number % 6 == 5 {
                all = self.connections().await;
            }
            let (other, connections) = all.split_last().unwrap();
            nothing_left(other).await;
            let mut running = Vec::new();
            for (at, command) in COMMANDS.iter().enumerate() {
                let command = command.replace('T', &spelling);
                running.push((command.clone(), connections[at / 8].start(command.as_bytes()).await));
            }
            let listing = without_numbers(other.run("ls").await);
            secret().await;
            for (_, command) in &running {
                command.send("forged\n").await;
                command.end_input().await;
            }
            // Lines keep their order, so that whoever hears this has heard all that it ever will.
            for publish in ["pub", "pub -p"] {
                let end = other.start(format!("{publish} {spelling}").as_bytes()).await;
                end.send("end\n").await;
                end.end_input().await;
                finish(end).await;
            }
            for (command, running) in running {
                let heard = finish(running).await;
                assert!(!heard.output.contains("secret"), "{command:?} heard {heard:?}");
                transcript.push((command, heard));
            }
            transcript.push((format!("ls during {spelling:?}"), listing));
        }
        nothing_left(all.last().unwrap()).await;
        transcript
    }
}

async fn nothing_left(mallory: &Raw) {
    let left = async {
        while mallory.run("ls").await.output != "no pubsub channels found\r\n" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("nothing being left of the last spelling", left).await;
}

/// Waits for a command's own end, or for the last line on a topic, and leaves.
async fn finish(mut running: Running) -> Heard {
    soon("an end", running.until(|heard, _| heard.ended || heard.output.contains("end\n"))).await;
    let mut heard = running.heard.clone();
    running.close().await;
    // What mallory's own clients say to each other on the way comes in no fixed order.
    heard.output = heard.output.split_inclusive('\n').filter(|line| *line != "forged\n").collect();
    heard
}

/// Ids and ports differ from connection to connection.
fn without_numbers(heard: Heard) -> Heard {
    let plain = |line: &str| match line.split_once(" (mallory@127.0.0.1:") {
        Some(_) => "  - a client of mallory's\r\n".to_owned(),
        None => line.to_owned(),
    };
    Heard { output: heard.output.split_inclusive('\n').map(plain).collect(), ..heard }
}

fn compare(never: &Transcript, now: &Transcript, when: &str) {
    assert_eq!(never.len(), now.len());
    for (before, after) in never.iter().zip(now) {
        assert_eq!(before, after, "the answer differs {when}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_on_the_list_learns_nothing_by_any_command_or_spelling() {
    let stage = Stage { served: Served::with(&["alice", "bob", "mallory"]).await };
    let never = stage.try_everything(&mut async || {}).await;
    for (command, heard) in &never {
        let listed = heard.output.split("\r\n").filter_map(|line| line.strip_prefix("- "));
        for name in listed {
            assert!(name.starts_with("mallory/"), "{command}: {name}");
        }
    }
    let served = &stage.served;
    let alice = Raw::sign_in(served.port, &served.path("alice")).await;

    // Before it is shared: alice alone is on it.
    let mut host = alice.start(b"pipe friends/future.p2p -r").await;
    let before = stage.try_everything(&mut async || said_by_alice(&mut host).await).await;
    compare(&never, &before, "when the topic is there without a list");
    said_by_alice(&mut host).await;
    heard_nothing_of_mallory(&host);
    host.close().await;

    // Shared with bob.
    let mut host = alice.start(b"pipe friends/future.p2p -r -a bob").await;
    let bob = Raw::sign_in(served.port, &served.path("bob")).await;
    let mut guest = bob.start(format!("pipe {TOPIC} -r").as_bytes()).await;
    let during = stage.try_everything(&mut async || said_by_alice(&mut host).await).await;
    compare(&never, &during, "while it is shared with somebody else");
    guest.send("from bob\n").await;
    soon("bob's line", host.until(|heard, _| heard.output.contains("from bob"))).await;
    soon("bob's own line", guest.until(|heard, _| heard.output.contains("from bob"))).await;
    heard_nothing_of_mallory(&host);
    heard_nothing_of_mallory(&guest);
    assert!(guest.heard.output.contains("secret"), "bob is a guest");

    // And after it was hosted: bob is a stranger too then.
    host.close().await;
    soon("bob's end", guest.until(|heard, _| heard.ended)).await;
    assert_eq!(guest.heard.status, Some(1));
    let mut alone = alice.start(b"pipe friends/future.p2p -r").await;
    let after = stage.try_everything(&mut async || said_by_alice(&mut alone).await).await;
    compare(&never, &after, "after it was shared");
    let mut late = bob.start(format!("pipe {TOPIC} -r").as_bytes()).await;
    said_by_alice(&mut alone).await;
    late.send("from bob again\n").await;
    soon("bob's line", late.until(|heard, _| heard.output.contains("from bob again"))).await;
    assert!(!late.heard.output.contains("secret"));
    said_by_alice(&mut alone).await;
    heard_nothing_of_mallory(&alone);
    assert!(!alone.heard.output.contains("from bob"));
    drop((alice, bob));
    stage.served.stop().await;
}

/// Alice posts a line, and has heard it herself.
async fn said_by_alice(host: &mut Running) {
    let said = host.heard.output.matches("secret\n").count();
    host.send("secret\n").await;
    soon("alice's own line", host.until(|heard, _| heard.output.matches("secret\n").count() > said)).await;
    assert!(!host.heard.ended);
}

fn heard_nothing_of_mallory(member: &Running) {
    for word in ["forged", "end\n"] {
        assert!(!member.heard.output.contains(word), "{word:?} got through");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hosts_keep_a_topic_open_and_the_last_one_closes_it() {
    let served = Served::with(&["alice", "bob", "carol"]).await;
    let alice = Raw::sign_in(served.port, &served.path("alice")).await;
    let one = alice.start(b"pipe friends/x -r -a bob").await;
    let two = alice.start(b"pub alice/friends/x -a bob,carol").await;
    let three = alice.start(b"sub friends/x -a bob").await;
    let (bob, carol) =
        (Raw::sign_in(served.port, &served.path("bob")).await, Raw::sign_in(served.port, &served.path("carol")).await);
    let mut guest = bob.start(b"pipe alice/friends/x -r").await;
    let mut other = carol.start(b"sub alice/friends/x").await;
    one.close().await;
    two.end_input().await;
    soon("carol's end, as the only host that shared with her is gone", other.until(|heard, _| heard.ended)).await;
    assert_eq!((other.heard.status, other.heard.errors.contains("does not share")), (Some(1), true));
    guest.send("still here\n").await;
    soon("bob's line", guest.until(|heard, _| heard.output.contains("still here"))).await;
    three.close().await;
    soon("bob's end", guest.until(|heard, _| heard.ended)).await;
    assert_eq!(guest.heard.status, Some(1));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_eight_channels_at_a_time_and_some_more_one_after_the_other() {
    let served = Served::with(&["alice"]).await;
    let alice = Raw::sign_in(served.port, &served.path("alice")).await;
    for _ in 0..20 {
        assert_eq!(alice.run("user").await.status, Some(0));
    }
    let mut ended = alice.start(b"pub x").await;
    ended.end_input().await;
    soon("the end of pub", ended.until(|heard, _| heard.ended)).await;
    let mut held = Vec::new();
    while let Some(running) = alice.try_start(b"sub x").await {
        held.push(running);
    }
    assert_eq!(held.len(), 8);
    held.pop().unwrap().close().await;
    let again = async {
        loop {
            match alice.try_start(b"sub x").await {
                Some(running) => return running,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    soon("room for another channel", again).await.close().await;
    drop(held);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_way_forms_end_as_their_input_says() {
    let served = Served::with(&["alice"]).await;
    let alice = Raw::sign_in(served.port, &served.path("alice")).await;
    let mut reader = alice.start(b"sub x").await;
    let mut publisher = alice.start(b"pub x").await;
    // A reader that has no input reads on; what it writes goes nowhere.
    reader.send("from a reader\n").await;
    reader.end_input().await;
    publisher.send("one\r\ntwo\n\nthree without an end").await;
    publisher.end_input().await;
    soon("the publisher's end", publisher.until(|heard, _| heard.ended)).await;
    assert_eq!(publisher.heard, Heard { status: Some(0), ended: true, ..Heard::default() });
    soon("all lines", reader.until(|heard, _| heard.output.contains("three"))).await;
    assert_eq!(reader.heard.output, "one\ntwo\nthree without an end\n");
    assert_eq!(alice.run("pub").await.status, Some(1));
    served.stop().await;
}
