# What the ecosystem's conformance suite asks of a backend, category by category, in tests of our own.

under_every_plan("a value, of future() and of %<-%", {
  f <- future({
    a <- 40
    a + 2
  })
  expect_s3_class(f, "MultiprocessFuture")
  expect_identical(value(f), 42)
  expect_identical(value(f), 42)
  v %<-% {
    42L
  }
  expect_identical(v, 42L)
  expect_true(resolved(f))
})

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

under_every_plan("`...` as a global and as arguments", {
  sums <- function(...) {
    f <- future(sum(...))
    value(f)
  }
  expect_identical(sums(1:3, 4L), 10L)
  named <- function(x, ...) {
    y %<-% {
      names(list(...))
    }
    y
  }
  expect_identical(named(1, a = 2, b = 3), c("a", "b"))
  outer <- function(...) {
    inner <- function(...) value(future(list(...)))
    inner(...)
  }
  expect_identical(outer(1, z = "two"), list(1, z = "two"))
  # `...` that is given as globals, and evaluated where there is none.
  nse <- function(...) {
    globals <- globals::globalsByName("...", envir = environment())
    value(future({
      f <- function() sum(...)
      f()
    }, envir = parent.frame(), globals = globals))
  }
  expect_identical(nse(1:10), 55L)
  expect_equal(nse(), 0)
})

under_every_plan("%<-% into environments and list environments, nested", {
  env <- new.env()
  env$a %<-% 1
  env[["b"]] %<-% {
    2
  }
  expect_identical(mget(c("a", "b"), envir = env), list(a = 1, b = 2))
  xs <- listenv::listenv()
  for (i in 1:3) xs[[i]] %<-% (i * 10)
  expect_identical(as.list(xs), list(10, 20, 30))
  n %<-% {
    a %<-% 3
    b %<-% {
      a + 1
    }
    a * b
  }
  expect_identical(n, 12)
  l %<-% {
    5
  } %lazy% TRUE %label% "later"
  expect_identical(futureOf(l)$state, "created")
  expect_identical(l, 5)
  p %<-% {
    y <- 1
    y
  } %globals% FALSE %packages% "stats"
  expect_identical(p, 1)
})

under_every_plan("futureAssign", {
  here <- environment()
  futureAssign("w", {
    11
  }, assign.env = here)
  expect_identical(w, 11)
  f <- futureAssign("z", quote(6 * 7), substitute = FALSE, lazy = TRUE, assign.env = here)
  expect_identical(z, 42)
})

under_every_plan("futureCall", {
  for (lazy in c(FALSE, TRUE)) {
    f <- futureCall(function(x, y) x * y, args = list(6, y = 7), lazy = lazy)
    expect_identical(value(f), 42)
  }
  k <- 2
  f <- futureCall(function(x) x + k, args = list(1))
  expect_identical(value(f), 3)
  f <- futureCall(sum, list(1L, 2L, 3L))
  expect_identical(value(f), 6L)
})

under_every_plan("globals: found, given by name and by value, none, missing", {
  a <- 1
  b <- list(x = 2, f = function(z) z + a)
  expect_identical(value(future(b$f(b$x))), 3)
  expect_identical(value(future(a + 1, globals = "a")), 2)
  expect_identical(value(future(a + 1, globals = list(a = 10))), 11)
  expect_identical(value(future(a + get("hidden_from_search"), globals = structure(TRUE, add = list(hidden_from_search = 100)))), 101)
  expect_error(value(future(no_such_object_anywhere + 1)), "no_such_object_anywhere")
  # A later change is not seen: what counts is the value when the future was made.
  f <- future(a, lazy = TRUE)
  a <- 99
  expect_identical(value(f), 1)
  # A local variable that is assigned after its use as a global.
  f <- future({
    c <- a + 1
    a <- 0
    c
  })
  expect_identical(value(f), 100)
})

under_every_plan("globals: an object that a package does not export", {
  space <- asNamespace("utils")
  private <- setdiff(ls(space), getNamespaceExports("utils"))
  hidden <- get(Filter(function(name) is.function(space[[name]]), private)[[1L]], space)
  f <- future(hidden, lazy = TRUE)
  expect_true("hidden" %in% names(f$globals))
  expect_identical(value(f), hidden)
})

under_every_plan("packages are attached, and what a package lacks is said", {
  expect_true(value(future("package:tools" %in% search(), packages = "tools")))
  e <- tryCatch(value(future(1, packages = "noSuchPackageAtAll")), error = identity)
  expect_s3_class(e, "error")
  expect_match(conditionMessage(e), "noSuchPackageAtAll")
})

under_every_plan("the worker's global environment is its own", {
  f <- future({
    assign("left_behind", 1, envir = globalenv())
    exists("left_behind", envir = globalenv())
  })
  expect_true(value(f))
  expect_false(exists("left_behind", envir = globalenv()))
})

under_every_plan("lazy futures are launched when asked for", {
  f <- future({
    Sys.time()
  }, lazy = TRUE)
  expect_identical(f$state, "created")
  before <- Sys.time()
  f <- run(f)
  expect_identical(f$state, "running")
  expect_true(value(f) > before - 1)
  expect_error(run(f), "can only be launched once")
  g <- future(1, lazy = TRUE)
  expect_identical(value(g), 1)
})

under_every_plan("mandelbrot", {
  fs <- lapply(0:1, function(i) future(mandelbrot(xmid = -0.75, ymid = i / 10, side = 0.1, resolution = 8L, maxIter = 50L)))
  truth <- lapply(0:1, function(i) mandelbrot(xmid = -0.75, ymid = i / 10, side = 0.1, resolution = 8L, maxIter = 50L))
  expect_equal(value(fs), truth)
})

under_every_plan("nbrOfWorkers() and nbrOfFreeWorkers()", {
  expect_identical(as.numeric(nbrOfWorkers()), 2)
  expect_identical(as.numeric(nbrOfFreeWorkers()), 2)
  f <- future(Sys.sleep(2))
  expect_identical(as.numeric(nbrOfFreeWorkers()), 1)
  value(f)
  expect_identical(as.numeric(nbrOfFreeWorkers()), 2)
})

under_every_plan("packages that set options when loaded do not disturb later futures", {
  f <- future({
    options(some.option.of.a.package = TRUE)
    requireNamespace("tools")
  })
  expect_true(value(f))
  skip_if_not_installed("data.table")
  dt <- data.table::data.table
  expect_identical(value(future(nrow(dt(a = 1:3)), packages = "data.table")), 3L)
})

under_every_plan("plan() prints, and the same plan again keeps its backend", {
  expect_output(print(plan()), "Number of workers: 2")
  before <- plan("backend")[["uuid"]]
  current <- plan()
  plan(current)
  expect_identical(plan("backend")[["uuid"]], before)
})

under_every_plan("plan(workers =) as a number, as a function, and invalid", {
  for (workers in list(I(1L), 2L, function() 2L, 3)) {
    use(workers = workers)
    expect_equal(as.numeric(nbrOfWorkers()), if (is.function(workers)) 2 else as.numeric(workers))
    expect_identical(value(future(42L)), 42L)
  }
  for (workers in list(0L, NA_integer_, TRUE, NA_character_, -1)) expect_error(use(workers = workers))
})

under_every_plan("plan(interrupts =) as it is, off and on, without a warning", {
  current <- plan()
  expect_silent(plan(current))
  for (interrupts in c(FALSE, TRUE)) {
    expect_silent(plan(current, interrupts = interrupts))
    expect_identical(plan("backend")[["interrupts"]], interrupts)
    expect_identical(value(future(1)), 1)
  }
})

under_every_plan("resolve() of a future, whether lazy, with its result, recursively", {
  for (lazy in c(FALSE, TRUE)) for (with_result in c(FALSE, TRUE)) for (recursive in c(FALSE, TRUE)) {
    f <- future({
      Sys.sleep(0.1)
      list(a = 1, b = 42L)
    }, lazy = lazy)
    expect_identical(resolve(f, result = with_result, recursive = recursive), f)
    expect_true(resolved(f))
    g <- future(list(a = 1, c = stop("Nah!")), lazy = lazy)
    expect_identical(resolve(g, result = with_result, recursive = recursive), g)
    expect_error(value(g), "Nah!")
  }
})

under_every_plan("resolve() of lists, matrices, environments, with other values", {
  for (lazy in c(FALSE, TRUE)) {
    x <- list(a = future(1, lazy = lazy), b = future(2, lazy = !lazy), 3)
    expect_identical(resolve(x), x)
    expect_true(resolved(x$a) && resolved(x[["b"]]))
  }
  x <- list(a = future(1), b = future({
    Sys.sleep(0.3)
    2
  }), 3, 4)
  dim(x) <- c(2L, 2L)
  for (idxs in list(1, 2, 3, 1:4)) expect_identical(resolve(x, idxs = idxs), x)
  expect_true(resolved(x[[1L]]) && resolved(x[[2L]]))
  env <- new.env()
  env$a <- future(5)
  expect_identical(resolve(env), env)
  expect_identical(value(env$a), 5)
  expect_identical(value(list(future(1), 2, future("c"))), list(1, 2, "c"))
})

under_every_plan("resolved() does not block, and launches what is lazy", {
  n <- 3L
  fs <- lapply(seq_len(n), function(k) future({
    Sys.sleep(k)
    k
  }, lazy = TRUE))
  states <- function() vapply(fs, function(f) f$state, "")
  expect_identical(states(), rep("created", n))
  for (first in seq_len(n)) {
    for (k in first:n) {
      known <- resolved(fs[[k]])
      expect_identical(states()[k], if (known) "finished" else "running")
    }
    if (first == 1L) expect_false(known)
    expect_identical(value(fs[[first]]), first)
    expect_true(resolved(fs[[first]]))
    expect_identical(states()[first], "finished")
    expect_gte(sum(states() == "finished"), first)
  }
  expect_identical(value(fs), as.list(seq_len(n)))
})

under_every_plan("seeds: the same numbers under every plan, and the caller's kind is kept", {
  kind <- RNGkind()
  seed <- c(407L, 1420090545L, 65713854L, -990249945L, 1780737596L, -1213437427L, 1082168682L)
  f <- future(rnorm(3), seed = seed)
  expect_identical(f$seed, seed)
  numbers <- value(f)
  expect_identical(value(future(rnorm(3), seed = seed)), numbers)
  expect_identical(RNGkind(), kind)
  for (lazy in c(FALSE, TRUE)) {
    set.seed(42)
    fs <- lapply(1:2, function(i) future(sample(1e6, 1L), seed = TRUE, lazy = lazy))
    mine <- value(fs)
    theirs <- local({
      set.seed(42)
      lapply(1:2, function(i) {
        future <- future(sample(1e6, 1L), seed = TRUE, lazy = TRUE)
        future$seed
      })
    })
    expect_identical(lapply(fs, function(f) f$seed), theirs)
    expect_false(identical(mine[[1L]], mine[[2L]]))
    set.seed(42)
    expect_identical(value(lapply(1:2, function(i) future(sample(1e6, 1L), seed = TRUE))), mine)
  }
})

under_every_plan("random numbers without a seed are warned of", {
  f <- future(rnorm(1))
  expect_warning(value(f), class = "RngFutureWarning")
  f <- future(rnorm(1), seed = NULL)
  expect_silent(value(f))
})

under_every_plan("future(), run(), resolved(), result() and value() leave the caller's random numbers alone", {
  set.seed(1)
  before <- globalenv()[[".Random.seed"]]
  f <- future(1)
  g <- future(2, lazy = TRUE)
  g <- run(g)
  resolved(f)
  result(f)
  value(f)
  value(g)
  nbrOfFreeWorkers()
  capture.output(print(plan()))
  expect_identical(globalenv()[[".Random.seed"]], before)
  rm(".Random.seed", envir = globalenv())
  expect_identical(value(future(3)), 3)
  expect_false(exists(".Random.seed", envir = globalenv(), inherits = FALSE))
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

under_every_plan("visibility", {
  expect_true(withVisible(value(future(1)))$visible)
  expect_false(withVisible(value(future(invisible(1))))$visible)
  f <- future({
    x <- 1
  })
  expect_false(withVisible(value(f))$visible)
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

under_every_plan("cancel() of a running, a lazy and a finished future, and reset()", {
  f <- future(Sys.sleep(60))
  took <- elapsed(f <- cancel(f))
  expect_lt(took, 10)
  expect_identical(f$state, "canceled")
  expect_error(value(f), class = "FutureInterruptError")
  expect_true(resolved(f))
  expect_equal(as.numeric(nbrOfFreeWorkers()), 2)
  l <- cancel(future(1, lazy = TRUE))
  expect_identical(l$state, "created")
  expect_identical(value(l), 1)
  d <- future(2)
  expect_identical(value(d), 2)
  expect_identical(cancel(d)$state, "finished")
  expect_identical(value(cancel(d)), 2)
  g <- cancel(future(Sys.sleep(60)))
  expect_error(value(g), class = "FutureInterruptError")
  g <- reset(g)
  expect_identical(g$state, "created")
  g$expr <- quote("second run")
  expect_identical(value(g), "second run")
})

under_every_plan("cancel() where interrupts are off lets it run on", {
  plan(plan(), interrupts = FALSE)
  f <- cancel(future({
    Sys.sleep(0.5)
    "came"
  }))
  expect_identical(f$state, "canceled")
  expect_identical(value(f), "came")
})

under_every_plan("a future blocks when every worker is busy, and only then", {
  a <- future(Sys.sleep(1))
  b <- future(Sys.sleep(1))
  expect_false(resolved(a))
  c <- future("third")
  expect_true(resolved(a) || resolved(b))
  expect_identical(value(c), "third")
  value(list(a, b))
})

under_every_plan("nested futures are sequential, unless a plan for them is given", {
  f <- future({
    inner <- future::future(42)
    list(class = class(future::plan())[[2L]], same = inherits(inner, "SequentialFuture"), value = future::value(inner))
  })
  v <- value(f)
  expect_true(v$same)
  expect_identical(v$value, 42)
  outer <- plan()
  plan(list(outer, sequential, tweak(multisession, workers = I(1L))))
  expect_identical(value(future(length(future::plan("list")))), 2L)
})

under_every_plan("options of the session that concern futures hold within them", {
  withr <- options(width = 41L)
  on.exit(options(withr), add = TRUE)
  expect_identical(value(future(getOption("width"))), 41L)
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

under_every_plan("big objects go there and back", {
  x <- runif(1e6)
  expect_identical(value(future(rev(x))), rev(x))
  expect_identical(value(future(as.raw(rep(0:255, 4e4)))), as.raw(rep(0:255, 4e4)))
  odd <- list(a = NULL, b = NA_character_, c = 1i, d = quote(x + y), e = factor(c("u", "v")), f = as.POSIXct(0), g = function(x) x)
  expect_equal(value(future(odd)), odd, ignore_function_env = TRUE)
})

under_every_plan("futures over the limit on globals are not launched", {
  plan(plan(), maxSizeOfObjects = 1000)
  big <- runif(1e4)
  expect_error(future(sum(big)), class = "FutureError")
  expect_identical(value(future(1)), 1)
})

under_every_plan("future.apply, with random numbers that do not depend on the workers", {
  skip_if_not_installed("future.apply")
  expect_identical(future.apply::future_lapply(1:10, function(i) i^2), lapply(1:10, function(i) i^2))
  expect_identical(future.apply::future_sapply(letters[1:3], toupper), sapply(letters[1:3], toupper))
  numbers <- future.apply::future_sapply(1:5, function(i) rnorm(1), future.seed = 42L)
  expect_identical(future.apply::future_sapply(1:5, function(i) rnorm(1), future.seed = 42L, future.chunk.size = 1L), numbers)
  truth <- local({
    plan(sequential)
    future.apply::future_sapply(1:5, function(i) rnorm(1), future.seed = 42L)
  })
  expect_identical(numbers, truth)
})

under_every_plan("progressr: a progress bar moves", {
  skip_if_not_installed("progressr")
  skip_if_not_installed("future.apply")
  amounts <- numeric()
  handler <- progressr::make_progression_handler("test", reporter = list(
    update = function(config, state, progression, ...) amounts <<- c(amounts, state$step)
  ), interval = 0, intrusiveness = 0, enable = TRUE, target = "void")
  progressr::with_progress({
    p <- progressr::progressor(4)
    ys <- future.apply::future_lapply(1:4, function(i) {
      p()
      Sys.sleep(0.1)
      i
    })
  }, handlers = handler, enable = TRUE, interval = 0)
  expect_identical(ys, as.list(1:4))
  expect_gte(length(amounts), 4L)
  expect_identical(max(amounts), 4)
})
