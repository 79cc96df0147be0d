//! Warms up the TLS library, once per process, in the background.
//!
//! The first QUIC handshake of a process takes 50 to 100 ms more than the others: aws-lc collects entropy from the
//! jitter of the processor before it makes its first random number. That would come between `accept` and the first byte
//! of a future, so it is had while the process still signs in to its board.

use std::{net::UdpSocket, sync::Once};

use libp2p::{
    core::{
        Endpoint, Transport,
        transport::{DialOpts, PortUse},
    },
    futures::FutureExt,
    identity::Keypair,
    quic,
};

static ONCE: Once = Once::new();

/// Begins a handshake with a socket of our own that never answers, in a blocking thread, and leaves it at that. Must be
/// called inside a tokio runtime. Nothing depends on whether it works.
pub(super) fn warm_up() {
    tokio::task::spawn_blocking(|| ONCE.call_once(|| _ = begin_handshake()));
}

fn begin_handshake() -> Option<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", socket.local_addr().ok()?.port()).parse().ok()?;
    let mut transport = quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    // The first poll makes the first flight of the handshake, with all its random numbers.
    transport.dial(address, options).ok()?.now_or_never().map(drop)
}
