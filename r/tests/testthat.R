library(testthat)
library(future.libp2p)
test_check("future.libp2p")
