//! Tests of the parts with the real R, the real `p2p-jail` and real files; one program, so that it is linked once.

mod runner;
