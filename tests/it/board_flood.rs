//! Who floods a board, or does not read, costs it a bounded amount of memory and delays nobody.
//!
//! The board is a process of its own, whose memory the kernel measures (`VmHWM`, the most that was ever resident).

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    board_program::{Town, kilobytes},
    board_raw::Raw,
    board_support::soon,
};

/// What a board may have over what it had idle: the 64 MiB of lines that may wait in all queues, and what its SSH
/// connections hold besides.
const MOST_MORE: u64 = 128 * 1024;

/// As `status --json` tells it.
async fn status(town: &Town) -> p2p_worker::board::server::Status {
    serde_json::from_str(&town.must(&["status", "--json"]).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_cost_a_bounded_amount_of_memory_and_delay_nobody() {
    let town = Town::with(&["alice"]).await;
    let board = town.serve(0, &["--max-lines-per-second", "400000", "--max-connections-per-account", "200"]).await;
    let sign_in = || async { Raw::sign_in(board.port, &town.path("alice")).await };
    let idle = kilobytes(board.pid(), "VmRSS");

    let mut deaf = Vec::new();
    for _ in 0..40 {
        let connection = sign_in().await;
        let reader = connection.start(b"sub busy").await;
        deaf.push((connection, reader));
    }
    let quick = sign_in().await;
    let mut quick = quick.start(b"sub busy").await;
    let writers = [sign_in().await, sign_in().await, sign_in().await, sign_in().await];
    let (lines, text) = (1000, format!("{}\n", "x".repeat(4000)));
    let mut expected = 0;
    let mut posting = Vec::new();
    for writer in &writers {
        posting.push(writer.start(b"pub busy").await);
    }
    // 16 MB in all, 1 MB at a time, so that the quick reader has always read before more is written.
    for _ in 0..lines / 64 {
        for post in &posting {
            for _ in 0..64 {
                assert!(soon("room to post", post.send(&text)).await);
            }
            expected += 64 * text.len();
        }
        soon("every line", quick.until(|heard, _| heard.output.len() >= expected)).await;
    }
    assert!(!quick.heard.ended, "who reads stays");
    for post in &posting {
        post.end_input().await;
    }
    let now = soon("the deaf being cut off", async {
        loop {
            let now = status(&town).await;
            if now.too_slow == 40 {
                return now;
            }
        }
    })
    .await;
    assert!(now.waiting_bytes <= 4 * 1024 * 1024, "{now:?}");
    let most = kilobytes(board.pid(), "VmHWM");
    println!("40 deaf readers, {} MB posted: {idle} kB idle, {most} kB at most", expected / 1_000_000);
    assert!(most < idle + MOST_MORE, "{idle} kB idle, {most} kB at most");
    drop((deaf, writers));
    board.signalled(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lines_and_of_what_is_no_line_is_slowed_down_and_held_nowhere() {
    let town = Town::with(&["alice", "mallory"]).await;
    let board = town.serve(0, &[]).await;
    let alice = Raw::sign_in(board.port, &town.path("alice")).await;
    let mut alices = alice.start(b"pipe x -r").await;
    let idle = kilobytes(board.pid(), "VmRSS");
    let mut flooding = Vec::new();
    for at in 0..8 {
        let mallory = Raw::sign_in(board.port, &town.path("mallory")).await;
        let mut flood = mallory.start(b"pipe flood -r").await;
        // Half of them never end their line.
        let piece = if at % 2 == 0 { "y".repeat(32_000) } else { "z\n".repeat(16_000) };
        flooding.push(tokio::spawn(async move {
            flood.flood(&piece).await;
            drop(mallory);
        }));
    }
    // Meanwhile alice's lines come back, each in its turn.
    for number in 0..200 {
        let line = format!("line {number}.");
        alices.send(&format!("{line}\n")).await;
        soon("alice's own line", alices.until(|heard, _| heard.output.contains(&line))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (now, most) = (status(&town).await, kilobytes(board.pid(), "VmHWM"));
    println!("8 floods: {} lines in, {idle} kB idle, {most} kB at most", now.lines.posted);
    assert!(most < idle + MOST_MORE / 2, "{idle} kB idle, {most} kB at most");
    for flood in flooding {
        flood.abort();
    }
    board.signalled(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_take_a_bounded_number_of_places_and_members_go_on() {
    let town = Town::with(&["alice"]).await;
    let board = town.serve(0, &["--sign-in-time", "5 s"]).await;
    let alice = Raw::sign_in(board.port, &town.path("alice")).await;
    let mut pipe = alice.start(b"pipe x -r").await;
    let idle = kilobytes(board.pid(), "VmRSS");
    let mut strangers = Vec::new();
    for at in 0..300 {
        let mut stranger = soon("a connection", TcpStream::connect(("127.0.0.1", board.port))).await.unwrap();
        // Some say nothing, some begin, some send what is no SSH.
        let words: &[u8] = [&b""[..], b"SSH-2.0-x\r\n", &[b'g'; 20_000]][at % 3];
        let _ = stranger.write_all(words).await;
        strangers.push(stranger);
    }
    pipe.send("still here\n").await;
    soon("alice's line", pipe.until(|heard, _| heard.output.contains("still here"))).await;
    let now = status(&town).await;
    assert!(now.strangers <= 32 && now.turned_away >= 100, "{now:?}");
    assert_eq!(now.signed_in, 1);
    let most = kilobytes(board.pid(), "VmHWM");
    assert!(most < idle + MOST_MORE / 4, "{idle} kB idle, {most} kB at most");
    // The board itself ends those that stay silent.
    for mut stranger in strangers {
        let mut bytes = Vec::new();
        let _ = soon("the end of a stranger", stranger.read_to_end(&mut bytes)).await;
    }
    soon("all places being free", async { while status(&town).await.strangers > 0 {} }).await;
    assert_eq!(town.say(board.port, &["alice"], &["user"]).await.2, 0);
    board.signalled(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_to_sign_in_too_often_is_turned_away_for_a_while() {
    let town = Town::with(&["alice"]).await;
    let board = town.serve(0, &[]).await;
    super::board_support::make_key(town.folder.path(), "unknown", "");
    let alice = Raw::sign_in(board.port, &town.path("alice")).await;
    // Thirty at once, and one more every four seconds.
    let turned_away = async {
        while status(&town).await.turned_away == 0 {
            let all = futures_util::future::join_all((0..8).map(|_| town.say(board.port, &["unknown"], &["user"])));
            all.await;
        }
    };
    soon("being turned away", turned_away).await;
    // Who is there stays.
    assert_eq!(alice.run("user").await.status, Some(0));
    assert!(status(&town).await.refused_sign_ins >= 30);
    board.signalled(Signal::SIGTERM).await;
}
