# The backend as package future asks for it (class FutureBackend, since 1.67): its constructor and methods.

#' Futures resolved by the machines of a cluster
#'
#' `plan(future.libp2p::cluster)` makes the workers of a peer-to-peer cluster resolve futures, each in a sandbox. The R session
#' starts one process of the program `p2p-worker`, which signs in to the message board, finds workers and carries futures and results.
#'
#' *This function must never be called. It may only be used with [future::plan()].*
#'
#' @param ... Further settings: those that every backend of package future has (`interrupts`, `maxSizeOfObjects`, `gc`, ...).
#' @param workers How many futures may be on their way at the same time: a number, or a function without arguments that gives
#'   one. It is not the number of workers in the cluster, which may change at any time; more futures than workers wait on the board.
#'   The default is option `future.libp2p.workers`, else 8.
#' @param cluster The cluster, as `"owner/name"`. `NULL` is the personal cluster of your account, in which only your own workers are.
#' @param board The message board, as `"host"` or `"host:port"`. `NULL` is what the configuration of p2p-worker says, else pipe.pico.sh.
#' @param via How futures and results travel: `"libp2p"`, `"wormhole"` (workers of package future.p2p), or `"auto"`, by what the worker speaks.
#' @param worker The path of the program p2p-worker. `NULL` is option `future.libp2p.worker`, else what the PATH has.
#' @param results What a result may hold that a stranger's machine sends; anything else is refused before R reads it, and named:
#'   `"standard"`, `"data-only"` (no functions, environments or other code), or `"any"`.
#' @param retry How many more workers get a future when one is lost or its transfer fails, before its error is yours to handle.
#' @param timeout After how many seconds without a result a future is taken back and fails.
#' @param patience After how many seconds that no worker takes it a future is taken back and fails. Before, a message says after
#'   30 seconds, and then again each time the time has doubled, that nobody has taken it.
#' @param references What to do about objects in globals that do not survive the way to another machine (external pointers, as of
#'   databases, models of compiled packages or XML documents; connections): `"ignore"`, `"warning"`, or `"error"`, before anything is sent. Looking
#'   takes about as long as serializing once more.
#' @param identity,login,accept_new Signing in to the board: the files of SSH keys to use and no other, the login name, and
#'   whether the key of a board that was never seen is accepted and remembered. `NULL` and `FALSE` leave it to the configurations of
#'   p2p-worker and of ssh.
#' @param flags Further flags for `p2p-worker client`, as a named list: `list(ssh_program = "ssh", max_result = "2 GiB")`.
#'
#' @return Nothing: it is an error to call it.
#'
#' @details
#' Errors have the classes of the Future API, and a message that says what happened, where, and what can be done.
#' `FutureInterruptError`: a worker was lost, a limit was hit, the program died; `value(reset(f))` makes sense. `FutureLaunchError`: the future never
#' began. `UnexpectedFutureResultError`: what came back is nothing that R should read. A worker that is lost is noticed within
#' seconds and the future posted again, `retry` times, before any error is seen.
#'
#' `cancel(f)` and `plan()` of something else stop what runs, with all its processes, on the worker's machine. Ctrl-C during `value(f)` leaves the
#' future running; ask again for it, or cancel it.
#'
#' Options: `future.libp2p.worker`, `future.libp2p.workers`, and `future.libp2p.quiet = TRUE`, which keeps messages about waiting away.
#'
#' @seealso [worker()] lets a machine work for a cluster, [cluster_status()] shows who does.
#'
#' @examples
#' if (interactive()) {
#'   library(future)
#'   plan(future.libp2p::cluster, workers = 2)
#'   f <- future(sum(rnorm(1e6)), seed = TRUE)
#'   value(f)
#'   plan(future.libp2p::cluster, cluster = "alice/friends")
#'   plan(sequential)
#' }
#' @export
cluster <- structure(
  function(..., workers = getOption("future.libp2p.workers", 8L), cluster = NULL, board = NULL, via = "auto", worker = NULL,
           results = "standard", retry = 3L, timeout = Inf, patience = getOption("future.wait.timeout", 24 * 60 * 60),
           references = "ignore", identity = NULL, login = NULL, accept_new = FALSE, flags = list()) {
    stop("future.libp2p::cluster() must not be called; use it as plan(future.libp2p::cluster)", call. = FALSE)
  },
  class = c("libp2p", "multiprocess", "future", "function"),
  init = TRUE
)

Libp2pFutureBackend <- function(workers = getOption("future.libp2p.workers", 8L), cluster = NULL, board = NULL, via = "auto",
                                worker = NULL, results = "standard", retry = 3L, timeout = Inf,
                                patience = getOption("future.wait.timeout", 24 * 60 * 60), references = "ignore",
                                identity = NULL, login = NULL, accept_new = FALSE, flags = list(), interrupts = TRUE, ...) {
  via <- one_of(via, "via", c("auto", "libp2p", "wormhole"))
  if (!is.list(flags)) stop("Argument 'flags' must be a named list", call. = FALSE)
  arguments <- do.call(future.libp2p_flags, c(
    list(board = board, cluster = check_cluster(cluster), via = if (via != "auto") via, identity = identity, login = login, accept_new = accept_new),
    flags
  ))
  core <- MultiprocessFutureBackend(
    workers = check_workers(workers), program = find_program(worker), arguments = arguments, cluster = cluster, board = board, via = via,
    results = one_of(results, "results", c("standard", "data-only", "any")), retry = check_retry(retry),
    timeout = check_time(timeout, "timeout"), patience = check_time(patience, "patience"),
    references = one_of(references, "references", c("ignore", "warning", "error")), interrupts = interrupts, ...
  )
  core[["futures"]] <- new.env(parent = emptyenv())
  core[["futureClasses"]] <- c("Libp2pFuture", core[["futureClasses"]])
  core[["client"]] <- start_client(core[["program"]], arguments)
  structure(core, class = c("Libp2pFutureBackend", class(core)))
}

# The argument `flags` of the constructor hides the function of that name.
future.libp2p_flags <- function(...) flags(...)

attr(cluster, "factory") <- Libp2pFutureBackend

one_of <- function(value, name, choices) {
  if (is.character(value) && length(value) == 1L && value %in% choices) return(value)
  stop("Argument '", name, "' must be one of ", paste0("\"", choices, "\"", collapse = ", "), call. = FALSE)
}

check_workers <- function(workers) {
  if (is.function(workers)) workers <- workers()
  if (!is.numeric(workers) || length(workers) != 1L || !is.finite(workers) || workers < 1 || workers > 1e6) {
    stop("Argument 'workers' must be a number of at least 1, or a function that gives one", call. = FALSE)
  }
  as.integer(workers)
}

check_retry <- function(retry) {
  if (is.numeric(retry) && length(retry) == 1L && is.finite(retry) && retry >= 0 && retry == floor(retry)) return(as.integer(retry))
  stop("Argument 'retry' must be a whole number: 0 or more", call. = FALSE)
}

check_time <- function(time, name) {
  if (is.numeric(time) && length(time) == 1L && !is.na(time) && time > 0) return(time)
  stop("Argument '", name, "' must be a number of seconds, perhaps Inf", call. = FALSE)
}

# The child of this plan: another one if it has died, or if this R session is a fork of the one that started it.
client_of <- function(backend) {
  client <- backend[["client"]]
  if (!is.null(client)) pump(client)
  if (is.null(client) || !takes_more(client)) {
    client <- start_client(backend[["program"]], backend[["arguments"]])
    backend[["client"]] <- client
  }
  client
}

# How many futures are on their way.
busy <- function(client) {
  pump(client)
  if (identical(client$pid, Sys.getpid())) length(client$tasks) else 0L
}

#' @export
launchFuture.Libp2pFutureBackend <- function(backend, future, ...) {
  if (isTRUE(backend[["hooks"]])) {
    for (hook in getHook("future::launchFuture::begin")) hook(backend, future = future, ...)
  }
  look_for_references(future, backend[["references"]])
  wait_for_room(backend, client_of(backend))
  future[["backend"]] <- backend
  post(backend, client_of(backend), future)
  count(backend, "launched")
  future[["state"]] <- "running"
  future
}

# Blocks while as many futures are on their way as may be, and signals their immediateConditions meanwhile.
wait_for_room <- function(backend, client) {
  ends <- proc.time()[[3L]] + backend[["wait.timeout"]]
  while (busy(client) >= backend[["workers"]]) {
    if (proc.time()[[3L]] > ends) {
      stop("all ", backend[["workers"]], " places are still taken after ", backend[["wait.timeout"]], " s", call. = FALSE)
    }
    futures <- lapply(as.list(client$tasks), function(task) task$future)
    for (future in futures) relay(future)
    if (length(client$tasks) >= backend[["workers"]]) wait_for_events(backend, client, futures, ends)
  }
}

# Waits until something comes, or a future has waited for too long for a worker.
wait_for_events <- function(backend, client, futures, ends = Inf) {
  pump(client, max(0.001, min(ends - proc.time()[[3L]], vapply(futures, time_left, 0, backend = backend))))
  for (future in futures) {
    task <- future[["task"]]
    if (!is.null(task$news)) {
      news <- task$news
      task$news <- NULL
      for (text in news) tell(text)
    }
  }
  if (identical(client$board$state, "lost") && !identical(client$told, client$board)) {
    client$told <- client$board
    tell("The board ", or(clean(client$board$board), ""), " is lost and tried again: ", or(clean(client$board$reason), "no reason was given"))
  }
}

# Seconds until this future has waited for too long to be taken; it is then taken back.
time_left <- function(future, backend) {
  task <- future[["task"]]
  if (!is.null(task$outcome) || is.null(task$waits_since) || is.infinite(backend[["patience"]])) return(Inf)
  left <- task$waits_since + backend[["patience"]] - proc.time()[[3L]]
  if (left > 0) return(left)
  withdraw(task, list(
    kind = "failed", class = "timeout", reason = paste0("no worker of cluster ", or(clean(task$client$board$cluster), "(never joined)"),
      " took it within ", backend[["patience"]], " s"), hint = "See future.libp2p::cluster_status() for who is there"
  ))
  0
}

# Takes a future back, wherever it is, and does not wait for it: its outcome is this one.
withdraw <- function(task, outcome) {
  if (!is.null(task$outcome)) return(invisible())
  suspendInterrupts({
    if (is_usable(task$client)) send(task$client, "withdraw", future = task$id)
    unlink(vapply(or(task$progress, character()), in_folder, "", client = task$client))
    task$progress <- NULL
    settle(task$client, task, outcome)
  })
}

# Only the session that launched a future can ask for it.
assert_owner <- function(future) {
  if (!identical(future[["task"]]$client$pid, Sys.getpid())) {
    stop(FutureError(explain(future, "belongs to another R process",
      "its value can only be asked for by the R process that created it", "Take its value before you fork, or create it in the fork"),
      future = future))
  }
}

#' @export
resolved.Libp2pFuture <- function(x, ...) {
  if (is.null(x[["task"]])) return(NextMethod())
  if (!is.null(x[["result"]])) return(NextMethod())
  assert_owner(x)
  task <- x[["task"]]
  pump(task$client)
  relay(x)
  if (is.null(task$outcome)) time_left(x, x[["backend"]])
  if (is.null(task$outcome)) return(FALSE)
  if (x[["state"]] %in% c("running", "submitted")) x[["state"]] <- state_of(task$outcome)
  if (isTRUE(x[["earlySignal"]])) return(NextMethod())
  TRUE
}

#' @export
result.Libp2pFuture <- function(future, ...) {
  known <- future[["result"]]
  if (is.null(known)) {
    assert_owner(future)
    backend <- future[["backend"]]
    task <- future[["task"]]
    pump(task$client)
    while (is.null(task$outcome)) {
      relay(future)
      if (is.null(task$outcome)) wait_for_events(backend, task$client, list(future))
    }
    relay(future)
    collect(backend, future)
    known <- future[["result"]]
    if (inherits(known, "FutureResult")) relay_rest(future)
    known <- future[["result"]]
  }
  if (inherits(known, "FutureError")) stop(known)
  known
}

#' @export
interruptFuture.Libp2pFutureBackend <- function(backend, future, ...) {
  if (!isTRUE(backend[["interrupts"]]) || is.null(future[["task"]])) return(future)
  withdraw(future[["task"]], list(kind = "failed", class = "withdrawn", reason = "on request"))
  if (future[["state"]] %in% c("running", "submitted")) future[["state"]] <- "interrupted"
  future
}

#' @export
stopWorkers.Libp2pFutureBackend <- function(backend, interrupt = TRUE, ...) {
  client <- backend[["client"]]
  if (!is.null(client)) pump(client)
  for (future in as.list(backend[["futures"]])) {
    # Results that are here already are read before their files go.
    if (identical(future[["task"]]$outcome$kind, "done")) {
      try(collect(backend, future), silent = TRUE)
    } else if (interrupt) {
      cancel(future, interrupt = TRUE, ...)
    }
  }
  if (!is.null(client)) stop_client(client)
  backend[["client"]] <- NULL
  TRUE
}

#' @export
nbrOfWorkers.Libp2pFutureBackend <- function(evaluator) evaluator[["workers"]]

#' @export
nbrOfFreeWorkers.Libp2pFutureBackend <- function(evaluator, background = FALSE, ...) {
  client <- evaluator[["client"]]
  max(0L, evaluator[["workers"]] - if (is.null(client)) 0L else busy(client))
}

#' @export
listFutures.Libp2pFutureBackend <- function(backend, ...) {
  futures <- Filter(function(future) !is.null(future[["task"]]), unname(as.list(backend[["futures"]])))
  counter <- vapply(futures, function(future) suppressWarnings(as.integer(future[["uuid"]][2L])), 0L)
  futures <- futures[order(counter)]
  data <- data.frame(
    counter = sort(counter, na.last = TRUE),
    start = vapply(futures, function(future) as.numeric(or(future[["start"]], NA_real_)), 0),
    label = vapply(futures, function(future) as.character(or(future[["label"]], NA_character_)), ""),
    resolved = vapply(futures, resolved, NA)
  )
  data[["future"]] <- lapply(futures, list)
  data
}
