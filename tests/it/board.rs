//! What every board must do, over the one in memory and the one over SSH; and the recorded lines of R clients.

use std::sync::Arc;

use p2p_worker::{
    board::{Board, BoardError, BoardEvent, Link, MAX_LINE, hub::Hub, memory::MemoryBoard},
    proto::lines::LineSplitter,
};

use super::board_support::{Served, event, line, names, send, soon};

async fn joined(board: &impl Board, topic: &str) -> Link {
    let mut link = soon("joining", board.join(&topic.parse().unwrap())).await.unwrap();
    assert_eq!(event(&mut link).await, BoardEvent::Joined);
    link
}

/// The whole contract. `alice` shares her topics with bob, `other` is alice again.
async fn contract(alice: &impl Board, other: &impl Board, bob: &impl Board) {
    assert_eq!(alice.user().await.unwrap().as_str(), "alice");
    assert_eq!(bob.user().await.unwrap().as_str(), "bob");
    lines_reach_everybody_in_order(alice, other, bob).await;
    what_is_no_line_is_dropped(alice, other).await;
    posting_never_waits_for_ones_own_reading(alice).await;
    what_was_posted_before_leaving_arrives(alice, other).await;
    access_ends_with_its_giver(alice, bob).await;
}

async fn lines_reach_everybody_in_order(alice: &impl Board, other: &impl Board, bob: &impl Board) {
    let mut one = joined(alice, "friends/future.p2p").await;
    let mut two = joined(other, "friends/future.p2p").await;
    let mut three = joined(bob, "alice/friends/future.p2p").await;
    let mut elsewhere = joined(bob, "friends/future.p2p").await;
    for number in 0..100 {
        send(&one, &format!("line {number}")).await;
    }
    send(&elsewhere, "only here").await;
    for number in 0..100 {
        let expected = format!("line {number}");
        assert_eq!(line(&mut one).await, expected, "own lines come back");
        assert_eq!(line(&mut two).await, expected);
        assert_eq!(line(&mut three).await, expected);
    }
    assert_eq!(line(&mut elsewhere).await, "only here");
    send(&three, "from bob").await;
    for link in [&mut one, &mut two, &mut three] {
        assert_eq!(line(link).await, "from bob");
    }
    drop(two);
    send(&one, "two has left").await;
    assert_eq!(line(&mut three).await, "two has left");
}

async fn what_is_no_line_is_dropped(alice: &impl Board, other: &impl Board) {
    let (one, mut two) = (joined(alice, "lines").await, joined(other, "lines").await);
    let longest = "x".repeat(MAX_LINE);
    for text in [&"y".repeat(MAX_LINE + 1), &longest, "a\nb", "a\rb", "", "bytes: \u{1b}[31m ä"] {
        send(&one, text).await;
    }
    assert_eq!(line(&mut two).await, longest);
    assert_eq!(line(&mut two).await, "bytes: \u{1b}[31m ä");
}

async fn posting_never_waits_for_ones_own_reading(alice: &impl Board) {
    let mut link = joined(alice, "unread").await;
    for number in 0..1000 {
        soon("room to post", send(&link, &format!("line {number}"))).await;
    }
    let (mut lines, mut skipped) = (0, 0);
    while lines + skipped < 1000 {
        match event(&mut link).await {
            BoardEvent::Line(_) => lines += 1,
            BoardEvent::Skipped(count) => skipped += count,
            other => panic!("{other:?}"),
        }
    }
    send(&link, "after all of them").await;
    assert_eq!(line(&mut link).await, "after all of them");
}

async fn what_was_posted_before_leaving_arrives(alice: &impl Board, other: &impl Board) {
    let mut stays = joined(other, "leaving").await;
    for round in 0..20 {
        let leaves = joined(alice, "leaving").await;
        for number in 0..50 {
            send(&leaves, &format!("line {round}.{number}")).await;
        }
        soon("leaving", leaves.leave()).await;
        for number in 0..50 {
            assert_eq!(line(&mut stays).await, format!("line {round}.{number}"));
        }
    }
}

async fn access_ends_with_its_giver(alice: &impl Board, bob: &impl Board) {
    let topic = "alice/access/future.p2p".parse().unwrap();
    let refused = soon("a refusal", bob.join(&topic)).await;
    assert!(matches!(refused, Err(BoardError::NoAccess { .. })), "{refused:?}");
    let host = joined(alice, "access/future.p2p").await;
    let mut guest = joined(bob, topic.as_str()).await;
    drop(host);
    let BoardEvent::Lost(reason) = event(&mut guest).await else { panic!("the guest must be cut off") };
    assert!(reason.contains("does not share"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_in_memory_keeps_the_contract() {
    let hub = Arc::new(Hub::default());
    let board = |name: &str| MemoryBoard::new(&hub, name.parse().unwrap());
    contract(&board("alice").sharing_with(names(&["bob"])), &board("alice"), &board("bob")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_board_over_ssh_keeps_the_contract() {
    let served = Served::with(&["alice", "bob"]).await;
    let (alice, other, bob) = (served.board("alice", &["bob"]), served.board("alice", &[]), served.board("bob", &[]));
    contract(&alice, &other, &bob).await;
    served.stop().await;
}

/// The chunks of a recording: what stands between the quotes, with `\n` for an LF.
fn recorded_chunks() -> Vec<Vec<u8>> {
    let log = include_str!("../data/board-transcript.log");
    let chunk = |line: &str| {
        let (_, quoted) = line.split_once('\'').unwrap();
        quoted.strip_suffix('\'').unwrap().replace("\\n", "\n").into_bytes()
    };
    log.lines().map(chunk).collect()
}

#[test]
fn recorded_lines_pass_unchanged_however_they_are_cut() {
    let chunks = recorded_chunks();
    let stream = chunks.concat();
    let expected: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert!(expected.len() > chunks.len(), "some chunks hold two lines");
    assert!(expected.iter().all(|line| line.starts_with(b"when=")));
    for size in [1, 7, 64, 4096, stream.len()] {
        let (mut splitter, mut lines) = (LineSplitter::new(), Vec::new());
        for piece in stream.chunks(size) {
            splitter.push(piece, |line| lines.push(line.to_vec()));
        }
        assert_eq!(lines, expected);
        assert_eq!(splitter.take_overlong(), 0);
    }
}
