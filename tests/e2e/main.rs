//! End to end with real parts: the real program, OpenSSH's keys, SSH, libp2p, R and the kernel's sandboxing.

mod attacks;
mod command_line;
mod lifecycle;
mod way;
mod world;
