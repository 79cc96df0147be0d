//! A relay that holds back everything for half a round trip in each direction: where the kernel has no `netem`, the next
//! best thing. It runs in a process of its own, as another host would.
//!
//! Datagrams are passed on one by one, so QUIC meets the delay as on a real path, its losses in full buffers included. A
//! stream of TCP ends at the relay and begins again, so what meets the delay is everything above TCP (the windows of
//! Yamux and SSH, their round trips), and not the windows of TCP itself.

use std::{collections::VecDeque, net::SocketAddr, os::fd::AsFd, process::Stdio, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use p2p_worker::ids::Address;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UdpSocket, tcp},
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::Failure;

/// Pieces of a stream that are under way in one direction, of at most 64 KiB each: 256 MiB.
const PIECES: usize = 4096;
const PIECE: usize = 64 << 10;
/// Datagrams that are under way in one direction: 90 MiB of full ones.
const DATAGRAMS: usize = 65_536;
/// What a socket of datagrams may hold, in bytes, as far as the kernel lets it.
const SOCKET: usize = 8 << 20;

/// A relay before a port, or no relay where nothing is delayed.
pub(crate) struct Relay {
    port: u16,
    _process: Option<Child>,
}

impl Relay {
    /// Before a TCP port of loopback.
    pub(crate) async fn tcp(port: u16, delay: u32) -> Result<Self, Failure> {
        Self::start("tcp", port, delay).await
    }

    /// Before an address of ours; and the address that leads through it.
    pub(crate) async fn before(address: &Address, delay: u32) -> Result<(Self, Address), Failure> {
        let text = address.to_string();
        let mut parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        let kind = if text.contains("/udp/") { "udp" } else { "tcp" };
        let port = parts.get_mut(4).ok_or("no port")?;
        let relay = Self::start(kind, port.parse()?, delay).await?;
        *port = relay.port().to_string();
        Ok((relay, parts.join("/").parse()?))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    async fn start(kind: &str, port: u16, delay: u32) -> Result<Self, Failure> {
        if delay == 0 {
            return Ok(Self { port, _process: None });
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["relay", kind, &port.to_string(), &delay.to_string()]);
        let mut process = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let said = BufReader::new(process.stdout.take().ok_or("no way from the relay")?).lines().next_line().await?;
        Ok(Self { port: said.ok_or("the relay ended")?.parse()?, _process: Some(process) })
    }
}

/// The relay's process: says its port and relays until it is killed.
pub(crate) async fn run(kind: &str, to: u16, delay: u32) -> Result<(), Failure> {
    let one_way = Duration::from_micros(u64::from(delay) * 500);
    let to = SocketAddr::from(([127, 0, 0, 1], to));
    if kind == "udp" { datagrams(to, one_way).await } else { streams(to, one_way).await }
}

fn say(port: u16) -> Result<(), Failure> {
    Ok(std::io::Write::write_all(&mut std::io::stdout(), format!("{port}\n").as_bytes())?)
}

async fn streams(to: SocketAddr, one_way: Duration) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(listener.local_addr()?.port())?;
    loop {
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(to).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
        for (from, to) in [(from_near, to_far), (from_far, to_near)] {
            let (pieces, queue) = mpsc::channel(PIECES);
            tokio::spawn(take(from, pieces, one_way));
            tokio::spawn(give(queue, to));
        }
    }
}

type Held = (Instant, Vec<u8>);

async fn take(mut from: tcp::OwnedReadHalf, pieces: mpsc::Sender<Held>, one_way: Duration) {
    loop {
        let mut piece = vec![0; PIECE];
        let Ok(count @ 1..) = from.read(&mut piece).await else { return };
        piece.truncate(count);
        if pieces.send((Instant::now() + one_way, piece)).await.is_err() {
            return;
        }
    }
}

async fn give(mut pieces: mpsc::Receiver<Held>, mut to: tcp::OwnedWriteHalf) {
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn datagrams(to: SocketAddr, one_way: Duration) -> Result<(), Failure> {
    let (near, far) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    far.connect(to).await?;
    for socket in [near.as_fd(), far.as_fd()] {
        // What the kernel does not let us have, we do without.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &SOCKET);
        let _ = setsockopt(&socket, sockopt::SndBuf, &SOCKET);
    }
    say(near.local_addr()?.port())?;
    let (mut there, mut back) = (VecDeque::<Held>::new(), VecDeque::<Held>::new());
    let (mut peer, mut buffer) = (None, vec![0; 65_536]);
    loop {
        let due = [there.front(), back.front()].into_iter().flatten().map(|held| held.0).min();
        tokio::select! {
            ready = near.readable() => ready?,
            ready = far.readable() => ready?,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        while let Ok((count, from)) = near.try_recv_from(&mut buffer) {
            peer = Some(from);
            hold(&mut there, buffer.get(..count).unwrap_or_default(), one_way);
        }
        while let Ok(count) = far.try_recv(&mut buffer) {
            hold(&mut back, buffer.get(..count).unwrap_or_default(), one_way);
        }
        let now = Instant::now();
        while let Some(datagram) = due_first(&mut there, now) {
            far.send(&datagram).await?;
        }
        while let Some(datagram) = due_first(&mut back, now) {
            if let Some(peer) = peer {
                near.send_to(&datagram, peer).await?;
            }
        }
    }
}

/// The first datagram, if its time has come.
fn due_first(queue: &mut VecDeque<Held>, now: Instant) -> Option<Vec<u8>> {
    if queue.front()?.0 > now {
        return None;
    }
    queue.pop_front().map(|(_, datagram)| datagram)
}

/// Keeps a datagram for half a round trip; what is too much is lost, as it would be on a path.
fn hold(queue: &mut VecDeque<Held>, datagram: &[u8], one_way: Duration) {
    if queue.len() < DATAGRAMS {
        queue.push_back((Instant::now() + one_way, datagram.to_vec()));
    }
}
