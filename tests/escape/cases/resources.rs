//! Cases 46 to 60: resources. What can be tried beside other acts; scenarios are in `resources_scenarios`.

use super::resources_scenarios as scenarios;
use crate::{
    case::{Act, Case, Outcome::*},
    world::{Driver, Place, Profile, quoted},
};

pub(super) fn cases() -> Vec<Case> {
    [bombs(), endings()].into_iter().flatten().collect()
}

fn bombs() -> Vec<Case> {
    vec![
        Case {
            acts: processes,
            scenario: Some(scenarios::fork_bomb),
            gets: "the task goes on",
            ..Case::new(46, Bounded, "fork without end", "pids")
        },
        Case {
            acts: kernel_memory,
            ..Case::new(
                47,
                Bounded,
                "use up threads, descriptors, timers, pipes, the kernel's memory",
                "pids, syscalls, memory",
            )
        },
        Case {
            acts: vectors,
            scenario: Some(scenarios::memory),
            gets: "stopped: the limit and its value",
            ..Case::new(48, Killed, "allocate without end, in one vector and past R", "memory")
        },
        Case {
            acts: swap,
            scenario: Some(scenarios::swapped),
            gets: "stopped: the limit and its value, though it asks for every page to be swapped out",
            ..Case::new(49, Bounded, "have its memory swapped out", "memory")
        },
        Case {
            acts: files_in_memory,
            ..Case::new(50, Bounded, "fill `/tmp`, `/dev/shm` and the home", "disk, memory")
        },
        Case {
            acts: large_files,
            scenario: Some(scenarios::many_files),
            gets: "under bubblewrap files count as memory",
            ..Case::new(51, Bounded, "make sparse files, and a file for every inode", "disk, memory")
        },
        Case {
            scenario: Some(scenarios::processor_time),
            gets: "stopped: the limit and its value",
            ..Case::new(52, Killed, "compute for ever in C, past R's interrupts", "cpu, time")
        },
        Case { acts: processors, ..Case::new(53, Bounded, "take all processors", "cpu") },
        Case {
            scenario: Some(scenarios::flood),
            gets: "cut, with a mark; the worker's memory stays small",
            ..Case::new(54, Bounded, "print gigabytes", "output")
        },
    ]
}

fn endings() -> Vec<Case> {
    vec![
        Case {
            scenario: Some(scenarios::stubborn),
            gets: "killed at the time limit",
            ..Case::new(55, Killed, "ignore every signal", "time, processes")
        },
        Case {
            scenario: Some(scenarios::survivors),
            gets: "dead when the task ends",
            ..Case::new(56, Nothing, "leave a daemon behind: double fork, setsid, nohup", "processes")
        },
        Case {
            scenario: Some(scenarios::stubborn),
            gets: "killed at the time limit",
            ..Case::new(57, Killed, "stop itself, its tree, or hang in vfork", "time, processes")
        },
        Case {
            scenario: Some(scenarios::survivors),
            gets: "the result, without a wait",
            ..Case::new(58, Bounded, "hold the pipes open after R has ended", "output, processes")
        },
        Case { acts: zombies, ..Case::new(59, Bounded, "leave zombies, use up process numbers", "pids, processes") },
        Case { acts: core_dumps, ..Case::new(60, Denied, "have core dumps written, or collected by a daemon", "disk") },
    ]
}

fn processes(_: &Place<'_>) -> Vec<Act> {
    vec![Act::native("bomb\tprocesses\t400", "EAGAIN").bare("ok")]
}

fn kernel_memory(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::native("bomb\tthreads\t1000", "EAGAIN").bare("ok"),
        Act::native("bomb\tdescriptors\t2000", "EMFILE").bare("ok"),
        Act::native("bomb\ttimers\t1000", "EAGAIN").bare("ok"),
        Act::native("bomb\tpipe", "EPERM").bare("ok"),
        Act::native("call\tinotify_init1\t0", "ENOSYS").bare("ok"),
        Act::native("call\tmemfd_create\ts:x\t0", "ENOSYS").bare("ok"),
        // MAP_SHARED | MAP_ANONYMOUS.
        Act::native("call\tmmap\t0\t0x100000\t3\t0x21\t-1\t0", "EPERM").bare("ok"),
    ]
}

fn vectors(_: &Place<'_>) -> Vec<Act> {
    let too_much = "error: cannot allocate* | error: vector memory*";
    let why = "not every machine has 8 GB to spare; the scenario of this case allocates less than its limit, too";
    vec![
        Act::r("x <- numeric(1e9); TRUE", too_much).stated(why),
        Act::r("x <- numeric(1e12); TRUE", too_much).stated(why),
    ]
}

fn swap(_: &Place<'_>) -> Vec<Act> {
    let swapped = "sub('^VmSwap:\\\\s*', '', grep('^VmSwap', readLines('/proc/self/status'), value = TRUE))";
    let why = "what is swapped counts as the task's memory (`jail/src/run/census.rs`), and a cgroup forbids it";
    vec![
        Act::r(swapped, "0 kB").stated(why),
        Act::native("call\tswapon\ts:/tmp\t0", "ENOSYS | EPERM").stated(why),
        // MADV_PAGEOUT
        Act::native("call\tmadvise\t0\t0\t21", "EPERM").stated("the scenario's own control asks for it outside"),
    ]
}

/// Where a task can write, and where a control can.
fn folder(place: &Place<'_>, inside: &str) -> String {
    match place.driver {
        Driver::None => place.home().display().to_string(),
        Driver::Jail | Driver::Bubblewrap => inside.to_owned(),
    }
}

fn files_in_memory(place: &Place<'_>) -> Vec<Act> {
    let fill = |inside: &str, mib: u32| {
        Act::native(format!("bomb\tmib\t{}\t{mib}", folder(place, inside)), "ENOSPC").bare("ok")
    };
    // More than the profile gives.
    match place.profile {
        Profile::Strict => vec![fill("/dev/shm", 96), fill("/home/task", 160)],
        Profile::Standard => vec![fill("/dev/shm", 544), fill("/home/task", 544)],
    }
}

fn large_files(place: &Place<'_>) -> Vec<Act> {
    let path = format!("{}/sparse", folder(place, "/tmp"));
    let gib = match place.profile {
        Profile::Strict => 1u64,
        Profile::Standard => 3,
    } << 30;
    let write = format!(
        "con <- file({}, 'wb'); on.exit(close(con)); seek(con, 2^33, rw = 'write'); writeBin(raw(1), con); flush(con); \
         file.size({0}) > 2^32",
        quoted(&path)
    );
    vec![
        Act::native(format!("bomb\tsparse\t{path}\t{gib}"), "EFBIG").bare("ok"),
        Act::native(format!("bomb\tsparse\t{path}\t1152921504606846976"), "EFBIG")
            .stated("more than most file systems have"),
        Act::r(write, "FALSE | EFBIG | error: *").bare("ok"),
    ]
}

fn processors(_: &Place<'_>) -> Vec<Act> {
    vec![
        Act::r("length(parallel::mcaffinity(NULL))", "1").stated("a machine may have no more"),
        Act::native("call\tsched_setaffinity\t0\t8\th:ffffffffffffffff", "ENOSYS").bare("ok"),
        Act::r("Sys.getenv('OMP_NUM_THREADS')", "1").stated("set without a sandbox too"),
        Act::r("unname(parallelly::availableCores())", "1").stated("set without a sandbox too"),
        // SCHED_FIFO; nice -20; the real-time class of input and output.
        Act::native("call\tsched_setscheduler\t0\t1\th:01000000", "ENOSYS").stated("an ordinary user may not either"),
        Act::native("call\tsetpriority\t0\t0\t-20", "EACCES | EPERM").stated("an ordinary user may not either"),
    ]
}

fn zombies(_: &Place<'_>) -> Vec<Act> {
    vec![Act::native("bomb\tzombies\t400", "EAGAIN").bare("ok")]
}

fn core_dumps(_: &Place<'_>) -> Vec<Act> {
    vec![Act::native("bomb\tcore", "no core dump").bare("a core dump")]
}
