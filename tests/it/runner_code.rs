//! R code as text: made a future, run, and shown again as `Rscript` would have shown it.

use std::process::Command as Process;

use p2p_jail::spec::Exit;
use p2p_worker::{
    ids::FutureId,
    runner::{self, Ended, Mode, Reason},
};

use crate::runner_world::{World, bytes, recorded};

/// Everything that can come out of `make`, `run` and `show` for some R code.
async fn like_rscript(world: &World, code: &str) -> (u8, String, String) {
    let id: FutureId = "0123456789abcdef0123456789abcdef-7".parse().unwrap();
    let made = world.run(&world.plan(world.job(Mode::Make, &id)), code.as_bytes(), &id).await;
    assert_eq!(made.ended, Ended::Finished, "{}", made.text.for_log());
    let result = world.evaluate(&bytes(&made), &id).await;
    assert_eq!(result.ended, Ended::Finished, "{}", result.text.for_log());
    show(world, &bytes(&result), &id).await
}

pub(crate) async fn show(world: &World, result: &[u8], id: &FutureId) -> (u8, String, String) {
    let shown = world.run(&world.plan(world.job(Mode::Show, id)), result, id).await;
    assert_eq!(shown.ended, Ended::Finished, "{}", shown.text.for_log());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = runner::replay(shown.result.reader(), &mut out, &mut err).unwrap();
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Code whose output is compared with that of `Rscript -e`, byte for byte, and the exit status with it.
const CODE: [&str; 24] = [
    "1+1; x <- 3; x",
    "x <- c(a = 1); x; NULL; invisible(3); quote(a + b); function(x) x",
    "cat(\"ünï \\\"q\\\" \\\\ \\n\"); 'ñ'; \"it's\"\n'two\nlines'",
    "print(1:3); cat('no newline')",
    "print.foo <- function(x, ...) cat('<foo>\\n'); structure(1, class = 'foo')",
    "setClass('A', representation(x = 'numeric')); new('A', x = 1)",
    "head(mtcars, 2); if (FALSE) 3; for (i in 1:2) print(i)",
    "stop('top')",
    "f <- function() stop('x'); f()",
    "f <- function() stop('x'); g <- function() f(); g()",
    "f <- function(n) if (n == 0) stop('deep') else f(n - 1); f(30)",
    "f <- function() log('a'); f()",
    "lapply(1:2, function(i) stop(strrep('long ', 20)))",
    "stop('no call', call. = FALSE)",
    "warning('a'); message('b'); warning('c')",
    "f <- function() warning('careful'); f()",
    "f <- function() { warning('a'); warning('two\nlines'); warning(strrep('long ', 20)) }; f()",
    "for (i in 1:12) warning(i)",
    "for (i in 1:60) warning(i)",
    "f <- function() { warning('w'); message('m'); stop('e') }; f()",
    "as.integer('x'); log(-1); undefined_thing",
    "suppressWarnings(warning('x')); tryCatch(stop('e'), error = function(e) print(conditionMessage(e)))",
    "cat(commandArgs()[0]); x <- rnorm(3); length(x)",
    "",
];

#[tokio::test(flavor = "multi_thread")]
async fn code_prints_what_rscript_would_print() {
    let world = World::here();
    for code in CODE {
        let mut rscript = Process::new("Rscript");
        rscript.args(["--vanilla", "-e", if code.is_empty() { "invisible()" } else { code }]);
        let expected = rscript.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").output().unwrap();
        let expected = (
            u8::try_from(expected.status.code().unwrap()).unwrap(),
            String::from_utf8(expected.stdout).unwrap(),
            String::from_utf8(expected.stderr).unwrap(),
        );
        assert_eq!(like_rscript(&world, code).await, expected, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_runs_under_a_newer_r_too() {
    let world = World::newer();
    let (status, out, err) = like_rscript(&world, "f <- function() stop('x'); g <- function() f(); 6 * 7; g()").await;
    assert_eq!((status, out.as_str()), (1, "[1] 42\n"));
    assert_eq!(err, "Error in f() : x\nCalls: g -> f\nExecution halted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_cannot_be_parsed_makes_no_future() {
    let world = World::here();
    let id: FutureId = "f-1".parse().unwrap();
    let made = world.run(&world.plan(world.job(Mode::Make, &id)), b"1 + 1; )", &id).await;
    assert!(matches!(made.ended, Ended::Crashed(Reason::Crashed { exit: Exit::Code(1), .. })), "{:?}", made.ended);
    assert!(made.text.for_log().contains("unexpected ')'"), "{}", made.text.for_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_none_is_shown_as_a_failed_transfer() {
    let world = World::here();
    let id: FutureId = "f-1".parse().unwrap();
    let (status, out, err) = show(&world, b"rubbish", &id).await;
    assert_eq!((status, out.as_str()), (5, ""));
    assert!(err.starts_with("Error: the result cannot be shown: "), "{err}");
    let (status, ..) = show(&world, &recorded("value.result.rds"), &id).await;
    assert_eq!(status, 5);
}
