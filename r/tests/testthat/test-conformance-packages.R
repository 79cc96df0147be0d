# Packages that people use futures through: future.apply and progressr.
# What the ecosystem's conformance suite asks of a backend, in tests of our own, under each plan of helper-plans.R.

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
