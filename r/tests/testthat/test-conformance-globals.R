# What travels along: globals, `...`, packages, options.
# What the ecosystem's conformance suite asks of a backend, in tests of our own, under each plan of helper-plans.R.

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

under_every_plan("globals: one that is removed, here and there, before it is asked for", {
  for (lazy in c(FALSE, TRUE)) {
    a <- 42
    f <- future({
      a
      a <- 3.14
      rm(a)
      a
    }, lazy = lazy)
    rm(a)
    expect_identical(value(f), 42)
  }
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

under_every_plan("options of the session that concern futures hold within them", {
  withr <- options(width = 41L)
  on.exit(options(withr), add = TRUE)
  expect_identical(value(future(getOption("width"))), 41L)
})

under_every_plan("futures over the limit on globals are not launched", {
  plan(plan(), maxSizeOfObjects = 1000)
  big <- runif(1e4)
  expect_error(future(sum(big)), class = "FutureError")
  expect_identical(value(future(1)), 1)
})
