//! Peers that do one thing wrong: each has its own error, and nobody waits for ever.

use std::time::Duration;

use p2p_worker::wormhole::{Failure, Offered, Patience, Phase, Program, Wormhole, WormholeError};
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, Peer, Running, Way, World, code, parsed, quiet, run};

/// A world in which each peer gets the next code.
struct Scene {
    world: World,
    next: std::cell::Cell<u32>,
}

impl Scene {
    fn new() -> Self {
        Self { world: World::new(), next: std::cell::Cell::new(0) }
    }

    fn number(&self) -> u32 {
        self.next.replace(self.next.get() + 1)
    }

    fn naughty(&self, mode: &str) -> (String, Running) {
        let code = code(self.number());
        let peer = Running::start(self.world.script("naughty.py", &[&code, mode]));
        (code, peer)
    }

    /// What we get when we receive at most 150 bytes from such a peer.
    fn receive_from(&self, mode: &str, patience: impl FnOnce(&mut Patience)) -> WormholeError {
        let (code, peer) = self.naughty(mode);
        let mut config = self.world.config(Way::Direct);
        patience(&mut config.patience);
        let ours = Program::new(config);
        let folder = self.world.folder.path();
        let result = run(ours.receive(&parsed(&code), 250, folder, quiet, &CancellationToken::new()));
        result.map(|spooled| spooled.size()).expect_err(&format!("{mode}: {}", peer.log()))
    }

    /// What we get when we send so many bytes to such a peer.
    fn send_to(&self, mode: &str, size: u64, patience: impl FnOnce(&mut Patience)) -> WormholeError {
        let (code, peer) = self.naughty(mode);
        let mut config = self.world.config(Way::Direct);
        patience(&mut config.patience);
        let payload = self.world.spooled(size);
        let sent = run(Program::new(config).send(&parsed(&code), &payload, quiet, &CancellationToken::new()));
        sent.expect_err(&format!("{mode}: {}", peer.log()))
    }
}

fn patient(_: &mut Patience) {}

/// Its failure.
fn failure(error: WormholeError) -> Failure {
    match error {
        WormholeError::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

const SHORT: Duration = Duration::from_millis(1500);

#[test]
fn senders_that_announce_something_else() {
    let scene = Scene::new();
    assert_eq!(failure(scene.receive_from("more", patient)), Failure::TooMany { announced: 50 });
    let less = failure(scene.receive_from("less", patient));
    assert!(matches!(less, Failure::Lost { done: 100, size: 200, .. }), "{less:?}");
    for mode in ["negative", "text-size"] {
        let size = failure(scene.receive_from(mode, patient));
        assert!(matches!(&size, Failure::Protocol(why) if why.starts_with("a file of ")), "{size:?}");
    }
    assert_eq!(failure(scene.receive_from("huge", patient)), Failure::TooLarge { size: 1 << 63, limit: 250 });
    assert_eq!(failure(scene.receive_from("unknown", patient)), Failure::Offer(Offered::Unknown));
    let record = failure(scene.receive_from("record", patient));
    assert_eq!(record, Failure::Protocol("a record of 2147483647 bytes".to_owned()));
}

#[test]
fn folders_and_texts_and_large_files_of_real_peers_are_refused() {
    let scene = Scene::new();
    let world = &scene.world;
    let folder = world.path("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a"), "b").unwrap();
    let large = world.file("large", 251);
    for peer in [Peer::William, Peer::Python] {
        let offers: [(&[&str], Failure); 3] = [
            (&[folder.to_str().unwrap()], Failure::Offer(Offered::Folder)),
            (&["--text", "hello"], Failure::Offer(Offered::Text)),
            (&[large.to_str().unwrap()], Failure::TooLarge { size: 251, limit: 250 }),
        ];
        for (arguments, expected) in offers {
            let code = code(scene.number());
            let arguments = [&["send", "--hide-progress", "--code", &code], arguments].concat();
            let mut sender = Running::start(match peer {
                Peer::William => world.william(&arguments, world.folder.path()),
                Peer::Python => world.python(&arguments),
            });
            let (ours, never) = (world.ours(Way::Direct), CancellationToken::new());
            let refused = run(ours.receive(&parsed(&code), 250, world.folder.path(), quiet, &never));
            assert!(!sender.ends(), "{peer:?} knows that it was refused: {}", sender.log());
            assert_eq!(failure(refused.expect_err("refused")), expected, "{peer:?}");
        }
    }
}

#[test]
fn receivers_that_do_not_play_their_part() {
    let scene = Scene::new();
    assert_eq!(failure(scene.send_to("other-digest", 100, patient)), Failure::Digest);
    assert_eq!(
        failure(scene.send_to("no-receipt", 100, patient)),
        Failure::Protocol("a receipt was expected".to_owned())
    );
    let closed = failure(scene.send_to("close-early", 32 << 20, patient));
    assert!(matches!(closed, Failure::Lost { size, .. } if size == 32 << 20), "{closed:?}");
    let liar = failure(scene.send_to("liar", 100, patient));
    assert_eq!(liar, Failure::Protocol("a file_ack was expected".to_owned()));
    let deaf = failure(scene.send_to("deaf", 32 << 20, |patience| patience.stall = SHORT));
    assert!(matches!(&deaf, Failure::Lost { why, .. } if why.contains("took nothing")), "{deaf:?}");
}

#[test]
fn peers_that_say_nothing_or_nonsense() {
    let scene = Scene::new();
    let silent = failure(scene.receive_from("silent", |patience| patience.offer = SHORT));
    assert_eq!(silent, Failure::TimedOut { phase: Phase::Offer, after_ms: 1500 });
    let silent = failure(scene.send_to("silent", 1, |patience| patience.offer = SHORT));
    assert_eq!(silent, Failure::TimedOut { phase: Phase::Offer, after_ms: 1500 });
    let trickle = failure(scene.receive_from("trickle", |patience| patience.stall = SHORT));
    assert!(matches!(&trickle, Failure::Lost { done: 100, why, .. } if why.contains("nothing came")), "{trickle:?}");
    let trickle = failure(scene.receive_from("trickle", |patience| patience.payload = SHORT));
    assert_eq!(trickle, Failure::TimedOut { phase: Phase::Payload, after_ms: 1500 });
    let garbage = failure(scene.receive_from("garbage", patient));
    assert!(matches!(garbage, Failure::Protocol(_)), "{garbage:?}");
    // Control characters do not reach a log.
    assert_eq!(failure(scene.receive_from("rude", patient)), Failure::Peer("␛]0;owned␇no".to_owned()));
}

/// A mailbox server is a stranger too.
#[test]
fn mailbox_servers_that_do_one_thing_wrong() {
    let world = World::new();
    let with = |mode: &str, patience: Duration| {
        let server = Running::start(world.script("mailbox.py", &[mode]));
        let port = server.wait_for("port ").split_once(' ').unwrap().1.to_owned();
        let mut config = world.config(Way::Direct);
        config.mailbox = format!("ws://127.0.0.1:{port}/v1").parse().unwrap();
        config.patience.mailbox = patience;
        let (ours, never) = (Program::new(config), CancellationToken::new());
        run(ours.receive(&parsed(&code(0)), 1, world.folder.path(), quiet, &never)).expect_err(mode)
    };
    let crowded = Failure::Mailbox("two others use this code already".to_owned());
    assert_eq!(failure(with("crowded", PATIENCE)), crowded);
    let said = failure(with("odd-error", PATIENCE));
    assert_eq!(said, Failure::Mailbox("it says: ␛[31mno".to_owned()));
    for mode in ["garbage", "large", "login", "hashcash", "no hex"] {
        let failed = failure(with(mode, PATIENCE));
        assert!(matches!(failed, Failure::Mailbox(_)), "{mode}: {failed:?}");
    }
    assert_eq!(failure(with("mute", SHORT)), Failure::TimedOut { phase: Phase::Mailbox, after_ms: 1500 });
    for mode in ["short", "a key of nobody", "reflection"] {
        assert_eq!(failure(with(mode, PATIENCE)), Failure::Password);
    }
    let no_key = failure(with("no key", PATIENCE));
    assert!(matches!(&no_key, Failure::Protocol(why) if why.contains("exchange of keys")), "{no_key:?}");
}
