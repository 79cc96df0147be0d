//! The program `p2p-worker`.

fn main() {}
