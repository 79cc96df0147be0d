//! Where futures are evaluated: a sandbox that was probed, the R inside it, and a folder for bytes on their way.
//!
//! Everything that reads R data runs in the sandbox: the evaluation itself, and the small R programs that make a future
//! of an expression, tell a future's name, and show what a result printed.

