test_that("lines go there and back, whatever is in them", {
  for (text in c("plain", "", "a b\tc\nd", "100 %", "caf\u00e9 \u4e16", "%41", "=;,=", strrep("x\n", 500))) {
    line <- format_line("post", future = "f-1", reason = text)
    expect_false(grepl("[^!-~\t]", line))
    expect_identical(parse_line(line), list(kind = "post", future = "f-1", reason = text))
  }
  expect_identical(format_line("status"), "status")
  expect_identical(format_line("post", retry = 100000L, timeout = 86400, file = NULL), "post\tretry=100000\ttimeout=86400")
})

test_that("what is no line of the protocol is read without an error", {
  expect_identical(parse_line("")$kind, "")
  expect_identical(parse_line("done\tfuture\t=x\ta=1\ta=2"), list(kind = "done", a = "1"))
  expect_identical(parse_line("x\tv=%zz%4%")$v, "%zz%4%")
  expect_match(parse_line("x\tv=%ff%fe")$v, "<ff>")
  expect_identical(parse_line("x\tv=a%00b")$v, "a%00b")
  expect_identical(clean("a\033[31mb\n"), "a [31mb ")
  set.seed(1)
  for (i in 1:200) expect_type(parse_line(rawToChar(as.raw(sample(c(9L, 37L, 61L, 48:57, 97:102), 60, TRUE)))), "list")
})
