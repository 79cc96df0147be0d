# What goes wrong is said as what the Future API has for it, with what happened, where, and what to do, and never hangs.

failure <- function(mode, ...) {
  use_double(mode, ...)
  f <- future(42, label = "answer")
  tryCatch(value(f), error = identity)
}

test_that("failures have the class, the reason, the place and the hint", {
  on.exit(plan(sequential))
  cases <- list(
    interrupted = c("FutureInterruptError", "was interrupted"), withdrawn = c("FutureInterruptError", "was cancelled"),
    timeout = c("FutureInterruptError", "no result in time"), refused = c("UnexpectedFutureResultError", "must not read"),
    `too-large` = c("FutureError", "too large"), board = c("FutureLaunchError", "could not be launched"),
    launch = c("FutureLaunchError", "could not be launched"), `what-is-this` = c("FutureError", "failed")
  )
  for (class in names(cases)) {
    e <- failure(paste0("fail:", class))
    expect_s3_class(e, "FutureError")
    expect_s3_class(e, cases[[class]][1L])
    expect_match(conditionMessage(e), "'answer'", fixed = TRUE, label = class)
    expect_match(conditionMessage(e), cases[[class]][2L], fixed = TRUE)
    expect_match(conditionMessage(e), paste0("it is ", class, " \u00e9"), fixed = TRUE)
    expect_match(conditionMessage(e), "Do something about it.", fixed = TRUE)
  }
  expect_match(conditionMessage(failure("fail:interrupted")), "worker bob@double:2")
})

test_that("an interrupted future can be reset and run again", {
  on.exit(plan(sequential))
  use_double("fail:interrupted")
  f <- future(42)
  expect_error(value(f), class = "FutureInterruptError")
  expect_true(resolved(f))
  expect_identical(f$state, "interrupted")
  use_double()
  expect_identical(value(reset(f)), 42)
})

test_that("a task that hit a limit is interrupted, and says which and where", {
  on.exit(plan(sequential))
  use_double("stopped")
  f <- future(42)
  e <- tryCatch(result(f), error = identity)
  expect_s3_class(e, "FutureInterruptError")
  expect_match(conditionMessage(e), "more memory than its profile allows (4 GiB) (worker alice@double:1)", fixed = TRUE)
  expect_identical(f$state, "interrupted")
})

test_that("results that are none, of another future, or unreadable are refused", {
  on.exit(plan(sequential))
  expect_match(conditionMessage(failure("no-result")), "no FutureResult")
  expect_match(conditionMessage(failure("other-uuid")), "result of another future")
  expect_match(conditionMessage(failure("unreadable")), "cannot be read")
  expect_s3_class(failure("unreadable"), "UnexpectedFutureResultError")
})

test_that("a child that dies fails all its futures with its last words, and the next launch starts another", {
  on.exit(plan(sequential))
  use_double("dies")
  before <- plan("backend")[["client"]]
  f <- future(1, lazy = TRUE)
  e <- tryCatch(value(f), error = identity)
  expect_s3_class(e, "FutureInterruptError")
  expect_match(conditionMessage(e), "exit status 101, after saying: some warning | thread 'main' panicked: out of cheese", fixed = TRUE)
  Sys.unsetenv("P2P_DOUBLE")
  g <- future(2)
  expect_identical(value(g), 2)
  expect_false(identical(plan("backend")[["client"]], before))
})

test_that("a child that is killed while futures run is noticed by resolved() and value()", {
  on.exit(plan(sequential))
  use_double()
  fs <- lapply(1:2, function(i) future(Sys.sleep(60)))
  tools::pskill(plan("backend")[["client"]]$process$get_pid(), tools::SIGKILL)
  for (f in fs) expect_match(conditionMessage(tryCatch(value(f), error = identity)), "killed by signal 9")
  expect_true(all(resolved(fs)))
  expect_identical(value(future(3)), 3)
})

test_that("another version is refused with both versions", {
  on.exit(plan(sequential))
  expect_error(use_double("other-protocol"), "speaks protocol 2, but p2p-worker 9.9.9 .* speaks protocol 7")
})

test_that("a program that says nothing, or is another one, is an error and no hang", {
  on.exit(plan(sequential))
  before <- options(future.libp2p.hello = 1)
  on.exit(options(before), add = TRUE)
  expect_error(use_double("silent"), "did not answer within 1 s")
  expect_error(plan(future.libp2p::cluster, worker = "/bin/false"), "exit status 1")
  expect_error(plan(future.libp2p::cluster, worker = "/bin/true"), "exit status 0")
})

test_that("an order that is not understood does not leave a future waiting", {
  on.exit(plan(sequential))
  expect_match(conditionMessage(failure("deaf")), "did not understand: what is this")
})

test_that("the board's end fails what waits, and says why", {
  on.exit(plan(sequential))
  expect_s3_class(failure("gone"), "FutureLaunchError")
})

test_that("a future that nobody takes is told of, and given up after `patience`", {
  on.exit(plan(sequential))
  use_double("nobody", patience = 2)
  f <- future(42, label = "lonely")
  expect_false(resolved(f))
  seen <- signals(e <- tryCatch(value(f), error = identity))
  expect_match(seen, "Nobody in cluster alice/personal has taken future 'lonely' for 30 s", all = FALSE)
  expect_s3_class(e, "FutureInterruptError")
  expect_match(conditionMessage(e), "took it within 2 s")
  expect_identical(as.numeric(nbrOfFreeWorkers()), 2)
  use_double("nobody", patience = 1)
  before <- options(future.libp2p.quiet = TRUE)
  on.exit(options(before), add = TRUE)
  f <- future(42)
  expect_identical(signals(tryCatch(value(f), error = identity)), character())
  expect_true(resolved(f))
})

test_that("a worker that is lost is told of, and its future runs elsewhere", {
  on.exit(plan(sequential))
  use_double("again")
  f <- future(42, label = "twice")
  seen <- signals(v <- value(f))
  expect_identical(v, 42)
  expect_match(seen, "posted again: worker bob@double:2 fell silent", all = FALSE)
})

test_that("immediateConditions that did not come on the way come at the end, once", {
  on.exit(plan(sequential))
  use_double("no-progress")
  f <- future({
    for (i in 1:2) signalCondition(structure(class = c("immediateCondition", "condition"), list(message = paste0("step", i), call = NULL)))
    7
  })
  expect_identical(signals(v <- value(f)), c("immediateCondition: step1", "immediateCondition: step2"))
  expect_identical(v, 7)
  expect_identical(signals(value(f)), character())
})

test_that("Ctrl-C while R waits leaves the future running, and its value can still be had", {
  skip_on_os("windows")
  on.exit(plan(sequential))
  use_double()
  f <- future({
    Sys.sleep(3)
    "kept"
  })
  system(sprintf("(sleep 1; kill -INT %d) &", Sys.getpid()))
  expect_identical(tryCatch(value(f), interrupt = function(e) "interrupted"), "interrupted")
  expect_identical(f$state, "running")
  expect_identical(value(f), "kept")
})

test_that("a fork of the session has a client of its own", {
  skip_on_os("windows")
  on.exit(plan(sequential))
  use_double()
  f <- future("parent's")
  inside <- parallel::mccollect(parallel::mcparallel({
    mine <- value(future("fork's"))
    theirs <- tryCatch(value(f), error = function(e) conditionMessage(e))
    plan(sequential)
    c(mine, theirs)
  }))[[1L]]
  expect_identical(inside[1L], "fork's")
  expect_match(inside[2L], "belongs to another R process")
  expect_identical(value(f), "parent's")
})

test_that("the end of a plan ends the child, and its futures are cancelled", {
  use_double()
  f <- future(Sys.sleep(60))
  client <- plan("backend")[["client"]]
  plan(sequential)
  expect_false(client$process$is_alive())
  expect_false(dir.exists(client$folder))
  expect_error(value(f), class = "FutureInterruptError")
})

test_that("results that have come survive the end of their plan", {
  use_double()
  f <- future("came")
  while (!resolved(f)) Sys.sleep(0.01)
  plan(sequential)
  expect_identical(value(f), "came")
})

test_that("no file stays in the folder", {
  on.exit(plan(sequential))
  use_double()
  folder <- plan("backend")[["client"]]$folder
  fs <- lapply(1:4, function(i) future({
    signalCondition(structure(class = c("immediateCondition", "condition"), list(message = "x", call = NULL)))
    i
  }))
  expect_identical(value(fs), as.list(1:4))
  expect_identical(dir(folder), character())
  expect_identical(as.character(file.mode(folder)), "700")
})
