//! Limits held by control groups, on whatever version this machine has: as root, and as an ordinary user in a group that was
//! given away.
//!
//! Root makes groups for the test, as systemd or another root would, and runs the tests of [`inside`] in them, once as root
//! and once as an ordinary user. Run by an ordinary user, these tests use a group that is delegated to that user, if there
//! is one, and otherwise check that the lack of one is explained. `scripts/test-vm` does the rest with real systemd.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command as Program, Stdio},
    time::Duration,
};

use p2p_jail::spec::{Ahead, Command, Exit, Stop};
use p2p_worker::sandbox::{
    ControlGroups, Driver, Enforcement, Finished, Known, Layer, Limits, Machine, Profile, Ready, Surroundings, Task,
    Waiting, run_to_end, select,
};

use crate::delegated::Delegated;

/// Names the program `p2p-jail` for the runs in groups of their own.
const JAIL: &str = "P2P_WORKER_TEST_GROUPS_JAIL";

/// A user that nobody else uses.
const ORDINARY: u32 = 61235;

const DRIVERS: [Driver; 2] = [Driver::Jail, Driver::Bubblewrap];

fn machine() -> Machine {
    let jail = std::env::var_os(JAIL).unwrap_or_else(|| env!("CARGO_BIN_EXE_p2p-jail").into());
    let search_path = std::env::var_os("PATH");
    Machine::discover(&Known { jail: Some(jail.into()), search_path, ..Known::default() }).unwrap()
}

fn groups(machine: &Machine) -> &ControlGroups {
    machine.limits.control_groups().unwrap_or_else(|| panic!("{}", machine.limits))
}

/// The profile `standard`, which allows sockets, with other limits.
fn ready(driver: Driver, change: impl Fn(&mut Limits)) -> Ready {
    let mut profile = Profile::load("standard", &Surroundings::default()).unwrap();
    change(&mut profile.limits);
    select(driver, profile, machine(), &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn perl(ready: &Ready, script: &str) -> Finished {
    let argv = ["/usr/bin/perl", "-e", script].map(str::to_owned).to_vec();
    let command = Command { argv, environment: Vec::new(), directory: "/tmp".into() };
    let task = Task { command, files: Vec::new(), shares: Vec::new(), slot: 0 };
    run_to_end(&ready.plan(&task).unwrap(), Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error:?}"))
}

/// The groups below which this process makes groups for tasks, and in which nothing may be left.
fn nothing_is_left(ready: &Ready) {
    for hierarchy in &groups(ready.machine()).hierarchies {
        let left: Vec<_> = fs::read_dir(&hierarchy.parent).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(!left.iter().any(|path| path.is_dir()), "{left:?}");
    }
}

fn every_layer_is_enforced(driver: Driver) {
    let ready = ready(driver, |_| {});
    for (layer, state) in ready.layers() {
        let Enforcement::Enforced(how) = state else { panic!("{driver} {layer}: {state:?}") };
        let held = [Layer::Memory, Layer::Cpu, Layer::Pids].contains(layer);
        assert_eq!(how.contains("cgroup v"), held, "{driver} {layer}: {how}");
    }
    let inside = perl(&ready, "open F, '/proc/self/cgroup'; print grep { /memory|pids|::/ } <F>").text;
    assert!(!inside.is_empty() && inside.lines().all(|line| line.ends_with(":/")), "{driver}: {inside}");
    nothing_is_left(&ready);
}

fn memory_is_held(driver: Driver) {
    let ready = ready(driver, |limits| limits.memory = 256 << 20);
    let one = "push @kept, 'x' x (1 << 20) for 1..1000; print 'full'";
    let many = "for (1..20) { if (!fork) { my $kept = 'x' x (20 << 20); sleep 60; exit } } sleep 60; print 'full'";
    let files = "open F, '>', '/dev/shm/file'; syswrite F, 'x' x (1 << 20) for 1..300; print 'full'";
    // What the watch alone cannot see: bytes that wait in sockets, on both sides.
    let sockets = "use Socket; use IO::Handle; fork; fork; for (1..450) { socketpair my $a, my $b, AF_UNIX, SOCK_STREAM, 0 or last; \
                   for my $end ($a, $b) { $end->blocking(0); 1 while syswrite $end, 'x' x 4096; push @kept, $end } } \
                   sleep 30; print 'full ', scalar @kept";
    for (what, script) in [("one", one), ("many", many), ("files", files), ("sockets", sockets)] {
        let finished = perl(&ready, script);
        assert_eq!(finished.stopped, Some(Stop::Memory), "{driver} {what}: {finished:?}");
        assert!(finished.usage.peak_memory > 240 << 20, "{driver} {what}: {finished:?}");
    }
    let within = perl(&ready, "push @kept, 'x' x (1 << 20) for 1..60; print 'full'");
    assert_eq!((within.exit, within.stopped, within.text.as_str()), (Exit::Code(0), None, "full"), "{driver}");
    nothing_is_left(&ready);
}

fn processes_are_held(driver: Driver) {
    let ready = ready(driver, |limits| limits.processes = 20);
    let script = "while (defined($pid = fork)) { if (!$pid) { sleep 60; exit } $n++ } print \"$n $!\"; kill 9, -1";
    let finished = perl(&ready, script);
    let made: u32 = finished.text.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{finished:?}"));
    assert!((15..20).contains(&made), "{driver}: {finished:?}");
    assert!(finished.usage.reached.refused_processes > 0, "{driver}: {finished:?}");
    assert_eq!(perl(&ready, "print 'next'").usage.reached.refused_processes, 0, "{driver}");
    nothing_is_left(&ready);
}

fn processor_time_is_counted(driver: Driver) {
    let ready = ready(driver, |limits| limits.cpu_time = Duration::from_secs(1));
    // Children that the kernel reaps unseen: without a group, only wall time ends these.
    let script =
        "$SIG{CHLD} = 'IGNORE'; while (1) { if (!fork) { for (1..300000) {} exit } select undef, undef, undef, 0.02 }";
    let finished = perl(&ready, script);
    assert_eq!(finished.stopped, Some(Stop::CpuTime), "{driver}: {finished:?}");
    assert!((1000..2000).contains(&finished.usage.cpu_ms), "{driver}: {finished:?}");
}

#[test]
#[ignore = "run by the test below, in control groups made for it"]
fn inside() {
    for driver in DRIVERS {
        every_layer_is_enforced(driver);
        memory_is_held(driver);
        processes_are_held(driver);
        processor_time_is_counted(driver);
    }
    let parents: Vec<PathBuf> = {
        let machine = machine();
        groups(&machine).hierarchies.iter().map(|hierarchy| hierarchy.parent.clone()).collect()
    };
    assert!(parents.iter().all(|parent| !parent.exists()), "they go with the machine: {parents:?}");
    what_a_killed_worker_left_is_removed(parents[0].parent().unwrap());
    nothing_stays_of_a_killed_worker();
}

/// What a worker does: it has a jail waiting for a task, and somebody who sweeps up after it.
#[test]
#[ignore = "started by the tests above, and killed"]
fn a_worker() {
    let ready = ready(Driver::Jail, |limits| limits.memory = 256 << 20);
    let command = Command { argv: vec!["/bin/true".to_owned()], environment: Vec::new(), directory: "/".into() };
    let plan = ready.plan(&Task { command, files: Vec::new(), shares: Vec::new(), slot: 0 }).unwrap();
    let ahead = Ahead::of(&plan.spec).unwrap();
    ready.machine().sweep_after_death();
    // One serves a task, whose limits hold as in one from nothing; the next one waits.
    let kept = "push @kept, 'x' x (1 << 20) for 1..1000";
    let argv = ["/usr/bin/perl", "-e", kept].map(str::to_owned).to_vec();
    let mut greedy = plan.clone();
    greedy.spec.command.argv = argv;
    let first = Waiting::start_ahead(&plan.jail, &ahead).unwrap();
    let finished = first.run_to_end(&greedy, Duration::from_secs(60)).unwrap();
    assert_eq!(finished.stopped, Some(Stop::Memory), "{finished:?}");
    let _waiting = Waiting::start_ahead(&plan.jail, &ahead).unwrap();
    for hierarchy in &groups(ready.machine()).hierarchies {
        let has_task = || fs::read_dir(&hierarchy.parent).unwrap().flatten().any(|entry| entry.path().is_dir());
        eventually("there is a group for a task to come", has_task);
        println!("\nfolder {}", hierarchy.parent.display());
    }
    println!("\nready");
    std::thread::park_timeout(Duration::from_secs(600));
}

fn nothing_stays_of_a_killed_worker() {
    let mut worker = Program::new(std::env::current_exe().unwrap())
        .args(["--exact", "control_groups::a_worker", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut folders = Vec::new();
    for line in BufReader::new(worker.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        folders.extend(line.strip_prefix("folder ").map(PathBuf::from));
        if line == "ready" {
            break;
        }
    }
    assert!(!folders.is_empty() && folders.iter().all(|folder| folder.is_dir()), "{folders:?}");
    worker.kill().unwrap();
    worker.wait().unwrap();
    eventually("no group of the killed worker is left", || !folders.iter().any(|folder| folder.exists()));
}

/// Waits for a condition, for at most a minute.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

fn what_a_killed_worker_left_is_removed(base: &Path) {
    // No process has this number: it is above the kernel's limit.
    let stale = base.join("p2p-tasks-4194305-0");
    fs::create_dir_all(stale.join("task-4194305")).unwrap();
    let foreign = base.join("p2p-tasks-of-somebody-else");
    // Of a process that cannot be seen from here: only its lock tells that it lives.
    let used = base.join("p2p-tasks-4194305-1");
    [&foreign, &used].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let lock = fs::File::open(&used).unwrap();
    lock.lock().unwrap();
    drop(machine());
    let left = (stale.exists(), foreign.exists(), used.exists());
    [&foreign, &used].into_iter().for_each(|folder| fs::remove_dir(folder).unwrap());
    assert_eq!(left, (false, true, true));
}

#[test]
fn limits_are_held_by_control_groups() {
    if !nix::unistd::geteuid().is_root() {
        let machine = machine();
        return match machine.limits.control_groups() {
            Some(_) => inside(),
            None => assert!(machine.limits.obstacle().contains("Delegate=yes"), "{}", machine.limits),
        };
    }
    for uid in [0, ORDINARY] {
        let groups = Delegated::new(uid);
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = |from: &Path, name: &str| {
            let to = folder.path().join(name);
            fs::copy(from, &to).unwrap();
            to
        };
        let tests = copy(&std::env::current_exe().unwrap(), "tests");
        let jail = copy(Path::new(env!("CARGO_BIN_EXE_p2p-jail")), "p2p-jail");
        let join = "for group; do echo 0 > $group/cgroup.procs || exit 1; done; \
                    exec setpriv --reuid $UID_ --regid $UID_ --clear-groups $TESTS --exact control_groups::inside --ignored";
        let output = Program::new("sh")
            .args(["-c", join, "sh"])
            .args(groups.paths())
            .env_clear()
            .env(JAIL, jail)
            .env("TESTS", tests)
            .env("UID_", uid.to_string())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "uid {uid}: {said} {output:?}");
    }
}
