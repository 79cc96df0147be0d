//! What happens when processes are told to leave, killed, or interrupted.

use std::process::Stdio;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::world::{Running, Who, World, eventually, processes_with, stderr, stdout};

/// An R program that a test can recognise among the machine's processes by a child of its own.
fn sleeper(world: &World) -> (String, String) {
    let marker = format!("7{:08}", world.port().into_pid());
    (format!("system('sleep {marker}'); 'slept'"), marker)
}

trait IntoPid {
    fn into_pid(self) -> u64;
}

impl IntoPid for u16 {
    /// A number that is this test's alone: its board's port and its process.
    fn into_pid(self) -> u64 {
        u64::from(std::process::id() % 1000) * 100_000 + u64::from(self)
    }
}

fn start(world: &World, code: &str) -> Running {
    Running::start(world.submit(&["-e", code]))
}

#[test]
fn the_first_signal_drains() {
    let world = World::new(Who::Me);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut worker = world.worker(&[]);
        let mut client = start(&world, "Sys.sleep(1.5); 'finished'");
        worker.wait_for("accepted");
        worker.signal(signal);
        worker.wait_for("leaving");
        assert_eq!(client.wait(), Some(0));
        client.wait_for("finished");
        assert_eq!(worker.wait(), Some(0), "{}", worker.log());
    }
}

#[test]
fn the_second_signal_stops_at_once_leaves_no_process_and_gives_the_future_back() {
    stopping_gives_the_future_back(&[], |worker| worker.signal(Signal::SIGTERM));
}

#[test]
fn what_runs_for_longer_than_the_time_to_leave_is_stopped_and_given_back() {
    stopping_gives_the_future_back(&["--drain-time", "1 s"], |worker| {
        drop(worker.wait_for("the time for what runs is up"))
    });
}

/// A worker that was told to leave with a task that would take for ever, and what makes it stop.
fn stopping_gives_the_future_back(arguments: &[&str], stop: impl FnOnce(&Running)) {
    let world = World::new(Who::Me);
    let mut worker = world.worker(arguments);
    let (code, marker) = sleeper(&world);
    let mut client = start(&world, &code);
    eventually("the task runs", || !processes_with(&marker).is_empty());
    worker.signal(Signal::SIGTERM);
    worker.wait_for("leaving");
    stop(&worker);
    assert_eq!(worker.wait(), Some(0), "{}", worker.log());
    assert_eq!(processes_with(&marker), [0; 0]);
    let state = world.path("other").display().to_string();
    let _other = world.worker(&["--state", &state]);
    eventually("the other worker has it", || !processes_with(&marker).is_empty());
    for pid in processes_with(&marker) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    assert_eq!(client.wait(), Some(0), "{}", client.log());
}

#[test]
fn a_killed_worker_leaves_no_process_and_the_future_goes_to_another() {
    for driver in ["jail", "bubblewrap"] {
        let world = World::new(Who::Me);
        let mut worker = world.worker(&["--sandbox", driver]);
        let marker = format!("6{:08}", world.port().into_pid());
        let code = format!("system('sleep {marker}'); 'slept'");
        let mut client = start(&world, &code);
        eventually("the task runs", || !processes_with(&marker).is_empty());
        worker.signal(Signal::SIGKILL);
        worker.wait();
        eventually("every process of the task is gone", || processes_with(&marker).is_empty());
        // With a state folder and so a peer id of its own: that of the lost one is passed over for a while.
        let state = world.path("other").display().to_string();
        let _other = world.worker(&["--sandbox", driver, "--state", &state]);
        eventually("the other worker has it", || !processes_with(&marker).is_empty());
        for pid in processes_with(&marker) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        assert_eq!(client.wait(), Some(0), "{}", client.log());
        client.wait_for("slept");
    }
}

#[test]
fn a_killed_init_is_a_result_that_says_so() {
    let world = World::new(Who::Me);
    let worker = world.worker(&[]);
    let (code, marker) = sleeper(&world);
    let mut client = start(&world, &code);
    eventually("the task runs", || !processes_with(&marker).is_empty());
    let init = init_of(processes_with(&marker)[0]);
    kill(Pid::from_raw(init), Signal::SIGKILL).unwrap();
    assert_eq!(client.wait(), Some(4), "{}", client.log());
    assert_eq!(processes_with(&marker), [0; 0]);
    worker.wait_for(" delivered future=");
    assert_eq!(stdout(&world.evaluate("'next'")), "[1] \"next\"\n");
}

/// The outermost process of a pid namespace that is not ours, above this one.
fn init_of(pid: i32) -> i32 {
    let field = |pid: i32, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line.split_whitespace().skip(1).map(|number| number.parse::<i32>().unwrap()).collect::<Vec<_>>()
    };
    let mut pid = pid;
    while *field(pid, "NSpid:").last().unwrap() != 1 {
        pid = field(pid, "PPid:")[0];
    }
    pid
}

#[test]
fn interrupting_the_client_stops_the_task() {
    let world = World::new(Who::Me);
    let worker = world.worker(&[]);
    let (code, marker) = sleeper(&world);
    let mut client = start(&world, &code);
    eventually("the task runs", || !processes_with(&marker).is_empty());
    client.signal(Signal::SIGINT);
    assert_eq!(client.wait(), Some(4), "{}", client.log());
    eventually("the worker stopped it", || processes_with(&marker).is_empty());
    assert_eq!(stdout(&world.evaluate("'next'")), "[1] \"next\"\n", "{}", worker.log());
}

#[test]
fn a_future_that_nobody_takes_can_be_withdrawn() {
    let world = World::new(Who::Me);
    let mut client = start(&world, "1");
    let board = Running::start({
        let mut ssh = std::process::Command::new("ssh");
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]);
        ssh.args(["-p", &world.port().to_string(), "-i"]).arg(world.home().join(".ssh/id_ed25519"));
        ssh.args(["127.0.0.1", "pipe", "personal/future.p2p"]).stdin(Stdio::piped());
        ssh
    });
    board.wait_for("type=request");
    client.signal(Signal::SIGINT);
    assert_eq!(client.wait(), Some(4), "{}", client.log());
    board.wait_for("type=withdraw");
}

#[test]
fn a_worker_leaves_after_its_duration() {
    let world = World::new(Who::Me);
    let mut worker = world.worker(&["--duration", "1 s"]);
    assert_eq!(worker.wait(), Some(0), "{}", worker.log());
}

#[test]
fn a_worker_without_access_says_so() {
    let world = World::new(Who::Me);
    let board = format!("127.0.0.1:{}", world.port());
    let output = world.command(&["--board", &board, "--accept-new", "--cluster", "bob/friends"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(stderr(&output).contains("no access"), "{output:?}");
}
