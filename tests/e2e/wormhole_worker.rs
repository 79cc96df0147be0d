//! Clients of the R package future.p2p, which are R scripts that play it, and `p2p-worker` workers, on our board: system's ssh,
//! wormhole-william, Python's mailbox server and relay, R in the sandbox.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    world::{Running, Who, World, eventually, processes_with, stderr, stdout},
    wormhole_client::{last_sequence, plain},
    wormholes::{Account, PeersR, Wormholes, test_root},
};

const PERSONAL: &str = "alice/personal";

struct Stage {
    world: World,
    wormholes: Wormholes,
    alice: Account,
    files: tempfile::TempDir,
}

impl Stage {
    fn new(who: Who) -> Self {
        Self::with_peers(who, PeersR::OfThisMachine)
    }

    fn with_peers(who: Who, r: PeersR) -> Self {
        let (world, wormholes) = (World::new(who), Wormholes::new(r));
        let alice = wormholes.alice(&world);
        let files = tempfile::tempdir_in(wormholes.folder.path()).unwrap();
        Self { world, wormholes, alice, files }
    }

    /// A worker as whoever this stage is for, by its own key.
    fn worker(&self, arguments: &[&str]) -> Running {
        let board = self.world.board();
        let mut command = self.world.command(&["--board", &board, "--accept-new"]);
        command.args(arguments).env("P2P_WORKER_LOG", "info");
        self.wormholes.for_ours(&mut command);
        let worker = Running::start(command);
        worker.wait_for("joined the cluster");
        worker
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A future of this expression, made by R.
    fn future(&self, name: &str, expression: &str) -> PathBuf {
        let path = self.path(&format!("{name}.future.rds"));
        let code = format!("saveRDS(future::future({{ {expression} }}, lazy = TRUE), '{}')", path.display());
        let script = self.path(&format!("{name}.R"));
        fs::write(&script, code).unwrap();
        let made = self.wormholes.rscript(&script).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        path
    }

    /// An R client that resolves these, one after the other; each result goes to `NAME.result.rds`.
    fn client(&self, futures: &[PathBuf], environment: &[(&str, &str)]) -> Running {
        let files = futures.iter().flat_map(|future| [future.clone(), self.result_of(future)]);
        let files: Vec<String> = files.map(|path| path.display().to_string()).collect();
        let arguments: Vec<&str> = [PERSONAL].into_iter().chain(files.iter().map(String::as_str)).collect();
        self.wormholes.peer("r_client.R", &self.alice, &arguments, environment)
    }

    fn result_of(&self, future: &Path) -> PathBuf {
        let name = future.file_name().unwrap().to_str().unwrap().replace(".future.rds", ".result.rds");
        self.path(&name)
    }

    /// What R's own `value()` makes of what came of this expression.
    fn value(&self, expression: &str, environment: &[(&str, &str)]) -> String {
        let client = self.client(&[self.future("f", expression)], environment);
        client.wait_for("done");
        client.wait_for("got ")
    }
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/peers")
}

/// Compares each pair of results; the lines of those that differ.
fn differences(wormholes: &Wormholes, pairs: &[(PathBuf, PathBuf)]) -> Vec<String> {
    let mut command = wormholes.rscript(&peers().join("compare.R"));
    command.args(pairs.iter().flat_map(|(one, other)| [one, other]));
    let output = command.output().unwrap();
    let told = stdout(&output);
    assert_eq!(told.lines().count(), pairs.len(), "{output:?}");
    told.lines().filter(|line| !line.trim_end().ends_with(" same")).map(str::to_owned).collect()
}

#[test]
fn everything_comes_back_as_from_a_plain_r() {
    let stage = Stage::new(Who::Ordinary);
    let worker = stage.worker(&[]);
    everything_comes_back(&stage, &worker);
}

/// R 4.6 and package future 1.75 where this was written, on both sides.
#[test]
fn everything_comes_back_to_a_newer_r_and_why_something_does_not() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::with_peers(who, PeersR::OfTheTestRoot);
        let worker = stage.worker(&["--root", test_root().to_str().unwrap()]);
        everything_comes_back(&stage, &worker);
        let killed = stage.value("tools::pskill(Sys.getpid(), 9)", &[]);
        assert!(
            killed.starts_with("got FutureInterruptError: ") && killed.contains("ended by signal SIGKILL"),
            "{killed}"
        );
        let refused = stage.value("1", &[("PEER_SENDS", "other")]);
        assert!(
            refused.starts_with("got FutureLaunchError: ") && refused.contains("another future arrived"),
            "{refused}"
        );
    }
}

fn everything_comes_back(stage: &Stage, worker: &Running) {
    let made = stage.wormholes.rscript(&peers().join("make.R")).arg(stage.files.path()).output().unwrap();
    let names = stdout(&made);
    let names: Vec<&str> =
        names.strip_prefix("made ").unwrap_or_else(|| panic!("{made:?}")).split_whitespace().collect();
    let futures: Vec<PathBuf> = names.iter().map(|name| stage.path(&format!("{name}.future.rds"))).collect();
    assert!(futures.iter().any(|future| fs::metadata(future).unwrap().len() > 15 << 20), "one of them is large");
    let mut client = stage.client(&futures, &[]);
    assert_eq!(client.wait(), Some(0), "{}\n{}", client.log(), worker.log());
    let pairs: Vec<_> = futures
        .iter()
        .map(|future| (stage.result_of(future), PathBuf::from(future.to_str().unwrap().replace(".future.", ".local."))))
        .collect();
    assert_eq!(differences(&stage.wormholes, &pairs), [""; 0], "{}", client.log());
    client.wait_for("simpleError: no such thing");
}

#[test]
fn a_newer_r_gives_what_the_worker_of_future_p2p_gave() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        let worker = stage.worker(&["--root", test_root().to_str().unwrap()]);
        let recorded = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let names = ["value", "error", "output", "seed", "progress"];
        let futures: Vec<PathBuf> = names.iter().map(|name| recorded(&format!("{name}.future.rds"))).collect();
        let mut client = stage.client(&futures, &[]);
        assert_eq!(client.wait(), Some(0), "{}\n{}", client.log(), worker.log());
        let pairs: Vec<_> = names
            .iter()
            .map(|name| (stage.path(&format!("{name}.result.rds")), recorded(&format!("{name}.result.rds"))))
            .collect();
        assert_eq!(differences(&stage.wormholes, &pairs), [""; 0], "{}", client.log());
    }
}

#[test]
fn the_lines_of_one_future_are_those_of_future_p2p() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        let listener = stage.wormholes.listen(&stage.alice, "personal/future.p2p");
        let worker = stage.worker(&["--via", "wormhole"]);
        let got = stage.value("paste('forty', 'two')", &[]);
        assert_eq!(got, "got value: \"forty two\"", "{}", worker.log());
        worker.wait_for("delivered");
        // Hellos come whenever a client asks who is there, with keys behind those of R peers that these ignore.
        let hello = plain(&listener.wait_for("type=worker"));
        assert!(hello.starts_with("when=TIME,expires=TIME,type=worker,from=PEER,protocols=wormhole"), "{hello}");
        let is_of_it =
            |line: &&str| line.starts_with("when=") && !line.contains("type=worker") && !line.contains("type=client");
        let log = listener.log();
        let lines: Vec<String> = log.lines().filter(is_of_it).map(plain).collect();
        let golden = include_str!("../data/r-client-with-worker.transcript");
        assert_eq!(last_sequence(&lines)[1..], golden.lines().collect::<Vec<_>>(), "{log}");
    }
}

#[test]
fn what_a_limit_ended_or_never_began_is_reported_by_rs_own_code() {
    let stage = Stage::new(Who::Ordinary);
    let profile = stage
        .world
        .profile("short.toml", "wall_time = \"3 s\"\ncpu_time = \"3 s\"\nmemory = \"512 MiB\"\nresult = \"1 MiB\"");
    let worker = stage.worker(&["--profile", &profile]);
    let stopped = |expression: &str| stage.value(expression, &[]);
    let said = |got: &str, class: &str, words: &str| {
        assert!(got.starts_with(&format!("got {class}: ")) && got.contains(words), "{got}\n{}", worker.log());
    };
    said(&stopped("Sys.sleep(600)"), "FutureInterruptError", "time limit of 3 s reached");
    said(&stopped("quit()"), "FutureInterruptError", "R ended without a result");
    said(&stopped("tools::pskill(Sys.getpid(), 9)"), "FutureInterruptError", "R was ended by signal SIGKILL");
    said(&stopped("runif(1e6)"), "FutureInterruptError", "the result is larger than the limit of 1.0 MiB");
    for (sends, words) in [
        ("text", "the peer offers a text message"),
        ("folder", "the peer offers a folder"),
        ("other", "another future arrived than the one that was announced"),
    ] {
        said(&stage.value("1", &[("PEER_SENDS", sends)]), "FutureLaunchError", words);
    }
    assert_eq!(stage.value("'and after all that'", &[]), "got value: \"and after all that\"");
}

#[test]
fn a_withdrawn_future_is_stopped_and_its_client_told() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        let worker = stage.worker(&[]);
        let marker = format!("8{:05}{:03}", stage.world.port(), std::process::id() % 1000);
        let cue = stage.path("cue");
        let future = stage.future("endless", &format!("system('sleep {marker}')"));
        let client = stage.client(&[future], &[("PEER_CUE", cue.to_str().unwrap())]);
        eventually("the task runs", || !processes_with(&marker).is_empty());
        fs::write(&cue, "now").unwrap();
        eventually("the task is gone", || processes_with(&marker).is_empty());
        let got = client.wait_for("got ");
        assert!(got.starts_with("got FutureInterruptError") && got.contains("the future was cancelled"), "{got}");
        assert_eq!(stage.value("'next'", &[]), "got value: \"next\"", "{}", worker.log());
    }
}

#[test]
fn ours_and_a_worker_of_future_p2p_share_the_futures_of_r_clients() {
    for who in [Who::Me, Who::Ordinary] {
        const EACH: usize = 3;
        let stage = Stage::new(who);
        let listener = stage.wormholes.listen(&stage.alice, "personal/future.p2p");
        let theirs = stage.wormholes.worker(&stage.alice, PERSONAL, &[]);
        let state = stage.world.path("another").display().to_string();
        let ours = [stage.worker(&[]), stage.worker(&["--state", &state])];
        let mut clients = Vec::new();
        for client in 0..3 {
            let make =
                |number: usize| stage.future(&format!("f-{client}-{number}"), &format!("{client} * 10 + {number}"));
            let futures: Vec<PathBuf> = (0..EACH).map(make).collect();
            clients.push(stage.client(&futures, &[]));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.wait(), Some(0), "{}", client.log());
            let got: Vec<String> =
                client.log().lines().filter(|line| line.starts_with("got ")).map(str::to_owned).collect();
            let expected: Vec<String> = (0..EACH).map(|one| format!("got value: {}", number * 10 + one)).collect();
            assert_eq!(got, expected);
        }
        // A client is served before the sender's log says so.
        let count = |log: String, what: &str| log.lines().filter(|line| line.contains(what)).count();
        let all = || {
            count(theirs.log(), "sent ") + ours.iter().map(|worker| count(worker.log(), " delivered ")).sum::<usize>()
        };
        eventually("each future has been resolved", || all() >= 3 * EACH);
        assert_eq!(all(), 3 * EACH, "and once");
        let board = listener.log();
        let offers_of_ours = board.lines().filter(|line| line.contains("type=offer") && line.contains("peer=")).count();
        assert!(
            offers_of_ours <= 2 * 3 * EACH,
            "{offers_of_ours} offers of two workers for {} futures:\n{board}",
            3 * EACH
        );
    }
}

#[test]
fn without_a_mailbox_server_a_worker_leaves_futures_to_others_for_a_while() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        let worker = stage.worker(&["--wormhole-mailbox", "ws://127.0.0.1:1/v1"]);
        let _client = stage.client(&[stage.future("f", "1")], &[]);
        let said = worker.wait_for("no mailbox server for wormholes; this slot takes none for half a minute");
        assert!(said.contains("the mailbox server: "), "{said}");
    }
}

#[test]
fn without_p2p_wormhole_only_libp2p_is_offered_and_the_fix_is_named() {
    let stage = Stage::new(Who::Ordinary);
    fs::remove_file(stage.world.programs().join("p2p-wormhole")).unwrap();
    let worker = stage.worker(&[]);
    let said = worker.wait_for("no wormholes, only libp2p");
    assert!(said.contains("p2p-wormhole") && said.contains("scripts/install") && said.contains("--via"), "{said}");
    let output = stage.world.submit(&["--via", "libp2p", "-e", "1"]).output().unwrap();
    assert_eq!(stdout(&output), "[1] 1\n", "{output:?}");
    let board = stage.world.board();
    let named = stage.world.command(&["--board", &board, "--accept-new", "--via", "wormhole"]).output().unwrap();
    assert_eq!(named.status.code(), Some(2), "{named:?}");
    assert!(stderr(&named).contains("cannot execute") && stderr(&named).contains("hint: "), "{named:?}");
    let typo = stage.world.command(&["--via", "pigeon"]).output().unwrap();
    assert_eq!(typo.status.code(), Some(2), "{typo:?}");
    assert!(stderr(&typo).contains("auto, libp2p or wormhole"), "{typo:?}");
}

/// The code that a client said for its future, and the process of wormhole-william that uses it.
struct Transfer {
    code: String,
}

impl Transfer {
    fn of(client: &Running, listener: &Running) -> Self {
        let requested = client.wait_for("requested ");
        let future = requested.strip_prefix("requested ").unwrap();
        let mut code = None;
        eventually("it accepts", || {
            let log = listener.log();
            let accept = log.lines().find(|line| line.contains("type=accept") && line.contains(future));
            code = accept.and_then(|line| line.split("wormhole://").nth(1)).map(|rest| rest.trim().to_owned());
            code.is_some()
        });
        Self { code: code.unwrap() }
    }

    /// wormhole-william stops when it has read and written more than so many bytes.
    fn stops(&self, argument: &str, after: u64) -> i32 {
        let argument = argument.replace("CODE", &self.code);
        let is_william = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("wormhole-willia"))
        };
        let through = |pid: &i32| {
            let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
            let bytes = io
                .lines()
                .filter_map(|line| line.strip_prefix("wchar: "))
                .filter_map(|bytes| bytes.parse::<u64>().ok());
            bytes.sum::<u64>()
        };
        let mut stopped = None;
        eventually("it is in the middle", || {
            let there = processes_with(&argument).into_iter().find(is_william).filter(|pid| through(pid) > after);
            stopped = there;
            there.is_some()
        });
        let pid = stopped.unwrap();
        signal(pid, Signal::SIGSTOP);
        pid
    }
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// All of them at the same time, as each takes the minute that a worker waits.
#[test]
fn clients_that_fall_silent_leave_the_worker_free_and_are_told_if_they_come_back() {
    std::thread::scope(|scope| {
        for who in [Who::Me, Who::Ordinary] {
            scope.spawn(move || clients_fall_silent(who));
        }
    });
}

fn clients_fall_silent(who: Who) {
    let stage = Stage::new(who);
    let listener = stage.wormholes.listen(&stage.alice, "personal/future.p2p");
    let worker = stage.worker(&["--slots", "3"]);
    let futures = [
        stage.future("silent", "1"),
        stage.future("sends", "2"),
        stage.future("receives", "serialize(rnorm(6e6), NULL, xdr = FALSE)"),
    ];
    fs::write(stage.path("large"), vec![1; 64 << 20]).unwrap();
    let [silent, sends, receives] = futures;
    let silent = stage.client(&[silent], &[("PEER_SENDS", "nothing")]);
    silent.wait_for("accepted ");
    let large = stage.path("large").display().to_string();
    let sends = stage.client(&[sends], &[("PEER_SENDS", "file"), ("PEER_FILE", &large)]);
    let uploading = Transfer::of(&sends, &listener).stops("--code=CODE-f", 2 << 20);
    let receives = stage.client(&[receives], &[]);
    let downloading = Transfer::of(&receives, &listener).stops("CODE-r", 2 << 20);

    let told = silent.wait_for("got ");
    assert!(told.starts_with("got FutureLaunchError: ") && told.contains("nobody came with this code"), "{told}");
    worker.wait_for("nothing came for 60 s");
    signal(uploading, Signal::SIGCONT);
    let told = sends.wait_for("got ");
    assert!(told.starts_with("got FutureLaunchError: ") && told.contains("the connection broke after"), "{told}");
    worker.wait_for("the peer took nothing for 60 s");
    // All three slots serve again, while this one is still stopped.
    assert_eq!(stage.value("'and after all that'", &[]), "got value: \"and after all that\"");
    eventually("no slot is taken", || worker.log().matches("released").count() == 3);
    signal(downloading, Signal::SIGKILL);
}

/// Whoever reads the board can come first. He cannot read anything, and is no more than a delay unless he keeps at it.
#[test]
fn strangers_who_take_the_code_are_named_in_the_log_and_the_client_is_served_or_told() {
    for who in [Who::Me, Who::Ordinary] {
        let stage = Stage::new(who);
        let listener = stage.wormholes.listen(&stage.alice, "personal/future.p2p");
        let worker = stage.worker(&[]);
        let stranger = |code: &str| {
            let mut command = Command::new(stage.wormholes.william());
            let nameplate = code.split('-').next().unwrap();
            command.args(["send", "--hide-progress", &format!("--code={nameplate}-no-idea"), "--text", "mine"]);
            command.env("WORMHOLE_RELAY_URL", &stage.wormholes.mailbox);
            assert_ne!(Running::start(command).wait(), Some(0), "it does not know the password");
        };
        let failures = || worker.log().matches("the future did not come; trying again").count();

        let cue = stage.path("cue");
        let late = stage.client(&[stage.future("late", "'late'")], &[("PEER_LATE", cue.to_str().unwrap())]);
        stranger(&Transfer::of(&late, &listener).code);
        eventually("the worker tries again", || failures() == 1);
        fs::write(&cue, "now").unwrap();
        assert_eq!(late.wait_for("got "), "got value: \"late\"", "{}", worker.log());

        let silent = stage.client(&[stage.future("silent", "1")], &[("PEER_SENDS", "nothing")]);
        let code = Transfer::of(&silent, &listener).code;
        for tried in 2..=3 {
            stranger(&code);
            eventually("the worker tries again", || failures() == tried);
        }
        stranger(&code);
        let told = silent.wait_for("got ");
        assert!(told.starts_with("got FutureLaunchError: "), "{told}");
        assert!(told.contains("somebody who does not know the password used the code first"), "{told}");
        assert_eq!(stage.value("'next'", &[]), "got value: \"next\"", "{}", worker.log());
    }
}
