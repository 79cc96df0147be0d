# Futures of all kinds, and what becomes of them in a plain R: Rscript make.R FOLDER makes NAME.future.rds and NAME.local.rds.

folder <- commandArgs(trailingOnly = TRUE)[1]
future::plan(future::sequential)
set.seed(1)
large <- rnorm(2.5e6)

futures <- list(
  value = future::future({ x <- 6; x * 7 }, lazy = TRUE),
  null = future::future(NULL, lazy = TRUE),
  invisible = future::future(invisible(1:3), lazy = TRUE),
  error = future::future({ log(-1); stop("no such thing") }, lazy = TRUE),
  warnings = future::future({ warning("first"); as.integer("x"); 1 }, lazy = TRUE),
  output = future::future({ cat("to stdout\n"); print(1:3); message("to stderr"); "both" }, lazy = TRUE),
  custom = future::future({ signalCondition(structure(class = c("mine", "condition"), list(message = "m", call = NULL))); 2 }, lazy = TRUE),
  seed = future::future(rnorm(3), seed = 42L, lazy = TRUE),
  misuse = future::future(rnorm(1) > -Inf, lazy = TRUE),
  closure = future::future({ function(x) x + 1 }, lazy = TRUE),
  large = future::future(large * 2, lazy = TRUE)
)
for (name in names(futures)) {
  saveRDS(futures[[name]], file.path(folder, paste0(name, ".future.rds")))
  saveRDS(future::result(futures[[name]]), file.path(folder, paste0(name, ".local.rds")))
}
cat("made", names(futures), "\n")
