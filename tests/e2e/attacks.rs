//! The attacks that the sandbox must hold against, in both drivers, by the whole way. Each has its positive control: the
//! same code under `--sandbox none` succeeds, on treasures made for it.

use std::process::Output;

use crate::world::{Running, Who, World, eventually, processes_with, stderr, stdout};

const DRIVERS: [&str; 2] = ["jail", "bubblewrap"];

/// Limits that a test can wait for.
const LIMITS: &str = "memory = \"600 MiB\"\naddress_space = \"600 MiB\"\nwall_time = \"30 s\"\ncpu_time = \"6 s\"\n\
                      processes = 40\n[scratch]\n\"/tmp\" = { size = \"64 MiB\", files = 1000, why = \"test\" }\n\
                      \"/home/task\" = { size = \"16 MiB\", files = 1000, why = \"test\" }\n\
                      \"/dev/shm\" = { size = \"16 MiB\", files = 1000, why = \"test\" }";

/// A world with a worker in each driver in turn, run by root and by an ordinary user.
fn everywhere(test: impl Fn(&World, &Running, &str)) {
    for (driver, who) in DRIVERS.into_iter().flat_map(|driver| [(driver, Who::Me), (driver, Who::Ordinary)]) {
        let world = World::new(who);
        let profile = world.profile("limits.toml", LIMITS);
        let worker = world.worker(&["--sandbox", driver, "--profile", &profile]);
        test(&world, &worker, &format!("{driver} as {who:?}"));
        assert_eq!(stdout(&world.evaluate("'next'")), "[1] \"next\"\n", "the worker serves the next future");
    }
}

/// The positive control: no sandbox at all.
fn bare(world: &World, code: &str) -> Output {
    world.command(&["exec", "--sandbox", "none", "-e", code]).output().unwrap()
}

#[test]
fn the_private_key_cannot_be_read() {
    everywhere(|world, _, which| {
        let path = world.home().join(".ssh/id_ed25519").display().to_string();
        let code = format!("for (f in c('~/.ssh/id_ed25519', '{path}')) print(file.exists(f)); readLines('{path}')");
        let output = world.evaluate(&code);
        assert_eq!(stdout(&output), "[1] FALSE\n[1] FALSE\n", "{which} {output:?}");
        assert!(stderr(&output).contains("No such file or directory"), "{which} {output:?}");
        assert!(!stdout(&output).contains("PRIVATE KEY") && !stderr(&output).contains("PRIVATE KEY"));
        // Even without a sandbox, root's tasks run as a user who may not read the key.
        if which.ends_with("Ordinary") {
            let control = bare(world, &format!("readLines('{path}')[1]"));
            assert!(stdout(&control).contains("PRIVATE KEY"), "{control:?}");
        }
    });
}

#[test]
fn the_owners_files_cannot_be_erased() {
    everywhere(|world, _, which| {
        let home = world.home().display().to_string();
        let before = world.treasures();
        let code = format!(
            "unlink(c('~', '{home}'), recursive = TRUE, force = TRUE); \
             invisible(suppressWarnings(system('rm -rf --no-preserve-root / 2>/dev/null'))); cat('tried\\n')"
        );
        let output = world.evaluate(&code);
        assert!(stdout(&output).contains("tried"), "{which} {output:?}");
        assert_eq!(world.treasures(), before, "{which}");
        assert!(std::path::Path::new("/usr/bin/env").exists());
        let sacrifice = world.path("sacrifice");
        std::fs::write(&sacrifice, "x").unwrap();
        bare(world, &format!("file.remove('{}')", sacrifice.display()));
    });
}

#[test]
fn there_is_no_network() {
    everywhere(|world, _, which| {
        let code = |port| format!("s <- socketConnection('127.0.0.1', {port}, timeout = 2); cat('connected\\n')");
        let output = world.evaluate(&code(world.port()));
        assert_eq!(output.status.code(), Some(1), "{which} {output:?}");
        assert!(!stdout(&output).contains("connected"), "{which}");
        let control = bare(world, &code(world.port()));
        assert!(stdout(&control).contains("connected"), "{control:?}");
    });
}

#[test]
fn a_fork_bomb_is_bounded() {
    everywhere(|world, _, which| {
        let code = "n <- 0; repeat { p <- tryCatch(suppressWarnings(parallel:::mcfork(TRUE)), error = function(e) NULL); \
                    if (is.null(p) || n == 3000) break; if (inherits(p, 'masterProcess')) { Sys.sleep(60); quit() }; \
                    n <- n + 1 }; print(n > 5 && n < 50)";
        let output = world.evaluate(code);
        assert_eq!(stdout(&output), "[1] TRUE\n", "{which} {output:?}");
    });
}

#[test]
fn a_memory_bomb_is_stopped_and_the_client_told() {
    everywhere(|world, worker, which| {
        let one = world.evaluate("x <- numeric(2e9)");
        assert_eq!(one.status.code(), Some(1), "{which}: a single process gets R's own error {one:?}");
        let words = ["cannot allocate", "memory exhausted"];
        assert!(words.iter().any(|word| stderr(&one).contains(word)), "{which} {one:?}");
        let many = "for (i in 1:15) if (inherits(parallel:::mcfork(TRUE), 'masterProcess')) { x <- list(); \
                    repeat x[[length(x) + 1]] <- rep(1, 1e6) }; Sys.sleep(15)";
        let output = world.evaluate(many);
        assert_eq!(output.status.code(), Some(4), "{which} {output:?}");
        assert!(stderr(&output).contains("memory") && stderr(&output).contains("600"), "{which} {output:?}");
        worker.wait_for("memory");
    });
}

#[test]
fn memory_in_files_is_memory() {
    everywhere(|world, _, which| {
        let code = "x <- as.raw(rep(1, 1e6)); con <- file('/tmp/big', 'wb'); for (i in 1:200) writeBin(x, con); close(con); \
                    cat('size', file.size('/tmp/big') <= 64 * 2^20, '\\n')";
        let output = world.evaluate(code);
        assert!(stdout(&output).contains("size TRUE") || output.status.code() == Some(1), "{which} {output:?}");
    });
}

#[test]
fn endless_loops_end() {
    everywhere(|world, _, which| {
        let output = world.evaluate("repeat {}");
        assert_eq!(output.status.code(), Some(4), "{which} {output:?}");
        assert!(stderr(&output).contains("CPU time"), "{which} {output:?}");
    });
}

#[test]
fn nothing_survives_its_task() {
    everywhere(|world, _, which| {
        let marker = format!("8{:08}", std::process::id());
        let code = format!("system('(setsid nohup sleep {marker} >/dev/null 2>&1 &) &'); cat('left\\n')");
        let output = world.evaluate(&code);
        assert_eq!(stdout(&output), "left\n", "{which} {output:?}");
        assert_eq!(processes_with(&marker), [0; 0], "{which}");
        let holding = format!("system('sleep {marker} &'); cat('left\\n')");
        assert_eq!(stdout(&world.evaluate(&holding)), "left\n", "{which}: it holds the pipes open");
        assert_eq!(processes_with(&marker), [0; 0], "{which}");
        if which.starts_with("jail") {
            let control = bare(
                world,
                &format!(
                    "system('sleep {marker} &'); Sys.sleep(0.2); cat(system('pgrep -f {marker} >/dev/null'), '\\n')"
                ),
            );
            assert_eq!(stdout(&control), "0 \n", "{control:?}");
            eventually("even without a sandbox the task's processes end with it", || {
                processes_with(&marker).is_empty()
            });
        }
    });
}

#[test]
fn a_task_that_kills_itself_still_has_a_result() {
    everywhere(|world, _, which| {
        for (code, word) in [
            ("tools::pskill(Sys.getpid(), tools::SIGKILL)", "signal"),
            ("quit(status = 3)", "exit"),
            ("quit()", "result"),
        ] {
            let output = world.evaluate(code);
            assert_eq!(output.status.code(), Some(4), "{which} {code} {output:?}");
            assert!(stderr(&output).contains(word), "{which} {code} {output:?}");
        }
    });
}
