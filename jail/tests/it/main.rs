//! Tests against the real kernel. They need user namespaces, Landlock and seccomp: where one is missing they fail, since a jail
//! that could not be tested is not a jail that works.

mod harness;
mod lifecycle;
