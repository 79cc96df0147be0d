# What every peer of the R package future.p2p does on a board, through the system's ssh, as far as others see it. Written for
# the tests from what the package was seen to do; nothing of it is the package's own code.
#
# PEER_SSH_ARGS are the user's arguments for ssh, PEER_WORMHOLE is the program wormhole-william.

ssh <- function(host, command) paste("ssh", Sys.getenv("PEER_SSH_ARGS"), host, command)

note <- function(...) {
  cat(..., "\n", sep = "")
  flush(stdout())
}

# Runs a command on the board; stdout and stderr together, so that a banner would be seen.
ask <- function(host, command) {
  answer <- suppressWarnings(system(paste(ssh(host, command), "2>&1 </dev/null"), intern = TRUE))
  sub("\r$", "", answer)
}

# The account's name. A host pipe.X is the board of X.
account <- function(host) {
  answer <- ask(sub("^pipe[.]", "", host), "user")
  date <- "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]+)$"
  if (length(answer) != 3 || !grepl(date, answer[3])) stop("user answered: ", paste(answer, collapse = "\n"))
  answer[1]
}

# The channels of this account, asked for until the answer can be read, for at most 10 s.
channels <- function(host) {
  end <- Sys.time() + 10
  repeat {
    answer <- ask(host, "ls")
    if (identical(answer, "no pubsub channels found")) return(character())
    if (length(answer) > 0 && answer[1] == "Channel Information") break
    if (Sys.time() > end) stop("ls answered: ", paste(answer, collapse = "\n"))
    Sys.sleep(0.5)
  }
  sub("^- ([^:]*):.*", "\\1", grep("^- ", answer, value = TRUE))
}

open_pipe <- function(host, topic, flags = "") {
  heard <- tempfile("heard-")
  file.create(heard)
  board <- new.env()
  board$pid <- paste0(heard, ".pid")
  # It ends with this process, however that ends.
  run <- paste("echo $$ >", board$pid, "; exec setpriv --pdeathsig TERM --", ssh(host, paste("pipe", topic, flags)))
  board$to <- pipe(paste(run, ">", heard, "2>/dev/null"), "w")
  board$from <- file(heard, "r", blocking = FALSE)
  board$lines <- character()
  board
}

# A pipe stays when its input ends, so it is ended here.
close_pipe <- function(board) {
  tools::pskill(as.integer(readLines(board$pid)))
  close(board$to)
  close(board$from)
}

# One line per 0.1 s, or NULL.
hear <- function(board) {
  Sys.sleep(0.1)
  # All there are at a time: R may lose lines that follow one that was read alone.
  board$lines <- c(board$lines, readLines(board$from, warn = FALSE))
  if (length(board$lines) == 0) return(NULL)
  line <- board$lines[1]
  board$lines <- board$lines[-1]
  sub("\r$", "", line)
}

say_line <- function(board, line) {
  writeLines(line, board$to)
  flush(board$to)
}

# A message, with its keys in this order.
message_line <- function(type, ..., valid = 60) {
  when <- format(Sys.time(), "%Y-%m-%dT%H:%M:%S")
  expires <- format(round(as.numeric(Sys.time()) + valid), scientific = FALSE)
  pairs <- c(when = when, if (type != "withdraw") c(expires = expires), type = type, ...)
  paste(names(pairs), pairs, sep = "=", collapse = ",")
}

say <- function(board, ...) say_line(board, message_line(...))

# The pairs of a message, as a list; NULL for any other line.
read_message <- function(line) {
  if (is.null(line) || !grepl("^when=", line)) return(NULL)
  pairs <- strsplit(strsplit(line, ",", fixed = TRUE)[[1]], "=", fixed = TRUE)
  setNames(lapply(pairs, function(pair) if (length(pair) > 1) pair[2] else ""), vapply(pairs, `[[`, "", 1))
}

is_valid <- function(message) is.null(message$expires) || as.numeric(message$expires) > as.numeric(Sys.time())

# Joins a cluster: the name of this peer, its account and its pipe. Who has no access learns it by a channel of its own whose
# name has the owner's in it.
join <- function(host, cluster) {
  user <- account(host)
  me <- sprintf("%s@%s:%d", user, Sys.info()[["nodename"]], Sys.getpid())
  owner <- sub("/.*", "", cluster)
  name <- sub(".*/", "", cluster)
  topic <- if (owner == user) paste0(name, "/future.p2p") else paste0(owner, "/", name, "/future.p2p")
  before <- channels(host)
  board <- open_pipe(host, topic, "-r")
  hello <- message_line("client", from = me, protocols = "wormhole", valid = 3600)
  say_line(board, hello)
  end <- Sys.time() + 10
  while (!identical(hear(board), hello)) if (Sys.time() > end) stop("the hello did not come back")
  mine <- setdiff(channels(host), before)
  close_pipe(board)
  if (owner != user && any(grepl(paste0("^", user, "/.*/"), mine))) {
    note("no access to ", cluster)
    quit(status = 7)
  }
  list(me = me, user = user, board = open_pipe(host, topic))
}

# Sends or receives by wormhole; whether it went well.
wormhole <- function(arguments, input = NULL) {
  said <- suppressWarnings(system2(Sys.getenv("PEER_WORMHOLE"), arguments, input = input, stdout = FALSE, stderr = TRUE))
  if (is.null(attr(said, "status"))) return(TRUE)
  note("wormhole failed: ", arguments[1], ": ", paste(said, collapse = " "))
  FALSE
}
