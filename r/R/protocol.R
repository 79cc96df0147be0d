# The lines that R and `p2p-worker client --stdio` exchange (docs/client-stdio.md of p2p-worker): fields between tabs, the
# first is the kind, the others are key=value, in values everything but printable ASCII is written %XX. No I/O here.

# What this package speaks; the handshake refuses everything else.
protocol_version <- 2L

# One line without its end. Fields that are NULL are left out.
format_line <- function(kind, ...) {
  fields <- list(...)
  fields <- fields[!vapply(fields, is.null, NA)]
  values <- vapply(fields, function(value) escape(as_text(value)), "")
  paste(c(kind, if (length(values) > 0L) paste0(names(values), "=", values)), collapse = "\t")
}

as_text <- function(value) {
  if (is.numeric(value)) format(value, scientific = FALSE, trim = TRUE, digits = 15L) else as.character(value)
}

escape <- function(text) {
  if (!grepl("[^!-~]|%", text, perl = TRUE, useBytes = TRUE)) return(text)
  bytes <- as.integer(charToRaw(enc2utf8(text)))
  paste(ifelse(bytes < 0x21L | bytes > 0x7eL | bytes == 0x25L, sprintf("%%%02X", bytes), intToUtf8(bytes, multiple = TRUE)),
    collapse = ""
  )
}

# Where %XX is none, it stands for itself; what is not UTF-8 is shown as <xx>.
unescape <- function(text) {
  if (!grepl("%", text, fixed = TRUE)) return(text)
  bytes <- charToRaw(text)
  at <- which(bytes == as.raw(0x25L))
  at <- at[at + 2L <= length(bytes)]
  if (length(at) == 0L) return(text)
  codes <- suppressWarnings(strtoi(substring(text, at + 1L, at + 2L), 16L))
  good <- !is.na(codes) & codes > 0L
  at <- at[good]
  bytes[at] <- as.raw(codes[good])
  if (length(at) > 0L) bytes <- bytes[-c(at + 1L, at + 2L)]
  text <- rawToChar(bytes[bytes != as.raw(0L)])
  Encoding(text) <- "UTF-8"
  if (validUTF8(text)) text else iconv(text, "UTF-8", "UTF-8", sub = "byte")
}

# A list with `kind` and the fields as text. What has no "=" is ignored, as is a key that comes again.
parse_line <- function(line) {
  fields <- strsplit(line, "\t", fixed = TRUE)[[1L]]
  pairs <- fields[-1L]
  at <- regexpr("=", pairs, fixed = TRUE)
  pairs <- pairs[at > 1L]
  at <- at[at > 1L]
  values <- lapply(substring(pairs, at + 1L), unescape)
  names(values) <- substr(pairs, 1L, at - 1L)
  c(list(kind = if (length(fields) > 0L) fields[[1L]] else ""), values[!duplicated(names(values))])
}

# Text from elsewhere as it may be shown on a terminal: no control characters, and not without end.
clean <- function(text, limit = 2000L) {
  if (is.null(text)) return(NULL)
  text <- gsub("[[:cntrl:]]+", " ", text)
  ifelse(nchar(text) > limit, paste0(substr(text, 1L, limit), " ..."), text)
}
