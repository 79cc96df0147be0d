# A client of the R package future.p2p: Rscript r_client.R HOST OWNER/NAME FUTURE.rds RESULT.rds [FUTURE.rds RESULT.rds ...]
#
# One after the other; then what R's own value() makes of each result. PEER_SENDS makes it a bad one: "text" and "folder" send
# those in a future's place, "other" a future of another name, "file" the file PEER_FILE, "nothing" nothing. When the file
# PEER_CUE is there, it withdraws. Where PEER_LATE is given, it sends when that file is there.

peers <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(peers, "peer.R"))
arguments <- commandArgs(trailingOnly = TRUE)
sends <- Sys.getenv("PEER_SENDS")
cue <- Sys.getenv("PEER_CUE")
late <- Sys.getenv("PEER_LATE")
peer <- join(arguments[1], arguments[2])
board <- peer$board
note("here as ", peer$me)

# The first offer that is valid, from a request that is posted again every 10 s.
offer_on <- function(id, size) {
  again <- Sys.time()
  repeat {
    if (Sys.time() >= again) {
      hello <- message_line("client", from = peer$me, protocols = "wormhole", valid = 3600)
      request <- message_line("request", from = peer$me, future = id, size = size, protocols = "wormhole", valid = 10)
      # Both in one chunk.
      say_line(board, paste(hello, request, sep = "\n"))
      again <- Sys.time() + 10
      note("requested ", id)
    }
    message <- read_message(hear(board))
    if (identical(message$type, "offer") && identical(message$to, peer$me) && identical(message$future, id) && is_valid(message)) {
      return(message)
    }
  }
}

# What it sends, whether or not that is what it should.
payload <- function(path) {
  what <- file.path(tempfile("sent-"), "future.rds")
  dir.create(dirname(what))
  if (sends == "folder") {
    dir.create(what)
    writeLines("inside", file.path(what, "file"))
  } else if (sends == "other") {
    f <- readRDS(path)
    f$uuid <- if (length(f$uuid) > 1) c(f$uuid[1], "4711") else "another-future"
    saveRDS(f, what)
  } else {
    file.copy(path, what)
  }
  what
}

send <- function(path, code) {
  if (sends == "nothing") return(TRUE)
  while (nzchar(late) && !file.exists(late)) Sys.sleep(0.1)
  what <- switch(sends, text = c("--text", "hello"), file = Sys.getenv("PEER_FILE"), payload(path))
  wormhole(c("send", "--hide-progress", paste0("--code=", code), what))
}

# The line that there is a result; for ever.
announced <- function(id, worker) {
  withdrawn <- FALSE
  repeat {
    message <- read_message(hear(board))
    if (identical(message$type, "result") && identical(message$to, peer$me) && identical(message$future, id)) return(message)
    if (!withdrawn && nzchar(cue) && file.exists(cue)) {
      for (twice in 1:2) say(board, "withdraw", from = peer$me, to = worker, future = id)
      withdrawn <- TRUE
      note("withdrawn ", id)
    }
  }
}

receive <- function(code, path) {
  folder <- tempfile("received-")
  dir.create(folder)
  old <- setwd(folder)
  on.exit(setwd(old))
  if (!wormhole(c("receive", "--hide-progress", code), input = "y")) stop("no result")
  file.copy(list.files(folder, full.names = TRUE)[1], path, overwrite = TRUE)
}

# A backend's futures have a class of their own, whose result() gives what came back.
registerS3method("result", "PeerFuture", function(future, ...) future$result, envir = asNamespace("future"))

# What a user sees of it.
report <- function(f, result) {
  if (!inherits(result, "FutureResult")) return("UnexpectedFutureResultError: no FutureResult")
  if (!identical(result$uuid, f$uuid)) return("UnexpectedFutureResultError: another uuid")
  f$result <- result
  f$owner <- NULL
  f$state <- "finished"
  class(f) <- c("PeerFuture", "Future")
  tryCatch(
    paste("value:", paste(deparse(future::value(f), nlines = 2L), collapse = "")),
    error = function(e) paste0(class(e)[1], ": ", conditionMessage(e))
  )
}

resolve <- function(path, to) {
  f <- readRDS(path)
  id <- paste(f$uuid, collapse = "-")
  worker <- offer_on(id, file.size(path))$from
  code <- sprintf("%04d-%s", sample.int(10000L, 1L) - 1L, paste(sample(c(0:9, letters[1:6]), 12, TRUE), collapse = ""))
  via <- paste0("wormhole://", code)
  say(board, "accept", from = peer$me, to = worker, future = id, via = via)
  note("accepted ", worker)
  if (!send(path, paste0(code, "-f"))) note("not sent")
  note("sent ", id)
  stopifnot(identical(announced(id, worker)$via, via))
  note("announced ", id)
  receive(paste0(code, "-r"), to)
  note("got ", report(f, readRDS(to)))
}

files <- matrix(arguments[-(1:2)], nrow = 2)
for (pair in seq_len(ncol(files))) resolve(files[1, pair], files[2, pair])
note("done")
