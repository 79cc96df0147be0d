//! The runner with the real R in the real jail. What R's own code makes of the results is asked of R.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use p2p_jail::spec::{Confinement, Container, Mount, Stage};
use p2p_worker::{
    clock,
    ids::FutureId,
    runner::{self, AttemptEvent, Ended, Job, Mode, RUNNER_SCRIPT, Reason, SCRIPT_PATH},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    runner_code::show,
    runner_world::{NOBODY, RECORDED, SAVE, World, bytes, recorded, recorded_id},
};

async fn ordinary_futures(world: &World) {
    let (id, future) = world.future("a * 7", ", globals = list(a = 6)").await;
    let outcome = world.evaluate(&future, &id).await;
    world.claim(&outcome, &id, "r$value == 42, length(r$conditions) == 0, r$visible").await;

    world.check("stop('woops')", "is.null(r$value), messages() == 'woops'").await;
    let claims = "r$value == 1, r$stdout == 'hello\\n', identical(messages(), c('hi\\n', 'careful'))";
    world.check("cat('hello\\n'); message('hi'); warning('careful'); 1", claims).await;

    let (id, future) = world.future("rnorm(1)", ", seed = 42").await;
    let first = world.evaluate(&future, &id).await;
    let again = world.evaluate(&future, &id).await;
    let value = "cat(unserialize(gzcon(file('stdin', 'rb')))$value)";
    let [first, again] = [first, again].map(|outcome| bytes(&outcome));
    let [first, again] = [world.r_code(value, &first).await, world.r_code(value, &again).await];
    assert_eq!(first.text, again.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_futures_of_this_r() {
    ordinary_futures(&World::here()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_futures_of_a_newer_r() {
    ordinary_futures(&World::newer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn futures_that_another_client_recorded_give_the_recorded_results() {
    let world = World::newer();
    for (name, number) in RECORDED {
        let id = recorded_id(number);
        let outcome = world.evaluate(&recorded(&format!("{name}.future.rds")), &id).await;
        assert_eq!(outcome.ended, Ended::Finished, "{name}: {}", outcome.text.for_log());
        let what = "cat(deparse(list(r$value, r$stdout, lapply(r$conditions, function(c) c$condition))))";
        let code = format!("r <- unserialize(gzcon(file('stdin', 'rb'))); {what}");
        let expected = world.r_code(&code, &recorded(&format!("{name}.result.rds"))).await;
        assert_eq!(world.r_code(&code, &bytes(&outcome)).await.text.for_log(), expected.text.for_log(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_and_plain_futures_are_read_alike() {
    let world = World::here();
    let (id, plain) = world.future("6 * 7", "").await;
    for how in ["gz", "bz", "xz"] {
        let code = format!(
            "x <- readBin(file('stdin', 'rb'), 'raw', 1e6)
             path <- tempfile(); con <- {how}file(path, 'wb'); writeBin(x, con); close(con)
             {SAVE}(readBin(path, 'raw', 1e6))"
        );
        let compressed = bytes(&world.r_code(&code, &plain).await);
        assert_ne!(compressed, plain);
        let outcome = world.evaluate(&compressed, &id).await;
        world.claim(&outcome, &id, "r$value == 42").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_announced_future_is_refused_with_an_error() {
    let world = World::here();
    let refusal =
        "inherits(r$conditions[[1]]$condition, c('FutureLaunchError', 'FutureError', 'error'), which = TRUE) > 0";
    let (id, future) = world.future("1", "").await;
    let other: FutureId = "another-1".parse().unwrap();
    let save = |object: &str| format!("{SAVE}(serialize({object}, NULL))");
    let looks = "structure(new.env(), class = c('Future', 'environment'))";
    let foreign = bytes(&world.r_code(&save("list(1)"), b"").await);
    let lookalike = bytes(&world.r_code(&save(looks), b"").await);
    let cases: [(&str, Vec<u8>, FutureId, &str); 7] = [
        ("truncated", future[..future.len() / 2].to_vec(), id.clone(), "cannot be read as RDS"),
        ("empty", Vec::new(), id.clone(), "nothing arrived"),
        ("rubbish", b"\x1f\x8brubbish".to_vec(), id.clone(), "cannot be read as RDS"),
        ("another one", future.clone(), other, "another future arrived"),
        ("a list", foreign, id.clone(), "not a Future but an object of class 'list'"),
        ("a look-alike", lookalike, id.clone(), "no uuid"),
        ("too new", recorded("value.future.rds"), recorded_id(2), "newer package future"),
    ];
    let newer = World::newer();
    let outcome = newer.evaluate(&future, &id).await;
    newer.claim(&outcome, &id, "grepl('older package future', messages())").await;
    for (what, input, id, reason) in cases {
        let outcome = world.evaluate(&input, &id).await;
        assert_eq!(outcome.ended, Ended::Finished, "{what}: {}", outcome.text.for_log());
        world.claim(&outcome, &id, &format!("{refusal}, grepl(\"{reason}\", messages(), fixed = TRUE)")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_meddles_with_its_r_spoils_nothing() {
    let world = World::here();
    let done = "r$value == 7";
    world.check("rm(list = ls(globalenv(), all.names = TRUE), envir = globalenv()); 7", done).await;
    world.check("for (p in search()) if (grepl('package:[^b]', p)) detach(p, character.only = TRUE); 7", done).await;
    world.check("sink('/dev/null'); sink('/dev/null'); 7", done).await;
    world.check("sink(); sink(); 7", done).await;
    world.check("options(error = quote(q(status = 9)), warn = 2, encoding = 'latin1'); 7", done).await;
    world.check("setwd('/'); Sys.setenv(R_HOME = '/nowhere'); unlink(tempdir(), recursive = TRUE); 7", done).await;
    world.check("parallel::mclapply(1:2, function(i) quit(), mc.cores = 2); 7", done).await;
    // The user's code is compiled as anywhere, also behind a future within.
    world.check("future::value(future::future(1)); compiler::enableJIT(-1)", "identical(r$value, 3L)").await;
    world.check("Sys.getenv('R_ENABLE_JIT', 'none')", "identical(r$value, 'none')").await;
    world.check("closeAllConnections(); 7", "length(r$conditions) == 1").await;
    let outcome = world.check("for (i in 1:1e6) writeLines('flood', stderr()); 7", done).await;
    assert_eq!(outcome.text.kept.len(), 64 * 1024);
    assert_eq!(outcome.text.dropped, 6_000_000 - 64 * 1024);
    let claims = "r$value == 7, nchar(r$stdout) == 2e6";
    world.check("for (i in 1:1e6) cat('x\\n'); 7", claims).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_r_that_ends_without_a_result_gives_an_interrupted_one() {
    let world = World::here();
    let cases = [
        ("quit()", "R ended without a result"),
        ("quit(status = 3)", "R ended with exit status 3"),
        ("tools::pskill(Sys.getpid(), 9); Sys.sleep(60)", "R was ended by signal SIGKILL"),
        ("tools::pskill(Sys.getpid(), 11); Sys.sleep(60)", "R was ended by signal SIGSEGV"),
        ("writeBin(raw(9), con <- file('/dev/fd/3', 'wb', raw = TRUE)); flush(con); Sys.sleep(60)", "not one: a frame"),
    ];
    for (expression, reason) in cases {
        let (id, future) = world.future(expression, "").await;
        let outcome = world.evaluate(&future, &id).await;
        assert!(matches!(outcome.ended, Ended::Crashed(_)), "{:?}", outcome.ended);
        let claims = format!(
            "inherits(r$conditions[[1]]$condition, 'FutureInterruptError'), grepl(\"{reason}\", messages(), fixed = TRUE)"
        );
        world.claim(&outcome, &id, &claims).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_cancellation_stop_the_task_and_say_so() {
    let world = World::here();
    let (id, future) = world.future("raw(9e6)", "").await;
    let outcome = world.evaluate(&future, &id).await;
    assert_eq!(outcome.ended, Ended::Stopped(Reason::ResultTooLarge { limit: 8 << 20 }));
    world.claim(&outcome, &id, "grepl('larger than the limit of 8.0 MiB', messages())").await;

    let (id, future) = world.future("x <- rep(1, 5e7); Sys.sleep(60)", "").await;
    let mut plan = world.plan(world.job(Mode::Run, &id));
    plan.spec.watch.memory = Some(300 << 20);
    let outcome = world.run(&plan, &future, &id).await;
    assert_eq!(outcome.ended, Ended::Stopped(Reason::Memory { limit: 300 << 20 }));

    let (id, future) = world.future("repeat {}", "").await;
    let mut plan = world.plan(world.job(Mode::Run, &id));
    plan.spec.watch.wall_time_ms = Some(1500);
    let outcome = world.run(&plan, &future, &id).await;
    assert_eq!(outcome.ended, Ended::Stopped(Reason::WallTime { limit: Duration::from_millis(1500) }));
    assert!(outcome.usage.wall_ms >= 1500, "{:?}", outcome.usage);
    world.claim(&outcome, &id, "grepl('was stopped on the worker: time limit of 1.5 s reached', messages())").await;

    let (cancel, (events, mut heard)) = (CancellationToken::new(), mpsc::channel(8));
    let plan = world.plan(world.job(Mode::Run, &id));
    let attempt = world.run_with(&plan, &future, &id, cancel.clone(), events);
    let cancelling = async {
        while heard.recv().await != Some(AttemptEvent::Begun) {}
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(attempt, cancelling);
    assert_eq!(outcome.ended, Ended::Stopped(Reason::Cancelled));
    let outcome = world.run_with(&plan, &future, &id, cancel, mpsc::channel(1).0).await;
    assert_eq!(outcome.ended, Ended::Stopped(Reason::Cancelled));
}

async fn progress_is_heard_before_the_end(world: &World) {
    let signal = "signalCondition(structure(class = c('progression', 'immediateCondition', 'condition'),
                    list(message = 'step', call = NULL)))";
    let wait = "repeat {}";
    let (id, future) = world.future(&format!("for (i in 1:2) {signal}; {wait}"), "").await;
    let (cancel, (events, mut heard)) = (CancellationToken::new(), mpsc::channel(8));
    let plan = world.plan(world.job(Mode::Run, &id));
    let attempt = world.run_with(&plan, &future, &id, cancel.clone(), events);
    let listening = async {
        assert_eq!(heard.recv().await, Some(AttemptEvent::Running));
        assert_eq!(heard.recv().await, Some(AttemptEvent::Begun));
        let mut conditions = Vec::new();
        for _ in 0..2 {
            match heard.recv().await {
                Some(AttemptEvent::Progress(condition)) => conditions.push(condition),
                other => panic!("{other:?}"),
            }
        }
        cancel.cancel();
        assert_eq!(heard.recv().await, None);
        conditions
    };
    let (outcome, conditions) = tokio::join!(attempt, listening);
    assert_eq!(outcome.ended, Ended::Stopped(Reason::Cancelled));
    for condition in conditions {
        let code = "x <- unserialize(gzcon(file('stdin', 'rb'))); cat(class(x), conditionMessage(x))";
        let text = world.r_code(code, &condition).await.text.for_log();
        assert_eq!(text, "progression immediateCondition condition step");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_this_r_is_heard_before_the_end() {
    progress_is_heard_before_the_end(&World::here()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_newer_r_is_heard_before_the_end() {
    progress_is_heard_before_the_end(&World::newer()).await;
}

async fn a_result_is_there_before_r_has_ended(world: &World) {
    let slow_end =
        "reg.finalizer(globalenv(), function(e) repeat {}, onexit = TRUE); cat('printed\\n', file = '/dev/stderr'); 42";
    let (id, future) = world.future(slow_end, "").await;
    for word in ["a-word", ""] {
        let (cancel, (events, mut heard)) = (CancellationToken::new(), mpsc::channel(8));
        let mut plan = world.plan(world.job(Mode::Run, &id));
        if word.is_empty() {
            plan.spec.watch.wall_time_ms = Some(5000);
        } else {
            plan.spec.command.environment.push(("P2P_ENDING".to_owned(), word.to_owned()));
        }
        let attempt = world.run_with(&plan, &future, &id, cancel.clone(), events);
        let listening = async {
            let mut done = None;
            while let Some(event) = heard.recv().await {
                if let AttemptEvent::Done(early) = event {
                    assert!(early.text.for_log().contains("printed"), "{}", early.text.for_log());
                    done = Some(early.result);
                    cancel.cancel();
                }
            }
            done
        };
        match tokio::join!(attempt, listening) {
            // The word is no part of it, and its client need not know how R went on.
            (mut outcome, Some(early)) => {
                assert_eq!((word, &outcome.ended), ("a-word", &Ended::Stopped(Reason::Cancelled)));
                outcome.result = early;
                world.claim(&outcome, &id, "identical(r$value, 42)").await;
            }
            (outcome, None) => assert_eq!(
                (word, outcome.ended),
                ("", Ended::Stopped(Reason::WallTime { limit: Duration::from_secs(5) }))
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_there_before_this_r_has_ended() {
    a_result_is_there_before_r_has_ended(&World::here()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_there_before_a_newer_r_has_ended() {
    a_result_is_there_before_r_has_ended(&World::newer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r_stops_short_of_the_memory_limit_with_an_error() {
    let world = World::here();
    let (id, future) = world.future("numeric(1e8)", "").await;
    let (script, home, temporary) = (Path::new(SCRIPT_PATH), Path::new("/home/task"), Path::new("/tmp"));
    let job = Job { mode: Mode::Run, future: &id, script, home, temporary, memory: Some(512 << 20), time_zone: "UTC" };
    let outcome = world.run(&world.plan(runner::command(&world.r, &job)), &future, &id).await;
    assert_eq!(outcome.ended, Ended::Finished);
    world
        .claim(&outcome, &id, "grepl('vector memory', messages()), inherits(r$conditions[[1]]$condition, 'error')")
        .await;
}

/// Where R's stack is used up, package future has no room to note the error, and its result looks like that of a success.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_nobody_could_note_is_an_error() {
    for world in [World::here(), World::newer()] {
        let claims = "is.null(r$value), grepl('stack', messages()), inherits(r$conditions[[1]]$condition, 'error')";
        world.check("options(expressions = 5e5); f <- function(n) f(n + 1); f(1)", claims).await;
        world.check("future::value(future::future(1)); NULL", "is.null(r$value), length(r$conditions) == 0").await;
        world.check("invisible(NULL)", "is.null(r$value), identical(r$visible, FALSE)").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_container_it_is_the_same() {
    let world = World::here();
    let home = world.scratch.path();
    let script = home.join("runner.R");
    std::fs::write(&script, RUNNER_SCRIPT).unwrap();
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o777)).unwrap();
    // What the task leaves behind holds the frames pipe and the text pipe open.
    let (id, future) = world.future("system('setsid sleep 600 &'); message('hi'); 7", "").await;
    let job =
        Job { mode: Mode::Run, future: &id, script: &script, home, temporary: home, memory: None, time_zone: "UTC" };
    let mut plan = world.plan(runner::command(&world.r, &job));
    plan.spec.container = Container::None { become_user: nix::unistd::Uid::effective().is_root().then_some(NOBODY) };
    plan.spec.confinement = Confinement::default();
    let outcome = world.run(&plan, &future, &id).await;
    assert_eq!(outcome.ended, Ended::Finished, "{}", outcome.text.for_log());
    assert!(outcome.usage.wall_ms < 30_000, "{:?}", outcome.usage);
    world.claim(&outcome, &id, "r$value == 7, messages() == 'hi\n'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_up_files_are_not_read() {
    let world = World::here();
    let (id, future) = world.future("c(Sys.getenv('PLANTED'), exists('planted'), getwd())", "").await;
    let mut plan = world.plan(world.job(Mode::Run, &id));
    let Container::Builtin(builtin) = &mut plan.spec.container else { unreachable!() };
    let planted = [
        (".Rprofile", "planted <- TRUE"),
        (".Renviron", "PLANTED=yes"),
        (".future.R", "planted <- TRUE"),
        (".RData", "rubbish that R would complain about"),
    ];
    builtin.mounts.extend(planted.map(|(name, contents)| Mount::File {
        at: Path::new("/home/task").join(name),
        contents: contents.as_bytes().to_vec(),
    }));
    // The files lie in the folder that is both home and working directory, instead of an empty tmpfs.
    builtin.mounts.retain(|mount| !matches!(mount, Mount::Tmpfs { to, .. } if to == Path::new("/home/task")));
    let outcome = world.run(&plan, &future, &id).await;
    assert_eq!(outcome.text.for_log(), "");
    world.claim(&outcome, &id, "identical(r$value, c('', 'FALSE', '/home/task'))").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_one_core() {
    let claims = "identical(r$value, c('1', '1', '1', 'UTC', 'TRUE'))";
    let expression = "c(parallelly::availableCores()[[1]], getOption('mc.cores'), Sys.getenv('OMP_NUM_THREADS'),
                        Sys.timezone(), l10n_info()[['UTF-8']])";
    World::here().check(expression, claims).await;
    World::newer().check(expression, claims).await;
}

async fn r_accepts_interrupted_results(world: &World) {
    let id: FutureId = "44934a13689afc85802e5e095930b2c2-2".parse().unwrap();
    let why = Reason::Memory { limit: 2 << 30 };
    let result = runner::interrupted::result(&id, &why, clock::now(), clock::now());
    let code = "r <- unserialize(gzcon(file('stdin', 'rb')))
        f <- future::future(1)
        f$uuid <- r$uuid
        f$result <- r
        f$state <- 'finished'
        e <- tryCatch(future::value(f), error = identity)
        cat(class(e), e$message, sep = '\n')
        stopifnot(startsWith(conditionMessage(e), e$message))
        stopifnot(identical(class(future::value(f, signal = FALSE)), class(e)))
        out <- capture.output(print(e), print(r), str(r))
        stopifnot(inherits(r$started, 'POSIXct'), abs(as.numeric(Sys.time()) - as.numeric(r$finished)) < 600)
        if (exists('reset', asNamespace('future'))) stopifnot(future::value(future::reset(f)) == 1)";
    let answer = world.r_code(code, &result).await;
    let expected = format!(
        "FutureInterruptError\nFutureError\nerror\nFutureCondition\ncondition\n\
         Future ({id}) was stopped on the worker: memory limit of 2.0 GiB reached\n"
    );
    assert_eq!(answer.text.for_log(), expected);
    let (status, out, err) = show(world, &result, &id).await;
    let expected = format!("Error: Future ({id}) was stopped on the worker: memory limit of 2.0 GiB reached\n");
    assert_eq!((status, out.as_str(), err), (4, "", expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn this_r_accepts_interrupted_results() {
    r_accepts_interrupted_results(&World::here()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_r_accepts_interrupted_results() {
    r_accepts_interrupted_results(&World::newer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jail_that_fails_is_an_outcome_too() {
    let world = World::here();
    let (id, future) = world.future("1", "").await;
    let mut plan = world.plan(world.job(Mode::Run, &id));
    plan.jail = "/nowhere/p2p-jail".into();
    let outcome = world.run(&plan, &future, &id).await;
    assert!(matches!(outcome.ended, Ended::Refused(Reason::CouldNotStart { stage: None, .. })), "{:?}", outcome.ended);
    let claims = "inherits(r$conditions[[1]]$condition, 'FutureLaunchError'), grepl('p2p-worker', messages())";
    world.claim(&outcome, &id, claims).await;

    plan.jail = "/bin/true".into();
    let outcome = world.run(&plan, &future, &id).await;
    assert!(matches!(outcome.ended, Ended::Crashed(_) | Ended::Refused(_)), "{:?}", outcome.ended);

    let mut plan = world.plan(world.job(Mode::Run, &id));
    let Container::Builtin(builtin) = &mut plan.spec.container else { unreachable!() };
    builtin.mounts.push(Mount::Bind { from: "/nowhere".into(), to: "/x".into(), writable: false });
    let outcome = world.run(&plan, &future, &id).await;
    let Ended::Refused(Reason::CouldNotStart { stage: Some(Stage::Mounts), what }) = &outcome.ended else {
        panic!("{:?}", outcome.ended)
    };
    assert!(what.contains("/nowhere"), "{what}");
    world.claim(&outcome, &id, "inherits(r$conditions[[1]]$condition, 'FutureLaunchError')").await;
}
