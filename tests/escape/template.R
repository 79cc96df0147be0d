# Makes the future that carries every task of the escape suite: arguments are task.R, the probe and the RDS to write.
# The script is 192 KiB of "#", which the harness overwrites, so that R is started once and not for every task.
arguments <- commandArgs(trailingOnly = TRUE)
probe <- readBin(arguments[2L], "raw", file.size(arguments[2L]))
script <- rep(charToRaw("#"), 196608L)
code <- as.call(c(as.name("{"), as.list(parse(arguments[1L], keep.source = FALSE))))
code <- do.call(substitute, list(code, list(PROBE = probe, SCRIPT = script)))
future <- future::Future(code, substitute = FALSE, envir = globalenv(), lazy = TRUE, globals = list())
assign("calls", NULL, envir = future)
saveRDS(future, arguments[3L], compress = FALSE)
