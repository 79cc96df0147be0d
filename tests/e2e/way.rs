//! The way there and back.

use std::fs;

use crate::world::{Who, World, stderr, stdout, timed};

#[test]
fn an_expression_prints_as_with_rscript() {
    for who in [Who::Me, Who::Ordinary] {
        let world = World::new(who);
        let _worker = world.worker(&["--profile", "strict"]);
        let code = "x <- 6; x * 7; invisible(8); message('to stderr'); cat('ä\\n'); print(\"quoted\")";
        let output = world.evaluate(code);
        assert_eq!(stdout(&output), "[1] 42\nä\n[1] \"quoted\"\n", "{who:?} {output:?}");
        assert_eq!(stderr(&output), "to stderr\n");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn an_error_of_the_code_is_the_clients_error() {
    let world = World::new(Who::Me);
    let worker = world.worker(&[]);
    let output = world.evaluate("warning('careful'); stop('no way')");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("no way") && stderr(&output).contains("careful"), "{output:?}");
    worker.wait_for(" delivered future=");
    assert_eq!(stdout(&world.evaluate("'still there'")), "[1] \"still there\"\n");
}

#[test]
fn a_future_in_a_file_comes_back_as_a_result_in_a_file() {
    let world = World::new(Who::Me);
    let _worker = world.worker(&["--sandbox", "bubblewrap", "--profile", "strict"]);
    let (future, result) = (world.path("f.rds"), world.path("r.rds"));
    let make = format!(
        "f <- future::future(sum(x), globals = list(x = 1:10), lazy = TRUE); saveRDS(f, '{}')",
        future.display()
    );
    assert!(std::process::Command::new("Rscript").args(["--vanilla", "-e", &make]).status().unwrap().success());
    let output = world.submit(&[future.to_str().unwrap(), "-o", result.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let read = format!(
        "f <- readRDS('{}'); r <- readRDS('{}'); stopifnot(inherits(r, 'FutureResult'), r$value == 55); \
         stopifnot(identical(r$uuid, f$uuid))",
        future.display(),
        result.display()
    );
    let read = std::process::Command::new("Rscript").args(["--vanilla", "-e", &read]).output().unwrap();
    assert!(read.status.success(), "{read:?}");
}

#[test]
fn a_file_that_is_no_future_is_refused_with_rs_own_words() {
    let world = World::new(Who::Me);
    let _worker = world.worker(&[]);
    for (name, bytes) in [("cut.rds", &b"\x1f\x8b\x08\x00"[..]), ("text.rds", b"hello")] {
        let path = world.path(name);
        fs::write(&path, bytes).unwrap();
        let output = world.submit(&[path.to_str().unwrap()]).output().unwrap();
        assert_ne!(output.status.code(), Some(0), "{name} {output:?}");
        assert!(stderr(&output).contains("not the RDS of a future"), "{name} {output:?}");
    }
}

#[test]
fn two_clients_and_three_workers_at_once() {
    let world = World::new(Who::Me);
    let workers: Vec<_> = (0..3).map(|_| world.worker(&[])).collect();
    let started: Vec<_> = (0..6)
        .map(|i| {
            let code = format!("Sys.sleep(0.5); {i} * 100");
            let child = world.submit(&["-e", &code]).stdout(std::process::Stdio::piped()).spawn().unwrap();
            (i, child)
        })
        .collect();
    let (outputs, took) =
        timed(|| started.into_iter().map(|(i, child)| (i, child.wait_with_output().unwrap())).collect::<Vec<_>>());
    for (i, output) in outputs {
        assert_eq!(stdout(&output), format!("[1] {}\n", i * 100), "{took:?}");
    }
    let delivered = workers.iter().map(|worker| worker.log().matches(" delivered future=").count()).sum::<usize>();
    assert_eq!(delivered, 6, "each future was evaluated by one worker, once");
}

#[test]
fn limits_on_bytes_hold_on_both_sides() {
    let world = World::new(Who::Me);
    let _worker = world.worker(&["--max-result", "100 kB"]);
    for (limits, code) in [(&[][..], "cat(strrep('x', 2e5))"), (&["--max-result", "20 kB"], "cat(strrep('x', 5e4))")] {
        let output = world.submit(limits).args(["-e", code]).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(stderr(&output).contains("the result is larger than the limit"), "{output:?}");
    }
    let output = world.submit(&["--max-future", "10 B", "-e", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("--max-future"), "{output:?}");
}
