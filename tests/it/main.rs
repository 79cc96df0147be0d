//! Fast tests of parts that talk to one another over real sockets and pipes.

mod transfer;
mod transfer_hostile;
mod transfer_support;
