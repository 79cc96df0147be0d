# What there is to see of a plan: print() and cluster_status().

#' Who is in the cluster
#'
#' Asks the program beside this R session for the board, the cluster and the workers that it has heard of.
#' `print(plan())` shows the same.
#'
#' @param timeout How many seconds to wait for the answer, and for the board if it has not been joined yet.
#'
#' @return A data frame with a row for each worker: `name`, `seen` (when it was heard last), `r` (its version of R),
#'   `driver` and `profile` (its sandbox), each `NA` where it did not say so. Attributes `board`, `cluster`, `me` (your name
#'   on the board), and `state` (`"joined"`, `"lost"`, `"gone"` or `"joining"`).
#'
#' @examples
#' if (interactive()) {
#'   future::plan(future.libp2p::cluster)
#'   future.libp2p::cluster_status()
#' }
#' @export
cluster_status <- function(timeout = 5) {
  backend <- future::plan("backend")
  if (!inherits(backend, "Libp2pFutureBackend")) {
    stop("The plan is not future.libp2p::cluster: set it first with plan(future.libp2p::cluster)", call. = FALSE)
  }
  status_of(client_of(backend), timeout)
}

status_of <- function(client, timeout) {
  ends <- proc.time()[[3L]] + timeout
  while (is_usable(client) && is.null(client$board) && (left <- ends - proc.time()[[3L]]) > 0) pump(client, left)
  answered <- ask_status(client, max(1, ends - proc.time()[[3L]]))
  # Workers answer who joins within a second: who asks at once waits for the first of them, which is told unasked.
  alone <- answered && length(client$workers) == 0L
  while (alone && length(client$workers) == 0L && (left <- time_for_answers(client)) > 0) pump(client, left)
  if (alone && length(client$workers) > 0L) answered <- ask_status(client)
  field <- function(name) vapply(client$workers, function(worker) or(clean(worker[[name]]), NA_character_), "", USE.NAMES = FALSE)
  structure(
    data.frame(
      name = field("name"), seen = as.POSIXct(suppressWarnings(as.numeric(field("seen"))), origin = "1970-01-01"),
      r = field("r"), driver = field("driver"), profile = field("profile")
    ),
    board = or(clean(client$board$board), clean(client$status$board)),
    cluster = or(clean(client$board$cluster), clean(client$status$cluster)),
    me = or(clean(client$me), clean(client$status$me)),
    state = or(client$board$state, or(client$status$state, "joining")),
    reason = clean(client$board$reason), version = clean(client$hello$version), answered = answered
  )
}

# How long the workers' answers to our coming may still take, in seconds.
time_for_answers <- function(client) {
  if (!is_usable(client) || is.null(client$joined)) return(0)
  client$joined + 1.5 - proc.time()[[3L]]
}

#' @export
print.Libp2pFutureBackend <- function(x, ...) {
  NextMethod()
  client <- x[["client"]]
  if (is.null(client) || !is_usable(client)) {
    cat("p2p-worker: not running; the next future starts it\n")
    return(invisible(x))
  }
  status <- status_of(client, 2)
  shown <- function(name) or(attr(status, name), "?")
  cat("p2p-worker: ", shown("version"), " (", client$program, ")\n", sep = "")
  cat("Board: ", shown("board"), ", ", shown("state"),
    if (!is.null(attr(status, "reason"))) paste0(" (", attr(status, "reason"), ")"), "\n", sep = "")
  cat("Cluster: ", shown("cluster"), "\n", "Me: ", shown("me"), "\n", sep = "")
  cat("Workers heard of: ", nrow(status), if (!attr(status, "answered")) " (p2p-worker did not answer)", "\n", sep = "")
  cat(sprintf("- %s: %s\n", status$name, describe(status)), sep = "")
  invisible(x)
}

describe <- function(status) {
  part <- function(prefix, value) ifelse(is.na(value), "", paste0(prefix, value))
  text <- paste0(part(", R ", status$r), part(", sandbox ", status$driver), part(", profile ", status$profile),
    part(", heard ", format(status$seen, "%H:%M:%S")))
  ifelse(nzchar(text), substring(text, 3L), "has not said what it is")
}
