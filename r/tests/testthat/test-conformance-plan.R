# The plan: workers, interrupts, printing, plans within futures.
# What the ecosystem's conformance suite asks of a backend, in tests of our own, under each plan of helper-plans.R.

under_every_plan("nbrOfWorkers() and nbrOfFreeWorkers()", {
  expect_identical(as.numeric(nbrOfWorkers()), 2)
  expect_identical(as.numeric(nbrOfFreeWorkers()), 2)
  f <- future(Sys.sleep(2))
  expect_identical(as.numeric(nbrOfFreeWorkers()), 1)
  value(f)
  expect_identical(as.numeric(nbrOfFreeWorkers()), 2)
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

under_every_plan("plan(interrupts =) as it is, off and on, without a warning, and not NA", {
  current <- plan()
  expect_silent(plan(current))
  for (interrupts in c(FALSE, TRUE)) {
    expect_silent(plan(current, interrupts = interrupts))
    expect_identical(plan("backend")[["interrupts"]], interrupts)
    expect_identical(value(future(1)), 1)
  }
  expect_error(plan(current, interrupts = NA))
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
