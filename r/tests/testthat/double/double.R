# A stand-in for `p2p-worker client --stdio` that evaluates futures itself, in forks, with neither board nor sandbox: for tests
# of the R side alone. It is written from docs/client-stdio.md, without the package's own code. P2P_DOUBLE says what goes wrong.

suppressPackageStartupMessages(library(future))

mode <- strsplit(Sys.getenv("P2P_DOUBLE"), ",", fixed = TRUE)[[1L]]
is <- function(what) what %in% mode
arguments <- commandArgs(TRUE)
folder <- arguments[match("--folder", arguments) + 1L]
cluster <- sub("^--cluster=", "", c(grep("^--cluster=", arguments, value = TRUE), "alice/personal"))[1L]

# Not stdout(), which package future captures in the forks, and which cannot be opened again where it is a socket. Each line
# is one write, so lines of several processes do not mix.
output <- pipe("cat", "w")

say <- function(kind, ...) {
  fields <- list(...)
  text <- vapply(fields, function(value) utils::URLencode(as.character(value), reserved = TRUE), "")
  line <- paste(c(kind, if (length(text) > 0L) paste0(names(text), "=", text)), collapse = "\t")
  cat(paste0(line, "\n"), file = output)
  flush(output)
}

read <- function(line) {
  fields <- strsplit(line, "\t", fixed = TRUE)[[1L]]
  values <- lapply(sub("^[^=]*=", "", fields[-1L]), utils::URLdecode)
  c(list(kind = fields[1L]), stats::setNames(values, sub("=.*", "", fields[-1L])))
}

save_as <- function(object, name) {
  path <- file.path(folder, name)
  saveRDS(object, path, compress = FALSE)
  name
}

# In the fork. Package future signals an immediateCondition once more from within, so every second one is an echo.
evaluate <- function(id, path) {
  future <- readRDS(path)
  unlink(path)
  say("accepted", future = id, worker = "alice@double:1")
  say("running", future = id, driver = "none", profile = "double")
  number <- 0L
  before <- NULL
  pass_on <- function(condition) {
    if (identical(condition, before)) {
      before <<- NULL
      return()
    }
    before <<- condition
    number <<- number + 1L
    if (is("no-progress")) return()
    say("progress", future = id, file = save_as(list(time = Sys.time(), condition = condition), sprintf("p-%s-%d.rds", id, number)))
  }
  do.call(options, future[["p2p"]][["options"]])
  plan(c(list(sequential), future[["p2p"]][["plan"]]))
  result <- tryCatch(
    withCallingHandlers(result(future), immediateCondition = pass_on),
    error = function(e) FutureResult(conditions = list(list(condition = e, signaled = 0L)), uuid = future[["uuid"]])
  )
  if (is("other-uuid")) result[["uuid"]] <- c("0123456789abcdef0123456789abcdef", "1")
  if (is("no-result")) result <- list(42)
  name <- save_as(result, paste0("r-", id, ".rds"))
  if (is("unreadable")) writeLines("no RDS at all", file.path(folder, name))
  say("done", future = id, file = name, worker = "alice@double:1", driver = "none", profile = "double", layers = "none")
}

# What a worker writes when its task ended without a result.
stopped <- function(id) {
  error <- structure(
    class = c("FutureInterruptError", "FutureError", "error", "FutureCondition", "condition"),
    list(message = "The task used more memory than its profile allows (4 GiB)", call = NULL)
  )
  result <- FutureResult(conditions = list(list(condition = error, signaled = 0L)), uuid = strsplit(id, "-", fixed = TRUE)[[1L]])
  result[["session_uuid"]] <- NA_character_
  say("accepted", future = id, worker = "alice@double:1")
  say("done", future = id, file = save_as(result, paste0("r-", id, ".rds")), worker = "alice@double:1")
}

jobs <- list()

start <- function(id, path) {
  if (is("again")) {
    say("accepted", future = id, worker = "bob@double:2")
    say("again", future = id, reason = "worker bob@double:2 fell silent")
  }
  job <- parallel::mcparallel(evaluate(id, path), detached = TRUE)
  jobs[[id]] <<- job$pid
}

post <- function(order) {
  id <- order$future
  if (is("dies")) {
    cat("some warning\nthread 'main' panicked: out of cheese\n", file = stderr())
    quit(save = "no", status = 101L)
  }
  if (is("deaf")) return(say("error", reason = "what is this", order = "post"))
  say("posted", future = id)
  if (is("nobody")) return(say("waiting", future = id, seconds = 30))
  if (is("gone")) say("board", state = "gone", board = "board.example.org", reason = "the account was removed")
  class <- sub("^fail:", "", grep("^fail:", mode, value = TRUE))
  if (is("gone")) class <- "board"
  if (length(class) > 0L) {
    if (class == "interrupted") say("accepted", future = id, worker = "bob@double:2")
    return(say("failed", future = id, class = class, reason = paste0("it is ", class, " \u00e9"), hint = "Do something about it"))
  }
  if (is("stopped")) return(stopped(id))
  start(id, file.path(folder, order$file))
}

withdraw <- function(order) {
  pid <- jobs[[order$future]]
  if (!is.null(pid)) tools::pskill(pid, tools::SIGKILL)
  say("failed", future = order$future, class = "withdrawn", reason = "as asked")
}

hello <- function() {
  say("news", of = "an event that nobody knows yet")
  if (is("other-protocol")) {
    say("refused", reason = "protocol 2 is not spoken here", protocol = 7, version = "9.9.9")
    quit(save = "no", status = 2L)
  }
  if (is("silent")) return()
  say("hello", protocol = 2, version = "0.0.double", folder = folder, moon = "full")
  say("board", state = "joined", board = "board.example.org", cluster = cluster, me = "alice@here:2")
}

input <- file("stdin", "r")
while (length(line <- readLines(input, 1L)) > 0L) {
  order <- read(line)
  switch(order$kind,
    hello = hello(),
    post = post(order),
    withdraw = withdraw(order),
    ping = say("pong", n = order$n),
    status = {
      say("status", state = "joined", board = "board.example.org", cluster = cluster, me = "alice@here:2", open = length(jobs), workers = 2)
      say("worker", name = "alice@double:1", seen = as.integer(Sys.time()), r = "4.6.1", driver = "jail", profile = "strict")
      say("worker", name = "bob@double:2")
    }
  )
}
for (pid in jobs) tools::pskill(pid, tools::SIGKILL)
