#' @keywords internal
#' @importFrom future FutureError FutureInterruptError FutureLaunchError MultiprocessFutureBackend cancel interruptFuture
#' @importFrom future launchFuture listFutures nbrOfFreeWorkers nbrOfWorkers resolved result stopWorkers
#' @importFrom utils packageVersion
"_PACKAGE"
