//! Real R work, as code that fails unless it can be done. Each ends well in a bare R too.

/// Of R itself.
pub(super) const BASE: [(&str, &str); 13] = [
    (
        "regular_expressions",
        r###"x <- rep(c("ab12cd", "ünïcödé 99", "x"), 1000)
stopifnot(pcre_config()[["JIT"]], sum(grepl("\\d+(?=cd)", x, perl = TRUE)) == 1000, sum(grepl("[[:alpha:]]+", x)) == 3000)
stopifnot(identical(sub("(?<a>[a-z]+)(\\d+)", "\\2\\1", "ab12", perl = TRUE), "12ab"))
stopifnot(identical(gsub("(?i)\\p{L}", "L", "aÉ", perl = TRUE), "LL"), identical(regmatches("a1b22", gregexpr("[0-9]+", "a1b22"))[[1]], c("1", "22")))
"###,
    ),
    (
        "time_zones",
        r###"epoch <- as.POSIXct("1970-01-01", tz = "UTC")
stopifnot(format(epoch, "%H:%M %Z", tz = "America/New_York") == "19:00 EST", length(OlsonNames()) > 400, nzchar(Sys.timezone()))
stopifnot(format(as.POSIXct("2024-07-01 12:00", tz = "Europe/Berlin"), tz = "Asia/Kolkata", usetz = TRUE) == "2024-07-01 15:30:00 IST")
Sys.setenv(TZ = "Asia/Tokyo"); stopifnot(format(epoch, "%H", tz = "") == "09")
"###,
    ),
    (
        "plots_with_fonts",
        r###"draw <- function(device, name, family, ...) {
  device(name, ...); plot(1:10, main = "Title with \u00fc", xlab = expression(alpha^2), family = family); dev.off(); file.size(name)
}
stopifnot(capabilities(c("png", "cairo")))
sizes <- c(draw(png, "a.png", "serif", type = "cairo"), draw(svg, "a.svg", "sans"), draw(cairo_pdf, "b.pdf", "mono"),
  draw(pdf, "a.pdf", "Helvetica"), draw(postscript, "a.ps", "Helvetica"), draw(jpeg, "a.jpg", "sans", type = "cairo"), draw(tiff, "a.tif", "sans", type = "cairo"))
stopifnot(sizes > 2000)
"###,
    ),
    (
        "processes",
        r###"stopifnot(system("ls > /dev/null") == 0, "usr" %in% system("ls /", intern = TRUE), system2("uname", "-s", stdout = TRUE) == "Linux")
to <- pipe("sort > sorted", "w"); writeLines(c("b", "a"), to); close(to); stopifnot(identical(readLines("sorted"), c("a", "b")))
from <- pipe("printf 'x\\ny\\n'"); stopifnot(identical(readLines(from), c("x", "y"))); close(from)
stopifnot(system("sed s/a/b/ sorted | grep -c b", intern = TRUE) == "2", system("perl -e 'print 6*7'", intern = TRUE) == "42")
stopifnot(suppressWarnings(system("sleep 60", timeout = 1)) == 124)
"###,
    ),
    (
        "rscript_and_r_cmd",
        r###"stopifnot(system2(file.path(R.home("bin"), "Rscript"), c("-e", shQuote("cat(6 * 7)")), stdout = TRUE) == "42")
stopifnot(nzchar(system("R CMD config CC", intern = TRUE)), grepl("^R version", system("R --version", intern = TRUE)[1]))
writeLines("cat('in batch\\n')", "b.R"); stopifnot(system("R CMD BATCH --vanilla b.R b.out") == 0, any(grepl("in batch", readLines("b.out"))))
"###,
    ),
    (
        "temporary_files",
        r###"f <- tempfile(); writeLines("x", f); d <- tempfile(); stopifnot(dir.create(d), file.copy(f, d), file.rename(f, file.path(d, "y")))
stopifnot(file.symlink(file.path(d, "y"), file.path(d, "z")), file.link(file.path(d, "y"), file.path(d, "w")), length(list.files(d)) == 4)
Sys.chmod(file.path(d, "y"), "600"); stopifnot(Sys.setFileTime(file.path(d, "y"), Sys.time()), file.info(file.path(d, "y"))$uname == "task")
stopifnot(unlink(d, TRUE) == 0, !file.exists(d)); writeLines("x", "a.txt")
for (with in c("internal", Sys.which("tar"))) { tar("a.tar.gz", "a.txt", compression = "gzip", tar = with); stopifnot(untar("a.tar.gz", list = TRUE) == "a.txt") }
stopifnot(path.expand("~") == "/home/task", file.access("/usr", 2) == -1, !suppressWarnings(file.create("/usr/x")))
"###,
    ),
    (
        "locales",
        r###"stopifnot(l10n_info()[["UTF-8"]], toupper("ünï") == "ÜNÏ", nchar("ünï") == 3, utf8ToInt("€") == 8364, length(iconvlist()) > 100)
stopifnot(identical(iconv("ü", "UTF-8", "latin1"), "ü"), nzchar(format(Sys.Date(), "%B")), identical(sort(c("b", "a")), c("a", "b")))
stopifnot(nzchar(Sys.setlocale("LC_ALL", "C")), nzchar(Sys.setlocale("LC_ALL", "C.UTF-8")))
"###,
    ),
    (
        "connections",
        r###"stopifnot(system("mkfifo p1") == 0, system("echo from a child > p1 &") == 0)
p <- fifo("p1", "r", blocking = TRUE); stopifnot(readLines(p) == "from a child"); close(p)
p <- fifo("p2", "w+"); cat("hello\n", file = p); stopifnot(readLines(p, 1) == "hello"); close(p)
for (open in list(gzfile, bzfile, xzfile)) { to <- open("z", "w"); writeLines(as.character(1:1000), to); close(to); stopifnot(length(readLines("z")) == 1000) }
to <- gzcon(file("g.gz", "wb")); writeLines("x", to); close(to); stopifnot(readLines("g.gz") == "x")
for (type in c("gzip", "bzip2", "xz")) stopifnot(identical(memDecompress(memCompress(charToRaw("abc"), type), type), charToRaw("abc")))
x <- list(1, function(x) x, new.env()); saveRDS(x, "x.rds"); save(x, file = "x.rda"); load("x.rda"); stopifnot(length(readRDS("x.rds")) == 3, identical(unserialize(serialize(1:10, NULL)), 1:10))
"###,
    ),
    (
        "profiling_and_time_limits",
        r###"Rprof("prof.out"); end <- Sys.time() + 1; while (Sys.time() < end) sort(runif(1e4)); Rprof(NULL)
stopifnot(nrow(summaryRprof("prof.out")$by.total) > 0)
setTimeLimit(elapsed = 1); late <- tryCatch(repeat Sys.sleep(0.1), error = conditionMessage); setTimeLimit(); stopifnot(grepl("time limit", late))
"###,
    ),
    (
        "linear_algebra",
        r###"m <- matrix(rnorm(90000), 300); stopifnot(max(abs(solve(m) %*% m - diag(300))) < 1e-6, length(svd(m)$d) == 300, nzchar(La_library()))
"###,
    ),
    (
        "every_package_of_r",
        r###"for (package in rownames(installed.packages(priority = "base"))) suppressWarnings(library(package, character.only = TRUE))
stopifnot(nzchar(sessionInfo()$running), nchar(tools::md5sum("/etc/passwd")) == 32, compiler::cmpfun(function(x) x + 1)(1) == 2)
"###,
    ),
    (
        "forks",
        r###"library(parallel); stopifnot(detectCores() >= 1)
stopifnot(identical(unlist(mclapply(1:40, function(i) i^2, mc.cores = 8)), (1:40)^2), length(mccollect(mcparallel(Sys.getpid()))) == 1)
library(future); plan(multicore, workers = 2); stopifnot(value(future(42)) == 42)
"###,
    ),
    (
        "large_vectors",
        r###"x <- numeric(1e9 / 8); x[1] <- 1
for (i in seq(1, length(x), by = 512)) x[i] <- 2
stopifnot(object.size(x) > 999999999, sum(x) > 2e5); rm(x)
stopifnot(grepl("cannot allocate|memory exhausted|memory limit", tryCatch(numeric(2^29), error = conditionMessage)))
"###,
    ),
];

/// Of packages; `THREADS` is the number that the profile gives.
pub(super) const PACKAGES: [(&str, &str); 4] = [
    (
        "data_table",
        r###"library(data.table); setDTthreads(2); stopifnot(getDTthreads() == THREADS)
d <- data.table(g = sample(letters, 2e5, TRUE), x = runif(2e5)); stopifnot(nrow(d[, .(m = mean(x)), keyby = g]) == 26)
fwrite(d, "d.csv"); stopifnot(nrow(fread("d.csv")) == 2e5); setorder(d, x); stopifnot(!is.unsorted(d$x))
stopifnot(identical(sum(unlist(parallel::mclapply(1:4, function(i) d[, .N], mc.cores = 2))), 800000L))
"###,
    ),
    (
        "rcpp",
        r###"Rcpp::cppFunction("double total(NumericVector x) { return sum(x); }"); stopifnot(total(1:10) == 55)
stopifnot(inherits(try(Rcpp::evalCpp("throw std::runtime_error(\"from C++\")"), silent = TRUE), "try-error"))
"###,
    ),
    (
        "sqlite",
        r###"library(RSQLite); one <- dbConnect(SQLite(), "t.db"); stopifnot(dbGetQuery(one, "PRAGMA journal_mode = WAL")[[1]] == "wal")
dbWriteTable(one, "m", mtcars); two <- dbConnect(SQLite(), "t.db"); rows <- function(db) dbGetQuery(db, "SELECT count(*) FROM m")[[1]]
dbExecute(two, "BEGIN IMMEDIATE"); dbExecute(two, "DELETE FROM m WHERE cyl = 4"); stopifnot(rows(one) == 32); dbExecute(two, "COMMIT"); stopifnot(rows(one) == 21)
stopifnot(file.exists("t.db-shm")); other <- parallel::mccollect(parallel::mcparallel({ db <- dbConnect(SQLite(), "t.db"); rows(db) }))[[1]]; stopifnot(other == 21)
dbDisconnect(two); dbDisconnect(one)
"###,
    ),
    (
        "stringi",
        r###"library(stringi); stopifnot(identical(stri_sort(c("z", "\u00e4", "a"), locale = "de_DE"), c("a", "\u00e4", "z")), stri_trans_general("Gr\u00fc\u00dfe", "Latin-ASCII") == "Grusse")
stopifnot(stri_datetime_format(as.POSIXct("1970-01-01", tz = "UTC"), "HH:mm", tz = "Europe/Paris") == "01:00", stri_detect_regex("a1", "\\d"))
"###,
    ),
];
