# What a user of R sees when something goes wrong on the whole way: a limit of the worker, a machine or a board that is gone. Only
# with the real program, on a board (P2P_TEST_FRAIL_BOARD, its process) with one worker of three slots under a profile with small
# limits (P2P_TEST_FRAIL_WORKER), which scripts/r-world.sh starts and which are stopped and killed here.

skip_if_not(is_real(), "there is no real program to test with (P2P_TEST_PROGRAM)")

frail <- function(what) Sys.getenv(paste0("P2P_TEST_FRAIL_", what))

use_frail <- function(...) {
  board <- paste0("127.0.0.1:", frail("PORT"))
  plan(future.libp2p::cluster, workers = 4L, worker = real_program(), board = board, accept_new = TRUE, ...)
}

signal_frail <- function(what, signal) tools::pskill(as.integer(trimws(frail(what))), signal)

# A board as before, on its port, with its accounts.
start_frail_board <- function() {
  processx::process$new(real_program(), c("board", "--listen", paste0("127.0.0.1:", frail("PORT")), "--state", frail("STATE")),
    stdout = NULL, stderr = NULL
  )
}

# The error of a future: of these classes, a sentence with these words, the future's name, and a hint; and the future is at its end.
failure_of <- function(f, class, ...) {
  e <- tryCatch(suppressMessages(value(f)), error = identity)
  for (one in c("FutureError", class)) expect_s3_class(e, one)
  for (words in c(f$label, ...)) expect_match(conditionMessage(e), words, fixed = TRUE)
  expect_false(grepl("\n", conditionMessage(e), fixed = TRUE))
  expect_true(resolved(f))
}

wait_for <- function(f, states, patience = 60) {
  ends <- Sys.time() + patience
  while (!resolved(f) && !f[["task"]]$state %in% states && Sys.time() < ends) Sys.sleep(0.05)
  expect_true(f[["task"]]$state %in% states)
}

test_that("a limit that ends the task is an interrupt that says which, its value, where, and what to do", {
  on.exit(plan(sequential))
  use_frail()
  eater <- future({
    parallel::mclapply(1:4, function(i) {
      x <- numeric(3e7)
      x[] <- 1
      Sys.sleep(30)
    }, mc.cores = 4L)
  }, label = "eater")
  loop <- future(repeat NULL, label = "loop")
  sleeper <- future(Sys.sleep(60), label = "sleeper")
  large <- future(as.numeric(1:1e6) + 0.5, label = "large")
  stopped <- function(f, reason) {
    failure_of(f, "FutureInterruptError", paste0("'", f$label, "' was interrupted: ", reason, " (worker alice@"), "). It takes less")
    expect_identical(reset(f)$state, "created")
  }
  stopped(eater, "memory limit of 512.0 MiB reached")
  stopped(loop, "CPU time limit of 3 s reached")
  stopped(sleeper, "time limit of 20 s reached")
  stopped(large, "the result is larger than the limit of 1.0 MiB")
  expect_identical(value(future("next")), "next")
})

test_that("a limit that R can bear is R's own error, with the limit added", {
  on.exit(plan(sequential))
  use_frail()
  vector <- future(numeric(5e8))
  disk <- future(saveRDS(raw(4e7), tempfile(), compress = FALSE))
  for (case in list(list(vector, "448 MiB for R's objects]"), list(disk, " in /tmp]"))) {
    e <- tryCatch(value(case[[1L]]), error = identity)
    expect_false(inherits(e, "FutureError"))
    expect_match(conditionMessage(e), "[a limit of the worker was reached: ", fixed = TRUE)
    expect_match(conditionMessage(e), case[[2L]], fixed = TRUE)
    expect_identical(case[[1L]]$state, "finished")
  }
})

test_that("a package that only this machine has is named", {
  on.exit(plan(sequential))
  use_frail()
  f <- future(1, packages = "future.libp2p", label = "lacking")
  failure_of(f, "FutureLaunchError", "the worker has no package 'future.libp2p' (worker alice@", "must be installed on the worker's machine")
})

test_that("a machine that is gone is noticed within seconds, and named", {
  on.exit(plan(sequential))
  on.exit(signal_frail("WORKER", tools::SIGCONT), add = TRUE)
  use_frail(retry = 0, patience = 3)
  f <- future(Sys.sleep(600), label = "left alone")
  wait_for(f, "running")
  # It is not closed, it answers no more.
  signal_frail("WORKER", tools::SIGSTOP)
  took <- elapsed(failure_of(f, "FutureInterruptError", paste0(":", trimws(frail("WORKER"))), "fell silent", "retry"))
  expect_lt(took, 15)
  g <- future(1, label = "unwanted")
  failure_of(g, "FutureInterruptError", "no worker of cluster alice/personal took it within 3 s", "cluster_status()")
  signal_frail("WORKER", tools::SIGCONT)
  plan(sequential)
  use_frail()
  expect_identical(value(future("back")), "back")
})

test_that("a board that is gone for a while costs no future, and is told of", {
  on.exit(plan(sequential))
  use_frail()
  f <- future({
    Sys.sleep(2)
    "done"
  })
  wait_for(f, "running")
  signal_frail("BOARD", tools::SIGKILL)
  # What a worker has goes on; what waits for the board, waits.
  g <- future("posted later")
  seen <- signals(v <- value(f))
  expect_identical(v, "done")
  expect_match(seen, paste0("The board .*", frail("PORT"), ".* is lost and tried again: "), all = FALSE)
  expect_false(resolved(g))
  board <- start_frail_board()
  on.exit(board$kill(), add = TRUE)
  expect_identical(value(g), "posted later")
})

test_that("a board that cannot be reached is an error with its name, whether plan() or the first future finds out", {
  on.exit(plan(sequential))
  f <- NULL
  e <- tryCatch({
    use_frail()
    f <- future(1)
    value(f)
  }, error = identity)
  if (!is.null(f)) expect_s3_class(e, "FutureLaunchError")
  expect_match(conditionMessage(e), paste0("board.*", frail("PORT"), ".*refused"))
})
