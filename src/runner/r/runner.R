# p2p-worker: what R does in the sandbox. One process, one job, then the end.
#
#   run   fd 0: the RDS of a Future         frames: B, P ..., R with the RDS of its FutureResult
#         (with P2P_AHEAD: behind a line that says what P2P_WHOLE and P2P_FUTURE would; or, before it is known which future
#         comes, behind the line "early" and before a line feed and a line with the name)
#   make  fd 0: R code as UTF-8 text        frames: R with the RDS of a Future that does what `Rscript -e` does
#   name  fd 0: the RDS of a Future         frames: R with its uuid as text
#   show  fd 0: the RDS of a FutureResult   frames: R with what `Rscript` would have printed, as records
#
# Frames go to fd 3: tag (1 byte), length (u32, little endian), payload; an R frame has the length 0xFFFFFFFF and goes
# on to a zero and the word in P2P_ENDING, or, without one, to the end of the file. fd 1 and fd 2 are one pipe for text that nobody reads by machine.
#
# Everything lives in an environment of its own below the base package: the user's code may empty the global
# environment, detach packages, redirect or close every connection, and this still works. It does not protect the
# user from the user: code that writes to fd 3 spoils its own result and nothing else.
# R reads a script line by line, which costs 0.1 s of CPU time for an expression as long as this file; parse() takes 2 ms.
# So the first expression parses the file and evaluates the second, which ends the process.
eval(parse(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[1L]), keep.source = FALSE)[[2L]])

local({
  mode <- commandArgs(trailingOnly = TRUE)[1L]
  announced <- Sys.getenv("P2P_FUTURE")
  whole <- Sys.getenv("P2P_WHOLE") == "yes"
  ahead <- Sys.getenv("P2P_AHEAD") == "yes"
  allowed <- Sys.getenv("P2P_LIMITS")
  ending <- Sys.getenv("P2P_ENDING")
  Sys.unsetenv(c("P2P_FUTURE", "P2P_WHOLE", "P2P_AHEAD", "P2P_LIMITS", "P2P_ENDING", "R_ENABLE_JIT"))
  process <- Sys.getpid()
  frames <- if (file.exists("/dev/fd/3")) "/dev/fd/3" else "/proc/self/fd/3"
  # No start-up file of package future, one core, whatever package parallel or parallelly think of the machine.
  options(future.startup.script = FALSE, mc.cores = 1L)

  # parallel::detectCores() counts in /proc/cpuinfo. Where a task has none it would be NA, and mclapply(mc.cores = NA) an error.
  cores <- function() {
    status <- grep("^Cpus_allowed_list:", readLines("/proc/self/status"), value = TRUE)
    ranges <- strsplit(strsplit(sub("^[^:]*:[[:space:]]*", "", status), ",", fixed = TRUE)[[1L]], "-", fixed = TRUE)
    sum(vapply(ranges, function(range) diff(range(as.integer(range))) + 1L, 0L))
  }
  if (!file.exists("/proc/cpuinfo")) setHook(packageEvent("parallel", "onLoad"), function(...) {
    package <- asNamespace("parallel")
    count <- cores()
    unlockBinding("detectCores", package)
    assign("detectCores", function(all.tests = FALSE, logical = TRUE) count, envir = package)
    lockBinding("detectCores", package)
  })

  # ---- frames ----

  # The descriptor is opened anew for every frame: a connection kept open could be closed by the user's code, and
  # package future would report it as a change made by that code. A forked child writes nothing.
  with_frames <- function(write) {
    if (Sys.getpid() != process) return(invisible(FALSE))
    to <- file(frames, "wb", raw = TRUE)
    on.exit(close(to))
    write(to)
    invisible(TRUE)
  }

  little_endian <- function(number) writeBin(as.integer(number), raw(), size = 4L, endian = "little")

  frame <- function(tag, payload = raw()) {
    with_frames(function(to) writeBin(c(charToRaw(tag), little_endian(length(payload)), payload), to))
  }

  # The last frame, without compression: the limit on the result is then a limit on what its reader will need, and
  # the task's CPU time is spent on the task. Whoever carries it may compress it.
  last_frame <- function(write) {
    with_frames(function(to) {
      writeBin(c(charToRaw("R"), as.raw(rep(255L, 4L))), to)
      write(to)
      if (nzchar(ending)) writeBin(c(as.raw(0L), charToRaw(ending)), to)
    })
  }

  # ---- input ----

  # Opened once: a second connection would miss what the first has read in advance.
  input <- function() {
    if (is.null(from)) from <<- file("stdin", "rb", raw = TRUE)
    from
  }
  from <- NULL

  # The bytes before the next line feed.
  read_line <- function() {
    line <- raw()
    while (length(byte <- readBin(input(), "raw", 1L)) > 0L && byte != as.raw(10L)) line <- c(line, byte)
    # Nobody needs this process.
    if (length(byte) == 0L) quit(save = "no", status = 0L, runLast = FALSE)
    rawToChar(line)
  }

  # Waits for the line that says which future comes, or for the object that comes before it. Returns how to get the object.
  await_future <- function() {
    words <- strsplit(read_line(), " ", fixed = TRUE)[[1L]]
    if (words[1L] != "early") {
      whole <<- words[1L] == "yes"
      announced <<- words[2L]
      return(read_object)
    }
    # Without an object nobody knows where the name begins, so this is no result but this process's last words.
    object <- tryCatch(unserialize(input()), error = function(e) {
      cat("what arrived cannot be read as RDS: ", conditionMessage(e), "\n", sep = "", file = stderr())
      quit(save = "no", status = 1L, runLast = FALSE)
    })
    # The name is the last line, whatever its client has put behind the object.
    bytes <- read_input()
    ends <- which(bytes == as.raw(10L))
    if (length(ends) < 2L || ends[length(ends)] != length(bytes)) quit(save = "no", status = 0L, runLast = FALSE)
    announced <<- rawToChar(bytes[(ends[length(ends) - 1L] + 1L):(length(bytes) - 1L)])
    function() object
  }

  read_input <- function() {
    from <- input()
    on.exit(close(from))
    chunks <- list()
    while (length(chunk <- readBin(from, "raw", 4194304L)) > 0L) chunks[[length(chunks) + 1L]] <- chunk
    if (length(chunks) == 1L) chunks[[1L]] else as.raw(do.call(c, chunks))
  }

  starts_with <- function(bytes, magic) {
    length(bytes) >= length(magic) && identical(bytes[seq_along(magic)], as.raw(magic))
  }

  # The object in an RDS file that is gzip, bzip2 or xz, or not compressed at all.
  decode <- function(bytes) {
    if (length(bytes) == 0L) stop("nothing arrived", call. = FALSE)
    if (starts_with(bytes, c(0x1f, 0x8b))) {
      from <- gzcon(rawConnection(bytes))
      on.exit(close(from))
      return(unserialize(from))
    }
    if (starts_with(bytes, c(0x42, 0x5a, 0x68))) bytes <- memDecompress(bytes, "bzip2")
    if (starts_with(bytes, c(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00))) bytes <- memDecompress(bytes, "xz")
    unserialize(bytes)
  }

  # The object of the RDS that arrives. A large one is read as it comes, so that nothing is held but the object; bzip2 and xz
  # are not, because R cannot look ahead in a pipe: who sends them says so.
  read_object <- function() {
    if (whole) return(decode(read_input()))
    from <- gzcon(input())
    on.exit(close(from))
    unserialize(from)
  }

  # ---- names of futures ----

  # A future's uuid as package future holds it: one string in old versions; session and counter in newer ones.
  split_uuid <- function(text) {
    if (grepl("^[0-9a-f]{32}-[0-9]+$", text)) strsplit(text, "-", fixed = TRUE)[[1L]] else text
  }

  join_uuid <- function(uuid) paste(uuid, collapse = "-")

  is_uuid <- function(uuid) is.character(uuid) && length(uuid) > 0L && !anyNA(uuid) && all(nzchar(uuid))

  # ---- results that are not the user's ----

  refuse <- function(...) stop(structure(class = c("p2p_refusal", "error", "condition"), list(message = paste0(...), call = NULL)))

  launch_error <- function(why, uuid) {
    structure(
      class = c("FutureLaunchError", "FutureError", "error", "FutureCondition", "condition"),
      list(message = sprintf("Future (%s) could not be evaluated on the worker: %s", join_uuid(uuid), why), call = NULL),
      uuid = uuid
    )
  }

  # A FutureResult around one error, made without package future: it may be the very thing that is missing.
  failed <- function(condition, uuid, started) {
    attr(condition, "future") <- NULL
    structure(
      class = "FutureResult",
      list(
        value = NULL, visible = TRUE, stdout = "",
        conditions = list(list(condition = condition, signaled = 0L)),
        rng = FALSE, started = started, finished = Sys.time(), uuid = uuid, session_uuid = NA_character_,
        r_info = list(
          version = getRversion(), os = .Platform[["OS.type"]], os_name = Sys.info()[["sysname"]],
          captures_utf8 = TRUE
        ),
        version = "1.8"
      )
    )
  }

  # ---- limits that show as errors ----

  # Words of R's by which a limit of the worker shows. They may come from elsewhere, so they make a "perhaps".
  words_of <- c(
    room = "No space left on device",
    file = "File too large",
    descriptors = "Too many open files",
    processes = "Resource temporarily unavailable",
    heap = "vector memory exhausted|vector memory limit of|cannot allocate vector of size",
    space = "cannot allocate vector of size|[Cc](annot|ould not) allocate memory|bad_alloc"
  )
  # What R says of a file that it could not write, without a reason.
  not_written <- "error writing to connection|write (error|failed)|problem (copying|closing)"

  # Whether there is no room: tried, as only trying tells.
  is_full <- function(folder) {
    path <- tempfile("p2p", folder)
    on.exit(unlink(path))
    why <- character()
    opened <- FALSE
    tryCatch(withCallingHandlers({
      to <- file(path, "wb", raw = TRUE)
      opened <- TRUE
      tryCatch(writeBin(raw(65536L), to), finally = close(to))
    }, warning = function(w) {
      why <<- c(why, conditionMessage(w))
      invokeRestart("muffleWarning")
    }), error = identity)
    if (opened) !identical(file.size(path), 65536) else any(grepl(words_of[["room"]], why, fixed = TRUE))
  }

  # Whether a file is as large as a file may be.
  is_there_a_file_of <- function(size, folders) {
    files <- list.files(folders, all.files = TRUE, full.names = TRUE, recursive = TRUE, no.. = TRUE)
    any(file.size(files) == size, na.rm = TRUE)
  }

  # A folder cannot be read without a free descriptor.
  are_descriptors_used_up <- function(limit) {
    open <- length(list.files("/proc/self/fd"))
    dir.exists("/proc/self/fd") && (open == 0L || open >= limit)
  }

  # Which limits an error with these words was, for sure or perhaps, with their values; nothing for other errors.
  limits_met <- function(words) {
    limits <- strsplit(strsplit(allowed, "\n", fixed = TRUE)[[1L]], "\t", fixed = TRUE)
    limits <- Filter(function(limit) length(limit) == 3L && limit[1L] %in% names(words_of), limits)
    kinds <- vapply(limits, `[`, "", 1L)
    folders <- vapply(limits[kinds == "room"], `[`, "", 2L)
    said <- function(what) any(grepl(what, words))
    is_sure <- function(kind, value) {
      switch(kind,
        room = (said(words_of[["room"]]) || said(not_written)) && is_full(value),
        file = (said(words_of[["file"]]) || said(not_written)) && is_there_a_file_of(as.numeric(value), folders),
        descriptors = said(words_of[["descriptors"]]) && are_descriptors_used_up(as.numeric(value)),
        heap = said("^vector memory (exhausted|limit of)"),
        FALSE
      )
    }
    sure <- vapply(limits, function(limit) is_sure(limit[1L], limit[2L]), NA)
    maybe <- vapply(kinds, function(kind) said(words_of[[kind]]), NA)
    values <- function(which) paste(vapply(limits[which], `[`, "", 3L), collapse = "; ")
    if (any(sure)) return(paste0("a limit of the worker was reached: ", values(sure)))
    if (any(maybe)) paste0("perhaps a limit of the worker: it allows ", values(maybe))
  }

  # Adds to the error in a result which limit it was. A result without an error stays as it is.
  name_limits <- function(result) {
    conditions <- result[["conditions"]]
    is_a <- function(classes) vapply(conditions, function(entry) inherits(entry[["condition"]], classes), NA)
    error <- which(is_a("error"))
    if (length(error) == 0L || !nzchar(allowed)) return(result)
    text <- function(entry) paste(as.character(conditionMessage(entry[["condition"]])), collapse = "\n")
    note <- limits_met(vapply(conditions[is_a(c("error", "warning"))], text, ""))
    last <- error[length(error)]
    said <- conditions[[last]][["condition"]][["message"]]
    if (is.null(note) || !is.character(said) || length(said) != 1L) return(result)
    result[["conditions"]][[last]][["condition"]][["message"]] <- paste0(said, "\n[", note, "]")
    result
  }

  # ---- run ----

  field <- function(future, name) get0(name, envir = future, inherits = FALSE)

  # What must hold before anything of it is evaluated. Returns the uuid.
  check_future <- function(future, announced) {
    if (!inherits(future, "Future") || !is.environment(future)) {
      refuse("what arrived is not a Future but an object of class ", paste(sQuote(class(future), FALSE), collapse = ", "))
    }
    uuid <- field(future, "uuid")
    if (!is_uuid(uuid)) refuse("what arrived only looks like a Future: it has no uuid")
    if (nzchar(announced) && !identical(join_uuid(uuid), announced)) {
      refuse("another future arrived than the one that was announced: ", join_uuid(uuid))
    }
    absent <- setdiff(c("expr", "globals", "stdout", "conditions", "state"), names(future))
    if (length(absent) > 0L) {
      refuse("what arrived only looks like a Future: it lacks ", paste(sQuote(absent, FALSE), collapse = ", "))
    }
    if (!identical(field(future, "state"), "created")) refuse("the future has been started already")
    uuid
  }

  # Futures are of two kinds, with an environment of their own or with a field `reset`; a package future knows one.
  check_kind <- function(future) {
    here <- paste0("this worker has package future ", getNamespaceVersion("future"))
    if ("reset" %in% names(future::Future(NULL, lazy = TRUE, globals = list()))) {
      if (is.null(field(future, "reset"))) refuse("it was made by an older package future; ", here, ": update yours")
    } else if (!is.environment(field(future, "envir"))) {
      refuse("it was made by a newer package future; ", here, ", which cannot read it")
    }
  }

  # As good as new: nothing of where it was made, and launched by asking for its result.
  reset <- function(future) {
    class(future) <- c("Future", if (is.environment(field(future, "envir"))) "environment")
    fresh <- list(owner = NULL, lazy = TRUE, earlySignal = FALSE, result = NULL)
    for (name in names(fresh)) assign(name, fresh[[name]], envir = future)
    future
  }

  # R starts without its compiler, which takes 0.1 s for what runs once here, in this file and in package future. The user's
  # code has it as everywhere: it is on from here until package future makes the result. Results that are made further up the
  # stack are of futures within this one: package future makes its own 14 (1.31) to 30 (1.75) frames above, those of a future
  # within 37 to 71 frames above.
  compiler <- local({
    set <- function(level) .Internal(enableJIT(level))
    from <- 0L
    list(
      on = function() {
        from <<- sys.nframe()
        set(3L)
      },
      off = function() set(0L),
      result_at = function(frame) if (frame < from + 34L) set(0L)
    )
  })

  # Sends immediateConditions at once. Newer versions of package future signal such a condition once more from within,
  # and then let the first signal pass: the second of such a pair is not sent.
  relay <- function() {
    inside <- asNamespace("future")
    before <- list(condition = NULL, depth = 0L, within = 0L)
    function(condition) {
      depth <- sys.nframe()
      within <- sum(vapply(sys.frames(), function(frame) identical(topenv(frame), inside), NA))
      echo <- depth < before$depth && within < before$within && identical(condition, before$condition)
      before <<- list(condition = condition, depth = depth, within = within)
      if (echo) return()
      payload <- tryCatch(serialize(condition, NULL), error = function(e) raw())
      if (length(payload) > 0L && length(payload) <= 1048576L) tryCatch(frame("P", payload), error = identity)
    }
  }

  # Where there is no room on R's stack to note an error, package future makes a result with neither a value nor a condition,
  # which would pass for a success. It names a value only where there is one: whether it did so the last time. (Old versions
  # make the result of an error without this function, and without `visible`.)
  watch_results <- function() {
    package <- asNamespace("future")
    original <- package[["FutureResult"]]
    has_value <- FALSE
    unlockBinding("FutureResult", package)
    assign("FutureResult", function(value = NULL, ...) {
      compiler$result_at(sys.nframe())
      has_value <<- !missing(value)
      original(value = value, ...)
    }, envir = package)
    lockBinding("FutureResult", package)
    function() has_value
  }

  # What the client's session forwards, as backends of package future do: options that concern futures, and the plan for
  # futures within this one. Only package future.libp2p sends it.
  adopt <- function(future) {
    forwarded <- field(future, "p2p")
    if (!is.list(forwarded)) return()
    if (is.list(forwarded[["options"]])) do.call(options, forwarded[["options"]])
    if (length(forwarded[["plan"]]) > 0L) {
      future::plan(c(list(future::sequential), forwarded[["plan"]]), substitute = FALSE, .init = FALSE)
    }
  }

  evaluate <- function(future, uuid) {
    adopt(future)
    came_to_a_value <- watch_results()
    compiler$on()
    result <- withCallingHandlers(future::result(reset(future)), immediateCondition = relay())
    if (!inherits(result, "FutureResult")) stop("package future gave no FutureResult", call. = FALSE)
    noted <- vapply(result[["conditions"]], function(entry) inherits(entry[["condition"]], c("error", "interrupt")), NA)
    if (!(came_to_a_value() && is.logical(result[["visible"]])) && !any(noted)) {
      stop("R ended the evaluation with an error that it could not note: its stack was used up (infinite recursion?)", call. = FALSE)
    }
    result[["uuid"]] <- uuid
    result
  }

  # What package future and R's compiler load when they are first used, some 20 ms of it, is loaded while nobody waits: a future
  # of ours, of which nothing is kept, goes the way of those that come. The session looks as it did before.
  rehearse <- function() {
    compiler$on()
    compiler$off()
    future <- future::Future(quote(NULL), substitute = FALSE, lazy = TRUE, globals = list())
    assign("calls", NULL, envir = future)
    future <- decode(serialize(future, NULL, xdr = .Platform$endian != "little"))
    check_future(future, "")
    check_kind(future)
    result <- withCallingHandlers(future::result(reset(future)), immediateCondition = relay())
    name_limits(result)
    close_connections()
    to <- file(nullfile(), "wb", raw = TRUE)
    on.exit(close(to))
    serialize(result, to)
  }

  # As closeAllConnections(), which calls gc() too: 40 ms for nothing.
  close_connections <- function() {
    for (i in seq_len(sink.number())) sink()
    if (sink.number(type = "message") != 2L) sink(stderr(), type = "message")
    for (number in getAllConnections()) if (number > 2L) close(getConnection(number))
  }

  run <- function() {
    has_future <- requireNamespace("future", quietly = TRUE)
    if (ahead) {
      if (has_future) tryCatch(rehearse(), error = identity)
      read_object <- await_future()
    }
    started <- Sys.time()
    uuid <- split_uuid(announced)
    attempt <- function() {
      if (!has_future) refuse("package future cannot be loaded there")
      future <- tryCatch(read_object(), error = function(e) {
        refuse("what arrived cannot be read as RDS: ", conditionMessage(e))
      })
      uuid <<- check_future(future, announced)
      check_kind(future)
      frame("B")
      evaluate(future, uuid)
    }
    result <- tryCatch(
      attempt(),
      p2p_refusal = function(e) failed(launch_error(conditionMessage(e), split_uuid(announced)), split_uuid(announced), started),
      error = function(e) failed(e, uuid, started),
      interrupt = function(e) failed(launch_error("R was interrupted", uuid), uuid, started)
    )
    setTimeLimit()
    setSessionTimeLimit()
    result <- tryCatch(name_limits(result), error = function(e) result)
    tryCatch(close_connections(), error = identity)
    last_frame(function(to) serialize(result, to))
  }

  # ---- name ----

  name <- function() {
    uuid <- tryCatch(check_future(read_object(), ""), error = function(e) {
      cat(conditionMessage(e), "\n", sep = "", file = stderr())
      quit(save = "no", status = 1L, runLast = FALSE)
    })
    last_frame(function(to) writeBin(charToRaw(join_uuid(uuid)), to))
  }

  # ---- make ----

  # How each expression of the text is evaluated; `show` knows conditions that come from the top level by it.
  top_level <- quote(base::eval(p2p_expression, base::globalenv()))

  make <- function() {
    text <- rawToChar(read_input())
    Encoding(text) <- "UTF-8"
    expressions <- tryCatch(parse(text = text, keep.source = FALSE, encoding = "UTF-8"), error = function(e) {
      cat("Error: ", conditionMessage(e), "\n", sep = "", file = stderr())
      quit(save = "no", status = 1L, runLast = FALSE)
    })
    loop <- substitute({
      p2p_value <- list(value = NULL)
      for (p2p_expression in EXPRESSIONS) {
        # A value that were still held here would be copied when the next expression changes it.
        p2p_value["value"] <- base::list(NULL)
        p2p_value <- base::withVisible(TOP_LEVEL)
        if (p2p_value$visible) base::print(p2p_value$value)
        base::signalCondition(base::structure(class = c("p2p_top_level", "condition"), list(message = "", call = NULL)))
      }
      base::invisible(p2p_value$value)
    }, list(EXPRESSIONS = expressions, TOP_LEVEL = top_level))
    future <- future::Future(loop, substitute = FALSE, envir = globalenv(), lazy = TRUE, globals = list())
    # Nothing of where it was made, which old versions of package future would insist on.
    for (name in c("calls", "owner")) assign(name, NULL, envir = future)
    # In the form of this version of package future: an old one takes no uuid of two parts, when it is the worker's.
    if (nzchar(announced)) assign("uuid", if (length(future$uuid) > 1L) split_uuid(announced) else announced, envir = future)
    last_frame(function(to) serialize(future, to))
  }

  # ---- show ----

  # Longer lines than this are broken after the call, as R does in errors.c.
  long_line <- 75L

  deparse_call <- function(call) {
    if (is.null(call) || identical(call, top_level)) NULL else deparse(call, nlines = 1L)[1L]
  }

  is_long <- function(call, text, extra) {
    first <- strsplit(text, "\n", fixed = TRUE)[[1L]][1L]
    extra + nchar(call, "width") + nchar(if (is.na(first)) "" else first, "width") > long_line
  }

  text_of <- function(condition) paste(as.character(conditionMessage(condition)), collapse = "")

  warning_line <- function(condition, extra) {
    call <- deparse_call(conditionCall(condition))
    text <- text_of(condition)
    if (is.null(call)) return(paste0(text, " \n"))
    paste0("In ", call, " :", if (is_long(call, text, extra)) "\n  " else " ", text, "\n")
  }

  warnings_text <- function(warnings) {
    count <- length(warnings)
    if (count == 0L) return("")
    if (count == 1L) return(paste0("Warning message:\n", warning_line(warnings[[1L]], 6L)))
    if (count <= 10L) {
      lines <- vapply(warnings, warning_line, "", extra = 10L)
      return(paste0("Warning messages:\n", paste0(seq_along(lines), ": ", lines, collapse = "")))
    }
    if (count < 50L) return(sprintf("There were %d warnings (use warnings() to see them)\n", count))
    "There were 50 or more warnings (use warnings() to see the first 50)\n"
  }

  # The names of the functions that were active, from the expression down to the one that failed.
  active_functions <- function(calls) {
    outer <- which(vapply(calls, identical, NA, top_level))
    if (length(outer) == 0L) return(character())
    calls <- calls[-seq_len(max(outer))]
    names <- vapply(calls, function(call) if (is.call(call)) deparse(call[[1L]], nlines = 1L)[1L] else "", "")
    # Package future adds the failing call once more at the end.
    last <- min(length(names), match(c("stop", ".handleSimpleError"), names, length(names) + 1L))
    names[seq_len(max(0L, last - 1L))]
  }

  # R keeps the outermost name and as many of the innermost as fit into 50 characters.
  calls_text <- function(entry) {
    names <- active_functions(as.list(entry$calls))
    call <- conditionCall(entry$condition)
    if (length(names) == 0L || is.null(call)) return("")
    if (length(names) == 1L && is.call(call) && identical(names, deparse(call[[1L]], nlines = 1L)[1L])) return("")
    text <- names[length(names)]
    rest <- names[-length(names)]
    while (length(rest) > 0L && nchar(text) <= 50L) {
      text <- paste(rest[length(rest)], text, sep = " -> ")
      rest <- rest[-length(rest)]
    }
    if (length(rest) > 0L) text <- paste(rest[1L], "...", text)
    paste0("Calls: ", text, "\n")
  }

  error_text <- function(entry, warnings) {
    text <- text_of(entry$condition)
    call <- deparse_call(conditionCall(entry$condition))
    head <- if (is.null(call)) "Error: " else paste0("Error in ", call, " : ", if (is_long(call, text, 14L)) "\n  ")
    more <- if (length(warnings) > 0L) paste0("In addition: ", warnings_text(warnings))
    paste0(head, text, "\n", calls_text(entry), more, "Execution halted\n")
  }

  # Walks through the conditions in their order, as R would have shown them, and returns the exit status.
  show_conditions <- function(conditions, err) {
    warnings <- list()
    for (entry in conditions) {
      condition <- entry$condition
      if (inherits(condition, c("FutureInterruptError", "FutureLaunchError", "interrupt"))) {
        err(paste0(warnings_text(warnings), "Error: ", text_of(condition), "\n"))
        return(4L)
      }
      if (inherits(condition, "error")) {
        err(error_text(entry, warnings))
        return(1L)
      }
      if (inherits(condition, "message")) err(text_of(condition))
      if (inherits(condition, "warning")) warnings[[length(warnings) + 1L]] <- condition
      if (inherits(condition, "p2p_top_level")) {
        err(warnings_text(warnings))
        warnings <- list()
      }
    }
    err(warnings_text(warnings))
    0L
  }

  # A record is: where it goes (1 byte: 1 standard output, 2 standard error, 0 the exit status in one byte), length
  # (u32, little endian), bytes.
  show <- function() {
    records <- list()
    record <- function(kind, bytes) {
      if (length(bytes) > 0L) records[[length(records) + 1L]] <<- c(as.raw(kind), little_endian(length(bytes)), bytes)
    }
    bytes_of <- function(text) unlist(lapply(enc2utf8(as.character(text)), charToRaw))
    err <- function(text) record(2L, bytes_of(text))
    status <- tryCatch({
      result <- read_object()
      if (!inherits(result, "FutureResult") || !is.list(result)) stop("what came back is not the result of a future", call. = FALSE)
      result <- unclass(result)
      if (nzchar(announced) && !(is_uuid(result$uuid) && identical(join_uuid(result$uuid), announced))) {
        stop("what came back is the result of another future", call. = FALSE)
      }
      if (is.character(result$stdout)) record(1L, bytes_of(paste(result$stdout, collapse = "\n")))
      show_conditions(result$conditions, err)
    }, error = function(e) {
      err(paste0("Error: the result cannot be shown: ", conditionMessage(e), "\n"))
      5L
    })
    record(0L, as.raw(status))
    last_frame(function(to) writeBin(do.call(c, records), to))
  }

  switch(mode, run = run(), make = make(), name = name(), show = show(), stop("unknown mode"))
  quit(save = "no", status = 0L, runLast = FALSE)
}, envir = new.env(parent = baseenv()))
