//! Every limit of a profile, hit by R under `strict`: as root, with control groups where this machine gives them, and as an
//! ordinary user; by this machine's R, and by a newer one. Where R can say it, the future's owner reads R's own error; where it
//! cannot, the limit and its value; and the worker takes the next future.

use std::{
    path::Path,
    process::{Child, Output, Stdio},
};

use crate::world::{Running, Who, World, stderr, stdout};

/// Limits that a test can reach, in the order of SECURITY.md.
const LIMITS: &str = r#"memory = "600 MiB"
address_space = "1536 MiB"
processes = 48
open_files = 176
file_size = "64 MiB"
text = "64 KiB"
result = "1 MiB"
wall_time = "5 min"
cpu_time = "3 min"

[scratch]
"/tmp" = { size = "16 MiB", files = 100, why = "a test" }
"/home/task" = { size = "16 MiB", files = 100, why = "a test" }
"/dev/shm" = { size = "320 MiB", files = 100, why = "a test" }"#;

/// What is evaluated; the exit status; what is then said, on whichever of both streams: any of these.
type Hit = (&'static str, &'static str, i32, &'static [&'static str]);

const HITS: &[Hit] = &[
    // One vector that is more than R may have, which is less than the task's limit: R's own error.
    ("memory, politely", "x <- numeric(7e7); 'too much'", 1, &["vector memory", "cannot allocate vector"]),
    ("address space", "x <- numeric(1e9); 'too much'", 1, &["vector memory", "cannot allocate vector"]),
    // Past R's own count.
    (
        "memory",
        "system(\"perl -e 'push @k, q(x) x (1 << 20) for 1..1000; print q(too much)'\"); Sys.sleep(60); 'too much'",
        4,
        &["memory limit of 600.0 MiB reached"],
    ),
    // 300 MiB of files and 400 MiB of a process, neither of which is too much alone.
    (
        "memory and tmpfs together",
        "for (i in 1:5) system(sprintf('head -c 60M /dev/full > /dev/shm/%d', i));
         system(\"perl -e '$k = q(x) x (400 << 20); sleep 60; print q(too much)'\"); Sys.sleep(60); 'too much'",
        4,
        &["memory limit of 600.0 MiB reached"],
    ),
    (
        "no swap",
        "sub('.*:', 'swap', grep('^VmSwap', readLines('/proc/self/status'), value = TRUE))",
        0,
        &["swap\\t       0 kB"],
    ),
    (
        "processes",
        "jobs <- lapply(1:60, function(i) parallel::mcparallel(Sys.sleep(60))); 'too much'",
        1,
        &["unable to fork, possible reason: Resource temporarily unavailable"],
    ),
    // Three that compute side by side have one processor between them.
    (
        "share of the processors",
        "spin <- function(i) { end <- Sys.time() + 2; while (Sys.time() < end) {}; sum(proc.time()[1:2]) };
         began <- Sys.time(); used <- sum(unlist(parallel::mclapply(1:3, spin, mc.cores = 3)));
         paste('share', used < 1.4 * as.numeric(Sys.time() - began, units = 'secs') + 0.3)",
        0,
        &["share TRUE"],
    ),
    (
        "bytes of a tmpfs",
        "system('head -c 20M /dev/full 2>&1 > /tmp/file', intern = TRUE)",
        0,
        &["No space left on device"],
    ),
    (
        "bytes of a tmpfs, by R",
        "tryCatch({ saveRDS(raw(2e7), '/tmp/file', compress = FALSE); 'too much' }, error = conditionMessage, warning = conditionMessage)",
        0,
        &["error writing", "No space left"],
    ),
    (
        "files of a tmpfs",
        "made <- tryCatch(sum(file.create(sprintf('/tmp/%d', 1:200))), warning = conditionMessage); made",
        0,
        &["No space left on device"],
    ),
    ("a file", "system('head -c 80M /dev/full 2>&1 > /dev/shm/file', intern = TRUE)", 0, &["File too large"]),
    // R has no more than 128 connections of its own.
    (
        "open files",
        "system(\"perl -e 'for (1..300) { open $f[$_], q(<), q(/dev/null) or die qq($!) } print q(too much)' 2>&1\", intern = TRUE)",
        0,
        &["Too many open files"],
    ),
    // Its text is no part of what a client gets; `exec` shows it, with a mark where it was cut (tests/escape, case 54).
    ("text", "system('yes | head -c 1000000 >&2'); 'cut'", 0, &["[1] \"cut\""]),
    ("the result", "raw(3e6)", 4, &["the result is larger than the limit of 1.0 MiB"]),
    (
        "the stack",
        "f <- function(n) f(n + 1); options(expressions = 5e5); f(1)",
        1,
        &["C stack usage", "nested too deeply", "stack was used up", "stack overflow"],
    ),
    // In the C library's words, by a program that R tells of: it may have made them up.
    (
        "open files, told by another program",
        "stop(system(\"perl -e 'for (1..300) { open $f[$_], q(<), q(/dev/null) or die qq($!) }' 2>&1\", intern = TRUE))",
        1,
        &["[perhaps a limit of the worker: it allows 176 open files]"],
    ),
    (
        "core dumps",
        "system(\"perl -e 'kill 11, $$; sleep 9'\"); length(list.files(pattern = 'core', all.files = TRUE))",
        0,
        &["[1] 0"],
    ),
];

/// What R itself reports as an error of the kernel's: what is added to it, as the jail and bubblewrap have it. Alternatives as
/// different versions of R have different words.
const TOLD: &[(&str, &[&str])] = &[
    (
        "saveRDS(raw(2e7), '/tmp/file', compress = FALSE)",
        &[
            "[a limit of the worker was reached: 16 MiB and 100 files in /tmp]",
            "[a limit of the worker was reached: 16 MiB in /tmp]",
        ],
    ),
    // Bubblewrap does not limit the number.
    (
        "for (i in 1:200) writeLines('x', sprintf('/tmp/%d', i)); stop('any number')",
        &["[a limit of the worker was reached: 16 MiB and 100 files in /tmp]", "Error: any number"],
    ),
    (
        "saveRDS(raw(8e7), '/dev/shm/file', compress = FALSE)",
        &["[a limit of the worker was reached: 64 MiB for one file]"],
    ),
    // R has no more than 128 connections of its own; each job takes two descriptors.
    (
        "jobs <- lapply(1:36, function(i) parallel::mcparallel(Sys.sleep(60)));
         files <- lapply(1:120, function(i) file('/dev/null', 'r'))",
        &["[a limit of the worker was reached: 176 open files]"],
    ),
    (
        "jobs <- lapply(1:60, function(i) parallel::mcparallel(Sys.sleep(60)))",
        &["[perhaps a limit of the worker: it allows 48 processes and threads]"],
    ),
    (
        "x <- numeric(7e7)",
        &[
            "[a limit of the worker was reached: 525 MiB for R's objects]",
            "[perhaps a limit of the worker: it allows 525 MiB for R's objects",
        ],
    ),
    // Words of the task's own, and no limit that was met.
    ("stop('No space left on device')", &["[perhaps a limit of the worker: it allows 320 MiB"]),
];

/// A world whose worker and clients have this R.
struct Rs<'a> {
    world: &'a World,
    profile: String,
    root: Option<&'a Path>,
}

impl Rs<'_> {
    /// Whose R it is, as arguments.
    fn image(&self) -> Vec<&str> {
        self.root.map_or(Vec::new(), |root| vec!["--root", root.to_str().unwrap()])
    }

    fn worker(&self) -> Running {
        let arguments = ["--profile", &self.profile, "--slots", "2"];
        self.world.worker(&[&self.image()[..], &arguments].concat())
    }

    fn submit(&self, code: &str) -> Child {
        let mut command = self.world.submit(&[&self.image()[..], &["-e", code]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn evaluate(&self, code: &str) -> Output {
        self.submit(code).wait_with_output().unwrap()
    }

    fn next_is_fine(&self, worker: &Running) {
        let output = self.evaluate("6 * 7");
        assert_eq!(stdout(&output), "[1] 42\n", "{output:?}\n{}", worker.log());
    }
}

fn is_hit(what: &str, output: &Output, status: i32, words: &[&str]) {
    let (out, err) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(status), "{what}: {out}\n{err}");
    assert!(words.iter().any(|word| out.contains(word) || err.contains(word)), "{what}: {out}\n{err}");
    assert!(!out.contains("too much"), "{what}: {out}\n{err}");
}

fn every_limit_is_hit(who: Who, root: Option<&Path>) {
    let world = World::new(who);
    let rs = Rs { profile: world.profile("limits.toml", LIMITS), world: &world, root };
    let worker = rs.worker();
    for pair in HITS.chunks(2) {
        // Two at a time, as there are two slots.
        let running: Vec<Child> = pair.iter().map(|(_, code, ..)| rs.submit(code)).collect();
        for ((what, _, status, words), child) in pair.iter().zip(running) {
            let what = format!("{who:?} {root:?} {what}");
            is_hit(&what, &child.wait_with_output().unwrap(), *status, words);
        }
    }
    rs.next_is_fine(&worker);
}

/// The error that a client gets says which limit it was; a result without an error is nobody's to change.
fn the_error_names_the_limit(who: Who, root: Option<&Path>, driver: &str) {
    let world = World::new(who);
    let profile = world.profile("limits.toml", LIMITS);
    let exec = |code: &str| {
        let mut command = world.command(&["exec", "--sandbox", driver, "--profile", &profile]);
        if let Some(root) = root {
            command.arg("--root").arg(root);
        }
        command.args(["-e", code]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for pair in TOLD.chunks(2) {
        let running: Vec<Child> = pair.iter().map(|(code, _)| exec(code)).collect();
        for ((code, words), child) in pair.iter().zip(running) {
            is_hit(&format!("{who:?} {root:?} {driver} {code}"), &child.wait_with_output().unwrap(), 1, words);
        }
    }
    let code = "tryCatch(saveRDS(raw(2e7), '/tmp/file', compress = FALSE), error = function(e) 'handled')";
    let output = exec(code).wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*stdout(&output)), (Some(0), "[1] \"handled\"\n"), "{output:?}");
    // What the jail saw is told all the same.
    assert!(
        stderr(&output).contains("disk: ") && stderr(&output).contains("this limit was reached: 16 MiB"),
        "{output:?}"
    );
}

#[test]
fn an_error_names_the_limit_that_it_comes_from() {
    the_error_names_the_limit(Who::Me, None, "jail");
    the_error_names_the_limit(Who::Ordinary, Some(&newer()), "bubblewrap");
    the_error_names_the_limit(Who::Ordinary, Some(&newer()), "jail");
}

fn both_times_are_hit(who: Who, root: Option<&Path>) {
    let world = World::new(who);
    let limits = "wall_time = \"12 s\"\ncpu_time = \"2 s\"";
    let rs = Rs { profile: world.profile("times.toml", limits), world: &world, root };
    let worker = rs.worker();
    let (asleep, busy) = (rs.submit("Sys.sleep(600); 'too much'"), rs.submit("repeat {}"));
    is_hit(
        "wall time",
        &asleep.wait_with_output().unwrap(),
        4,
        &["was stopped on the worker: time limit of 12 s reached"],
    );
    is_hit(
        "CPU time",
        &busy.wait_with_output().unwrap(),
        4,
        &["was stopped on the worker: CPU time limit of 2 s reached"],
    );
    rs.next_is_fine(&worker);
}

/// The newer R in the root file system that `scripts/test-root` makes.
fn newer() -> std::path::PathBuf {
    let Some(root) = std::env::var_os("P2P_TEST_ROOT") else {
        panic!("P2P_TEST_ROOT must be set, see scripts/test-root")
    };
    root.into()
}

#[test]
fn every_limit_is_hit_and_told() {
    every_limit_is_hit(Who::Me, None);
    every_limit_is_hit(Who::Ordinary, None);
}

#[test]
fn every_limit_is_hit_and_told_by_a_newer_r() {
    every_limit_is_hit(Who::Me, Some(&newer()));
    every_limit_is_hit(Who::Ordinary, Some(&newer()));
}

#[test]
fn both_times_are_hit_and_told() {
    both_times_are_hit(Who::Me, None);
    both_times_are_hit(Who::Ordinary, Some(&newer()));
}
