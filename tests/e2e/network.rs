//! Friends on several machines, whose network is what networks are: slow, lossy, cut, and with changing addresses.

use std::{collections::BTreeMap, fs, time::Duration};

use serde_json::Value;

use crate::{
    hosts::Hosts,
    world::{Running, eventually, stdout, timed},
};

/// The events that a client printed so far.
fn events(client: &Running) -> Vec<Value> {
    client.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn count(client: &Running, event: &str) -> usize {
    events(client).iter().filter(|value| value["event"] == event).count()
}

/// What it printed in the end, of the only future that it had.
fn printed(client: &Running) -> String {
    let events = events(client);
    let done: Vec<_> = events.iter().filter(|value| value["event"] == "done").collect();
    assert_eq!(done.len(), 1, "{}", client.log());
    done[0]["stdout"].as_str().unwrap().to_owned()
}

fn start(hosts: &Hosts, code: &str) -> Running {
    Running::start(hosts.submit(&["--json", "-e", code]))
}

#[test]
fn a_slow_and_lossy_network_makes_things_slow_and_no_more() {
    let mut hosts = Hosts::new(2);
    hosts.delay(40);
    hosts.lose(20);
    let _workers = [hosts.worker("w1"), hosts.worker("w2")];
    let make = format!(
        "for (i in 1:6) {{ f <- future::future(sum(x) + i, globals = list(x = 1:10, i = i, pad = stats::rnorm(2e4)), \
         lazy = TRUE); saveRDS(f, sprintf('{}/f%d.rds', i)) }}",
        hosts.path(".").display()
    );
    assert!(std::process::Command::new("Rscript").args(["--vanilla", "-e", &make]).status().unwrap().success());
    let (files, out) = ((1..=6).map(|i| hosts.path(&format!("f{i}.rds")).display().to_string()), hosts.path("out"));
    let mut arguments = vec!["--out-dir".to_owned(), out.display().to_string(), "--json".to_owned()];
    arguments.extend(files);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (output, took) = timed(|| hosts.submit(&arguments).output().unwrap());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    println!("six futures of 160 KB over 80 ms and 2 % loss: {took:?}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 6);
    let mut workers: BTreeMap<String, usize> = BTreeMap::new();
    for line in stdout(&output).lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["event"] == "done" {
            *workers.entry(event["worker"]["name"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert_eq!(workers.values().sum::<usize>(), 6);
    assert_eq!(workers.len(), 2, "both work: {workers:?}");
}

#[test]
fn a_client_listens_where_it_is_told_and_says_where_else_it_is() {
    let hosts = Hosts::new(1);
    let worker = hosts.worker("w1");
    let place = ["--listen", "4001", "--announce", "10.77.0.99:4001"];
    let mut client = Running::start(hosts.submit(&[&place[..], &["--json", "-e", "Sys.sleep(3); 'found'"]].concat()));
    eventually("it runs", || count(&client, "running") == 1);
    assert!(hosts.has_port("client", 4001), "{}", client.log());
    let another = hosts.submit(&[&place[..], &["-e", "1"]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&another.stderr);
    assert!(another.status.code() == Some(5) && said.contains("4001"), "{another:?}");
    // Nobody is at the address that was announced first; the others are tried as well.
    assert_eq!(client.wait(), Some(0), "{}\n{}", client.log(), worker.log());
    assert_eq!(printed(&client), "[1] \"found\"\n");
}

#[test]
fn while_the_board_is_away_what_runs_goes_on_and_is_delivered() {
    let mut hosts = Hosts::new(1);
    let worker = hosts.worker("w1");
    let mut client = start(&hosts, "Sys.sleep(3); 'delivered'");
    eventually("it runs", || count(&client, "running") == 1);
    hosts.cut("board");
    eventually("the result is there", || count(&client, "done") == 1);
    assert_eq!(printed(&client), "[1] \"delivered\"\n");
    assert_eq!(client.wait(), Some(0), "{}", client.log());
    hosts.join("board");
    let mut next = start(&hosts, "'next'");
    assert_eq!(next.wait(), Some(0), "{}\n{}", next.log(), worker.log());
}

#[test]
fn a_worker_that_falls_silent_is_replaced_and_told_so_when_it_is_back() {
    let mut hosts = Hosts::new(2);
    let (one, two) = (hosts.worker("w1"), hosts.worker("w2"));
    let mut client = start(&hosts, "Sys.sleep(8); 'once'");
    eventually("it runs", || count(&client, "running") == 1);
    let (name, first, second) = if one.log().contains("accepted") { ("w1", &one, &two) } else { ("w2", &two, &one) };
    hosts.cut(name);
    let (_, noticed) = timed(|| eventually("it is accepted again", || count(&client, "accepted") == 2));
    println!("a silent worker was replaced after {noticed:?}");
    eventually("the result is there", || count(&client, "done") == 1);
    assert_eq!(printed(&client), "[1] \"once\"\n");
    second.wait_for(" delivered future=");
    // From the client, or, once that has left, by finding nobody.
    hosts.join(name);
    first.wait_for("released");
    assert_eq!(client.wait(), Some(0), "{}", client.log());
    assert!(!first.log().contains(" delivered future="), "{}", first.log());
}

/// How soon after a move a result is there that waited for nothing else: a stream that is silent is noticed after 3.5 s, and
/// whoever waits for the end of a deadline instead needs half a minute.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_worker_whose_address_changes_brings_its_result() {
    let hosts = Hosts::new(1);
    let worker = hosts.worker("w1");
    let mut client = start(&hosts, "Sys.sleep(2); 'moved'");
    eventually("it runs", || count(&client, "running") == 1);
    hosts.move_to("w1", "10.77.0.91");
    let (status, took) = timed(|| client.wait());
    assert_eq!(status, Some(0), "{}\n{}", client.log(), worker.log());
    println!("a worker's result came {took:?} after its move");
    assert!(took < SOON, "{took:?}\n{}\n{}", client.log(), worker.log());
    assert_eq!(printed(&client), "[1] \"moved\"\n");
    assert_eq!(worker.log().matches("accepted").count(), 1, "the same run: {}", worker.log());
}

#[test]
fn a_client_whose_address_changes_gets_its_result_from_the_same_worker() {
    let hosts = Hosts::new(2);
    let workers = [hosts.worker("w1"), hosts.worker("w2")];
    let mut client = start(&hosts, "Sys.sleep(2); 'moved'");
    eventually("it runs", || count(&client, "running") == 1);
    hosts.move_to("client", "10.77.0.92");
    let (status, took) = timed(|| client.wait());
    let log = || format!("{}\n{}", client.log(), workers.iter().map(Running::log).collect::<String>());
    assert_eq!(status, Some(0), "{}", log());
    println!("a client's result came {took:?} after its move");
    assert!(took < SOON, "{took:?}\n{}", log());
    assert_eq!(printed(&client), "[1] \"moved\"\n");
    assert_eq!(count(&client, "accepted"), 1, "an idle worker is no reason to begin anew: {}", log());
}

#[test]
fn a_client_that_moves_often_keeps_what_runs_for_it() {
    let hosts = Hosts::new(2);
    let workers = [hosts.worker("w1"), hosts.worker("w2")];
    let mut client = start(&hosts, "for (i in 1:12) Sys.sleep(1); 'still there'");
    eventually("it runs", || count(&client, "running") == 1);
    let moves = || workers.iter().map(|worker| worker.log().matches("has other addresses").count()).sum::<usize>();
    for address in ["10.77.0.93", "10.77.0.94"] {
        let before = moves();
        hosts.move_to("client", address);
        eventually("the worker was told", || moves() > before);
    }
    assert_eq!(client.wait(), Some(0), "{}", client.log());
    assert_eq!(printed(&client), "[1] \"still there\"\n");
    assert_eq!(count(&client, "accepted"), 1, "{}", client.log());
}
