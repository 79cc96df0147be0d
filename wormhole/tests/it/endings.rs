//! Cancelling, time-outs, the wrong password, servers that are away, and a p2p-worker that dies.

use std::{process::Command, time::Duration};

use nix::sys::signal::Signal;
use p2p_worker::wormhole::{Failure, Phase, Program, Progress, Reach, Wormhole, WormholeError};
use tokio_util::sync::CancellationToken;

use crate::world::{Peer, Running, Way, World, code, eventually, parsed, quiet, run};

const LARGE: u64 = 256 * 1024 * 1024;

/// Cancels when so much has flowed.
fn cancelling(cancel: &CancellationToken) -> impl FnMut(Progress) + Send {
    move |progress| {
        if matches!(progress, Progress::Bytes(bytes) if bytes > 1024 * 1024) {
            cancel.cancel();
        }
    }
}

/// Kills it when so much has flowed.
fn killing(peer: &Running) -> impl FnMut(Progress) + Send {
    move |progress| {
        if matches!(progress, Progress::Bytes(bytes) if bytes > 1024 * 1024) {
            peer.signal(Signal::SIGKILL);
        }
    }
}

/// Programs of this test that still run.
fn programs() -> Vec<String> {
    let us = format!("PPid:\t{}", std::process::id());
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let status = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("status")).ok();
    let ours = |status: &String| status.starts_with("Name:\tp2p-wormhole\n") && status.lines().any(|line| line == us);
    entries.filter_map(status).filter(ours).collect()
}

#[test]
fn we_cancel_in_the_middle_and_the_peer_hears_it() {
    let world = World::new();
    let file = world.file("large", LARGE);
    let payload = world.spooled(LARGE);
    for (number, peer) in (0..).step_by(2).zip([Peer::William, Peer::Python]) {
        let ours = world.ours(Way::Direct);
        let (code, next) = (code(number), code(number + 1));
        let mut sender = world.sender(peer, &code, &file);
        let cancel = CancellationToken::new();
        let result = run(ours.receive(&parsed(&code), LARGE, world.folder.path(), cancelling(&cancel), &cancel));
        assert!(!sender.ends(), "{peer:?}: {}", sender.log());
        assert!(matches!(result, Err(WormholeError::Cancelled)), "{result:?}");
        let (mut receiver, _) = world.receiver(peer, &next);
        let cancel = CancellationToken::new();
        let result = run(ours.send(&parsed(&next), &payload, cancelling(&cancel), &cancel));
        assert!(!receiver.ends(), "{peer:?}: {}", receiver.log());
        assert!(matches!(result, Err(WormholeError::Cancelled)), "{result:?}");
    }
}

#[test]
fn the_reason_of_a_peer_of_ours_arrives() {
    let world = World::new();
    let (ours, cancel, never) = (world.ours(Way::Relayed), CancellationToken::new(), CancellationToken::new());
    let (payload, code) = (world.spooled(LARGE), parsed(&code(0)));
    let (sent, received) = run(async {
        let receive = ours.receive(&code, LARGE, world.folder.path(), quiet, &never);
        tokio::join!(ours.send(&code, &payload, cancelling(&cancel), &cancel), receive)
    });
    assert!(matches!(sent, Err(WormholeError::Cancelled)), "{sent:?}");
    assert!(matches!(&received, Err(WormholeError::Failed(Failure::Peer(why))) if why == "cancelled"), "{received:?}");
}

#[test]
fn a_peer_is_killed_in_the_middle() {
    let world = World::new();
    let file = world.file("large", LARGE);
    let payload = world.spooled(LARGE);
    let lost = |result| matches!(result, Err(WormholeError::Failed(Failure::Lost { size: LARGE, .. })));
    for (number, peer) in (0..).step_by(2).zip([Peer::William, Peer::Python]) {
        let (ours, never) = (world.ours(Way::Direct), CancellationToken::new());
        let (code, next) = (code(number), code(number + 1));
        let sender = world.sender(peer, &code, &file);
        let result = run(ours.receive(&parsed(&code), LARGE, world.folder.path(), killing(&sender), &never));
        assert!(lost(result.map(drop)), "{peer:?} sends");
        let (receiver, _) = world.receiver(peer, &next);
        let result = run(ours.send(&parsed(&next), &payload, killing(&receiver), &never));
        assert!(lost(result), "{peer:?} receives");
    }
}

#[test]
fn waiting_can_be_cancelled_and_no_program_is_left() {
    let world = World::new();
    let cancel = CancellationToken::new();
    let waiting = |progress| {
        if progress == Progress::Waiting(Phase::Peer) {
            cancel.cancel();
        }
    };
    let ours = world.ours(Way::Direct);
    let result = run(ours.receive(&parsed(&code(1)), 1, world.folder.path(), waiting, &cancel));
    assert!(matches!(result, Err(WormholeError::Cancelled)), "{result:?}");
    eventually("no program is left", || programs().is_empty());
}

#[test]
fn somebody_else_uses_the_code() {
    let world = World::new();
    let file = world.file("sent", 823);
    // The board shows the nameplate, and who guesses the password wrong uses up the code.
    for (number, peer) in (0..).zip([Peer::William, Peer::Python]) {
        let stranger = world.sender(peer, &format!("{number:04}-another-password"), &file);
        let ours = world.ours(Way::Direct);
        let spool = world.folder.path();
        let result = run(ours.receive(&parsed(&code(number)), 823, spool, quiet, &CancellationToken::new()));
        assert!(matches!(result, Err(WormholeError::Failed(Failure::Password))), "{result:?}\n{}", stranger.log());
    }
}

#[test]
fn servers_that_are_away() {
    let world = World::new();
    let file = world.file("sent", 823);
    let never = CancellationToken::new();
    let mut config = world.config(Way::Relayed);
    config.mailbox = "ws://127.0.0.1:1/v1".parse().unwrap();
    let result = run(Program::new(config).receive(&parsed(&code(0)), 1, world.folder.path(), quiet, &never));
    assert!(
        matches!(&result, Err(WormholeError::Failed(Failure::Mailbox(why))) if why.contains("refused")),
        "{result:?}"
    );

    let mut config = world.config(Way::Relayed);
    config.mailbox = "ws://no-such-host.invalid:4000/v1".parse().unwrap();
    let result = run(Program::new(config).receive(&parsed(&code(0)), 1, world.folder.path(), quiet, &never));
    assert!(
        matches!(&result, Err(WormholeError::Resolve { host, .. }) if host == "no-such-host.invalid:4000"),
        "{result:?}"
    );

    // Neither side has a relay or may go directly.
    let mut config = world.config(Way::Relayed);
    config.relay = "tcp:127.0.0.1:1".parse().unwrap();
    let send = ["send", "--no-listen", "--hide-progress", "--code", &code(1), file.to_str().unwrap()];
    let sender = Running::start(world.python_with("tcp:127.0.0.1:1", &send));
    let result = run(Program::new(config).receive(&parsed(&code(1)), 823, world.folder.path(), quiet, &never));
    let named = |why: &str| why.contains("relay 127.0.0.1:1") && why.contains("refused");
    assert!(
        matches!(&result, Err(WormholeError::Failed(Failure::NoWay(why))) if named(why)),
        "{result:?}\n{}",
        sender.log()
    );

    let mut config = world.config(Way::Direct);
    config.reach = Reach::Nowhere;
    let result = run(Program::new(config).receive(&parsed(&code(2)), 1, world.folder.path(), quiet, &never));
    assert!(matches!(&result, Err(WormholeError::Failed(Failure::Request(_)))), "{result:?}");
}

/// No time-out of its own comes to its turn.
#[test]
fn a_program_that_is_stuck_is_ended() {
    let world = World::new();
    let (program, pid) = world.traceable();
    let mut config = world.config(Way::Direct);
    (config.program, config.patience.peer) = (program, Duration::from_millis(1500));
    let stopping = |progress| {
        if progress == Progress::Waiting(Phase::Peer) {
            pid.signal(Signal::SIGSTOP);
        }
    };
    let never = CancellationToken::new();
    let result = run(Program::new(config).receive(&parsed(&code(0)), 1, world.folder.path(), stopping, &never));
    assert!(matches!(result, Err(WormholeError::Stuck { phase: Some(Phase::Peer), .. })), "{result:?}");
}

/// The parent here is a shell that holds the other ends of the pipes.
#[test]
fn whoever_started_it_is_killed() {
    let mut parent = Command::new("sh");
    parent.args(["-c", "mkfifo \"$2/in\"; \"$1\" <\"$2/in\" >\"$2/out\" & echo $!; exec 3>\"$2/in\"; read wait", "sh"]);
    let folder = tempfile::tempdir().unwrap();
    assert!(Command::new("mkfifo").arg(folder.path().join("out")).status().unwrap().success());
    parent.arg(env!("CARGO_BIN_EXE_p2p-wormhole")).arg(folder.path());
    let mut parent = Running::start(parent);
    let mut output = std::fs::File::open(folder.path().join("out")).unwrap();
    let mut greeting = [0; 16];
    std::io::Read::read_exact(&mut output, &mut greeting).unwrap();
    let program = format!("/proc/{}", parent.wait_for("").trim());
    let name = std::fs::read_to_string(format!("{program}/comm")).unwrap();
    assert_eq!(name.trim(), "p2p-wormhole");
    parent.signal(Signal::SIGKILL);
    eventually("the program has gone", || !std::path::Path::new(&program).exists());
    assert!(!parent.ends());
}

#[test]
fn a_program_that_is_missing_or_is_another_one() {
    let world = World::new();
    let receive = |program: &str| {
        let mut config = world.config(Way::Direct);
        config.program = program.into();
        run(Program::new(config).receive(&parsed(&code(0)), 1, world.folder.path(), quiet, &CancellationToken::new()))
    };
    let missing = receive("/nonexistent/p2p-wormhole");
    assert!(matches!(missing, Err(WormholeError::Execute { .. })), "{missing:?}");
    let other = receive("/bin/false");
    assert!(matches!(&other, Err(WormholeError::Died { how }) if how.contains("exit status: 1")), "{other:?}");
    // It repeats what it is told: nothing, until we have heard its first word.
    let script = world.path("echo");
    std::fs::write(&script, "#!/bin/sh\necho this is no contract\n").unwrap();
    assert!(Command::new("chmod").args(["+x"]).arg(&script).status().unwrap().success());
    let echo = receive(script.to_str().unwrap());
    assert!(matches!(echo, Err(WormholeError::OtherBuild)), "{echo:?}");
}
