# Conditions, errors and output: what is relayed, in which order, how often, and when.
# What the ecosystem's conformance suite asks of a backend, in tests of our own, under each plan of helper-plans.R.

under_every_plan("conditions are relayed in order, each time a value is asked for", {
  f <- future({
    message("hello")
    warning("whoops")
    message("world")
    42L
  })
  truth <- c("simpleMessage: hello", "simpleWarning: whoops", "simpleMessage: world")
  r <- result(f)
  expect_identical(vapply(r$conditions, function(entry) trimws(conditionMessage(entry$condition)), ""), c("hello", "whoops", "world"))
  expect_identical(signals(value(f)), truth)
  expect_identical(signals(value(f)), truth)
  expect_identical(signals(v <- value(f, signal = FALSE)), character())
  expect_identical(v, 42L)
  v %<-% {
    message("hello")
    warning("whoops")
    message("world")
    42L
  }
  expect_identical(signals(v), truth)
})

under_every_plan("conditions of chosen classes only", {
  f <- future({
    message("m")
    warning("w")
    1
  }, conditions = structure("condition", exclude = "message"))
  expect_identical(signals(value(f)), "simpleWarning: w")
  f <- future({
    message("m")
    1
  }, conditions = NULL)
  expect_identical(signals(value(f)), character())
})

under_every_plan("errors come back with their class and call, and the future is done", {
  f <- future({
    42L
    stop(structure(class = c("odd", "error", "condition"), list(message = "no way", call = NULL, n = 7L)))
  })
  e <- tryCatch(value(f), error = identity)
  expect_s3_class(e, "odd")
  expect_identical(e$n, 7L)
  expect_true(resolved(f))
  expect_error(value(f), "no way")
  expect_s3_class(value(f, signal = FALSE), "odd")
  e %<-% stop("again")
  expect_error(e, "again")
  f <- future(log("a"))
  expect_identical(deparse(conditionCall(tryCatch(value(f), error = identity)))[1L], "log(\"a\")")
})

under_every_plan("stdout is captured, dropped, or not captured", {
  show <- quote({
    print(1:50)
    str(1:50)
    cat(letters, sep = "-")
    cat(1:6, collapse = "\n")
    write.table(datasets::iris[1:3, ], sep = "\t")
    42L
  })
  truth <- paste0(paste(capture.output(v <- eval(show)), collapse = "\n"), "\n")
  f <- future(show, substitute = FALSE, stdout = TRUE)
  expect_identical(result(f)$stdout, truth)
  expect_identical(paste0(paste(capture.output(invisible(value(f))), collapse = "\n"), "\n"), truth)
  expect_identical(capture.output(invisible(value(f, stdout = FALSE))), character())
  for (stdout in c(FALSE, NA)) {
    f <- future(show, substitute = FALSE, stdout = stdout)
    said <- result(f)$stdout
    expect_true(is.null(said) || identical(said, ""))
    expect_identical(capture.output(expect_identical(value(f), 42L)), character())
  }
  f <- future(cat("once\n"), stdout = structure(TRUE, drop = TRUE))
  expect_identical(capture.output(invisible(value(f))), "once")
  expect_identical(capture.output(invisible(value(f))), character())
  v %<-% {
    cat("said\n")
    1
  } %stdout% TRUE
  expect_identical(capture.output(invisible(v)), "said")
  v %<-% {
    cat("said\n")
    1
  } %stdout% FALSE
  expect_identical(capture.output(invisible(v)), character())
  f <- future(cat("caf\u00e9 \u4e16\u754c\n"))
  expect_identical(enc2utf8(capture.output(value(f))), "caf\u00e9 \u4e16\u754c")
})

under_every_plan("output and conditions before an error are not lost", {
  f <- future({
    cat("out\n")
    message("msg")
    stop("end")
  })
  out <- capture.output(seen <- signals(value(f)))
  expect_identical(out, "out")
  expect_identical(seen, c("simpleMessage: msg", "simpleError: end"))
})

under_every_plan("early signalling", {
  for (lazy in c(FALSE, TRUE)) {
    f <- future(stop("bang"), lazy = lazy)
    resolve(f)
    expect_true(resolved(f))
    expect_error(value(f), "bang")
  }
  f <- suppressWarnings(future({
    Sys.sleep(0.2)
    stop("bang")
  }, earlySignal = TRUE))
  expect_error({
    while (!resolved(f)) Sys.sleep(0.01)
  }, "bang")
})

under_every_plan("immediateConditions come once each, and while the future runs", {
  step <- function(i) structure(class = c("step", "immediateCondition", "condition"), list(message = as.character(i), call = NULL))
  f <- future({
    for (i in 1:3) {
      signalCondition(step(i))
      Sys.sleep(0.4)
    }
    Sys.time()
  })
  times <- list()
  end <- withCallingHandlers(value(f), step = function(condition) times[[conditionMessage(condition)]] <<- Sys.time())
  expect_identical(names(times), c("1", "2", "3"))
  if (inherits(f, "Libp2pFuture")) expect_lt(as.numeric(times[[1L]]), as.numeric(end))
  expect_identical(signals(value(f)), character())
})
