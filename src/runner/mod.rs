//! One attempt at one future: start `p2p-jail`, feed it, cap what comes out, learn how it ended, and always come back
//! with exactly one result.
//!
//! The supervisor's side never parses R data. What the task says in its frames is the client's own data and is
//! believed in nothing; how the task ended comes from `p2p-jail`, which has it from the kernel.
