//! `--task-user`: as whom root's tasks run.

use std::{fs, process::Stdio};

use nix::unistd::User;

use crate::world::{Who, World, eventually, processes_with, stderr};

/// An account that every Debian has (base-passwd), and nothing of these tests runs as.
const ACCOUNT: &str = "games";

/// The four user ids of a process on the host (real, effective, saved, file system).
fn user_ids(pid: i32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    line.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

#[test]
fn tasks_of_roots_worker_run_as_the_account_that_was_named() {
    if !nix::unistd::geteuid().is_root() {
        return refused_for_whoever_is_not_root(Who::Me);
    }
    let account = User::from_name(ACCOUNT).unwrap().unwrap();
    assert!(account.uid.as_raw() != 0 && account.uid.as_raw() != 65534);
    for driver in ["jail", "bubblewrap"] {
        let world = World::new(Who::Me);
        for (user, expected) in [(Some(ACCOUNT), account.uid.as_raw()), (None, 65534)] {
            // A number that only this run has, to find the process by.
            let seconds = format!("74{}{expected}", std::process::id());
            let named = user.map_or(Vec::new(), |user| vec!["--task-user", user]);
            let arguments = [&["--profile", "strict", "--sandbox", driver][..], &named].concat();
            let worker = world.worker(&arguments);
            let mut submit = world.submit(&["-e", &format!("system('sleep {seconds}')")]);
            let mut client = submit.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let sleeping = || {
                processes_with(&seconds).into_iter().filter(|pid| {
                    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
                })
            };
            eventually("the task sleeps", || sleeping().next().is_some());
            let ids: Vec<Vec<u32>> = sleeping().map(user_ids).collect();
            assert!(ids.iter().all(|ids| *ids == [expected; 4]), "{driver} {user:?}: {ids:?}");
            drop(worker);
            eventually("the task is gone", || sleeping().next().is_none());
            let _ = (client.kill(), client.wait());
        }
    }
}

#[test]
fn root_and_unknown_accounts_are_refused() {
    if !nix::unistd::geteuid().is_root() {
        return refused_for_whoever_is_not_root(Who::Me);
    }
    let world = World::new(Who::Me);
    let unknown = "nobody-is-named-so";
    for (user, words) in
        [("root", "never run as uid 0"), (unknown, "no user is named nobody-is-named-so"), ("", "no user is named")]
    {
        for command in ["exec", "doctor"] {
            let expression: &[&str] = if command == "exec" { &["-e", "cat('EVALUATED')"] } else { &[] };
            let named = format!("--task-user={user}");
            let output = world.command(&[&[command, &named][..], expression].concat()).output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{command} {user:?}: {output:?}");
            assert!(said.contains(words), "{command} {user:?}: {said}");
            assert!(!String::from_utf8_lossy(&output.stdout).contains("EVALUATED"), "{command} {user:?}: {output:?}");
        }
    }
    refused_for_whoever_is_not_root(Who::Ordinary);
}

fn refused_for_whoever_is_not_root(who: Who) {
    let world = World::new(who);
    let arguments = ["exec", "--task-user", ACCOUNT, "-e", "cat('EVALUATED')"];
    let output = world.command(&arguments).output().unwrap();
    assert!(!output.status.success() && stderr(&output).contains("root"), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("EVALUATED"), "{output:?}");
}
