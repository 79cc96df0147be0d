# What can go wrong, as the conditions that the Future API has for it: one sentence that says what happened and where, and
# one that says what to do.

# How a future is named in messages.
name_of <- function(future) {
  label <- future[["label"]]
  if (is.null(label) || is.na(label)) paste0("<unnamed-", future[["uuid"]][length(future[["uuid"]])], ">") else label
}

sentence <- function(...) {
  text <- trimws(paste0(...))
  if (grepl("[.!?]$", text)) text else paste0(text, ".")
}

# "Future 'a' <what>: <reason>. <hint>"
explain <- function(future, what, reason, hint = NULL) {
  text <- sentence("Future ", sQuote(name_of(future), FALSE), " ", what, if (!is.null(reason)) ": ", clean(reason))
  if (is.null(hint) || !nzchar(hint)) text else paste(text, sentence(clean(hint)))
}

run_again <- "Running it again may help: value(reset(f))"

# The class of an error and the state of its future, by the `class` of the event `failed`. `begun`: a worker had it.
error_of <- function(future, failure, begun) {
  at <- if (!is.null(failure$worker)) paste0(" (worker ", clean(failure$worker), ")")
  reason <- paste0(if (is.null(failure$reason)) "no reason was given" else sub("[.]+$", "", failure$reason), at)
  hint <- failure$hint
  again <- if (is.null(hint)) run_again else hint
  switch(failure$class,
    interrupted = interrupted(explain(future, "was interrupted", reason, again), future),
    withdrawn = canceled(explain(future, "was cancelled", reason, hint), future),
    timeout = interrupted(explain(future, "had no result in time", reason, hint), future),
    refused = refused(explain(future, "has a result that R must not read", reason, hint), future),
    `too-large` = failed(FutureError(explain(future, "is too large", reason, hint), future = future)),
    board = if (begun) {
      interrupted(explain(future, "was interrupted", reason, again), future)
    } else {
      failed(FutureLaunchError(explain(future, "could not be launched", reason, hint), future = future))
    },
    local = failed(FutureError(explain(future, "has a result that could not be kept here", reason, hint), future = future)),
    launch = failed(FutureLaunchError(explain(future, "could not be launched", reason, hint), future = future)),
    failed(FutureError(explain(future, "failed", reason, hint), future = future))
  )
}

failed <- function(error) list(state = "failed", error = error)

interrupted <- function(message, future) {
  list(state = "interrupted", error = FutureInterruptError(message, future = future))
}

# FutureCanceledError is younger than the oldest package future that we work with.
canceled <- function(message, future) {
  package <- asNamespace("future")
  make <- if ("FutureCanceledError" %in% getNamespaceExports(package)) package[["FutureCanceledError"]] else FutureInterruptError
  list(state = "canceled", error = make(message, future = future))
}

refused <- function(message, future) {
  error <- FutureError(message, future = future)
  class(error) <- c("UnexpectedFutureResultError", class(error))
  failed(error)
}

# Says something while R waits, for whoever looks at the terminal.
tell <- function(...) {
  if (isTRUE(getOption("future.libp2p.quiet", FALSE))) return(invisible())
  message(structure(
    class = c("FutureLibp2pMessage", "message", "condition"),
    list(message = paste0(sentence(...), "\n"), call = NULL)
  ))
}
