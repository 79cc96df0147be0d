//! `p2p-worker doctor`: what this machine can enforce, and what to do about the rest.
