# A worker of the R package future.p2p: Rscript r_worker.R HOST OWNER/NAME
#
# PEER_RESULT makes it a bad one: "uuid" returns the result of another future, "text" what is no result, "silent" nothing.

peers <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(peers, "peer.R"))
arguments <- commandArgs(trailingOnly = TRUE)
bad <- Sys.getenv("PEER_RESULT")
future::plan(future::sequential)

peer <- join(arguments[1], arguments[2])
board <- peer$board
say(board, "worker", from = peer$me, protocols = "wormhole", valid = 300)
note("serving as ", peer$me)

# The evaluation, in another process, so that this one hears of a withdraw.
evaluate <- function(f) {
  parallel::mcparallel(future::result(f), silent = TRUE)
}

outcome <- function(job, client, future) {
  repeat {
    message <- read_message(hear(board))
    if (identical(message$type, "withdraw") && identical(message$from, client) && identical(message$future, future)) {
      tools::pskill(job$pid, tools::SIGKILL)
      parallel::mccollect(job, wait = FALSE)
      return(NULL)
    }
    done <- parallel::mccollect(job, wait = FALSE)
    if (!is.null(done)) return(done[[1]])
  }
}

resolve <- function(accept) {
  code <- sub("^wormhole://", "", accept$via)
  folder <- tempfile("future-")
  dir.create(folder)
  old <- setwd(folder)
  on.exit(setwd(old))
  if (!wormhole(c("receive", "--hide-progress", paste0(code, "-f")), input = "y")) return()
  f <- readRDS(list.files(folder)[1])
  if (paste(f$uuid, collapse = "-") != accept$future) return(note("another uuid"))
  # Old versions of package future evaluate no future of another process.
  f$owner <- NULL
  note("evaluating ", accept$future)
  result <- outcome(evaluate(f), accept$from, accept$future)
  if (is.null(result)) return(note("withdrawn ", accept$future))
  # Old versions evaluate a copy, which has a name of its own.
  if (length(f$uuid) == 1 && inherits(result, "FutureResult")) result$uuid <- f$uuid
  if (bad == "silent") return()
  if (bad == "uuid") result$uuid <- "0-0"
  if (bad == "text") result <- "forty-two"
  saveRDS(result, "result.rds")
  say(board, "result", from = peer$me, to = accept$from, future = accept$future, via = accept$via)
  if (wormhole(c("send", "--hide-progress", paste0("--code=", code, "-r"), "result.rds"))) note("sent ", accept$future)
}

# Offers on the oldest open request, and waits for what becomes of it.
requests <- list()
offered <- NULL
repeat {
  message <- read_message(hear(board))
  if (!is.null(message) && is_valid(message)) {
    future <- message$future
    if (message$type == "request") requests[[future]] <- message
    if (message$type %in% c("accept", "withdraw")) requests[[future]] <- NULL
    if (message$type == "accept") {
      if (identical(message$to, peer$me) && !is.null(offered) && offered$future == future) resolve(message)
      if (!is.null(offered) && offered$future == future) offered <- NULL
    }
    if (message$type == "withdraw" && !is.null(offered) && offered$future == future) offered <- NULL
  }
  requests <- Filter(is_valid, requests)
  if (!is.null(offered) && Sys.time() > offered$until) offered <- NULL
  if (is.null(offered) && length(requests) > 0) {
    request <- requests[[1]]
    requests[[1]] <- NULL
    say(board, "offer", from = peer$me, to = request$from, future = request$future, protocols = "wormhole", valid = 15)
    offered <- list(future = request$future, until = Sys.time() + 15)
  }
}
