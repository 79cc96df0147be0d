# Objects that do not survive the way to another R process.

# Names of globals that hold an external pointer, a weak reference or a connection, with the class of the first such object.
references_in <- function(globals) {
  found <- character()
  for (name in names(globals)) {
    class <- first_reference(globals[[name]])
    if (!is.null(class)) found[[name]] <- class
  }
  found
}

first_reference <- function(object) {
  found <- NULL
  sink <- file(nullfile(), "wb", raw = TRUE)
  on.exit(close(sink))
  look <- function(reference) {
    if (typeof(reference) %in% c("externalptr", "weakref")) {
      found <<- if (is.object(reference)) class(reference)[1L] else typeof(reference)
      stop(structure(class = c("p2p_found", "condition"), list(message = "", call = NULL)))
    }
    NULL
  }
  tryCatch(serialize(object, sink, xdr = FALSE, refhook = look), p2p_found = identity)
  if (is.null(found) && inherits(object, "connection")) found <- "connection"
  found
}

look_for_references <- function(future, action) {
  if (action == "ignore" || length(future[["globals"]]) == 0L) return(invisible())
  found <- references_in(future[["globals"]])
  if (length(found) == 0L) return(invisible())
  text <- explain(future, "would not work on another machine", paste0(
    "it uses ", paste0(sQuote(names(found), FALSE), " (which holds an object of class ", sQuote(found, FALSE), ")", collapse = ", "),
    ", and such objects do not leave their R process"
  ), "Make the object within the future")
  if (action == "error") stop(FutureLaunchError(text, future = future))
  warning(text, call. = FALSE)
}
