# The whole way, from this session over a board to a jailed worker and back. Only with the real program (P2P_TEST_PROGRAM), on a board
# with two workers of one slot each, whose process ids are in P2P_TEST_WORKERS.

skip_if_not(is_real(), "there is no real program to test with (P2P_TEST_PROGRAM)")

worker_pids <- function() as.integer(strsplit(trimws(Sys.getenv("P2P_TEST_WORKERS")), "[[:space:]]+")[[1L]])

# The process of the worker that has a future: names of workers end in theirs.
pid_of <- function(f) as.integer(sub(".*:", "", f[["task"]]$worker))

wait_until <- function(holds, patience = 60) {
  ends <- Sys.time() + patience
  while (!holds() && Sys.time() < ends) Sys.sleep(0.05)
  holds()
}

is_running <- function(f) function() {
  resolved(f)
  f[["task"]]$state == "running"
}

test_that("print() shows who is there", {
  on.exit(plan(sequential))
  use_libp2p()
  expect_true(wait_until(function() nrow(cluster_status()) >= length(worker_pids())))
  status <- cluster_status()
  expect_identical(attr(status, "state"), "joined")
  expect_match(attr(status, "me"), "^alice@")
  expect_true(all(status$driver == "jail" & !is.na(status$r)))
  expect_output(print(plan()), "sandbox jail, profile")
})

test_that("resolved() takes less than a millisecond while a future runs", {
  on.exit(plan(sequential))
  use_libp2p()
  f <- future(Sys.sleep(60))
  expect_true(wait_until(is_running(f)))
  each <- vapply(1:200, function(i) elapsed(for (k in 1:5) resolved(f)) / 5, 0)
  expect_lt(stats::median(each), 0.001)
  cancel(f)
})

test_that("the code of a future is compiled as anywhere, also behind a future within", {
  on.exit(plan(sequential))
  use_libp2p()
  expect_identical(value(future(compiler::enableJIT(-1))), 3L)
  f <- future({
    value(future(1))
    compiler::enableJIT(-1)
  })
  expect_identical(value(f), 3L)
})

# Whether any process of this machine, those of tasks included, has these words as its command line.
is_there <- function(words) {
  read <- function(path) tryCatch(suppressWarnings(readBin(path, "raw", 200L)), error = function(e) raw())
  said <- function(path) {
    bytes <- read(path)
    bytes[bytes == as.raw(0L)] <- charToRaw(" ")
    trimws(rawToChar(bytes))
  }
  words %in% vapply(Sys.glob("/proc/[0-9]*/cmdline"), said, "")
}

test_that("cancel() frees the slot at once, and interrupts reach all processes of the remote task", {
  on.exit(plan(sequential))
  use_libp2p()
  naps <- c("sleep 86401", "sleep 86402")
  fs <- lapply(naps, function(nap) future(system(paste0(nap, " & ", nap))))
  for (f in fs) expect_true(wait_until(is_running(f)))
  for (nap in naps) expect_true(wait_until(function() is_there(nap)))
  for (f in fs) expect_lt(elapsed(cancel(f)), 1)
  expect_true(wait_until(function() !any(vapply(naps, is_there, NA)), 20))
  expect_lt(elapsed(expect_identical(value(list(future(1), future(2))), list(1, 2))), 30)
})

test_that("what a result may hold is a policy, and what is refused is named", {
  on.exit(plan(sequential))
  use_libp2p(results = "data-only")
  expect_identical(value(future(list(a = 1:3, b = "x"))), list(a = 1:3, b = "x"))
  e <- tryCatch(value(future(function(x) x)), error = identity)
  expect_s3_class(e, "UnexpectedFutureResultError")
  expect_match(conditionMessage(e), "must not read", fixed = TRUE)
  use_libp2p()
  expect_identical(value(future(function(x) x + 1))(1), 2)
  e <- tryCatch(value(future({
    delayedAssign("p", cat("never\n"))
    environment()
  })), error = identity)
  expect_s3_class(e, "UnexpectedFutureResultError")
})

test_that("a task that ends R, or goes over a limit, is interrupted and says so", {
  on.exit(plan(sequential))
  use_libp2p()
  for (code in list(quote(quit(status = 7)), quote(tools::pskill(Sys.getpid(), 9)))) {
    f <- future(code, substitute = FALSE)
    e <- tryCatch(value(f), error = identity)
    expect_s3_class(e, "FutureInterruptError")
    expect_match(conditionMessage(e), "alice@")
  }
  expect_identical(value(future("next")), "next")
})

test_that("what is over a limit of this session is said, with the limit", {
  on.exit(plan(sequential))
  plan(future.libp2p::cluster, workers = 2L, worker = real_program(), flags = c(real_flags(), max_result = "1 MiB", max_future = "1 MiB"))
  e <- tryCatch(value(future(as.numeric(1:1e6) + 0.5)), error = identity)
  expect_s3_class(e, "FutureInterruptError")
  expect_match(conditionMessage(e), "the result is larger than the limit of 1.0 MiB (worker alice@", fixed = TRUE)
  x <- as.numeric(1:1e6) + 0.5
  e <- tryCatch(value(future(sum(x))), error = identity)
  expect_match(conditionMessage(e), "--max-future", fixed = TRUE)
  expect_identical(value(future("small")), "small")
})

test_that("a session that is killed takes its futures with it", {
  on.exit(plan(sequential))
  script <- tempfile(fileext = ".R")
  writeLines(c(
    if (isNamespaceLoaded("pkgload")) sprintf("pkgload::load_all('%s', quiet = TRUE)", normalizePath(test_path("..", ".."))),
    "library(future)",
    sprintf("plan(future.libp2p::cluster, workers = 2, worker = '%s', flags = list(%s))", real_program(),
      paste(sprintf("`%s` = %s", names(real_flags()), vapply(real_flags(), deparse, "")), collapse = ", ")),
    "fs <- lapply(1:2, function(i) future(Sys.sleep(600)))",
    "while (!all(vapply(fs, function(f) { resolved(f); f$task$state == 'running' }, NA))) Sys.sleep(0.1)",
    "cat('running\\n')",
    "Sys.sleep(600)"
  ), script)
  session <- processx::process$new(file.path(R.home("bin"), "Rscript"), c("--vanilla", script), stdout = "|", stderr = "2>&1")
  on.exit(session$kill(), add = TRUE)
  said <- character()
  expect_true(wait_until(function() {
    said <<- c(said, session$read_output_lines())
    "running" %in% said || !session$is_alive()
  }))
  expect_true("running" %in% said, info = paste(said, collapse = "\n"))
  tools::pskill(session$get_pid(), tools::SIGKILL)
  use_libp2p()
  expect_lt(elapsed(expect_identical(value(list(future(1), future(2))), list(1, 2))), 60)
})

test_that("a worker that is killed is replaced, with the same future and one result", {
  on.exit(plan(sequential))
  use_libp2p()
  f <- future({
    Sys.sleep(5)
    "done"
  })
  expect_true(wait_until(is_running(f)))
  first <- pid_of(f)
  expect_true(first %in% worker_pids())
  tools::pskill(first, tools::SIGKILL)
  expect_identical(suppressMessages(value(f)), "done")
  expect_false(identical(pid_of(f), first))
})

test_that("with retry = 0, a killed worker is an interrupt that names it, and reset() makes the future run again", {
  on.exit(plan(sequential))
  use_libp2p(retry = 0)
  f <- future({
    Sys.sleep(20)
    "done"
  })
  expect_true(wait_until(is_running(f)))
  last <- pid_of(f)
  tools::pskill(last, tools::SIGKILL)
  took <- elapsed(e <- tryCatch(suppressMessages(value(f)), error = identity))
  expect_s3_class(e, "FutureInterruptError")
  expect_match(conditionMessage(e), paste0(":", last), fixed = TRUE)
  # Five seconds, and what a busy machine needs.
  expect_lt(took, 15)
  expect_identical(reset(f)$state, "created")
})
