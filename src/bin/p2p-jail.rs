//! The program `p2p-jail`, built beside `p2p-worker` so that both are found together.

fn main() -> std::process::ExitCode {
    p2p_jail::main()
}
