//! What a transfer leaves on the mailbox server when it did not come about: nothing, so that others can use the code.

use std::time::Duration;

use p2p_worker::wormhole::{Failure, Phase, Program, Progress, Wormhole, WormholeError};
use tokio_util::sync::CancellationToken;

use crate::world::{Peer, Running, Way, World, code, eventually, parsed, quiet, run};

const SIZE: u64 = 823;

/// What the server says is held.
fn held(world: &World) -> String {
    Running::start(world.script("nameplates.py", &[])).wait_for("held:").trim_end().to_owned()
}

/// Two others meet by this code: a server that still had our place would turn the second of them away.
fn is_free_for_others(world: &World, code: &str) {
    let file = world.file("sent", SIZE);
    let mut sender = world.sender(Peer::Python, code, &file);
    let (mut receiver, received) = world.receiver(Peer::Python, code);
    assert!(sender.ends() && receiver.ends(), "{}\n{}", sender.log(), receiver.log());
    assert_eq!(std::fs::read(received).unwrap(), std::fs::read(file).unwrap());
    assert_eq!(held(world), "held:");
}

#[test]
fn after_waiting_in_vain() {
    let world = World::new();
    let mut config = world.config(Way::Relayed);
    config.patience.peer = Duration::from_millis(1500);
    let never = CancellationToken::new();
    let result = run(Program::new(config).receive(&parsed(&code(0)), 1, world.folder.path(), quiet, &never));
    let expected = Failure::TimedOut { phase: Phase::Peer, after_ms: 1500 };
    assert!(matches!(&result, Err(WormholeError::Failed(failure)) if *failure == expected), "{result:?}");
    assert_eq!(held(&world), "held:");
    is_free_for_others(&world, &code(0));
}

#[test]
fn after_a_cancellation_before_anybody_came() {
    let world = World::new();
    let (ours, payload) = (world.ours(Way::Relayed), world.spooled(SIZE));
    let cancelled_in = |number: u32, phase: Phase| {
        let cancel = CancellationToken::new();
        let cancelling = |progress| {
            if progress == Progress::Waiting(phase) {
                cancel.cancel();
            }
        };
        let result = run(ours.send(&parsed(&code(number)), &payload, cancelling, &cancel));
        assert!(matches!(result, Err(WormholeError::Cancelled)), "{result:?}");
    };
    for (number, phase) in [(0, Phase::Mailbox), (1, Phase::Peer)] {
        cancelled_in(number, phase);
        assert_eq!(held(&world), "held:");
    }
    is_free_for_others(&world, &code(0));
    is_free_for_others(&world, &code(1));
}

#[test]
fn after_somebody_who_did_not_know_the_password() {
    let world = World::new();
    let file = world.file("sent", SIZE);
    for (number, peer) in (0..).zip([Peer::William, Peer::Python]) {
        let mut stranger = world.sender(peer, &format!("{number:04}-another-password"), &file);
        let (ours, never) = (world.ours(Way::Relayed), CancellationToken::new());
        let result = run(ours.receive(&parsed(&code(number)), SIZE, world.folder.path(), quiet, &never));
        assert!(matches!(result, Err(WormholeError::Failed(Failure::Password))), "{result:?}");
        assert!(!stranger.ends(), "{}", stranger.log());
        is_free_for_others(&world, &code(number));
    }
}

#[test]
fn after_a_transfer_the_code_is_good_for_another() {
    let world = World::new();
    let (ours, payload) = (world.ours(Way::Relayed), world.spooled(SIZE));
    for peer in [Peer::William, Peer::Python] {
        let number = if peer == Peer::William { 0 } else { 1 };
        let (mut receiver, _) = world.receiver(peer, &code(number));
        run(ours.send(&parsed(&code(number)), &payload, quiet, &CancellationToken::new())).unwrap();
        assert!(receiver.ends(), "{}", receiver.log());
        eventually("the server has everything back", || held(&world) == "held:");
    }
}

/// What ends without a word, the server keeps until it forgets it by itself.
#[test]
fn only_a_kill_leaves_something() {
    let world = World::new();
    let (program, pid) = world.traceable();
    let mut config = world.config(Way::Relayed);
    config.program = program;
    let killing = |progress| {
        if progress == Progress::Waiting(Phase::Peer) {
            // The place is open when it says so.
            pid.signal(nix::sys::signal::Signal::SIGKILL);
        }
    };
    let never = CancellationToken::new();
    let result = run(Program::new(config).receive(&parsed(&code(7)), 1, world.folder.path(), killing, &never));
    assert!(matches!(result, Err(WormholeError::Died { .. })), "{result:?}");
    assert_eq!(held(&world), "held: 0007");
}
