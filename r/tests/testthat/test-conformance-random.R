# Random numbers: seeds, warnings, and the numbers of the session.
# What the ecosystem's conformance suite asks of a backend, in tests of our own, under each plan of helper-plans.R.

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

under_every_plan("seeds by %seed%, streams of the caller's own", {
  draw <- function(lazy) {
    seed <- c(407L, 1420090545L, 65713854L, -990249945L, 1780737596L, -1213437427L, 1082168682L)
    xs <- listenv::listenv()
    for (i in 1:2) {
      seed <- parallel::nextRNGStream(seed)
      xs[[i]] %<-% sample(1e6, 1L) %lazy% lazy %seed% seed
    }
    as.list(xs)
  }
  before <- globalenv()[[".Random.seed"]]
  mine <- lapply(c(FALSE, TRUE), draw)
  expect_identical(globalenv()[[".Random.seed"]], before)
  expect_identical(mine[[1L]], mine[[2L]])
  plan(sequential)
  expect_identical(draw(FALSE), mine[[1L]])
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
