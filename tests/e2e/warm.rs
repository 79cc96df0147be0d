//! R that is started before its future is there: used once, not kept for long, and gone with its worker.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    client_stdio::Driver,
    world::{Process, Running, Who, World, below, eventually, is_gone, stdout},
};

/// When R was started, in clock ticks since the machine was (proc_pid_stat(5)), and what an earlier future left.
const WHEN: &str = "fields <- strsplit(sub('.*) ', '', readLines('/proc/self/stat')), ' ')[[1]]
    left <- c(exists('left'), !is.null(getOption('left')), nzchar(Sys.getenv('LEFT')), file.exists('/tmp/left'))
    left <- left || exists('.Random.seed', envir = globalenv())
    cat(fields[20], any(left), '\\n')
    assign('left', 1, envir = globalenv()); options(left = 1); Sys.setenv(LEFT = 1); writeLines('1', '/tmp/left')
    invisible(runif(1))";

/// The R processes of a worker.
fn r_of(worker: &Running) -> Vec<Process> {
    below(worker.pid()).into_iter().filter(|(_, _, name)| name == "R").map(|(process, ..)| process).collect()
}

/// The one R that waits for a future.
fn waiting(worker: &Running) -> Process {
    eventually("an R waits for a future", || r_of(worker).len() == 1);
    r_of(worker).remove(0)
}

/// Evaluates a future; when its R was started, having found nothing of another future.
fn started(world: &World) -> String {
    let said = stdout(&world.evaluate(WHEN));
    let start = said.trim_end().strip_suffix(" FALSE").unwrap_or_else(|| panic!("{said:?}"));
    start.trim().to_owned()
}

fn futures_follow_each_other(who: Who, driver: &str) {
    let world = World::new(who);
    let mut worker = world.worker(&["--sandbox", driver]);
    started(&world);
    for _ in 0..2 {
        // The start is seen from inside as from outside, so it is this one that has the next future.
        let next = waiting(&worker);
        assert_eq!(started(&world), next.1, "{}", worker.log());
        eventually("nobody has it after that", || is_gone(&next));
    }
    // One that was killed is missed by nobody.
    let killed = waiting(&worker);
    kill(Pid::from_raw(killed.0), Signal::SIGKILL).unwrap();
    eventually("it is gone", || is_gone(&killed));
    assert_ne!(started(&world), killed.1);
    // A worker that leaves takes it with it.
    let last = waiting(&worker);
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0), "{}", worker.log());
    eventually("it is gone", || is_gone(&last));
}

#[test]
fn each_r_that_waited_serves_one_future() {
    futures_follow_each_other(Who::Me, "jail");
}

#[test]
fn so_it_is_for_an_ordinary_user() {
    futures_follow_each_other(Who::Ordinary, "jail");
}

#[test]
fn so_it_is_with_bubblewrap() {
    futures_follow_each_other(Who::Ordinary, "bubblewrap");
}

#[test]
fn who_waits_for_a_result_does_not_wait_for_the_end_of_r() {
    let world = World::new(Who::Me);
    let worker = world.worker(&[]);
    let forever = "invisible(reg.finalizer(globalenv(), function(e) repeat {}, onexit = TRUE)); cat('early')";
    assert_eq!(stdout(&world.evaluate(forever)), "early");
    // It has some time to end; then its slot is free for others.
    worker.wait_for("it went on after its result");
    assert_eq!(stdout(&world.evaluate("cat('next')")), "next");
    assert!(worker.log().contains("how=finished"), "{}", worker.log());
}

/// What a future can see of the session that it is evaluated in.
const SESSION: &str = "set <- options()
    print(set[order(names(set))])
    print(list(search(), sort(loadedNamespaces()), ls(globalenv(), all.names = TRUE), RNGkind(), showConnections(all = TRUE)))
    print(list(sink.number(), .traceback(), Sys.getenv(names = FALSE), list.files(tempdir(), all.files = TRUE), getwd()))
    print(list(future::plan('list'), future::nbrOfWorkers(), environmentName(topenv()), warnings(), exists('T'), commandArgs()))";

/// Its lines, without those that say where something lies in memory, or which name R made up for its temporary folder.
fn session(world: &World) -> Vec<String> {
    let said = stdout(&world.evaluate(SESSION));
    said.lines().filter(|line| !line.contains("0x") && !line.contains("/Rtmp")).map(str::to_owned).collect()
}

#[test]
fn an_r_that_has_waited_looks_like_one_that_has_not() {
    let world = World::new(Who::Me);
    let worker = world.worker(&["--keep-warm", "0 s"]);
    let cold = session(&world);
    drop(worker);
    let worker = world.worker(&[]);
    world.evaluate("1");
    waiting(&worker);
    let warm = session(&world);
    assert!(cold.iter().any(|line| line.contains("package:base")), "{cold:?}");
    let unlike: Vec<_> = cold.iter().zip(&warm).filter(|(cold, warm)| cold != warm).collect();
    assert!(unlike.is_empty() && cold.len() == warm.len(), "{unlike:#?}");
}

#[test]
fn a_killed_worker_leaves_none() {
    let world = World::new(Who::Me);
    let mut worker = world.worker(&[]);
    started(&world);
    let next = waiting(&worker);
    worker.signal(Signal::SIGKILL);
    worker.wait();
    eventually("it is gone", || is_gone(&next));
}

#[test]
fn none_waits_for_longer_than_it_is_kept_and_where_none_is_wanted_none_does() {
    let world = World::new(Who::Me);
    let worker = world.worker(&["--keep-warm", "3 s"]);
    started(&world);
    let next = waiting(&worker);
    eventually("it is gone", || is_gone(&next) && r_of(&worker).is_empty());
    started(&world);
    drop(worker);

    let worker = world.worker(&["--keep-warm", "0 s"]);
    for _ in 0..2 {
        started(&world);
        worker.wait_for(" delivered future=");
        assert!(r_of(&worker).is_empty(), "{}", worker.log());
    }
}

/// Bytes of memory that a process has in use (proc_pid_status(5)).
fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0)).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    1024 * line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Futures of one session that begin with the same 12 MB: the R that waits for the third has read them already.
fn a_large_object_is_there_before_its_future(who: Who, driver: &str) {
    let world = World::new(who);
    let worker = world.worker(&["--sandbox", driver]);
    let session = Driver::new(&world, &[]);
    let begins = "strsplit(sub('.*) ', '', readLines('/proc/self/stat')), ' ')[[1]][20]";
    let codes = (1..=6).map(|number| format!("c({begins}, length(big), sum(big) == sum(1:1500000 / 7), {number})"));
    let futures = session.make_around("big <- 1:1500000 / 7", &codes.collect::<Vec<_>>());
    let post = |at: usize| session.say(&format!("post\tfuture={}\tfile=in{at}", futures[at]));
    let value = |at: usize| {
        let done = session.wait_for("done", &futures[at]);
        session.look(&done, "if (length(x$conditions)) conditionMessage(x$conditions[[1]]$condition) else x$value")
    };
    let expected = |start: &str, at: usize| format!("{start} 1500000 TRUE {}", at + 1);
    let resolved = |at: usize| {
        post(at);
        assert!(value(at).ends_with(&expected("", at)), "{}", value(at));
        waiting(&worker)
    };
    let unfed = resident(&resolved(0));
    let mut next = resolved(1);
    // What is behind an object is nobody's, and names no other future.
    let path = session.file("in3");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&bytes, &b"\0\nanother-1\nbehind"[..]].concat()).unwrap();
    for at in [2, 3] {
        eventually("the R that waits has read it", || resident(&next) > unfed + 10_000_000);
        post(at);
        assert_eq!(value(at), expected(&next.1, at), "{}", worker.log());
        next = waiting(&worker);
    }
    eventually("the R that waits has read it", || resident(&next) > unfed + 10_000_000);
    // One that begins so and is damaged behind that.
    let path = session.file("in4");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 200]).unwrap();
    post(4);
    let why = value(4);
    assert!(why.contains("what arrived cannot be read as RDS"), "{why}");
    eventually("nobody has it after that", || is_gone(&next));
    // And what was made ready is nobody else's: another session's future finds another R.
    let next = resolved(5);
    let other = started(&world);
    eventually("what another session's future cannot use is gone", || is_gone(&next));
    assert!(!other.is_empty(), "{}", worker.log());
}

#[test]
fn a_large_object_is_there_before_its_future_in_the_jail() {
    a_large_object_is_there_before_its_future(Who::Me, "jail");
}

#[test]
fn a_large_object_is_there_before_its_future_for_an_ordinary_user_with_bubblewrap() {
    a_large_object_is_there_before_its_future(Who::Ordinary, "bubblewrap");
}
