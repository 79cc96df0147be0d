//! `p2p-worker submit` and workers of the R package future.p2p, on our board: system's ssh, wormhole-william, Python's mailbox
//! server and relay, and R.

use std::{
    fs,
    process::{Command, Output},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    world::{Running, Who, World, eventually, stderr, stdout},
    wormholes::{Account, PeersR, Wormholes, test_root},
};

/// Where futures are that alice has for herself.
const PERSONAL: &str = "alice/personal";

struct Stage {
    world: World,
    wormholes: Wormholes,
    alice: Account,
}

impl Stage {
    fn new(who: Who) -> Self {
        Self::with_peers(who, PeersR::OfThisMachine)
    }

    fn with_peers(who: Who, r: PeersR) -> Self {
        let (world, wormholes) = (World::new(who), Wormholes::new(r));
        let alice = wormholes.alice(&world);
        Self { world, wormholes, alice }
    }

    fn submit(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.submit(arguments);
        self.wormholes.for_ours(&mut command);
        command
    }

    fn evaluate(&self, arguments: &[&str]) -> Output {
        self.submit(arguments).output().unwrap()
    }
}

fn events(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn event<'a>(events: &'a [Value], name: &str) -> &'a Value {
    events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name} in {events:?}"))
}

/// A line of the board with what differs from run to run replaced.
pub(crate) fn plain(line: &str) -> String {
    let pairs = line.split(',').map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = match key {
            "when" if value.len() == 19 => "TIME",
            "expires" if value.bytes().all(|byte| byte.is_ascii_digit()) => "TIME",
            "from" | "to" if value.starts_with("alice@") => "PEER",
            "future" => "FUTURE",
            "size" => "SIZE",
            "via" if value.len() == "wormhole://".len() + 17 && value.starts_with("wormhole://") => "CODE",
            _ => value,
        };
        format!("{key}={value}")
    });
    pairs.collect::<Vec<_>>().join(",")
}

/// The hello and everything from the last request on: on a slow machine a request is repeated.
pub(crate) fn last_sequence(lines: &[String]) -> Vec<&str> {
    let is_message = |line: &&String| line.starts_with("when=");
    let last = lines.iter().rposition(|line| line.contains("type=request")).unwrap();
    lines.iter().filter(is_message).take(1).chain(lines[last..].iter().filter(is_message)).map(String::as_str).collect()
}

#[test]
fn a_worker_of_future_p2p_resolves_what_is_submitted() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        let listener = stage.wormholes.listen(&stage.alice, "personal/future.p2p");
        let worker = stage.wormholes.worker(&stage.alice, PERSONAL, &[]);
        listener.wait_for("type=worker");
        let before = listener.log().lines().count();
        let output = stage.evaluate(&["--json", "-e", "cat('out\\n'); message('err'); 6 * 7"]);
        assert_eq!(output.status.code(), Some(0), "{who:?} {output:?} {}", worker.log());
        let told = events(&output);
        let done = event(&told, "done");
        assert_eq!((&done["stdout"], &done["stderr"]), (&Value::from("out\n[1] 42\n"), &Value::from("err\n")));
        for event in [&event(&told, "running")["worker"], &done["worker"]] {
            assert_eq!((&event["driver"], &event["layers"]), (&Value::from("unknown"), &Value::Array(Vec::new())));
        }
        worker.wait_for("sent");
        let recorded: Vec<String> = listener.log().lines().skip(before).map(plain).collect();
        let golden = include_str!("../data/client-with-r-worker.transcript");
        assert_eq!(last_sequence(&recorded), golden.lines().collect::<Vec<_>>(), "{}", listener.log());

        let shown = stage.evaluate(&["--show-worker", "-e", "1"]);
        assert!(stderr(&shown).contains("unknown sandbox") && stdout(&shown) == "[1] 1\n", "{shown:?}");
        let failed = stage.evaluate(&["-e", "stop('no')"]);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(stderr(&failed).contains("no") && stderr(&failed).contains("unknown sandbox"), "{failed:?}");
    }
}

/// R 4.6 and package future 1.75 where this was written.
#[test]
fn a_worker_with_a_newer_r_resolves_what_is_submitted() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::with_peers(who, PeersR::OfTheTestRoot);
        let worker = stage.wormholes.worker(&stage.alice, PERSONAL, &[]);
        let root = test_root();
        let evaluate = |expression: &str| stage.evaluate(&["--root", root.to_str().unwrap(), "-e", expression]);
        let output = evaluate("cat('out\\n'); message('err'); warning('warned'); 6 * 7");
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "out\n[1] 42\n"), "{}", worker.log());
        let said = stderr(&output);
        assert!(said.contains("err\n") && said.contains("warned") && said.contains("unknown sandbox"), "{said}");
        let nothing = evaluate("NULL");
        assert_eq!((nothing.status.code(), stdout(&nothing).as_str()), (Some(0), "NULL\n"), "{nothing:?}");
        let failed = evaluate("stop('no')");
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(stderr(&failed).contains("no"), "{failed:?}");
    }
}

#[test]
fn results_that_are_none_are_told_from_others() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        for (kind, words) in [("text", "not the result of a future"), ("uuid", "the result of another future")] {
            let worker = stage.wormholes.worker(&stage.alice, PERSONAL, &[("PEER_RESULT", kind)]);
            let out = stage.world.path("result.rds");
            let output = stage.evaluate(&["-e", "1", "-o", out.to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(5), "{kind} {output:?} {}", worker.log());
            assert!(stderr(&output).contains(words), "{kind} {output:?}");
            assert!(!out.exists());
            drop(worker);
        }
    }
}

#[test]
fn what_a_worker_of_future_p2p_has_is_withdrawn_and_can_be_waited_for_only_so_long() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        let worker = stage.wormholes.worker(&stage.alice, PERSONAL, &[]);
        let mut client = Running::start(stage.submit(&["-e", "Sys.sleep(600)"]));
        worker.wait_for("evaluating");
        client.signal(Signal::SIGINT);
        assert_eq!(client.wait(), Some(4), "{}", client.log());
        worker.wait_for("withdrawn");
        let late = stage.evaluate(&["--timeout", "8 s", "-e", "Sys.sleep(600)"]);
        assert_eq!(late.status.code(), Some(4), "{late:?}");
        assert!(stderr(&late).contains("no result in time"), "{late:?}");
        eventually("both are withdrawn", || worker.log().matches("withdrawn").count() == 2);
        let next = stage.evaluate(&["-e", "'next'"]);
        assert_eq!(stdout(&next), "[1] \"next\"\n", "{next:?} {}", worker.log());
    }
}

/// The ports by which a process can be reached from outside: TCP on which it listens, and UDP.
fn ports(pid: i32) -> Vec<String> {
    let socket = |entry: std::io::Result<fs::DirEntry>| {
        let link = fs::read_link(entry.ok()?.path()).ok()?;
        Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
    };
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(socket).collect();
    assert!(!sockets.is_empty(), "it has a connection with the board");
    let mut ports = Vec::new();
    for (table, states) in [("tcp", &["0A"][..]), ("tcp6", &["0A"]), ("udp", &[]), ("udp6", &[])] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
        // proc_pid_net(5): slot, local and remote address, state (0A is LISTEN), four more, and the tenth is the socket's inode.
        let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let open = rows.filter(|row| states.is_empty() || states.contains(&row[3]));
        ports.extend(
            open.filter(|row| sockets.iter().any(|one| one == row[9])).map(|row| format!("{table} {}", row[1])),
        );
    }
    ports
}

#[test]
fn who_asks_for_wormhole_alone_has_no_libp2p_and_no_port_open() {
    for (via, who) in [("wormhole", Who::Me), ("wormhole", Who::Ordinary), ("libp2p", Who::Me)] {
        let stage = Stage::new(who);
        let listener = stage.wormholes.listen(&stage.alice, "personal/future.p2p");
        let worker = stage.wormholes.our_worker(&stage.world, &stage.alice, &["--via", via]);
        let idle = ports(worker.pid());
        let client = Running::start(stage.submit(&["--via", via, "--json", "-e", "Sys.sleep(600)"]));
        client.wait_for("\"running\"");
        listener.wait_for("type=offer");
        let found = [idle, ports(worker.pid()), ports(client.pid())];
        let has_node = listener.log().contains(",peer=");
        if via == "wormhole" {
            assert_eq!(found.concat(), [""; 0], "{who:?}");
            assert!(!has_node, "{who:?} {}", listener.log());
        } else {
            // They would have been found.
            assert!(found[..2].iter().all(|ports| ports.len() > 1), "{found:?}");
            assert!(has_node, "{}", listener.log());
        }
    }
}

#[test]
fn among_workers_of_both_kinds_ours_is_preferred_unless_wormhole_is_asked_for() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        let theirs = stage.wormholes.worker(&stage.alice, PERSONAL, &[]);
        let nobody = stage.evaluate(&["--via", "libp2p", "--timeout", "3 s", "-e", "1"]);
        assert_eq!(nobody.status.code(), Some(4), "{nobody:?}");
        assert!(!theirs.log().contains("evaluating"));
        let ours = stage.world.worker(&["--via", "libp2p", "--slots", "2"]);
        for number in 0..5 {
            let output = stage.evaluate(&["--json", "-e", "1"]);
            let told = events(&output);
            assert_eq!(event(&told, "done")["worker"]["driver"], Value::from("jail"), "{number} {output:?}");
        }
        let asked = stage.evaluate(&["--via", "wormhole", "--json", "-e", "1"]);
        assert_eq!(event(&events(&asked), "done")["worker"]["driver"], Value::from("unknown"), "{asked:?}");
        eventually("theirs sent it", || theirs.log().contains("sent"));
        assert_eq!(ours.log().matches("accepted").count(), 5, "{}", ours.log());
    }
}

#[test]
fn a_shared_cluster_of_future_p2p_lets_in_whom_its_host_lists() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        let (bob, carol) = (stage.wormholes.add(&stage.world, "bob"), stage.wormholes.add(&stage.world, "carol"));
        let host = stage.wormholes.peer("r_host.R", &stage.alice, &["alice/friends", "bob", "1"], &[]);
        host.wait_for("said hello");
        let listing = || stage.wormholes.channels(&stage.alice);
        eventually("the host's list is in force", || {
            listing().contains("alice/friends/future.p2p: (Access List: bob)")
        });

        let mut stranger = stage.wormholes.peer("r_worker.R", &carol, &["alice/friends"], &[]);
        assert_eq!(stranger.wait(), Some(7), "{}", stranger.log());
        assert!(stranger.log().contains("no access to alice/friends"));

        let worker = stage.wormholes.worker(&bob, "alice/friends", &[]);
        host.wait_for("type=worker,from=bob@");
        let output = stage.evaluate(&["--cluster", "alice/friends", "-e", "'for friends'"]);
        assert_eq!(stdout(&output), "[1] \"for friends\"\n", "{output:?} {}", worker.log());
        // The host's second line of each hello is no message, and disturbs nobody.
        eventually("the hello is repeated", || host.log().matches("said hello").count() > 2);
        drop(worker);
        // And ours, where an R peer hosts.
        let ours = stage.wormholes.our_worker(&stage.world, &bob, &["--cluster", "alice/friends", "--via", "libp2p"]);
        let output = stage.evaluate(&["--cluster", "alice/friends", "--show-worker", "-e", "'for friends'"]);
        assert_eq!(stdout(&output), "[1] \"for friends\"\n", "{output:?} {}", ours.log());
        assert!(stderr(&output).contains("resolved by bob@"), "{output:?}");
        drop((ours, host));
        eventually("the list is gone with the host", || !listing().contains("Access List"));
        let mut late = stage.wormholes.peer("r_worker.R", &bob, &["alice/friends"], &[]);
        assert_eq!(late.wait(), Some(7), "{}", late.log());
    }
}
