# What scripts/bench r measures: future.libp2p beside multisession, multicore and callr, all in this R and this run, taking turns.
# P2P_TEST_PROGRAM and P2P_TEST_FLAGS are the program and its flags, as for the tests.

suppressPackageStartupMessages(library(future))
runs <- as.integer(Sys.getenv("P2P_TEST_RUNS", "30"))
flags <- strsplit(sub("^--", "", strsplit(Sys.getenv("P2P_TEST_FLAGS"), " ", fixed = TRUE)[[1L]]), "=", fixed = TRUE)
flags <- stats::setNames(lapply(flags, function(flag) if (length(flag) == 2L) flag[2L] else TRUE), vapply(flags, `[`, "", 1L))

plans <- list(
  future.libp2p = function() plan(future.libp2p::cluster, workers = 2L, worker = Sys.getenv("P2P_TEST_PROGRAM"), flags = flags),
  multisession = function() plan(multisession, workers = 2L),
  multicore = function() plan(multicore, workers = 2L)
)

took <- function(code) 1000 * system.time(code, gcFirst = FALSE)[["elapsed"]]
ms <- function(x) sprintf("%.1f ms", x)
row <- function(...) cat(sprintf("| %s |\n", paste(c(...), collapse = " | ")))
head_of <- function(title, ...) {
  cat("\n**", title, "**\n\n", sep = "")
  row("", ...)
  row("---", rep("---:", length(c(...))))
}
quantiles <- function(x) ms(stats::quantile(x, c(0.5, 0.95), names = FALSE))

# How long each step took, in milliseconds: ours by this session's clock, the program's by its own, since it had the order.
steps_of <- function(task) {
  ours <- 1000 * vapply(task$times[c("launch", "written", "read")], as.numeric, 0)
  pairs <- strsplit(strsplit(task$outcome$times, ",", fixed = TRUE)[[1L]], ":", fixed = TRUE)
  theirs <- stats::setNames(as.numeric(vapply(pairs, `[`, "", 2L)), vapply(pairs, `[`, "", 1L))
  gaps <- diff(c(0, theirs[c("read", "posted", "accepted", "sent", "running", "returned", "written")]))
  writing <- ours[["written"]] - ours[["launch"]]
  c(writing, gaps, ours[["read"]] - ours[["launch"]] - writing - theirs[["written"]])
}

# How long R ran in the jail for each of these futures, from its execution to its end, as the workers' logs say.
in_jail <- function(uuids) {
  lines <- grep("evaluated", unlist(lapply(Sys.glob(Sys.getenv("P2P_TEST_LOGS")), readLines, warn = FALSE)), value = TRUE, fixed = TRUE)
  lines <- gsub("\033\\[[0-9;]*m", "", lines)
  ms <- as.numeric(sub(".*wall_ms=([0-9]+).*", "\\1", lines))
  ms[match(uuids, sub(".*future=([^ ]+).*", "\\1", lines))]
}

# How long `code` takes in each plan: one run after the other, and each a second after the last, as somebody who types has it.
# Of ours, the steps and the names of its futures are kept as well.
paces <- c("one after the other" = 0, "a second apart" = 1)
measure <- function(code, runs) {
  kept <- list()
  times <- lapply(paces, function(pause) lapply(plans, function(begin) {
    begin()
    on.exit(plan(sequential))
    for (i in 1:3) value(future(42))
    vapply(seq_len(runs), function(i) {
      Sys.sleep(pause)
      f <- NULL
      time <- took(value(f <- code()))
      task <- f[["task"]]
      if (!is.null(task)) {
        at <- names(paces)[paces == pause]
        kept$steps[[at]] <<- rbind(kept$steps[[at]], steps_of(task))
        kept$uuids[[at]] <<- c(kept$uuids[[at]], paste(f[["uuid"]], collapse = "-"))
      }
      time
    }, 0)
  }))
  c(list(times = times), kept)
}

small <- measure(function() future(42), runs)
single <- small$times[[1L]]
single[["callr::r()"]] <- vapply(seq_len(runs), function(i) took(callr::r(function() 42)), 0)
rscript <- file.path(R.home("bin"), "Rscript")
bare <- vapply(seq_len(runs), function(i) took(system2(rscript, c("--vanilla", "-e", shQuote("invisible(future::value(future::future(42)))")))), 0)
start <- vapply(seq_len(runs), function(i) took(system2(rscript, c("--vanilla", "-e", "1"), stdout = FALSE)), 0)
single[["Rscript that resolves one future"]] <- bare
single[["Rscript that does nothing"]] <- start
head_of(sprintf("value(future(42)), %d runs", runs), rep(c("median", "p95"), 2L))
row("", names(paces)[1L], "", names(paces)[2L], "")
for (name in names(single)) row(name, quantiles(single[[name]]), if (is.null(plans[[name]])) c("", "") else quantiles(small$times[[2L]][[name]]))

head_of("Where the milliseconds go (future.libp2p)", rep(c("median", "p95"), 2L))
row("", names(paces)[1L], "", names(paces)[2L], "")
labels <- c("R: strip and write the future", "program: read it", "request on the board", "offer and accept", "connection and transfer",
  "jail, and R's start with package future", "evaluation, and the result's way back", "scanner, and writing the result's file",
  "R: two ways through the pipe, reading the result")
for (i in seq_along(labels)) row(labels[i], unlist(lapply(small$steps, function(steps) quantiles(steps[, i]))))
Sys.sleep(1)
jailed <- lapply(small$uuids, in_jail)
row("R in the jail, from its execution, or from when it had waited enough, to its end, which nobody waits for", unlist(lapply(jailed, quantiles)))
row("**everything else together**", unlist(Map(function(times, jailed) quantiles(times$future.libp2p - jailed), small$times, jailed)))
row("beside it: Rscript that resolves one future, of which ours is more by", ms(stats::median(single$future.libp2p) - stats::median(bare)), rep("", 3L))

head_of("200 small futures on 2 workers", "futures a second")
for (name in names(plans)) {
  plans[[name]]()
  value(future(1))
  time <- took(stopifnot(identical(value(lapply(1:200, function(i) future(i))), as.list(1:200))))
  row(name, sprintf("%.1f", 200 / (time / 1000)))
  plan(sequential)
}

big <- runif(2.5e6)
large <- measure(function() future(length(big)), 10L)
head_of("A global of 20 MB, ten futures", rep(c("first", "tenth", "median"), 2L))
row("", names(paces)[1L], "", "", names(paces)[2L], "", "")
for (name in names(plans)) row(name, unlist(lapply(large$times, function(times) ms(c(times[[name]][c(1L, 10L)], stats::median(times[[name]]))))))

head_of("Where the milliseconds go (future.libp2p), a second apart: the second to the tenth beside a future without globals", "without", "20 MB")
apart <- names(paces)[2L]
for (i in seq_along(labels)) row(labels[i], ms(c(stats::median(small$steps[[apart]][, i]), stats::median(large$steps[[apart]][-1L, i]))))

plans$future.libp2p()
f <- future(Sys.sleep(5))
each <- vapply(1:200, function(i) took(for (k in 1:10) resolved(f)) / 10, 0)
head_of("resolved() of a future that runs, 200 times 10", "median", "p95")
row("future.libp2p", sprintf("%.3f ms", stats::quantile(each, c(0.5, 0.95), names = FALSE)))
plan(sequential)
