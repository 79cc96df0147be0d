//! `p2p-worker submit` with many futures, and for scripts.

use std::{fs, path::Path, process::Command};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{Running, Who, World, eventually, stderr, stdout};

/// Saves a future of each expression as `f1.rds`, `f2.rds`, …
fn save(world: &World, expressions: &[&str]) -> Vec<String> {
    let path = |number: usize| world.path(&format!("f{number}.rds")).display().to_string();
    let futures = expressions.iter().enumerate().map(|(number, expression)| {
        format!("saveRDS(future::future({expression}, lazy = TRUE, globals = FALSE), '{}');", path(number + 1))
    });
    let made = Command::new("Rscript").args(["--vanilla", "-e", &futures.collect::<String>()]).status().unwrap();
    assert!(made.success());
    (1..=expressions.len()).map(path).collect()
}

fn with<'a>(options: &[&'a str], files: &'a [String]) -> Vec<&'a str> {
    options.iter().copied().chain(files.iter().map(String::as_str)).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn results(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn many_files_become_as_many_results_and_none_is_overwritten() {
    for who in [Who::Me, Who::Ordinary] {
        let world = World::new(who);
        let _worker = world.worker(&["--slots", "2"]);
        let mut files = save(&world, &["{ message('said'); 1 }", "stop('no')", "quit()", "4"]);
        let broken = world.path("broken.rds");
        fs::write(&broken, "no future").unwrap();
        files.push(broken.display().to_string());
        let out = world.path("out");
        let out_dir = ["--out-dir", out.to_str().unwrap()];
        let output = world.submit(&with(&out_dir, &files)).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{who:?}: the worst of all {output:?}");
        assert_eq!(results(&out), ["f1.result.rds", "f2.result.rds", "f3.result.rds", "f4.result.rds"]);
        for words in ["f1.rds: done", "f2.rds: the R code failed", "f3.rds: the task was stopped", "said"] {
            assert!(said.contains(words), "{who:?} lacks {words:?}: {said}");
        }
        assert!(said.contains("broken.rds: this is not the RDS of a future"), "{said}");
        assert!(said.contains("2 of 5 futures were resolved without an error"), "{said}");
        let before = fs::read(out.join("f1.result.rds")).unwrap();
        let again = world.submit(&with(&out_dir, &files[..1])).output().unwrap();
        assert_eq!(again.status.code(), Some(2), "{again:?}");
        assert!(stderr(&again).contains("is there already") && stderr(&again).contains("--force"), "{again:?}");
        assert_eq!(fs::read(out.join("f1.result.rds")).unwrap(), before);
        let forced = world.submit(&with(&[out_dir[0], out_dir[1], "--force"], &files[..1])).output().unwrap();
        assert_eq!(forced.status.code(), Some(0), "{forced:?}");
    }
}

#[test]
fn wrong_usage_is_found_before_anything_is_posted() {
    let world = World::new(Who::Me);
    let files = save(&world, &["1", "2"]);
    let same = [files[0].as_str(), files[0].as_str(), "--out-dir", "out"];
    for (arguments, words) in [
        (with(&[], &files), "--out-dir"),
        (same.to_vec(), "two results would be written"),
        (vec!["/no/such.rds"], "/no/such.rds"),
        (vec!["-e", "1", "--retry", "1000"], "--retry 1000"),
        (vec!["-e", "1", "--timeout", "soon"], "--timeout"),
        (vec!["-e", "1", "x.rds"], "cannot be used with"),
    ] {
        let output = world.submit(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {output:?}");
        assert!(stderr(&output).contains(words), "{arguments:?} {output:?}");
    }
}

#[test]
fn a_script_reads_events_and_learns_under_what_a_future_was_resolved() {
    let world = World::new(Who::Me);
    let _worker = world.worker(&["--profile", "strict"]);
    let output = world.submit(&["--json", "-e", "cat('out\\n'); message('err'); 42"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stderr(&output), "", "what is printed is in the events");
    let events = lines(&stdout(&output));
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let main: Vec<&str> = names.iter().copied().filter(|name| !["sending", "receiving"].contains(name)).collect();
    assert_eq!(main, ["start", "read", "posted", "accepted", "running", "done", "end"]);
    let done = events.iter().find(|event| event["event"] == "done").unwrap();
    assert_eq!((&done["stdout"], &done["stderr"]), (&Value::from("out\n[1] 42\n"), &Value::from("err\n")));
    assert_eq!((&done["worker"]["driver"], &done["worker"]["profile"]), (&Value::from("jail"), &Value::from("strict")));
    assert_eq!(done["worker"]["layers"].as_array().unwrap().len(), 12);
    let past_r = world.submit(&["-e", "invisible(system('echo past R')); 'R'"]).output().unwrap();
    assert_eq!((stdout(&past_r), stderr(&past_r)), ("[1] \"R\"\n".to_owned(), "past R\n".to_owned()));
    let failed = world.submit(&["--json", "-e", "stop('x')"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let events = lines(&stdout(&failed));
    let end = events.last().unwrap();
    assert_eq!((&end["event"], &end["exit"], &end["failed"]), (&Value::from("end"), &Value::from(1), &Value::from(1)));
    let shown = world.submit(&["--show-worker", "-e", "1"]).output().unwrap();
    for words in ["resolved by alice@", "(jail, profile strict)", "filesystem enforced", "network enforced"] {
        assert!(stderr(&shown).contains(words), "{words}: {shown:?}");
    }
}

#[test]
fn a_future_without_a_result_in_time_is_withdrawn() {
    let world = World::new(Who::Me);
    let nobody = world.submit(&["--timeout", "1 s", "-e", "1"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(4), "{nobody:?}");
    assert!(stderr(&nobody).contains("no result in time"), "{nobody:?}");
    let worker = world.worker(&[]);
    let slow = world.submit(&["--timeout", "5 s", "-e", "Sys.sleep(600)"]).output().unwrap();
    assert_eq!(slow.status.code(), Some(4), "{slow:?}");
    worker.wait_for("released");
    assert_eq!(stdout(&world.evaluate("'next'")), "[1] \"next\"\n", "{}", worker.log());
}

#[test]
fn an_interrupt_withdraws_everything_and_says_so() {
    let world = World::new(Who::Me);
    let worker = world.worker(&[]);
    let files = save(&world, &["'first'", "Sys.sleep(600)", "Sys.sleep(600)", "Sys.sleep(600)"]);
    let out = world.path("out");
    let mut client = Running::start(world.submit(&with(&["--out-dir", out.to_str().unwrap()], &files)));
    client.wait_for("f1.rds: done");
    eventually("the second runs", || worker.log().matches("accepted").count() == 2);
    client.signal(Signal::SIGINT);
    assert_eq!(client.wait(), Some(4), "{}", client.log());
    client.wait_for("1 of 4 futures were resolved without an error; 3 were withdrawn");
    worker.wait_for("released");
    assert_eq!(results(&out), ["f1.result.rds"]);
    assert_eq!(stdout(&world.evaluate("'next'")), "[1] \"next\"\n", "{}", worker.log());
}
