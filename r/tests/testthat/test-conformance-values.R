# Values and how they are asked for: future(), %<-%, futureAssign(), futureCall(), lazy futures, visibility.
# What the ecosystem's conformance suite asks of a backend, in tests of our own, under each plan of helper-plans.R.

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

under_every_plan("visibility", {
  expect_true(withVisible(value(future(1)))$visible)
  expect_false(withVisible(value(future(invisible(1))))$visible)
  f <- future({
    x <- 1
  })
  expect_false(withVisible(value(f))$visible)
})

# Not asked of multicore, where futures of other tests count as busy until somebody asks for them, and not as no longer free.
under_every_plan("a future blocks when every worker is busy, and only then", but = "multicore", {
  expect_lt(elapsed(fs <- lapply(1:2, function(i) future(Sys.sleep(5)))), 5)
  expect_equal(as.numeric(nbrOfFreeWorkers()), 0)
  c <- future("third")
  expect_true(any(resolved(fs)))
  expect_identical(value(c), "third")
  value(fs)
})

under_every_plan("big objects go there and back", {
  x <- runif(1e6)
  expect_identical(value(future(rev(x))), rev(x))
  expect_identical(value(future(as.raw(rep(0:255, 4e4)))), as.raw(rep(0:255, 4e4)))
  odd <- list(a = NULL, b = NA_character_, c = 1i, d = quote(x + y), e = factor(c("u", "v")), f = as.POSIXct(0), g = function(x) x)
  expect_equal(value(future(odd)), odd, ignore_function_env = TRUE)
})
