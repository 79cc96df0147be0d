# What every task of the escape suite begins with. The native probe and a script come with the future, as bytes: the
# harness fills in the script (see world.rs). Each act's outcome is one line: "@@", its name, a tab, the outcome.
#
# The outcome is "ok", the name of an error number, or what the act says itself.
local({
  # The probe is started by the loader: a task may read and map what it wrote, and Landlock lets it execute none of it.
  probe <- file.path(tempdir(), "probe")
  writeBin(PROBE, probe)
  Sys.chmod(probe, "700")
  loader <- Sys.glob(c("/lib64/ld-linux-*.so.*", "/lib/ld-linux-*.so.*"))[1L]

  errors <- c(
    ENOENT = "No such file or directory", EACCES = "Permission denied", EPERM = "Operation not permitted",
    EROFS = "Read-only file system", EXDEV = "Invalid cross-device link", ENOSPC = "No space left on device",
    ENOSYS = "Function not implemented", ENOTDIR = "Not a directory", EISDIR = "Is a directory",
    ENXIO = "No such device or address", EFBIG = "File too large", EMFILE = "Too many open files"
  )

  # Why it failed, or what it came to. The first warning counts: R says there why a file cannot be opened.
  outcome <- function(expression) {
    failed <- function(condition) {
      text <- conditionMessage(condition)
      known <- names(errors)[vapply(errors, grepl, NA, text, fixed = TRUE)]
      if (length(known) > 0L) known[1L] else paste("error:", gsub("[\t\n]", " ", text))
    }
    tryCatch({
      value <- eval(expression, new.env(parent = globalenv()))
      if (is.null(value) || isTRUE(value)) "ok" else paste(gsub("[\t\n]", " ", as.character(value)), collapse = " ")
    }, error = failed, warning = failed)
  }

  # Acts in R, as text, by name.
  r_acts <- function(acts) {
    for (name in names(acts)) {
      said <- outcome(parse(text = acts[[name]], keep.source = FALSE))
      cat("@@", name, "\t", said, "\n", sep = "")
    }
  }

  # Acts of the probe: lines "name TAB act TAB argument ...".
  native_acts <- function(lines) {
    input <- tempfile()
    writeLines(lines, input)
    cat(system2(loader, c(shQuote(probe), "batch"), stdin = input, stdout = TRUE, stderr = TRUE), "", sep = "\n")
  }

  # One act of the probe, its outcome as a string.
  native <- function(...) {
    said <- system2(loader, c(shQuote(probe), shQuote(c(...))), stdout = TRUE, stderr = TRUE)
    paste(said, collapse = " ")
  }

  helpers <- list(
    probe = probe, loader = loader, outcome = outcome, r_acts = r_acts, native_acts = native_acts, native = native
  )
  list2env(helpers, globalenv())
})
eval(parse(text = rawToChar(SCRIPT), keep.source = FALSE), globalenv())
invisible(NULL)
