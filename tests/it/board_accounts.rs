//! Accounts, keys, codes and status of a board, by its owner's commands and OpenSSH; and that its state survives.

use std::{fs, os::unix::process::ExitStatusExt as _, process::Stdio, sync::mpsc, time::Duration};

use nix::sys::signal::Signal;
use p2p_worker::board::server::Status;
use tokio::time::Instant;

use super::{
    board_program::Town,
    board_raw::Raw,
    board_support::{make_key, soon},
};

/// The code of what `board invite` printed.
fn code(said: &str) -> String {
    said.lines().find_map(|line| line.strip_prefix("code:")).unwrap().trim().to_owned()
}

async fn now(town: &Town) -> Status {
    serde_json::from_str(&town.must(&["status", "--json"]).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_joins_with_a_code_and_their_own_key_and_nobody_else_does() {
    let town = Town::with(&["alice"]).await;
    let board = town.serve(0, &[]).await;
    for key in ["bobs", "other", "third"] {
        make_key(town.folder.path(), key, "");
    }
    let said = town.must(&["invite", "bob"]).await;
    let code = code(&said);
    assert!(said.contains(&format!("ssh -p {} HOST join {code}", board.port)) && said.contains("SHA256:"), "{said}");
    let list = town.must(&["invite", "--list"]).await;
    assert!(list.starts_with("bob  ") && !list.contains(&code), "{list}");

    // A key without an account learns what to do, and nothing else.
    for command in [&[][..], &["user"], &["ls"], &["pipe", "x"], &["help"], &["join"]] {
        let (output, errors, status) = town.say(board.port, &["bobs"], command).await;
        assert_eq!((output.as_str(), status), ("", 1), "{command:?} {errors}");
        assert!(errors.contains("SHA256:") && errors.contains("join CODE"), "{command:?} {errors}");
    }
    let (_, errors, status) = town.say(board.port, &["bobs"], &["join", "aaaaa-aaaaa-aaaaa-aaaaa-aaaaa"]).await;
    assert!(status == 1 && errors.contains("not valid"), "{errors}");

    let (output, errors, status) = town.say(board.port, &["bobs"], &["join", &code]).await;
    assert!(status == 0 && output.starts_with("welcome, bob: your key SHA256:"), "{output} {errors}");
    assert_eq!(town.say(board.port, &["bobs"], &["user"]).await.0.lines().next(), Some("bob"));
    let (_, errors, status) = town.say(board.port, &["other"], &["join", &code]).await;
    assert!(status == 1 && errors.contains("not valid"), "a code is for one key: {errors}");
    assert_eq!(town.must(&["invite", "--list"]).await, "");

    // Whose key has an account needs none.
    let second = self::code(&town.must(&["invite", "bob", "--valid", "2 h"]).await);
    let (_, errors, _) = town.say(board.port, &["bobs"], &["join", &second]).await;
    assert!(errors.contains("already"), "{errors}");
    // Another key for the same account, the code typed as people type.
    let typed = second.replace('-', "").to_uppercase();
    assert_eq!(town.say(board.port, &["other"], &["join", &typed]).await.2, 0);
    let (one, other) =
        (town.say(board.port, &["bobs"], &["user"]).await, town.say(board.port, &["other"], &["user"]).await);
    assert_eq!(one, other);

    let now = now(&town).await;
    assert_eq!((now.accounts, now.keys, now.joined, now.invitations), (2, 3, 2, 0));
    assert!(now.refused_sign_ins >= 8, "{now:?}");
    board.signalled(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_expire_and_can_be_taken_back() {
    let town = Town::with(&["alice"]).await;
    let board = town.serve(0, &[]).await;
    make_key(town.folder.path(), "bobs", "");
    let short = code(&town.must(&["invite", "bob", "--valid", "1 ms"]).await);
    assert!(town.say(board.port, &["bobs"], &["join", &short]).await.1.contains("not valid"));
    let revoked = code(&town.must(&["invite", "bob"]).await);
    town.must(&["invite", "--revoke", "bob"]).await;
    assert!(town.say(board.port, &["bobs"], &["join", &revoked]).await.1.contains("not valid"));
    town.must_not(2, &["invite", "--revoke", "bob"]).await;
    // Nor is one of any use when its account was removed.
    let gone = code(&town.must(&["invite", "bob"]).await);
    town.must(&["user", "remove", "bob"]).await;
    assert!(town.say(board.port, &["bobs"], &["join", &gone]).await.1.contains("not valid"));
    for wrong in [&["invite", "Alice"][..], &["invite", "public"], &["invite", "a/b"], &["invite"]] {
        town.must_not(2, wrong).await;
    }
    for valid in ["0 s", "32 d", "soon"] {
        town.must_not(2, &["invite", "bob", "--valid", valid]).await;
    }
    board.signalled(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_with_several_keys_is_known_by_the_one_that_has_an_account() {
    let town = Town::with(&["alice"]).await;
    let board = town.serve(0, &[]).await;
    for key in ["one", "two", "three"] {
        make_key(town.folder.path(), key, "");
    }
    let keys = ["one", "two", "alice", "three"];
    assert_eq!(town.say(board.port, &keys, &["user"]).await.0.lines().next(), Some("alice"));
    let (_, errors, status) = town.say(board.port, &["one", "two", "three"], &["user"]).await;
    assert!(status == 1 && errors.contains("no account"), "{errors}");
    // Scripts, which nobody could answer for, are refused as everywhere.
    let mut batch = town.ssh(board.port, &["one"], &["user"]);
    let output = soon("ssh", batch.args(["-o", "BatchMode=yes"]).output()).await.unwrap();
    assert!(output.stdout.is_empty() && output.status.code() != Some(0), "{output:?}");
    board.signalled(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_removed_is_cut_off_at_once_and_the_others_of_its_account_are_not() {
    let town = Town::with(&["alice"]).await;
    let second = make_key(town.folder.path(), "second", "").with_extension("pub");
    town.must(&["user", "add", "alice", second.to_str().unwrap()]).await;
    let list = town.must(&["user", "list"]).await;
    let fingerprint = list.lines().nth(1).unwrap().split("  ").nth(2).unwrap().to_owned();
    assert!(list.lines().all(|line| line.ends_with("ssh-ed25519 test key")), "{list}");

    let board = town.serve(0, &[]).await;
    let (one, two) =
        (Raw::sign_in(board.port, &town.path("alice")).await, Raw::sign_in(board.port, &town.path("second")).await);
    let (mut first, mut cut) = (one.start(b"pipe x -r").await, two.start(b"pipe x").await);
    town.must(&["user", "remove", "alice", "--key", &fingerprint]).await;
    soon("the end of the removed key's connection", cut.until(|heard, _| heard.ended)).await;
    // It is cut when the command ends, not some time later.
    assert_eq!(now(&town).await.signed_in, 1);
    first.send("still here\n").await;
    soon("a line", first.until(|heard, _| heard.output.contains("still here"))).await;
    assert!(town.must_not(2, &["user", "remove", "alice", "--key", &fingerprint]).await.contains("has no key"));
    let last = town.must(&["user", "list"]).await.split("  ").nth(2).unwrap().to_owned();
    assert!(town.must_not(2, &["user", "remove", "alice", "--key", &last]).await.contains("last key"));
    town.must(&["user", "remove", "alice"]).await;
    soon("the end of the account", first.until(|heard, _| heard.ended)).await;
    board.signalled(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_before_a_key_are_refused_and_never_ignored() {
    let town = Town::with(&[]).await;
    let key = fs::read_to_string(make_key(town.folder.path(), "key", "").with_extension("pub")).unwrap();
    let file = town.path("restricted.pub");
    for options in
        ["restrict", "from=\"192.0.2.1\"", "command=\"pub x\",no-pty", "cert-authority", "expiry-time=\"2020\""]
    {
        fs::write(&file, format!("{options} {key}")).unwrap();
        let errors = town.must_not(2, &["user", "add", "bob", file.to_str().unwrap()]).await;
        assert!(errors.contains("options"), "{options}: {errors}");
    }
    assert_eq!(town.must(&["user", "list"]).await, "");
    // Nor in the file itself, where somebody may write them by hand.
    let accounts = town.state().join("accounts");
    fs::write(&accounts, format!("bob 1 2026-11-22T14:03:59Z restrict {key}")).unwrap();
    assert!(town.must_not(2, &["--listen", "127.0.0.1:0"]).await.contains("accounts, line 1"));
    fs::write(&accounts, format!("bob 1 2026-11-22T14:03:59Z {key}")).unwrap();
    assert!(town.must(&["user", "list"]).await.starts_with("bob  "));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_what_is_there_and_only_its_owner_is_told() {
    let town = Town::with(&["alice", "bob"]).await;
    assert!(town.must_not(5, &["status"]).await.contains("no board serves"));
    let board = town.serve(0, &["--max-topics-per-account", "2", "--max-connections-per-account", "2"]).await;
    let alice = Raw::sign_in(board.port, &town.path("alice")).await;
    let mut host = alice.start(b"pipe friends/x -r -a bob").await;
    let bob = Raw::sign_in(board.port, &town.path("bob")).await;
    let mut guest = bob.start(b"sub alice/friends/x").await;
    host.send("hello\n").await;
    soon("a line", host.until(|heard, _| heard.output.contains("hello"))).await;
    soon("a line", guest.until(|heard, _| heard.output.contains("hello"))).await;

    let now = now(&town).await;
    assert_eq!((now.accounts, now.signed_in, now.topics.len()), (2, 2, 1));
    let topic = &now.topics[0];
    assert_eq!((topic.name.as_str(), topic.clients.len(), topic.access_list.len()), ("alice/friends/x", 2, 1));
    assert_eq!((now.lines.posted, now.lines.delivered, now.bytes.delivered), (1, 2, 10));
    let text = town.must(&["status"]).await;
    assert!(text.contains("alice/friends/x (shared with bob)") && text.contains("2 signed in"), "{text}");

    // The limits of an account: topics, and connections.
    let _second = alice.start(b"pipe y").await;
    let third = alice.run("pipe z").await;
    assert!(third.status == Some(1) && third.errors.contains("2 topics"), "{third:?}");
    let _other = Raw::sign_in(board.port, &town.path("alice")).await;
    let (output, errors, _) = town.say(board.port, &["alice"], &["user"]).await;
    assert!(output.is_empty() && errors.contains("Permission denied"), "{errors}");
    // A second board does not take the state over.
    assert!(town.must_not(2, &["--listen", "127.0.0.1:0"]).await.contains("another board serves"));
    board.signalled(Signal::SIGTERM).await;
    assert!(!town.state().join("control").exists());
}

/// Kills the owner's commands at any moment, and the board with them: what was there stays, and what comes is whole.
#[tokio::test(flavor = "multi_thread")]
async fn state_survives_kill_9_at_any_moment() {
    let town = Town::with(&["alice"]).await;
    let mut board = town.serve(0, &[]).await;
    let host_key = fs::read(town.path("board/host_key")).unwrap();
    let keys: Vec<_> = (0..4).map(|at| make_key(town.folder.path(), &format!("k{at}"), "")).collect();
    // The shortest of a few times: a machine that was busy with something else for a moment makes no command longer.
    let mut whole = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        town.must(&["invite", "carol"]).await;
        whole = whole.min(started.elapsed());
    }
    let (mut changed, mut killed) = (0, 0);
    for round in 0..60u32 {
        let key = keys[usize::try_from(round).unwrap() % 4].with_extension("pub");
        let name = format!("user{}", round % 4);
        let added = town.must(&["user", "list"]).await.contains(&format!("{name}  "));
        let arguments = match (round % 3, added) {
            (0, _) => vec!["invite", "carol"],
            (_, true) => vec!["user", "remove", &name],
            (_, false) => vec!["user", "add", &name, key.to_str().unwrap()],
        };
        let mut command = town.board(&arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From before it has begun to after it has ended, a little later each time.
        pause(whole * round / 40).await;
        let _ = child.start_kill();
        let status = soon("its end", child.wait()).await.unwrap();
        match status.signal() {
            Some(_) => killed += 1,
            None => changed += i32::from(status.success()),
        }
        // Whatever happened, both files can be read, and alice is there.
        assert!(town.must(&["user", "list"]).await.starts_with("alice  "));
        town.must(&["invite", "--list"]).await;
        if round % 20 == 19 {
            let port = board.port;
            board.signalled(Signal::SIGKILL).await;
            board = town.serve(port, &[]).await;
            assert_eq!(town.say(port, &["alice"], &["user"]).await.0.lines().next(), Some("alice"));
        }
    }
    assert!(killed >= 5 && killed + changed == 60, "{killed} were killed, {changed} came first");
    let last = make_key(town.folder.path(), "last", "").with_extension("pub");
    town.must(&["user", "add", "last", last.to_str().unwrap()]).await;
    let left = fs::read_dir(town.state()).unwrap().filter_map(Result::ok).map(|entry| entry.file_name());
    let mut left: Vec<_> = left.filter_map(|name| name.into_string().ok()).collect();
    left.sort();
    left.retain(|name| name != "invites");
    assert_eq!(left, ["accounts", "accounts.lock", "control", "host_key", "serving.lock"]);
    assert_eq!(fs::read(town.path("board/host_key")).unwrap(), host_key);
    board.signalled(Signal::SIGKILL).await;
}

/// Finer than the runtime's timers, which count in milliseconds.
async fn pause(time: Duration) {
    let (_kept, never) = mpsc::sync_channel::<()>(0);
    tokio::task::spawn_blocking(move || never.recv_timeout(time)).await.unwrap().unwrap_err();
}

/// On a file system of 64 kB that is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_the_state_as_it_was_and_is_told() {
    let town = Town::with(&["alice"]).await;
    let (first, second) = (town.path("alice.pub"), make_key(town.folder.path(), "bob", "").with_extension("pub"));
    let script = r#"
        set -e
        mount -t tmpfs -o size=64k none "$1"
        "$4" board user add alice "$2" --state "$1"
        cp "$1/accounts" "$5/before"
        dd if=/dev/zero of="$1/ballast" bs=1k 2>/dev/null || true
        if "$4" board user add bob "$3" --state "$1" 2> "$5/errors"; then exit 9; fi
        if "$4" board invite carol --state "$1" 2>> "$5/errors"; then exit 9; fi
        if "$4" board invite --revoke carol --state "$1" 2>> "$5/errors"; then exit 9; fi
        cmp "$1/accounts" "$5/before"
        rm "$1/ballast"
        "$4" board user add bob "$3" --state "$1"
        test "$(wc -l < "$1/accounts")" = 2
        ls -A "$1" > "$5/left"
    "#;
    let mount = town.path("mount");
    fs::create_dir(&mount).unwrap();
    let mut command = tokio::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(&mount).args([&first, &second]).arg(env!("CARGO_BIN_EXE_p2p-worker")).arg(town.folder.path());
    let output = soon("the script", command.env("HOME", town.folder.path()).output()).await.unwrap();
    let errors = fs::read_to_string(town.path("errors")).unwrap_or_default();
    assert!(output.status.success(), "{output:?} {errors}");
    assert_eq!(errors.matches("No space left on device").count(), 2, "{errors}");
    assert!(errors.contains("cannot write"), "{errors}");
    let left = fs::read_to_string(town.path("left")).unwrap();
    assert_eq!(left, "accounts\naccounts.lock\n");
}
