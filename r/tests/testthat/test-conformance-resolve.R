# resolve() and resolved().
# What the ecosystem's conformance suite asks of a backend, in tests of our own, under each plan of helper-plans.R.

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
