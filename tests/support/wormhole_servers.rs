//! Python's mailbox server and transit relay on loopback, for the tests of p2p-worker and of p2p-wormhole.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// The port of wormhole-william's relay, which cannot be told another one.
pub(crate) const RELAY_PORT: u16 = 4001;

/// The folder of Python's programs that `scripts/test-wormhole` installs.
pub(crate) fn python() -> PathBuf {
    let place = std::env::var_os("P2P_TEST_WORMHOLE").unwrap_or("/var/tmp/p2p-worker-test-wormhole".into());
    let python = PathBuf::from(place).join("bin");
    assert!(python.join("twist").exists(), "run scripts/test-wormhole first: no {}", python.display());
    python
}

/// An address of loopback of which nobody uses the relay's port. The whole of 127.0.0.0/8 is this machine (RFC 1122).
pub(crate) fn free_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(8).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, a, b, c] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, a, b, 1 + c % 254);
        if TcpListener::bind((address, RELAY_PORT)).is_ok() {
            return address;
        }
    }
}

/// The relay. It says "starting on" when it is there.
pub(crate) fn relay(address: Ipv4Addr, folder: &Path) -> Command {
    twist(folder, &["transitrelay", &format!("--port=tcp:{RELAY_PORT}:interface={address}")])
}

/// The mailbox server, on a port of the kernel's choice: that is the last word of the line in which it says "starting on".
pub(crate) fn mailbox(folder: &Path) -> Command {
    twist(folder, &["wormhole-mailbox", "--port=tcp:0:interface=127.0.0.1", "--channel-db=:memory:"])
}

/// The URL of a mailbox server that said so.
pub(crate) fn mailbox_url(starting_on: &str) -> String {
    format!("ws://127.0.0.1:{}/v1", starting_on.rsplit(' ').next().unwrap())
}

/// What /etc/hosts must say for wormhole-william, by which the name of its relay means this one.
pub(crate) fn hosts(relay: Ipv4Addr) -> String {
    format!("{relay} transit.magic-wormhole.io\n127.0.0.1 localhost\n")
}

fn twist(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python().join("twist"));
    command.arg("--log-format=text").args(arguments).current_dir(folder);
    command
}
