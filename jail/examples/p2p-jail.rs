//! The program itself, for this crate's own tests: the same shim as in the root package.

fn main() -> std::process::ExitCode {
    p2p_jail::main()
}
