# One future: what of it travels, its launch, and what comes back.

# What a fresh Future has, and nothing of where it was made: no frames of callers, no owner, no backend. The globals are serialized
# before all else, as an environment without a hash table begins with what it was given last, and the large ones before the others:
# futures with the same large objects are files that begin with the same bytes, which neither the program nor a worker takes
# in hand again.
portable <- function(future) {
  fresh <- new.env(hash = FALSE, parent = emptyenv())
  for (name in c("version", "expr", "stdout", "conditions", "packages", "seed", "local", "reset", "label", "onReference",
    "uuid", "split")) {
    if (exists(name, envir = future, inherits = FALSE)) assign(name, future[[name]], envir = fresh)
  }
  for (name in c("owner", "result", "calls")) assign(name, NULL, envir = fresh)
  assign("lazy", TRUE, envir = fresh)
  assign("state", "created", envir = fresh)
  assign("actions", character(), envir = fresh)
  assign("p2p", forwarded(future), envir = fresh)
  globals <- large_first(future[["globals"]])
  # Where globals were found are environments, which would travel with all they hold.
  where <- attr(globals, "where")
  if (length(where) > 0L) attr(globals, "where") <- lapply(where, function(environment) emptyenv())
  assign("globals", globals, envir = fresh)
  structure(fresh, class = c("Future", "environment"))
}

# From how many bytes on an object is large.
large <- 1e6

# The same globals in another order, in which nothing depends on it.
large_first <- function(globals) {
  if (length(globals) < 2L) return(globals)
  size <- vapply(unclass(globals), function(object) as.numeric(utils::object.size(object)), 0)
  at <- order(pmax(size, large), decreasing = TRUE)
  about <- attributes(globals)
  for (each in intersect(c("names", "where"), names(about))) about[[each]] <- about[[each]][at]
  globals <- unclass(globals)[at]
  attributes(globals) <- about
  globals
}

# What the workers of package future's own backends get besides the future: options, and the plan for futures within it.
# Workers of p2p-worker read it, others do not.
forwarded <- function(future) {
  names <- c(
    "future.connections.onMisuse", "future.devices.onMisuse", "future.globalenv.onMisuse", "future.globals.onMissing",
    "future.globals.method", "future.globals.resolve", "future.resolve.recursive", "future.rng.onMisuse",
    "future.rng.onMisuse.keepFuture", "future.stdout.windows.reencode", "width"
  )
  options <- options()[intersect(names, names(options()))]
  size <- future[["backend"]][["maxSizeOfObjects"]]
  if (!is.null(size)) options[["future.globals.maxSize"]] <- size
  options[["future.globals.onReference"]] <- future[["onReference"]]
  tail <- future::plan("tail")
  list(options = options, plan = if (length(tail) > 0L) unclass(tail))
}

# Uncompressed: the program packs what pays, and finds what a worker has already only in bytes that are not compressed.
# Native byte order where it is that of nearly everybody, because swapping bytes takes as long as writing them.
write_future <- function(future, path, begun) {
  future <- portable(future)
  file <- file(path, "wb", raw = TRUE)
  on.exit(close(file))
  if (is_likely_large(future[["globals"]])) begun()
  serialize(future, file, xdr = .Platform$endian != "little", version = 3L)
}

# Whether these globals make a large file, as far as is known at a look: into lists it goes one level deep, and what is said of
# strings is the least that they take.
is_likely_large <- function(globals) {
  size <- function(object) {
    switch(typeof(object),
      logical = , integer = , double = , complex = , raw = as.numeric(utils::object.size(object)),
      character = if (is.object(object)) 0 else 8 * length(object),
      0
    )
  }
  sum_of <- function(objects) sum(vapply(unclass(objects), size, 0))
  lists <- Filter(function(object) is.list(object) && length(unclass(object)) <= 1000L, unclass(globals))
  sum_of(globals) + sum(vapply(lists, sum_of, 0)) >= large
}

task_id <- function(future) paste(future[["uuid"]], collapse = "-")

new_task <- function(client, future) {
  task <- new.env(parent = emptyenv())
  task$id <- task_id(future)
  task$client <- client
  task$future <- future
  task$name <- name_of(future)
  task$state <- "sent"
  task$times <- list(launch = Sys.time())
  task$waits_since <- proc.time()[[3L]]
  task$relayed <- list()
  task
}

# Writes and posts it. Nothing here waits for anybody.
post <- function(backend, client, future) {
  task <- new_task(client, future)
  name <- paste0("f-", task$id, ".rds")
  path <- file.path(client$folder, name)
  # It is compared with the last large one while it is written.
  begun <- function() send(client, "writing", file = name)
  tryCatch(write_future(future, path, begun), error = function(e) {
    unlink(path)
    stop(FutureLaunchError(explain(future, "cannot be serialized", conditionMessage(e),
      "Objects that hold on to this R session (external pointers, connections) cannot travel"), future = future))
  })
  task$times$written <- Sys.time()
  task$size <- file.size(path)
  suspendInterrupts({
    assign(task$id, task, envir = client$tasks)
    assign(task$id, future, envir = backend[["futures"]])
    future[["task"]] <- task
    send(client, "post",
      future = task$id, file = name, retry = backend[["retry"]], results = backend[["results"]],
      timeout = if (is.finite(backend[["timeout"]])) backend[["timeout"]]
    )
  })
  task
}

# ---- conditions on the way ----

# Signals what has come of a future's immediateConditions, each once and in order. Handlers of the user run here and may not return.
relay <- function(future) {
  task <- future[["task"]]
  while (length(task$progress) > 0L) {
    file <- task$progress[[1L]]
    suspendInterrupts({
      task$progress <- task$progress[-1L]
      path <- in_folder(task$client, file)
      object <- tryCatch(suppressWarnings(readRDS(path)), error = function(e) NULL)
      unlink(path)
      if (is.list(object) && !inherits(object, "condition")) object <- object[["condition"]]
      if (inherits(object, "condition")) task$relayed <- c(task$relayed, list(object))
    })
    if (inherits(object, "condition") && length(immediate_classes(future)) > 0L) resignal(object)
  }
}

resignal <- function(condition) {
  if (inherits(condition, "warning")) {
    warning(condition)
  } else if (inherits(condition, "message")) {
    message(condition)
  } else {
    signalCondition(condition)
  }
}

immediate_classes <- function(future) {
  conditions <- future[["conditions"]]
  if (is.null(conditions)) return(character())
  classes <- attr(conditions, "immediateConditionClasses", exact = TRUE)
  if (is.null(classes)) "immediateCondition" else classes
}

# The result has the immediateConditions too, as if all had been signalled. Those that did not come by themselves (they were
# too large, or the program is of another make) are marked as still to be signalled.
mark_signaled <- function(conditions, relayed, classes) {
  immediate <- vapply(conditions, function(entry) inherits(entry[["condition"]], classes), NA)
  complete <- length(relayed) >= sum(immediate)
  for (i in which(immediate)) {
    same <- if (complete) TRUE else Position(function(condition) identical(condition, conditions[[i]][["condition"]]), relayed)
    if (is.numeric(same) && !is.na(same)) relayed <- relayed[-same]
    conditions[[i]][["signaled"]] <- if (is.na(same)) 0L else 1L
  }
  conditions
}

# What did not come by itself is signalled at the end.
relay_rest <- function(future) {
  for (i in seq_along(future[["result"]][["conditions"]])) {
    result <- future[["result"]]
    entry <- result[["conditions"]][[i]]
    if (!inherits(entry[["condition"]], immediate_classes(future)) || !identical(entry[["signaled"]], 0L)) next
    result[["conditions"]][[i]][["signaled"]] <- 1L
    future[["result"]] <- result
    resignal(entry[["condition"]])
  }
}

# ---- the end ----

# The state of a future whose task has come to an end; its bytes are read later, by who wants them.
state_of <- function(outcome) {
  if (outcome$kind == "done") return("finished")
  if (outcome$class %in% c("interrupted", "timeout", "withdrawn")) "interrupted" else "failed"
}

# Takes the outcome of a task into its future. What is put there is a FutureResult or a FutureError.
collect <- function(backend, future) {
  task <- future[["task"]]
  task$times$collect <- Sys.time()
  outcome <- task$outcome
  if (is.null(outcome$worker)) outcome$worker <- task$worker
  end <- if (outcome$kind == "done") read_result(future, task, outcome) else {
    error_of(future, outcome, begun = !is.null(task$worker))
  }
  task$times$read <- Sys.time()
  suspendInterrupts({
    canceled <- identical(future[["state"]], "canceled")
    future[["result"]] <- if (is.null(end$result)) end$error else end$result
    future[["state"]] <- if (canceled && is.null(end$result)) "canceled" else end$state
    future[["printed"]] <- task$printed
    if (outcome$kind == "done") unlink(in_folder(task$client, outcome$file))
    forget(backend, task, future[["result"]])
  })
}

forget <- function(backend, task, result) {
  if (!exists(task$id, envir = backend[["futures"]], inherits = FALSE)) return(invisible())
  rm(list = task$id, envir = backend[["futures"]])
  count(backend, "finished")
  if (inherits(result, "FutureResult")) {
    spent <- tryCatch(as.numeric(difftime(result[["finished"]], result[["started"]], units = "secs")), error = function(e) NA)
    if (length(spent) == 1L && !is.na(spent)) backend[["runtime"]] <- backend[["runtime"]] + spent
  }
}

count <- function(backend, what) {
  counters <- backend[["counters"]]
  if (what %in% names(counters)) counters[[what]] <- counters[[what]] + 1L
  backend[["counters"]] <- counters
}

read_result <- function(future, task, outcome) {
  path <- in_folder(task$client, outcome$file)
  result <- tryCatch(suppressWarnings(readRDS(path)), error = identity)
  where <- paste0("worker ", or(clean(outcome$worker), "unknown"))
  if (inherits(result, "error") && !inherits(result, "FutureError")) {
    return(refused(explain(future, "has a result that cannot be read", paste0(conditionMessage(result), " (", where, ")"),
      run_again), future))
  }
  if (!inherits(result, "FutureResult")) {
    return(refused(explain(future, "has no FutureResult", paste0("an object of class ", sQuote(class(result)[1L], FALSE),
      " came from ", where), run_again), future))
  }
  if (!identical(paste(result[["uuid"]], collapse = "-"), task$id)) {
    return(refused(explain(future, "has the result of another future", paste0(where, " sent that of ",
      clean(paste(result[["uuid"]], collapse = "-"))), run_again), future))
  }
  # A uuid may have come without attributes that package future compares.
  result[["uuid"]] <- future[["uuid"]]
  error <- made_by_worker(future, result, where)
  if (!is.null(error)) return(error)
  classes <- immediate_classes(future)
  if (length(classes) > 0L) result[["conditions"]] <- mark_signaled(result[["conditions"]], task$relayed, classes)
  list(state = "finished", result = result)
}

# A worker whose task ended without a result makes one itself, of one FutureError, and of no R session.
made_by_worker <- function(future, result, where) {
  session <- result[["session_uuid"]]
  conditions <- result[["conditions"]]
  if (length(session) != 1L || !is.na(session) || length(conditions) != 1L) return(NULL)
  error <- conditions[[1L]][["condition"]]
  if (!inherits(error, "FutureError")) return(NULL)
  said <- worker_said(.subset2(error, "message"))
  reason <- paste0(said$reason, " (", where, ")")
  if (inherits(error, "FutureInterruptError")) {
    interrupted(explain(future, "was interrupted", reason, or(said$hint, run_again)), future)
  } else {
    failed(FutureLaunchError(explain(future, "could not be launched", reason, said$hint), future = future))
  }
}

# What a worker says of a task that ended without a result of its own, without the future's name, which is said anyway; and what to do.
worker_said <- function(message) {
  reason <- sub("^Future \\([^)]*\\) (was stopped|could not be started) on the worker: ", "", message)
  missing <- regmatches(reason, regexec("there is no package called [^A-Za-z]([A-Za-z0-9.]+)", reason))[[1L]]
  if (length(missing) == 2L) {
    return(list(reason = paste0("the worker has no package ", sQuote(missing[2L], FALSE)),
      hint = "It must be installed on the worker's machine, not only on this one"))
  }
  hint <- if (grepl("limit of .* reached|larger than the limit", reason)) {
    "It takes less work or data in one future, or a worker that allows more"
  } else if (grepl("the sandbox could not be set up", reason, fixed = TRUE)) {
    "p2p-worker doctor, on the worker's machine, says what is in the way"
  }
  list(reason = sub("[.]+$", "", reason), hint = hint)
}
