# Bad input gets a clear error before anything is sent.

test_that("cluster() must not be called", {
  expect_error(future.libp2p::cluster(), "must not be called")
})

test_that("arguments are checked by plan()", {
  on.exit(plan(sequential))
  use <- function(...) plan(future.libp2p::cluster, worker = double_program(), ...)
  for (cluster in list("friends", "alice/friends/x", "", NA_character_, 3, "a b/c", c("a/b", "c/d"))) {
    expect_error(use(cluster = cluster), "owner/name")
  }
  expect_error(use(via = "pigeon"), "'via' must be one of \"auto\"")
  expect_error(use(results = "all"), "'results'")
  expect_error(use(references = NA), "'references'")
  for (retry in list(-1, 1.5, NA, "3")) expect_error(use(retry = retry), "'retry'")
  for (timeout in list(0, -1, NA, "2 h")) expect_error(use(timeout = timeout), "'timeout'")
  for (workers in list(0, NA, "2", Inf, 1:2, function() 0)) expect_error(use(workers = workers), "'workers'")
  expect_error(use(flags = "--x"), "'flags'")
  expect_error(use(flags = list(1)), "needs a name")
})

test_that("a program that is missing is named, with how to get it", {
  on.exit(plan(sequential))
  path <- Sys.getenv("PATH")
  on.exit(Sys.setenv(PATH = path), add = TRUE)
  expect_error(plan(future.libp2p::cluster, worker = "/no/such/p2p-worker"), "no program /no/such/p2p-worker.*cargo build")
  expect_error(plan(future.libp2p::cluster, worker = tempdir()), "not a program that can be run")
  Sys.setenv(PATH = tempdir())
  expect_error(plan(future.libp2p::cluster), "not on the PATH.*cargo build")
  expect_error(worker(), "not on the PATH")
})

test_that("settings reach the program as flags", {
  on.exit(plan(sequential))
  plan(future.libp2p::cluster,
    worker = double_program(), cluster = "alice/friends", board = "localhost:2222", identity = c("a", "b"), accept_new = TRUE,
    via = "wormhole", flags = list(ssh_args = "-J jump")
  )
  expect_setequal(plan("backend")[["arguments"]], c(
    "--board=localhost:2222", "--cluster=alice/friends", "--via=wormhole", "--identity=a", "--identity=b", "--accept-new",
    "--ssh-args=-J jump"
  ))
  expect_output(print(plan()), "Cluster: alice/friends")
})

test_that("print() and cluster_status() show board, cluster, me and workers", {
  expect_error(cluster_status(), "not future.libp2p::cluster")
  on.exit(plan(sequential))
  use_double()
  out <- paste(capture.output(print(plan())), collapse = "\n")
  for (text in c("Board: board.example.org, joined", "Cluster: alice/personal", "Me: alice@here:2", "Workers heard of: 2",
    "alice@double:1: R 4.6.1, sandbox jail, profile strict", "bob@double:2: has not said what it is")) {
    expect_match(out, text, fixed = TRUE)
  }
  status <- cluster_status()
  expect_identical(status$name, c("alice@double:1", "bob@double:2"))
  expect_identical(status$profile, c("strict", NA))
  expect_s3_class(status$seen, "POSIXct")
  f <- future(Sys.sleep(30))
  expect_output(print(plan()), "1 unresolved")
})

test_that("objects that cannot travel are found before anything is sent", {
  on.exit(plan(sequential))
  use_double(references = "error")
  handle <- get("C_BinDist", asNamespace("stats"))$address
  deep <- list(a = list(b = handle))
  e <- tryCatch(future(deep), error = identity)
  expect_s3_class(e, "FutureLaunchError")
  expect_match(conditionMessage(e), "uses 'deep' (which holds an object of class", fixed = TRUE)
  x <- 1
  expect_identical(value(future(x)), 1)
  use_double(references = "warning")
  expect_warning(f <- future(is.list(deep)), "would not work on another machine")
  expect_true(value(f))
})

test_that("futures leave out where they were made", {
  big <- runif(1e5)
  small <- 1
  f <- local({
    big2 <- big
    future(small + 1, lazy = TRUE)
  })
  bytes <- length(serialize(portable(f), NULL))
  expect_lt(bytes, 20000)
  kept <- unserialize(serialize(portable(f), NULL))
  expect_s3_class(kept, "Future")
  expect_identical(kept$uuid, f$uuid)
  expect_null(kept$calls)
  expect_identical(kept$state, "created")
})

test_that("large futures, and they alone, are announced before they are written", {
  numbers <- runif(2e5)
  expect_true(is_likely_large(list(x = numbers)))
  expect_true(is_likely_large(list(1, x = list(numbers, "a"))))
  expect_true(is_likely_large(list(x = data.frame(a = numbers))))
  expect_true(is_likely_large(list(x = rep("a", 2e5))))
  expect_false(is_likely_large(list()))
  expect_false(is_likely_large(list(x = numbers[1:1000], y = iris, z = mean, e = new.env(), n = NULL, q = quote(a + b))))
  # A look takes no time, whatever they hold.
  expect_false(is_likely_large(list(x = as.list(1:2e5))))
  told <- function(code) {
    said <- 0L
    path <- tempfile()
    f <- future(code, substitute = FALSE, lazy = TRUE)
    write_future(f, path, function() said <<- c(said, file.size(path)))
    expect_identical(unserialize(readBin(path, "raw", file.size(path)))$uuid, f$uuid)
    said[-1L]
  }
  expect_identical(told(quote(sum(numbers))), 0)
  expect_length(told(quote(1 + 1)), 0L)
})

test_that("worker() and host_cluster() pass their arguments, show output and end with the program", {
  script <- tempfile()
  writeLines(c("#!/bin/sh", "printf '%s\\n' \"$@\"", "echo problem >&2"), script)
  Sys.chmod(script, "0755")
  out <- capture.output(status <- worker("alice/friends", duration = 3600, worker = script, slots = 2, accept_new = TRUE, host = "board:1"))
  expect_identical(out, c("--cluster=alice/friends", "--board=board:1", "--duration=3600 s", "--slots=2", "--accept-new", "problem"))
  expect_identical(status, 0L)
  out <- capture.output(host_cluster("alice/friends", users = c("bob", "carol"), worker = script))
  expect_identical(out, c("host", "--cluster=alice/friends", "--users=bob,carol", "problem"))
  expect_error(worker("friends", worker = script), "owner/name")
  writeLines(c("#!/bin/sh", "exit 3"), script)
  expect_warning(worker(worker = script), "exit status 3")
  writeLines(c("#!/bin/sh", "trap 'echo bye; exit 0' INT", "echo up", "while :; do sleep 0.1; done"), script)
  system(sprintf("(sleep 1; kill -INT %d) &", Sys.getpid()))
  expect_identical(capture.output(worker(worker = script)), c("up", "bye"))
  expect_identical(capture.output(host_cluster("alice/friends", duration = 1, worker = script)), c("up", "bye"))
})
