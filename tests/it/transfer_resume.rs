//! Streams that break while a payload is on its way: it goes on at the byte where it broke, over every network, through
//! a TCP proxy that cuts and a UDP relay that swallows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use p2p_worker::{
    ids::Digest,
    proto::frames::{Frame, FromClient, FromWorker, Held, Kind, MAX_DATA, Stage, encode_body},
    proto::refusal::Refusal,
    transfer::{DeliveryEvent, Network, TransferConfig, TransferError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::{
    transfer::contract,
    transfer_support::{
        Both, FETCH, LONG, Memory, Pair, Quic, Site, Tcp, all_events, bytes, failure, hello, provenance, read,
        transfer, wait_for,
    },
};

contract!(
    payloads_survive_cuts_at_random_bytes,
    what_a_worker_holds_is_checked,
    what_a_client_holds_is_told,
    a_byte_that_was_not_asked_for_is_a_breach,
    nobody_else_goes_on_with_a_broken_stream,
    a_payload_that_shrinks_is_packed_and_whole,
    pieces_that_are_packed_wrongly_are_refused,
);

/// Numbers that look random and are the same each time (a linear congruential generator of Knuth's).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// Where streams break: some in the middle of the payload, some within their first frames.
    fn cuts(&mut self) -> Vec<u64> {
        (0..4).map(|cut| if cut % 2 == 0 { 1 + self.roll(1_200_000) } else { 1 + self.roll(400) }).collect()
    }
}

/// Bytes that are read for nothing at a break: a piece that was not whole, and what is said before the first one.
const LOST: u64 = MAX_DATA as u64 + 20_000;

async fn payloads_survive_cuts_at_random_bytes<S: Site>(site: &S) {
    let runs = (0..6).map(|seed| async move {
        let mut dice = Dice(seed);
        let pair = Pair::new(site).await;
        let (payload, result) = (bytes(4 << 20), bytes((4 << 20) - 77));
        let mut delivery = pair.grant(&payload);
        let (client, worker) = (pair.client.network(), pair.worker.network());
        worker.cut_at(&dice.cuts());
        let (future, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
        assert_eq!(read(&future), payload);
        assert_eq!(worker.cuts_left(), 0, "seed {seed}");
        let most = payload.len() as u64 + 5 * LOST;
        assert!(worker.bytes_read() < most, "seed {seed}: {} of {most}", worker.bytes_read());

        session.begin(provenance()).await.unwrap();
        let before = client.bytes_read();
        client.cut_at(&dice.cuts());
        let spooled = pair.spool(&result);
        let (delivered, events) = tokio::join!(session.deliver(&spooled, provenance()), all_events(&mut delivery));
        delivered.unwrap();
        let Some(DeliveryEvent::Done { result: arrived, .. }) = events.last() else { panic!("{events:?}") };
        assert_eq!(read(arrived), result);
        assert_eq!(client.cuts_left(), 0, "seed {seed}");
        let most = result.len() as u64 + 5 * LOST;
        assert!(client.bytes_read() - before < most, "seed {seed}: {} of {most}", client.bytes_read() - before);
        assert!(events.iter().any(|event| matches!(event, DeliveryEvent::Disconnected(_))), "{events:?}");
    });
    futures_util::future::join_all(runs).await;
}

fn held(bytes: &[u8]) -> Option<Held> {
    Some(Held { size: bytes.len() as u64, digest: Digest(*blake3::hash(bytes).as_bytes()) })
}

/// What a client answers to a worker that holds something of a future of 300,000 bytes.
async fn answered<S: Site>(site: &S, held: Option<Held>) -> (u64, bool) {
    let pair = Pair::new(site).await;
    let delivery = pair.grant(&bytes(300_000));
    let mut hand = pair.hand().await;
    hand.say(&FromWorker::Hello(hello(delivery.ticket, Stage::Fetch { held }))).await;
    hand.until(|frame| match frame {
        Frame::Control(FromClient::Future { start, whole, .. }) => Some((start, whole.is_some())),
        _ => None,
    })
    .await
}

async fn what_a_worker_holds_is_checked<S: Site>(site: &S) {
    let payload = bytes(300_000);
    assert_eq!(answered(site, held(&payload[..123_456])).await, (123_456, false));
    assert_eq!(answered(site, held(&payload)).await, (300_000, false));
    assert_eq!(answered(site, held(b"something else")).await, (0, false), "a changed payload begins anew");
    assert_eq!(answered(site, held(&bytes(300_001))).await, (0, false), "more than there is");
    let huge = Some(Held { size: u64::MAX, digest: Digest([0; 32]) });
    assert_eq!(answered(site, huge).await, (0, false));
}

fn result_at(bytes: &[u8], start: u64) -> FromWorker {
    let digest = Digest(*blake3::hash(bytes).as_bytes());
    FromWorker::Result { size: bytes.len() as u64, digest, provenance: provenance(), start, whole: None }
}

async fn what_a_client_holds_is_told<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let (result, other) = (bytes(300_000), vec![7; 300_000]);
    let mut delivery = pair.grant(b"future");
    let mut hand = pair.hand().await;
    hand.say(&FromWorker::Hello(hello(delivery.ticket, FETCH))).await;
    hand.until(|frame| matches!(frame, Frame::Control(FromClient::Future { .. })).then_some(())).await;
    hand.say(&FromWorker::Received).await;
    hand.say(&result_at(&other, 0)).await;
    hand.write(&encode_body(Kind::Data, &other[..100_000]).unwrap()).await;
    wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Receiving { .. }).then_some(())).await;
    // Another result, from its beginning: the first one is forgotten.
    let ticket = delivery.ticket;
    let again = async || {
        let mut hand = pair.hand().await;
        hand.say(&FromWorker::Hello(hello(ticket, Stage::Resume))).await;
        let held = hand.until(|frame| match frame {
            Frame::Control(FromClient::Resume { held }) => Some(held),
            _ => None,
        });
        let held = held.await;
        (hand, held)
    };
    let (mut hand, told) = again().await;
    assert_eq!(told, held(&other[..100_000]));
    hand.say(&result_at(&result, 0)).await;
    hand.write(&encode_body(Kind::Data, &result[..200_000]).unwrap()).await;
    let has_come =
        |event: &DeliveryEvent| matches!(event, DeliveryEvent::Receiving { bytes: 200_000, .. }).then_some(());
    wait_for(&mut delivery, |event| has_come(event)).await;
    let (mut hand, told) = again().await;
    assert_eq!(told, held(&result[..200_000]));
    hand.say(&result_at(&result, 200_000)).await;
    hand.write(&encode_body(Kind::Data, &result[200_000..]).unwrap()).await;
    hand.until(|frame| matches!(frame, Frame::Control(FromClient::Acknowledge)).then_some(())).await;
    let events = all_events(&mut delivery).await;
    let Some(DeliveryEvent::Done { result: arrived, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(read(arrived), result);
}

async fn a_byte_that_was_not_asked_for_is_a_breach<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = pair.hand().await;
    hand.say(&FromWorker::Hello(hello(delivery.ticket, FETCH))).await;
    hand.until(|frame| matches!(frame, Frame::Control(FromClient::Future { .. })).then_some(())).await;
    hand.say(&FromWorker::Received).await;
    hand.say(&result_at(b"result", 3)).await;
    let refused = hand.until(|frame| match frame {
        Frame::Control(FromClient::Refuse(refusal)) => Some(refusal),
        _ => None,
    });
    assert!(matches!(refused.await, Refusal::Protocol(_)));
    assert!(matches!(failure(&mut delivery).await, TransferError::Protocol(_)));
}

async fn nobody_else_goes_on_with_a_broken_stream<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let payload = bytes(3 << 20);
    let mut delivery = pair.grant(&payload);
    // Another member, whom this client knows by a future of its own, has seen the ticket.
    let other = transfer(site, TransferConfig::default()).await;
    let _own = pair.grant_to(other.network().id(), b"another future");
    pair.worker.network().cut_after(2 << 20);
    let (fetched, ()) = tokio::join!(pair.worker.fetch(pair.invitation(delivery.ticket)), async {
        wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Disconnected(_)).then_some(())).await;
        let error = other.fetch(pair.invitation(delivery.ticket)).await.unwrap_err();
        assert!(matches!(error, TransferError::Refused(Refusal::Ticket)), "{error:?}");
    });
    let (future, session) = fetched.unwrap();
    assert_eq!(read(&future), payload);
    session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
    assert!(matches!(all_events(&mut delivery).await.last(), Some(DeliveryEvent::Done { .. })));
}

async fn a_payload_that_shrinks_is_packed_and_whole<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let payload: Vec<u8> = (0..3_000_000u32).flat_map(|number| (number / 7).to_le_bytes()).take(2_222_222).collect();
    let mut delivery = pair.grant(&payload);
    pair.worker.network().cut_after(400_000);
    let (future, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    assert_eq!(read(&future), payload);
    let read_there = pair.worker.network().bytes_read();
    assert!(read_there < payload.len() as u64 / 2, "{read_there}");
    let (delivered, events) = tokio::join!(session.deliver(&future, provenance()), all_events(&mut delivery));
    delivered.unwrap();
    let Some(DeliveryEvent::Done { result, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(read(result), payload);
    assert!(pair.client.network().bytes_read() < payload.len() as u64 / 2);
}

async fn pieces_that_are_packed_wrongly_are_refused<S: Site>(site: &S) {
    let bomb = zstd::bulk::compress(&vec![0; 1 << 30], 1).unwrap();
    let small = zstd::bulk::compress(b"result, and then some", 1).unwrap();
    let twice = [small.clone(), small.clone()].concat();
    for packed in [&bomb[..bomb.len().min(MAX_DATA)], b"no zstd", &small, &twice] {
        let pair = Pair::new(site).await;
        let mut delivery = pair.grant(b"future");
        let mut hand = pair.hand().await;
        hand.say(&FromWorker::Hello(hello(delivery.ticket, FETCH))).await;
        hand.until(|frame| matches!(frame, Frame::Control(FromClient::Future { .. })).then_some(())).await;
        hand.say(&FromWorker::Received).await;
        let size = if packed == twice.as_slice() { 30 } else { 6 };
        hand.say(&result_at(&vec![0; size], 0)).await;
        hand.write(&encode_body(Kind::Packed, packed).unwrap()).await;
        // The second piece, or the end, finds out about the first.
        hand.write(&encode_body(Kind::Data, b"x").unwrap()).await;
        let error = failure(&mut delivery).await;
        assert!(matches!(error, TransferError::Protocol(_)), "{error:?}");
    }
}

/// A TCP proxy before a port of this machine, of which each connection is cut after so many bytes; then it cuts none.
async fn cutting_proxy(to: u16, cuts: Vec<u64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut cuts = cuts.into_iter();
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            tokio::spawn(carry(near, far, cuts.next().unwrap_or(u64::MAX)));
        }
    });
    port
}

/// Carries bytes both ways until so many have gone, and then drops both ends in the middle of whatever it was.
async fn carry(mut near: TcpStream, mut far: TcpStream, mut left: u64) {
    let (mut here, mut there) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    while left > 0 {
        let (from_near, count) = tokio::select! {
            read = near.read(&mut here) => (true, read.unwrap_or(0)),
            read = far.read(&mut there) => (false, read.unwrap_or(0)),
        };
        let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        left -= count as u64;
        let written = if from_near { far.write_all(&here[..count]) } else { near.write_all(&there[..count]) };
        if count == 0 || written.await.is_err() {
            return;
        }
    }
}

fn port_of<N: Network>(pair: &Pair<N>) -> u16 {
    let address = pair.client.network().addresses()[0].to_string();
    address.split('/').nth(4).unwrap().parse().unwrap()
}

/// A run with payloads of 6 MiB by another address, which breaks streams; how often it did.
async fn through<N: Network>(pair: &Pair<N>, address: String) -> usize {
    let payload = bytes(6 << 20);
    let mut delivery = pair.grant(&payload);
    let mut invitation = pair.invitation(delivery.ticket);
    invitation.addresses = vec![address.parse().unwrap()];
    let run = async {
        let (future, session) = pair.worker.fetch(invitation).await.unwrap();
        assert_eq!(read(&future), payload);
        session.begin(provenance()).await.unwrap();
        session.deliver(&future, provenance()).await.unwrap();
    };
    let ((), events) = tokio::join!(run, all_events(&mut delivery));
    let Some(DeliveryEvent::Done { result, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(read(result), payload);
    assert!(pair.worker.network().bytes_read() < payload.len() as u64 * 2, "it did not begin anew");
    events.iter().filter(|event| matches!(event, DeliveryEvent::Connected)).count()
}

#[tokio::test]
async fn a_real_tcp_connection_that_is_cut_at_random_bytes() {
    for seed in 0..3 {
        let mut dice = Dice(seed);
        let cuts: Vec<u64> = (0..5).map(|_| 1000 + dice.roll(4_000_000)).collect();
        let pair = Pair::new(&Tcp).await;
        let port = cutting_proxy(port_of(&pair), cuts).await;
        let connected = through(&pair, format!("/ip4/127.0.0.1/tcp/{port}")).await;
        assert!(connected > 1, "seed {seed}: {connected}");
    }
}

/// A UDP relay before a port of this machine, for one peer. After so many datagrams it swallows everything for a second.
async fn swallowing_relay(to: u16, every: u32, times: u32) -> u16 {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(("127.0.0.1", to)).await.unwrap();
    let port = near.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut here, mut there) = (vec![0; 65536], vec![0; 65536]);
        let (mut peer, mut passed, mut holes) = (None, 0, 0);
        let mut until = tokio::time::Instant::now();
        loop {
            let (from_near, count) = tokio::select! {
                Ok((count, from)) = near.recv_from(&mut here) => {
                    peer = Some(from);
                    (true, count)
                }
                Ok(count) = far.recv(&mut there) => (false, count),
            };
            passed += 1;
            if passed % every == 0 && holes < times {
                holes += 1;
                until = tokio::time::Instant::now() + Duration::from_secs(1);
            }
            if tokio::time::Instant::now() < until {
                continue;
            }
            let _ = match (from_near, peer) {
                (true, _) => far.send(&here[..count]).await,
                (false, Some(peer)) => near.send_to(&there[..count], peer).await,
                (false, None) => Ok(0),
            };
        }
    });
    port
}

#[tokio::test]
async fn a_real_udp_path_that_swallows_everything_for_a_while() {
    let short = Duration::from_millis(400);
    let config = TransferConfig { silence: short, heartbeat: short / 4, ..TransferConfig::default() };
    let pair = Pair::with(&Quic, config).await;
    let port = swallowing_relay(port_of(&pair), 2000, 3).await;
    let connected = through(&pair, format!("/ip4/127.0.0.1/udp/{port}/quic-v1")).await;
    assert!(connected > 1, "{connected}");
}

#[tokio::test]
async fn redials_that_come_to_nothing_are_bounded() {
    let pair = Pair::with(&Memory::default(), TransferConfig { redials: 3, ..TransferConfig::default() }).await;
    let mut delivery = pair.grant(&bytes(1 << 20));
    pair.worker.network().cut_at(&[200; 12]);
    let fetched = tokio::time::timeout(LONG, pair.worker.fetch(pair.invitation(delivery.ticket))).await.unwrap();
    assert!(matches!(fetched, Err(TransferError::ClientGone { .. })), "{fetched:?}");
    assert!(matches!(failure(&mut delivery).await, TransferError::WorkerSilent { .. }));
}

/// A UDP relay before a port of this machine that lets so many bytes a second to its peer; how many it let there.
async fn narrow_relay(to: u16, rate: u64) -> (u16, Arc<AtomicU64>) {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(("127.0.0.1", to)).await.unwrap();
    let (port, passed) = (near.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&passed);
    tokio::spawn(async move {
        let (mut here, mut there, mut peer) = (vec![0; 65536], vec![0; 65536], None);
        let begin = tokio::time::Instant::now();
        loop {
            let due = begin + Duration::from_millis(counter.load(Ordering::SeqCst) * 1000 / rate);
            let read = async {
                tokio::time::sleep_until(due).await;
                far.recv(&mut there).await
            };
            tokio::select! {
                Ok((count, from)) = near.recv_from(&mut here) => {
                    peer = Some(from);
                    let _ = far.send(&here[..count]).await;
                }
                Ok(count) = read => if let Some(peer) = peer {
                    counter.fetch_add(count as u64, Ordering::SeqCst);
                    let _ = near.send_to(&there[..count], peer).await;
                },
            }
        }
    });
    (port, passed)
}

#[tokio::test]
async fn a_large_future_goes_by_the_faster_way() {
    let pair = Pair::new(&Both).await;
    let payload = bytes(48 << 20);
    let mut delivery = pair.grant(&payload);
    let mut invitation = pair.invitation(delivery.ticket);
    let (port, passed) = narrow_relay(port_of(&pair), 2 << 20).await;
    assert!(invitation.addresses[0].as_str().ends_with("/quic-v1"), "{:?}", invitation.addresses);
    invitation.addresses[0] = format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap();
    let run = async {
        let (future, session) = pair.worker.fetch(invitation).await.unwrap();
        assert_eq!(read(&future), payload);
        session.deliver(&future, provenance()).await.unwrap();
    };
    let ((), events) = tokio::join!(run, all_events(&mut delivery));
    assert!(matches!(events.last(), Some(DeliveryEvent::Done { .. })), "{events:?}");
    let slow = passed.load(Ordering::SeqCst);
    assert!(slow > 0 && slow < payload.len() as u64 / 2, "{slow} bytes went by QUIC");
    assert!(!events.iter().any(|event| matches!(event, DeliveryEvent::Disconnected(_))), "{events:?}");
}
