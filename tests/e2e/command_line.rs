//! Exit statuses and messages: wrong usage, missing parts, things that cannot be had.

use std::{fs, process::Command};

use crate::world::{Who, World, stderr, stdout};

fn fails(world: &World, arguments: &[&str], status: i32, words: &[&str]) {
    let output = world.command(arguments).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(status), "{arguments:?} {output:?}");
    for word in words {
        assert!(message.contains(word), "{arguments:?} lacks {word:?}: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn wrong_usage_is_two_and_says_what_is_wrong() {
    let world = World::new(Who::Me);
    let (key, bad) = (world.path("no-such-key"), world.path("bad.toml"));
    fs::write(&bad, "inherits = \"strict\"\nmemmory = 1\n").unwrap();
    for (arguments, words) in [
        (&["--slots", "0"][..], &["--slots 0", "1 to 1024"][..]),
        (&["--cluster", "friends"], &["--cluster friends", "owner/name"]),
        (&["--board", "a b"], &["--board a b"]),
        (&["--max-future", "1 furlong"], &["--max-future", "furlong"]),
        (&["--cache", "1 furlong"], &["--cache", "furlong"]),
        (&["--profile", "no-such-profile"], &["no-such-profile"]),
        (&["--profile", bad.to_str().unwrap()], &["memmory"]),
        (&["--sandbox", "chroot"], &["chroot", "jail"]),
        (&["--config", "/no/such/file"], &["/no/such/file"]),
        (&["submit"], &["EXPR"]),
        (&["exec", "-e", "1", "file.rds"], &["cannot be used with"]),
        (&["exec", "/no/such/file.rds"], &["/no/such/file.rds"]),
        (&["frobnicate"], &["frobnicate"]),
    ] {
        fails(&world, arguments, 2, words);
    }
    let _ = key;
}

#[test]
fn exec_has_the_exit_status_of_what_it_ran() {
    for who in [Who::Me, Who::Ordinary] {
        let world = World::new(who);
        for driver in ["jail", "bubblewrap"] {
            let exec = |code| {
                world.command(&["exec", "--sandbox", driver, "--profile", "strict", "-e", code]).output().unwrap()
            };
            let fine = exec("1 + 1; 'a'");
            assert_eq!(
                (stdout(&fine).as_str(), fine.status.code()),
                ("[1] 2\n[1] \"a\"\n", Some(0)),
                "{who:?} {driver} {fine:?}"
            );
            let past_r = exec("invisible(system('echo past R'))");
            assert!(stderr(&past_r).contains("past R"), "{who:?} {driver} {past_r:?}");
            assert_eq!(exec("stop('x')").status.code(), Some(1), "{who:?} {driver}");
            assert_eq!(exec("quit(status = 9)").status.code(), Some(4), "{who:?} {driver}");
        }
    }
}

#[test]
fn a_board_that_is_not_there_is_five() {
    let world = World::new(Who::Me);
    fails(&world, &["--board", "127.0.0.1:1"], 5, &["127.0.0.1"]);
}

#[test]
fn an_unknown_board_is_refused_with_its_fingerprint() {
    let world = World::new(Who::Me);
    let board = format!("127.0.0.1:{}", world.port());
    fails(&world, &["--board", &board], 5, &["SHA256:", "--accept-new"]);
}

#[test]
fn an_unknown_key_is_refused_with_what_to_do() {
    let world = World::new(Who::Me);
    let stranger = world.path("stranger");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&stranger).status();
    assert!(made.unwrap().success());
    let board = format!("127.0.0.1:{}", world.port());
    fails(&world, &["--board", &board, "--accept-new", "-i", stranger.to_str().unwrap()], 5, &["stranger", "user add"]);
}

#[test]
fn missing_parts_are_named_before_anything_is_claimed() {
    let world = World::new(Who::Me);
    // A path without R and bubblewrap.
    let empty = world.path("empty");
    fs::create_dir(&empty).unwrap();
    let run = |arguments: &[&str]| world.command(arguments).env("PATH", &empty).output().unwrap();
    let bubblewrap = run(&["exec", "--sandbox", "bubblewrap", "--profile", "strict", "-e", "1"]);
    if bubblewrap.status.code() != Some(0) {
        assert!(stderr(&bubblewrap).contains("apt install"), "{bubblewrap:?}");
    }
}

#[test]
fn a_state_folder_that_cannot_be_written_is_named() {
    let world = World::new(Who::Ordinary);
    fails(&world, &["exec", "--state", "/proc/nowhere", "-e", "1"], 2, &["/proc/nowhere"]);
}

#[test]
fn doctor_and_profiles_can_be_read() {
    for who in [Who::Me, Who::Ordinary] {
        let world = World::new(who);
        let doctor = world.command(&["doctor"]).output().unwrap();
        assert_eq!(doctor.status.code(), Some(0), "{who:?} {doctor:?}");
        for word in ["filesystem", "syscalls", "jail", "bubblewrap"] {
            assert!(stdout(&doctor).contains(word), "{who:?} {word} {doctor:?}");
        }
        let json = world.command(&["doctor", "--json"]).output().unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&json.stdout).is_ok(), "{json:?}");
        let list = world.command(&["profile", "list"]).output().unwrap();
        assert!(stdout(&list).contains("strict") && stdout(&list).contains("standard"), "{list:?}");
        let show = world.command(&["profile", "show", "strict", "--sandbox", "bubblewrap"]).output().unwrap();
        assert!(stdout(&show).contains("/usr"), "{show:?}");
    }
}
