# Whether results are the same but for when and where they came to be: Rscript compare.R ONE.rds OTHER.rds [ONE.rds OTHER.rds ...]

about <- function(result) {
  condition <- function(entry) {
    condition <- entry$condition
    list(class(condition), conditionMessage(condition), deparse(conditionCall(condition)), entry$signaled)
  }
  result <- unclass(result)
  fields <- c("visible", "stdout", "rng", "version")
  list(result$value, lapply(fields, function(field) result[[field]]), lapply(result$conditions, condition))
}

files <- matrix(commandArgs(trailingOnly = TRUE), nrow = 2)
for (pair in seq_len(ncol(files))) {
  one <- readRDS(files[1, pair])
  other <- readRDS(files[2, pair])
  # Old versions of package future leave a result's uuid out.
  if (is.null(other$uuid)) one$uuid <- NULL
  stopifnot(identical(one$uuid, other$uuid))
  same <- if (identical(class(one), class(other))) all.equal(about(one), about(other)) else "another class"
  cat(basename(files[1, pair]), if (isTRUE(same)) "same" else c("DIFFERS:", same), "\n")
}
