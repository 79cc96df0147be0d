# The program p2p-worker: where it is, and its commands that block.

how_to_install <- paste(
  "Get the sources of p2p-worker and run `cargo build --release`, then `sudo scripts/install` there, or put",
  "target/release/p2p-worker and target/release/p2p-jail on the PATH; or say where it is, as in",
  "plan(future.libp2p::cluster, worker = \"/opt/p2p-worker/p2p-worker\")"
)

# The full path of the program.
find_program <- function(worker = NULL) {
  if (is.null(worker)) worker <- getOption("future.libp2p.worker")
  if (is.null(worker)) {
    path <- Sys.which("p2p-worker")
    if (!nzchar(path)) stop("The program p2p-worker is not on the PATH. ", how_to_install, call. = FALSE)
    return(unname(path))
  }
  if (!is.character(worker) || length(worker) != 1L || is.na(worker) || !nzchar(worker)) {
    stop("Argument 'worker' must be the path of the program p2p-worker", call. = FALSE)
  }
  path <- if (grepl("/", worker, fixed = TRUE)) path.expand(worker) else Sys.which(worker)
  if (!nzchar(path) || !file.exists(path)) stop("There is no program ", worker, ". ", how_to_install, call. = FALSE)
  if (file.access(path, 1L) != 0L || dir.exists(path)) stop(path, " is not a program that can be run", call. = FALSE)
  unname(path)
}

# `owner/name`, as the program checks it again; NULL is the personal cluster.
check_cluster <- function(cluster) {
  if (is.null(cluster)) return(NULL)
  if (!is.character(cluster) || length(cluster) != 1L || is.na(cluster) ||
    !grepl("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", cluster)) {
    stop("Argument 'cluster' must be one name like \"alice/friends\" (owner/name), not ",
      paste(deparse(cluster, nlines = 1L), collapse = ""), "; leave it out for your personal cluster",
      call. = FALSE
    )
  }
  cluster
}

# Named arguments as flags of the program: accept_new = TRUE is --accept-new, slots = 2 is --slots 2, several values are the
# flag several times; NULL, NA and FALSE are left out.
flags <- function(...) {
  arguments <- list(...)
  if (length(arguments) == 0L) return(character())
  if (is.null(names(arguments)) || !all(nzchar(names(arguments)))) {
    stop("Every further argument needs a name: that of a flag of p2p-worker, as in slots = 2", call. = FALSE)
  }
  one <- function(name, value) {
    flag <- paste0("--", gsub("[._]", "-", name))
    if (is.null(value) || length(value) == 0L || anyNA(value) || isFALSE(value)) return(character())
    if (isTRUE(value)) return(flag)
    paste0(flag, "=", vapply(value, as_text, "", USE.NAMES = FALSE))
  }
  unlist(Map(one, names(arguments), arguments), use.names = FALSE)
}

# A time in seconds, or text as the program reads it ("2 h").
seconds <- function(time) if (is.numeric(time) && is.finite(time)) paste(as_text(time), "s") else if (is.character(time)) time

#' Run a worker, or host a shared cluster
#'
#' `worker()` lets this machine resolve futures of a cluster, each in a sandbox; `host_cluster()` holds the list of those who may
#' use a shared cluster, which is there for as long as its owner hosts it. Both are the program `p2p-worker`, which shows what
#' it does, and both block until they are interrupted (Ctrl-C) or their time is over.
#'
#' The first interrupt lets a worker finish what it evaluates; the second stops it at once. For a machine that shall work for
#' others all the time, run `p2p-worker` as a service instead: its README says how.
#'
#' @param cluster The cluster, as `"owner/name"`; `NULL` is the personal cluster of your account, which only you can use.
#' @param users Names of those who may use the cluster besides you.
#' @param board The message board, as `"host"` or `"host:port"`; `NULL` is what the configuration of p2p-worker says, else
#'   pipe.pico.sh. `host` is another name for it.
#' @param duration For how long, in seconds or as text (`"2 h"`); `NULL` is until interrupted.
#' @param ssh_args Arguments for the system's ssh, which is then used to sign in, e.g. `"-J jump.example.org"`.
#' @param worker Path of the program p2p-worker; `NULL` is option `future.libp2p.worker`, else what the PATH has.
#' @param ... Further flags of the program with their values, e.g. `slots = 2`, `profile = "strict"`, `accept_new = TRUE`.
#' @param host The same as `board`.
#'
#' @return The exit status of the program, invisibly: 0 is success. Any other is also a warning.
#'
#' @examples
#' if (interactive()) {
#'   # Take futures of your own R sessions elsewhere for an hour, under the strict profile
#'   future.libp2p::worker(duration = 3600, profile = "strict")
#'
#'   # Let bob and carol use a cluster of yours
#'   future.libp2p::host_cluster("alice/friends", users = c("bob", "carol"))
#' }
#' @export
worker <- function(cluster = NULL, board = host, duration = NULL, ssh_args = NULL, worker = NULL, ..., host = NULL) {
  run_program(find_program(worker), flags(
    cluster = check_cluster(cluster), board = board, duration = seconds(duration), ssh_args = join(ssh_args), ...
  ))
}

#' @rdname worker
#' @export
host_cluster <- function(cluster, users = character(), board = host, duration = NULL, ssh_args = NULL, worker = NULL, ...,
                         host = NULL) {
  if (!is.character(users) || anyNA(users)) stop("Argument 'users' must be names of accounts on the board", call. = FALSE)
  run_program(find_program(worker), limit = in_seconds(duration), c("host", flags(
    cluster = check_cluster(cluster), users = if (length(users) > 0L) paste(users, collapse = ","), board = board,
    ssh_args = join(ssh_args), ...
  )))
}

join <- function(words) if (length(words) > 0L) paste(words, collapse = " ")

# A duration as a number; the program has no flag for it where this is used.
in_seconds <- function(duration) {
  if (is.null(duration)) return(Inf)
  if (!is.numeric(duration) || length(duration) != 1L || is.na(duration) || duration <= 0) {
    stop("Argument 'duration' must be a number of seconds", call. = FALSE)
  }
  duration
}

# Runs the program and shows what it says until it ends. An interrupt is passed on and waited for; so is a second.
run_program <- function(program, arguments, limit = Inf) {
  process <- processx::process$new(program, arguments, stdout = "|", stderr = "2>&1", cleanup = TRUE)
  on.exit(if (process$is_alive()) process$kill(), add = TRUE)
  ends <- proc.time()[[3L]] + limit
  repeat {
    ended <- tryCatch(show_output(process, ends), interrupt = function(e) FALSE)
    if (ended) break
    process$interrupt()
    ends <- Inf
  }
  status <- process$get_exit_status()
  if (!identical(status, 0L)) warning("p2p-worker ended with exit status ", status, call. = FALSE)
  invisible(status)
}

# TRUE when the program has ended, FALSE when its time is over.
show_output <- function(process, ends) {
  repeat {
    left <- ends - proc.time()[[3L]]
    if (left <= 0) return(FALSE)
    process$poll_io(if (is.finite(left)) as.integer(min(ceiling(left * 1000), 1e9)) else -1L)
    lines <- process$read_output_lines()
    if (length(lines) > 0L) cat(lines, sep = "\n")
    if (!process$is_incomplete_output()) {
      process$wait()
      return(TRUE)
    }
  }
}
