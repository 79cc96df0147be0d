# The child `p2p-worker client --stdio` of a plan: its start and end, orders to it, events from it. All waiting for others is
# done there. Here nothing polls and nothing sleeps: R either looks at what has come (`pump(client)`) or blocks in poll(2)
# until something comes (`pump(client, timeout)`), where an interrupt gets through.
#
# A client is an environment. Events change it and its tasks with interrupts held back, and run no code of the user;
# conditions are signalled later, by who asks for a future.

# How long the child may take to say hello, in seconds.
patience_for_hello <- function() getOption("future.libp2p.hello", 20)

# How many of the last lines of its standard error are shown when it has died.
last_words <- 5L

start_client <- function(program, arguments) {
  client <- new.env(parent = emptyenv())
  client$program <- program
  client$pid <- Sys.getpid()
  client$folder <- tempfile(sprintf("p2p-%d-", client$pid))
  if (!dir.create(client$folder, mode = "0700")) stop("cannot make the folder ", client$folder, call. = FALSE)
  client$errors <- paste0(client$folder, ".log")
  client$tasks <- new.env(parent = emptyenv())
  client$workers <- list()
  client$outbox <- raw()
  client$state <- "starting"
  # Without `cleanup`: the end of its input ends the child, which then takes back what is open.
  client$process <- processx::process$new(program, c("client", "--stdio", "--folder", client$folder, arguments),
    stdin = "|", stdout = "|", stderr = client$errors, cleanup = FALSE
  )
  client$input <- client$process$get_input_connection()
  client$output <- client$process$get_output_connection()
  reg.finalizer(client, stop_client, onexit = TRUE)
  greet(client)
  client
}

greet <- function(client) {
  send(client, "hello", protocol = protocol_version, package = own_version(), r = as.character(getRversion()))
  ends <- proc.time()[[3L]] + patience_for_hello()
  while (client$state == "starting" && is.null(client$refused)) {
    left <- ends - proc.time()[[3L]]
    if (left <= 0) {
      stop_client(client)
      stop("p2p-worker (", client$program, ") did not answer within ", patience_for_hello(), " s",
        words_of(client), call. = FALSE)
    }
    pump(client, left)
  }
  if (!is.null(client$refused)) {
    refused <- client$refused
    stop_client(client)
    stop(sprintf(
      "future.libp2p %s speaks protocol %d, but p2p-worker %s (%s) speaks protocol %s: update the older of the two",
      own_version(), protocol_version, or(clean(refused$version), "?"), client$program, or(clean(refused$protocol), "?")
    ), call. = FALSE)
  }
  if (client$state == "dead" && identical(client$board$state, "gone")) {
    stop(paste(sentence(clean(no_board(client))), sentence(clean(or(client$board$hint, "")))), call. = FALSE)
  }
  if (client$state == "dead") {
    stop("p2p-worker cannot be used: ", client$death, ". If it is an old version, update it: ", client$program, call. = FALSE)
  }
}

or <- function(value, otherwise) if (is.null(value)) otherwise else value

own_version <- function() as.character(utils::packageVersion("future.libp2p"))

is_usable <- function(client) {
  identical(client$state, "ready") && identical(client$pid, Sys.getpid())
}

# Whether it can take another future: one whose board is gone for good only ends what it has.
takes_more <- function(client) is_usable(client) && !identical(client$board$state, "gone")

# Ends the child by ending its input. It takes back what is open and has a second for it while R waits, and 5 in all.
stop_client <- function(client) {
  if (client$state %in% c("dead", "stopped") || !identical(client$pid, Sys.getpid())) return(invisible())
  client$state <- "stopped"
  suspendInterrupts({
    try(close(client$input), silent = TRUE)
    client$process$wait(1000L)
  })
  settle_all(client, list(kind = "failed", class = "withdrawn", reason = "its plan was ended"))
  if (!client$process$is_alive()) unlink(c(client$folder, client$errors), recursive = TRUE)
  invisible()
}

# ---- orders ----

send <- function(client, kind, ...) {
  line <- charToRaw(paste0(format_line(kind, ...), "\n"))
  suspendInterrupts(client$outbox <- c(client$outbox, line))
  write_orders(client)
}

# What the pipe does not take now is written later: this does not block.
write_orders <- function(client) {
  if (length(client$outbox) == 0L) return(invisible())
  suspendInterrupts({
    rest <- tryCatch(processx::conn_write(client$input, client$outbox), error = function(e) raw())
    client$outbox <- if (is.raw(rest)) rest else raw()
  })
  invisible()
}

# ---- events ----

# Takes what has come. With a time (in seconds, perhaps Inf) it waits that long for something to come.
pump <- function(client, timeout = 0) {
  if (!client$state %in% c("starting", "ready") || !identical(client$pid, Sys.getpid())) return(invisible(FALSE))
  write_orders(client)
  if (timeout > 0) {
    # While the child is behind in reading, the rest of the orders is tried again soon.
    if (length(client$outbox) > 0L) timeout <- min(timeout, 0.05)
    milliseconds <- if (is.finite(timeout)) as.integer(min(ceiling(timeout * 1000), 1e9)) else -1L
    processx::poll(list(client$output), milliseconds)
  }
  suspendInterrupts(take_events(client))
  invisible(TRUE)
}

take_events <- function(client) {
  repeat {
    # An error is a connection that is no more.
    lines <- tryCatch(processx::conn_read_lines(client$output), error = function(e) character())
    if (length(lines) == 0L) break
    for (line in lines) take_event(client, parse_line(line))
  }
  more <- tryCatch(processx::conn_is_incomplete(client$output), error = function(e) FALSE)
  if (!more) declare_dead(client)
}

take_event <- function(client, event) {
  if (!is.null(event$future)) return(take_task_event(client, event))
  switch(event$kind,
    hello = {
      if (!identical(event$protocol, as.character(protocol_version))) {
        client$refused <- event
      } else {
        client$hello <- event
        client$me <- event$me
        client$state <- "ready"
      }
    },
    refused = client$refused <- event,
    board = {
      if (identical(event$state, "joined") && !identical(client$board$state, "joined")) client$joined <- proc.time()[[3L]]
      client$board <- event
      if (!is.null(event$me)) client$me <- event$me
    },
    status = client$status <- event,
    worker = if (!is.null(event$name)) client$workers[[event$name]] <- event,
    pong = client$pong <- event$n,
    error = {
      client$complaint <- event
      fail_unread(client, event)
    }
  )
}

# An order that could not be read is a fault of ours; the futures that were never heard of must not wait for ever.
fail_unread <- function(client, event) {
  for (task in as.list(client$tasks)) {
    if (task$state == "sent") {
      settle(client, task, list(kind = "failed", class = "launch", reason = paste0("p2p-worker did not understand: ", event$reason)))
    }
  }
}

take_task_event <- function(client, event) {
  task <- client$tasks[[event$future]]
  # It was given up here, and what came of it is nobody's.
  if (is.null(task)) {
    if (!is.null(event$file)) unlink(in_folder(client, event$file))
    return(invisible())
  }
  task$times[[event$kind]] <- Sys.time()
  switch(event$kind,
    posted = task$state <- "posted",
    accepted = {
      # Another worker begins anew, and so do its conditions.
      if (!identical(task$worker, event$worker)) task$relayed <- list()
      task$state <- "accepted"
      task$worker <- event$worker
      task$waits_since <- NULL
    },
    running = {
      task$state <- "running"
      task$driver <- event$driver
      task$profile <- event$profile
    },
    progress = task$progress <- c(task$progress, event$file),
    printed = task$printed <- c(task$printed, event$text),
    returned = task$worker <- event$worker,
    again = {
      task$state <- "posted"
      task$waits_since <- proc.time()[[3L]]
      task$news <- c(task$news, paste0("Future ", sQuote(task$name, FALSE), " is posted again: ", clean(event$reason)))
    },
    waiting = task$news <- c(task$news, nobody(client, task, event)),
    done = ,
    failed = settle(client, task, event)
  )
}

nobody <- function(client, task, event) {
  paste0(
    "Nobody in cluster ", or(clean(client$board$cluster), "(not joined yet)"), " has taken future ", sQuote(task$name, FALSE),
    " for ", clean(event$seconds), " s: is a worker running there, and does it have room?"
  )
}

settle <- function(client, task, outcome) {
  task$outcome <- outcome
  task$state <- outcome$kind
  if (exists(task$id, envir = client$tasks, inherits = FALSE)) rm(list = task$id, envir = client$tasks)
}

settle_all <- function(client, outcome) for (task in as.list(client$tasks)) settle(client, task, outcome)

# Files that the child names lie in the folder, whatever it says.
in_folder <- function(client, name) file.path(client$folder, basename(name))

# ---- its end ----

declare_dead <- function(client) {
  client$process$wait(2000L)
  if (client$process$is_alive()) client$process$kill()
  client$death <- paste0(how_it_ended(client), words_of(client))
  client$state <- "dead"
  gone <- identical(client$board$state, "gone")
  settle_all(client, if (gone) {
    list(kind = "failed", class = "board", reason = no_board(client),
      hint = or(client$board$hint, "The next future tries to reach it again"))
  } else {
    list(kind = "failed", class = "interrupted", reason = client$death,
      hint = paste0("The next future starts it again. ", run_again))
  })
  unlink(client$errors)
}

no_board <- function(client) {
  paste0("the board ", or(client$board$board, ""), " is gone: ", sub("[.]+$", "", or(client$board$reason, client$death)))
}

how_it_ended <- function(client) {
  status <- client$process$get_exit_status()
  if (is.null(status)) {
    "p2p-worker, which this R session started, closed its output"
  } else if (status < 0L) {
    sprintf("p2p-worker, which this R session started, was killed by signal %d", -status)
  } else {
    sprintf("p2p-worker, which this R session started, ended with exit status %d", status)
  }
}

words_of <- function(client) {
  lines <- tryCatch(suppressWarnings(readLines(client$errors, warn = FALSE)), error = function(e) character())
  lines <- lines[nzchar(trimws(lines))]
  if (length(lines) == 0L) return("")
  paste0(", after saying: ", paste(clean(utils::tail(lines, last_words), 400L), collapse = " | "))
}

# Asks for the state and the workers, and waits for the answer.
ask_status <- function(client, timeout = 2) {
  client$workers <- list()
  client$status <- NULL
  n <- as.character(or(client$asked, 0) + 1)
  client$asked <- as.numeric(n)
  send(client, "status")
  send(client, "ping", n = n)
  ends <- proc.time()[[3L]] + timeout
  while (is_usable(client) && !identical(client$pong, n) && (left <- ends - proc.time()[[3L]]) > 0) pump(client, left)
  identical(client$pong, n)
}
