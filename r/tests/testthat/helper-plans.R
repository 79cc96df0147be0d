# The plans that tests run under. By default the program is the stand-in beside this file. With P2P_TEST_PROGRAM the real one
# is used, with the flags in P2P_TEST_FLAGS (a board where a worker is).

library(future)

double_program <- local({
  path <- NULL
  function() {
    if (is.null(path)) {
      script <- normalizePath(test_path("double", "double.R"))
      path <<- tempfile("p2p-worker-double-")
      writeLines(c("#!/bin/sh", sprintf("exec '%s' --vanilla '%s' \"$@\"", file.path(R.home("bin"), "Rscript"), script)), path)
      Sys.chmod(path, "0755")
    }
    path
  }
})

real_program <- function() Sys.getenv("P2P_TEST_PROGRAM")

is_real <- function() nzchar(real_program())

real_flags <- function() {
  words <- strsplit(trimws(Sys.getenv("P2P_TEST_FLAGS")), "[[:space:]]+")[[1L]]
  pairs <- strsplit(sub("^--", "", words), "=", fixed = TRUE)
  values <- lapply(pairs, function(pair) if (length(pair) == 2L) pair[2L] else TRUE)
  stats::setNames(values, vapply(pairs, `[`, "", 1L))
}

# The plan under test, with further arguments.
use_libp2p <- function(workers = 2L, ...) {
  if (is_real()) {
    plan(future.libp2p::cluster, workers = workers, worker = real_program(), flags = real_flags(), ...)
  } else {
    plan(future.libp2p::cluster, workers = workers, worker = double_program(), ...)
  }
}

# The stand-in with something that goes wrong.
use_double <- function(mode = "", ...) {
  before <- Sys.getenv("P2P_DOUBLE", NA)
  Sys.setenv(P2P_DOUBLE = mode)
  on.exit(if (is.na(before)) Sys.unsetenv("P2P_DOUBLE") else Sys.setenv(P2P_DOUBLE = before))
  plan(sequential)
  plan(future.libp2p::cluster, workers = 2L, worker = double_program(), ...)
}

# Ours, and two of package future's own, which show that a test asks for nothing that they do not do. They take long, so only
# where P2P_TEST_CONTROLS is "true", or "only" for those two alone.
plans <- function() {
  ours <- list(libp2p = use_libp2p)
  controls <- list(
    multisession = function(workers = 2L, ...) plan(multisession, workers = workers, ...),
    multicore = function(workers = 2L, ...) plan(multicore, workers = workers, ...)
  )
  switch(Sys.getenv("P2P_TEST_CONTROLS"), true = c(ours, controls), only = controls, ours)
}

# A test under every plan but for some.
under_every_plan <- function(what, code, but = character()) {
  code <- substitute(code)
  for (name in setdiff(names(plans()), but)) local({
    name <- name
    test_that(paste0(name, ": ", what), {
      use <- plans()[[name]]
      use()
      on.exit(plan(sequential))
      # Below the global environment, so that functions in globals do not bring this package's namespace along.
      here <- list2env(list(use = use, signals = signals, elapsed = elapsed), parent = globalenv())
      eval(code, here)
    })
  })
}

# Everything that is signalled, up to an error, in order, as class and message.
signals <- function(code) {
  seen <- character()
  note <- function(condition) {
    seen <<- c(seen, paste0(class(condition)[1L], ": ", trimws(conditionMessage(condition))))
    if (inherits(condition, "message")) invokeRestart("muffleMessage")
    if (inherits(condition, "warning")) invokeRestart("muffleWarning")
  }
  tryCatch(withCallingHandlers(code, condition = note), error = function(e) NULL)
  seen
}

elapsed <- function(code) system.time(code, gcFirst = FALSE)[["elapsed"]]
