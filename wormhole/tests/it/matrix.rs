//! Every peer, both directions, both ways, three sizes; and ourselves.

use std::{
    fs,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use p2p_worker::{
    spool::Spooled,
    wormhole::{Failure, Program, Progress, Reach, Wormhole, WormholeConfig, WormholeError},
};
use tokio_util::sync::CancellationToken;

use crate::world::{Peer, Running, Way, World, code, parsed, quiet, run};

/// Nothing, a small future as R makes it, and more than all pipes and sockets hold.
const SIZES: [u64; 3] = [0, 823, 24 * 1024 * 1024 + 1];

fn with(peer: Peer, way: Way) {
    let world = World::new();
    for (number, size) in (0..).step_by(7).zip(SIZES) {
        let context = format!("{peer:?} {way:?} {size}");
        we_receive(&world, peer, way, &code(number), size).expect(&context);
        we_send(&world, peer, way, &code(number + 1), size).expect(&context);
    }
}

fn we_receive(world: &World, peer: Peer, way: Way, code: &str, size: u64) -> Result<(), WormholeError> {
    let file = world.file(&format!("sent-{code}"), size);
    let mut sender = world.sender(peer, code, &file);
    let mut seen = Vec::new();
    let (ours, cancel) = (world.ours(way), CancellationToken::new());
    let note = |progress| seen.push(progress);
    let received = run(ours.receive(&parsed(code), size, world.folder.path(), note, &cancel))?;
    assert_eq!(received.digest(), Spooled::from_path(&file, size).unwrap().digest());
    assert!(sender.ends(), "{peer:?} {way:?} {size}: {}", sender.log());
    check_way(&seen, way, size);
    Ok(())
}

fn we_send(world: &World, peer: Peer, way: Way, code: &str, size: u64) -> Result<(), WormholeError> {
    let payload = world.spooled(size);
    let (mut receiver, file) = world.receiver(peer, code);
    let mut seen = Vec::new();
    let note = |progress| seen.push(progress);
    run(world.ours(way).send(&parsed(code), &payload, note, &CancellationToken::new()))?;
    assert!(receiver.ends(), "{peer:?} {way:?} {size}: {}", receiver.log());
    assert_eq!(payload.digest(), Spooled::from_path(&file, size).unwrap().digest());
    check_way(&seen, way, size);
    Ok(())
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

/// What wormhole-william does once in 256 times, and what others do then: they understand us, and we them.
#[test]
fn shared_points_that_end_in_a_zero() {
    let world = World::new();
    for peer in ["gospake2", "python", "ours"] {
        let server = Running::start(world.script("zeros.py", &[&code(0), peer]));
        let port = server.wait_for("port ").split_once(' ').unwrap().1.to_owned();
        let mut config = world.config(Way::Direct);
        config.mailbox = format!("ws://127.0.0.1:{port}/v1").parse().unwrap();
        let (ours, never) = (Program::new(config), CancellationToken::new());
        let result = run(ours.receive(&parsed(&code(0)), 1, world.folder.path(), quiet, &never));
        let understood = Failure::Peer("understood".to_owned());
        assert!(
            matches!(&result, Err(WormholeError::Failed(failure)) if *failure == understood),
            "{peer} {result:?} {}",
            server.log()
        );
    }
}

/// As many transfers as the environment says, some if it does not: none fails.
#[test]
fn wormhole_william_again_and_again() {
    const SIZE: u64 = 823;
    const AT_A_TIME: u32 = 4;
    let wanted: u32 = std::env::var("P2P_TEST_TRANSFERS").map_or(16, |count| count.parse().unwrap());
    let world = World::new();
    let (next, failed) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let transfers = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= wanted {
                return;
            }
            let transfer = if number % 2 == 0 { we_receive } else { we_send };
            if let Err(error) = transfer(&world, Peer::William, Way::Direct, &code(number), SIZE) {
                failed.lock().unwrap().push((number, error));
            }
        }
    };
    std::thread::scope(|scope| (0..AT_A_TIME).for_each(|_| drop(scope.spawn(transfers))));
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {wanted}: {failed:?}", failed.len());
}

/// The relay that only the peer has, and by a name that p2p-wormhole cannot look up itself.
#[test]
fn a_relay_that_the_peer_names() {
    let world = World::new();
    let (_server, relay) = world.relay_on_localhost();
    let mut config = world.config(Way::Relayed);
    config.relay = "tcp:127.0.0.1:1".parse().unwrap(); // Nobody listens there.
    let sender = |code: &str| Running::start(world.script("naughty.py", &[code, "relayed", &relay]));
    let receive = |config: &WormholeConfig, code: &str, seen: &mut Vec<Progress>| {
        let (ours, note) = (Program::new(config.clone()), |progress| seen.push(progress));
        run(ours.receive(&parsed(code), 100, world.folder.path(), note, &CancellationToken::new()))
    };
    // A stranger's relay may not be on this machine, unless the owner says so.
    let stranger = sender(&code(0));
    let refused = receive(&config, &code(0), &mut Vec::new());
    assert!(matches!(refused, Err(WormholeError::Failed(Failure::NoWay(_)))), "{refused:?}\n{}", stranger.log());
    config.reach = Reach::Loopback;
    let (peer, mut seen) = (sender(&code(1)), Vec::new());
    let received = receive(&config, &code(1), &mut seen);
    assert_eq!(received.unwrap_or_else(|error| panic!("{error:?}\n{}", peer.log())).size(), 100);
    peer.wait_for("receipt");
    check_way(&seen, Way::Relayed, 100);
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
