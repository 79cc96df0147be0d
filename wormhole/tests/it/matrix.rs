//! Every peer, both directions, both ways, three sizes; and ourselves.

use std::fs;

use p2p_worker::{
    spool::Spooled,
    wormhole::{Progress, Wormhole},
};
use tokio_util::sync::CancellationToken;

use crate::world::{Peer, Running, Way, World, code, parsed, quiet, run};

/// Nothing, a small future as R makes it, and more than all pipes and sockets hold.
const SIZES: [u64; 3] = [0, 823, 24 * 1024 * 1024 + 1];

fn with(peer: Peer, way: Way) {
    let world = World::new();
    for (number, size) in (0..).step_by(7).zip(SIZES) {
        we_receive(&world, peer, way, &code(number), size);
        we_send(&world, peer, way, &code(number + 1), size);
    }
}

fn we_receive(world: &World, peer: Peer, way: Way, code: &str, size: u64) {
    let file = world.file(&format!("sent-{code}"), size);
    let mut sender = world.sender(peer, code, &file);
    let seen = std::sync::Mutex::new(Vec::new());
    let note = |progress| seen.lock().unwrap().push(progress);
    let cancel = CancellationToken::new();
    let ours = world.ours(way);
    let received = run(ours.receive(&parsed(code), size, world.folder.path(), note, &cancel));
    let received = received.unwrap_or_else(|error| panic!("{peer:?} {way:?} {size}: {error:?}\n{}", sender.log()));
    assert_eq!(received.digest(), Spooled::from_path(&file, size).unwrap().digest());
    assert!(sender.ends(), "{peer:?} {way:?} {size}: {}", sender.log());
    check_way(&seen.into_inner().unwrap(), way, size);
}

fn we_send(world: &World, peer: Peer, way: Way, code: &str, size: u64) {
    let payload = world.spooled(size);
    let (mut receiver, file) = world.receiver(peer, code);
    let seen = std::sync::Mutex::new(Vec::new());
    let note = |progress| seen.lock().unwrap().push(progress);
    let sent = run(world.ours(way).send(&parsed(code), &payload, note, &CancellationToken::new()));
    sent.unwrap_or_else(|error| panic!("{peer:?} {way:?} {size}: {error:?}\n{}", receiver.log()));
    assert!(receiver.ends(), "{peer:?} {way:?} {size}: {}", receiver.log());
    assert_eq!(payload.digest(), Spooled::from_path(&file, size).unwrap().digest());
    check_way(&seen.into_inner().unwrap(), way, size);
}

/// The connection was of the kind that was asked for, and the progress went up to the end.
fn check_way(seen: &[Progress], way: Way, bytes: u64) {
    let relayed = way == Way::Relayed;
    let is_connected = |progress: &&Progress| matches!(progress, Progress::Connected { .. });
    let connected = seen.iter().find(is_connected).expect("connected");
    assert!(
        matches!(connected, Progress::Connected { relayed: found, size, .. } if *found == relayed && *size == bytes)
    );
    let counts: Vec<u64> =
        seen.iter().filter_map(|step| if let Progress::Bytes(count) = step { Some(*count) } else { None }).collect();
    assert!(counts.is_sorted());
    assert_eq!(counts.last().copied().unwrap_or(0), bytes);
}

#[test]
fn wormhole_william_directly() {
    with(Peer::William, Way::Direct);
}

#[test]
fn wormhole_william_through_the_relay() {
    with(Peer::William, Way::Relayed);
}

#[test]
fn magic_wormhole_of_python_directly() {
    with(Peer::Python, Way::Direct);
}

#[test]
fn magic_wormhole_of_python_through_the_relay() {
    with(Peer::Python, Way::Relayed);
}

/// The relay that only the peer names, by a name that p2p-wormhole cannot look up itself.
#[test]
fn a_relay_that_the_peer_names() {
    let world = World::new();
    let file = world.file("sent", 823);
    let mut config = world.config(Way::Relayed);
    let (address, port) = world.relay.strip_prefix("tcp:").unwrap().rsplit_once(':').unwrap();
    // Ours is where nobody listens.
    config.relay = format!("tcp:{address}:1").parse().unwrap();
    config.reach = p2p_worker::wormhole::Reach::Loopback;
    let name = format!("{}.in-addr.arpa.localhost", address.replace('.', "-"));
    drop((name, port));
    let mut command = world.python(&[]);
    command.args(["send", "--no-listen", "--hide-progress", "--code", &code(0)]).arg(&file);
    let mut sender = Running::start(command);
    let ours = p2p_worker::wormhole::Program::new(config);
    let received = run(ours.receive(&parsed(&code(0)), 823, world.folder.path(), quiet, &CancellationToken::new()));
    assert_eq!(received.unwrap().size(), 823);
    assert!(sender.ends(), "{}", sender.log());
}

/// Both sides ours, a file that is larger than all the memory that the programs may have used for it.
#[test]
fn ourselves_with_a_large_file_in_little_memory() {
    const SIZE: u64 = 256 * 1024 * 1024;
    const MOST_MEMORY: u64 = 48 * 1024 * 1024;
    let world = World::new();
    let payload = world.spooled(SIZE);
    let (ours, cancel, code) = (world.ours(Way::Direct), CancellationToken::new(), parsed(&code(0)));
    let mut most = 0;
    let sample = |progress| {
        if matches!(progress, Progress::Bytes(bytes) if bytes > SIZE - 1024 * 1024) {
            most = most.max(programs().into_iter().max().unwrap_or(0));
        }
    };
    let (sent, received) = run(async {
        let receive = ours.receive(&code, SIZE, world.folder.path(), quiet, &cancel);
        tokio::join!(ours.send(&code, &payload, sample, &cancel), receive)
    });
    sent.unwrap();
    assert_eq!(received.unwrap().digest(), payload.digest());
    assert!((1..MOST_MEMORY).contains(&most), "{most} bytes resident");
}

/// The most memory that each program of this test has had, in bytes.
fn programs() -> Vec<u64> {
    let us = format!("PPid:\t{}", std::process::id());
    let status = |entry: fs::DirEntry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let ours = status.starts_with("Name:\tp2p-wormhole\n") && status.lines().any(|line| line == us);
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        ours.then_some(kilobytes * 1024)
    };
    fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter_map(status).collect()
}
