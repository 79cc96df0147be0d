# The host of a shared cluster, as the R package future.p2p makes it: Rscript r_host.R HOST OWNER/NAME USER,USER [SECONDS]
#
# Its hello is repeated every 2 minutes, or SECONDS, and followed by a line that is no message.

peers <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(peers, "peer.R"))
arguments <- commandArgs(trailingOnly = TRUE)
every <- if (length(arguments) > 3) as.numeric(arguments[4]) else 120
host <- arguments[1]
user <- account(host)
name <- sub(".*/", "", arguments[2])
users <- strsplit(arguments[3], ",", fixed = TRUE)[[1]]
me <- sprintf("%s@%s:%d", user, Sys.info()[["nodename"]], Sys.getpid())
stopifnot(sub("/.*", "", arguments[2]) == user)

invisible(channels(host))
board <- open_pipe(host, paste0(name, "/future.p2p"), paste("-a", arguments[3]))
next_hello <- Sys.time()
repeat {
  if (Sys.time() >= next_hello) {
    say(board, "cluster", from = me, protocols = "wormhole", valid = 2 * every)
    expires <- format(round(as.numeric(Sys.time()) + 2 * every), scientific = FALSE)
    say_line(board, sprintf("owner=%s,nusers=%d,users=%s,expires=%s", user, length(users), paste(users, collapse = ";"), expires))
    next_hello <- Sys.time() + every
    note("said hello")
  }
  line <- hear(board)
  if (!is.null(line)) note("heard ", line)
}
