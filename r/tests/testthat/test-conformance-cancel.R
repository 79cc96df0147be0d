# cancel() and reset().
# What the ecosystem's conformance suite asks of a backend, in tests of our own, under each plan of helper-plans.R.

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
