//! The contract of the transfer with a peer that does not keep to it, played frame by frame, over every network.

use std::time::Duration;

use p2p_worker::{
    ids::{Digest, Ticket},
    proto::{
        frames::{Frame, FromClient, FromWorker, Kind, MAX_CONTROL, MAX_DATA, Stage, encode_body},
        posting,
        refusal::{Payload, Refusal},
    },
    transfer::{DeliveryEvent, Network, Session, TransferConfig, TransferError},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    transfer::contract,
    transfer_support::{
        ANY, FETCH, Hand, LONG, Memory, Pair, Site, Tcp, all_events, bytes, failure, hand_client, hello, provenance,
        read, transfer, wait_for,
    },
};

contract!(
    a_ticket_that_is_not_ones_own,
    a_stream_that_begins_with_anything_else,
    a_future_that_is_too_large_does_not_flow,
    a_future_over_the_workers_limit_is_refused_by_the_worker_too,
    a_result_that_is_too_large_does_not_flow,
    a_result_with_a_wrong_digest,
    a_future_with_a_wrong_digest,
    a_refusal_while_the_future_flows,
    more_bytes_than_were_announced,
    frames_that_are_too_big,
    frames_in_the_wrong_place,
    a_future_that_stalls,
    a_result_that_stalls,
    a_client_that_breaks_every_stream,
    a_worker_that_breaks_every_stream,
    a_silent_client,
    a_silent_worker,
    both_sides_beat_whatever_they_do,
    an_acknowledgement_that_was_lost,
    a_worker_that_dials_again_before_the_break_is_seen,
);

fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

fn data(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(MAX_DATA).flat_map(|piece| encode_body(Kind::Data, piece).unwrap()).collect()
}

fn result_of(bytes: &[u8]) -> FromWorker {
    FromWorker::Result {
        size: bytes.len() as u64,
        digest: digest(bytes),
        provenance: provenance(),
        start: 0,
        whole: None,
    }
}

fn future_of(bytes: &[u8]) -> FromClient {
    FromClient::Future {
        size: bytes.len() as u64,
        digest: digest(bytes),
        max_result: 1 << 20,
        start: 0,
        pieces: 0,
        whole: None,
    }
}

fn refused(frame: Frame<FromClient>) -> Option<Refusal> {
    match frame {
        Frame::Control(FromClient::Refuse(refusal)) => Some(refusal),
        _ => None,
    }
}

fn refused_by_worker(frame: Frame<FromWorker>) -> Option<Refusal> {
    match frame {
        Frame::Control(FromWorker::Refuse(refusal)) => Some(refusal),
        _ => None,
    }
}

async fn a_ticket_that_is_not_ones_own<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    // Another worker, with a ticket of its own, shows this one.
    let other = transfer(site, TransferConfig::default()).await;
    let _own = pair.grant_to(other.network().id(), b"another future");
    let error = other.fetch(pair.invitation(delivery.ticket)).await.unwrap_err();
    assert!(matches!(error, TransferError::Refused(Refusal::Ticket)), "{error:?}");
    // The right worker shows one that was never made, and its own for another future.
    let error = pair.worker.fetch(pair.invitation(Ticket([0; 16]))).await.unwrap_err();
    assert!(matches!(error, TransferError::Refused(Refusal::Ticket)), "{error:?}");
    let mut invitation = pair.invitation(delivery.ticket);
    invitation.future = "something-else".parse().unwrap();
    let error = pair.worker.fetch(invitation).await.unwrap_err();
    assert!(matches!(error, TransferError::Refused(Refusal::Ticket)), "{error:?}");
    // A version that does not exist.
    let mut hand = pair.hand().await;
    let mut hello = hello(delivery.ticket, FETCH);
    hello.version = 1;
    hand.say(&FromWorker::Hello(hello)).await;
    assert_eq!(hand.until(refused).await, Refusal::Version { theirs: 3 });
    // None of this disturbed the real run.
    let (future, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    assert_eq!(read(&future), b"future");
    session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
    assert!(matches!(all_events(&mut delivery).await.last(), Some(DeliveryEvent::Done { .. })));
}

async fn a_stream_that_begins_with_anything_else<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = pair.hand().await;
    hand.say(&FromWorker::Begin { provenance: provenance() }).await;
    assert!(matches!(hand.until(refused).await, Refusal::Protocol(_)));
    let mut hand = pair.hand().await;
    hand.write(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    assert!(hand.hear::<FromClient>().await.is_none(), "dropped");
    let (_, session) = pair.worker.fetch(pair.invitation(delivery.ticket)).await.unwrap();
    session.deliver(&pair.spool(b"result"), provenance()).await.unwrap();
    assert!(matches!(all_events(&mut delivery).await.last(), Some(DeliveryEvent::Done { .. })));
}

async fn a_future_that_is_too_large_does_not_flow<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(&bytes(2 << 20));
    let mut hand = pair.hand().await;
    hand.say(&FromWorker::Hello(hello(delivery.ticket, FETCH))).await;
    let first = hand.hear().await.and_then(refused).expect("a refusal before anything else");
    assert_eq!(first, Refusal::TooLarge { what: Payload::Future, size: 2 << 20, limit: 1 << 20 });
    assert!(matches!(failure(&mut delivery).await, TransferError::TooLarge { what: Payload::Future, .. }));
}

/// A worker fetches from a client that is played by hand; what came of it, and what the hand did.
async fn with_hand<S: Site, T>(
    site: &S,
    config: TransferConfig,
    play: impl AsyncFnOnce(&mut Hand<<S::Net as Network>::Stream>) -> T,
) -> (Result<(p2p_worker::spool::Spooled, Session), TransferError>, T) {
    let pair = Pair::with(site, config).await;
    let client = hand_client(site, pair.worker.network().id()).await;
    let mut invitation = pair.invitation(Ticket([1; 16]));
    (invitation.client, invitation.addresses) = (client.id().clone(), client.addresses());
    invitation.max_future = 1 << 20;
    let playing = async {
        let (_, stream) = timeout(LONG, client.accept()).await.unwrap().unwrap();
        let mut hand = Hand::new(stream);
        assert!(matches!(hand.hear().await, Some(Frame::Control(FromWorker::Hello(_)))));
        play(&mut hand).await
    };
    tokio::join!(pair.worker.fetch(invitation), playing)
}

async fn a_future_over_the_workers_limit_is_refused_by_the_worker_too<S: Site>(site: &S) {
    let (fetched, told) = with_hand(site, TransferConfig::default(), async |hand| {
        hand.say(&FromClient::Future {
            size: 1 << 40,
            digest: Digest([0; 32]),
            max_result: 0,
            start: 0,
            pieces: 0,
            whole: None,
        })
        .await;
        hand.until(refused_by_worker).await
    })
    .await;
    assert_eq!(told, Refusal::TooLarge { what: Payload::Future, size: 1 << 40, limit: 1 << 20 });
    assert!(matches!(fetched, Err(TransferError::TooLarge { size: 0x100_0000_0000, limit: 0x10_0000, .. })));
}

/// A worker by hand that has its future and has begun.
async fn running<N: Network>(pair: &Pair<N>, ticket: Ticket) -> Hand<crate::transfer_support::Breakable<N::Stream>> {
    let mut hand = pair.hand().await;
    hand.say(&FromWorker::Hello(hello(ticket, FETCH))).await;
    hand.until(|frame| matches!(frame, Frame::Control(FromClient::Future { .. })).then_some(())).await;
    hand.say(&FromWorker::Received).await;
    hand.say(&FromWorker::Begin { provenance: provenance() }).await;
    hand
}

async fn a_result_that_is_too_large_does_not_flow<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = running(&pair, delivery.ticket).await;
    let size = (64 << 20) + 1;
    hand.say(&FromWorker::Result { size, digest: Digest([0; 32]), provenance: provenance(), start: 0, whole: None })
        .await;
    let told = hand.until(refused).await;
    assert_eq!(told, Refusal::TooLarge { what: Payload::Result, size, limit: 64 << 20 });
    assert!(matches!(failure(&mut delivery).await, TransferError::TooLarge { what: Payload::Result, .. }));
}

async fn a_result_with_a_wrong_digest<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = running(&pair, delivery.ticket).await;
    hand.say(&result_of(b"result")).await;
    hand.write(&data(b"resulT")).await;
    assert_eq!(hand.until(refused).await, Refusal::Digest(Payload::Result));
    assert!(matches!(failure(&mut delivery).await, TransferError::Digest { what: Payload::Result }));
}

async fn a_future_with_a_wrong_digest<S: Site>(site: &S) {
    let (fetched, told) = with_hand(site, TransferConfig::default(), async |hand| {
        hand.say(&future_of(b"future")).await;
        hand.write(&data(b"futurE")).await;
        hand.until(refused_by_worker).await
    })
    .await;
    assert_eq!(told, Refusal::Digest(Payload::Future));
    assert!(matches!(fetched, Err(TransferError::Digest { what: Payload::Future })));
}

/// A client hears why its future is not taken, although nobody takes its bytes any more: again and again, since both
/// are there at once.
async fn a_refusal_while_the_future_flows<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    for _ in 0..20 {
        let mut delivery = pair.grant(&bytes(1 << 20));
        let mut hand = pair.hand().await;
        hand.say(&FromWorker::Hello(hello(delivery.ticket, FETCH))).await;
        let announced = |frame| matches!(frame, Frame::Control(FromClient::Future { .. })).then_some(());
        hand.until(announced).await;
        hand.say(&FromWorker::Refuse(Refusal::Digest(Payload::Future))).await;
        drop(hand);
        let error = failure(&mut delivery).await;
        assert!(matches!(error, TransferError::Refused(Refusal::Digest(Payload::Future))), "{error:?}");
    }
}

async fn more_bytes_than_were_announced<S: Site>(site: &S) {
    let (fetched, told) = with_hand(site, TransferConfig::default(), async |hand| {
        hand.say(&future_of(b"future")).await;
        hand.write(&data(b"future, and then some")).await;
        hand.until(refused_by_worker).await
    })
    .await;
    assert!(matches!(told, Refusal::Protocol(_)), "{told:?}");
    assert!(matches!(fetched, Err(TransferError::Protocol(_))));

    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = running(&pair, delivery.ticket).await;
    hand.say(&result_of(b"result")).await;
    hand.write(&data(b"result, and then some")).await;
    assert!(matches!(hand.until(refused).await, Refusal::Protocol(_)));
    assert!(matches!(failure(&mut delivery).await, TransferError::Protocol(_)));
}

async fn frames_that_are_too_big<S: Site>(site: &S) {
    for (kind, limit) in [(0, MAX_CONTROL), (1, 1 << 20), (2, MAX_DATA), (3, MAX_DATA), (7, 0)] {
        let mut header = vec![kind];
        header.extend(u32::try_from(limit + 1).unwrap().to_le_bytes());
        let pair = Pair::new(site).await;
        let mut delivery = pair.grant(b"future");
        let mut hand = running(&pair, delivery.ticket).await;
        hand.write(&header).await;
        assert!(matches!(hand.until(refused).await, Refusal::Protocol(_)));
        assert!(matches!(failure(&mut delivery).await, TransferError::Frame(_)));

        let (fetched, told) = with_hand(site, TransferConfig::default(), async |hand| {
            hand.write(&header).await;
            // Before the answer to hello there is nobody to refuse to; afterwards there is.
            hand.hear::<FromWorker>().await.and_then(refused_by_worker)
        })
        .await;
        assert!(matches!(fetched, Err(TransferError::Frame(_))), "{fetched:?} {told:?}");
    }
}

async fn frames_in_the_wrong_place<S: Site>(site: &S) {
    let wrong: [Vec<u8>; 4] = [
        data(b"data that were not announced"),
        encode_body(Kind::Control, &[0xff; 8]).unwrap(),
        p2p_worker::proto::frames::encode(&FromWorker::Hello(hello(Ticket([2; 16]), FETCH))).unwrap(),
        encode_body(Kind::Control, &[]).unwrap_or_else(|_| vec![0, 0, 0, 0, 0]),
    ];
    for bytes in wrong {
        let pair = Pair::new(site).await;
        let mut delivery = pair.grant(b"future");
        let mut hand = running(&pair, delivery.ticket).await;
        hand.write(&bytes).await;
        assert!(matches!(hand.until(refused).await, Refusal::Protocol(_)));
        let error = failure(&mut delivery).await;
        assert!(matches!(error, TransferError::Protocol(_) | TransferError::Frame(_)), "{error:?}");
    }
    // A result before the future was received.
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = pair.hand().await;
    hand.say(&FromWorker::Hello(hello(delivery.ticket, FETCH))).await;
    hand.say(&result_of(b"result")).await;
    assert!(matches!(failure(&mut delivery).await, TransferError::Protocol(_)));
}

fn impatient() -> TransferConfig {
    let short = Duration::from_millis(300);
    TransferConfig { stall: short, heartbeat: short / 6, ..TransferConfig::default() }
}

async fn a_future_that_stalls<S: Site>(site: &S) {
    let (fetched, told) = with_hand(site, impatient(), async |hand| {
        hand.say(&future_of(b"future")).await;
        hand.write(&data(b"fut")).await;
        loop {
            // The client is alive all the time; only the future does not move.
            match hand.hear_all().await.unwrap() {
                Frame::Control(FromWorker::Heartbeat) => hand.say(&FromClient::Heartbeat).await,
                frame => break refused_by_worker(frame),
            }
        }
    })
    .await;
    assert!(matches!(told, Some(Refusal::GaveUp(_))), "{told:?}");
    assert!(matches!(fetched, Err(TransferError::Stalled { what: Payload::Future, .. })));
}

/// One payload may take half a second, over as many streams as one likes.
fn unhurried() -> TransferConfig {
    TransferConfig { payload: Duration::from_millis(500), redials: u32::MAX, ..TransferConfig::default() }
}

async fn a_client_that_breaks_every_stream<S: Site>(site: &S) {
    let pair = Pair::with(site, unhurried()).await;
    let client = hand_client(site, pair.worker.network().id()).await;
    let mut invitation = pair.invitation(Ticket([1; 16]));
    (invitation.client, invitation.addresses) = (client.id().clone(), client.addresses());
    let playing = async {
        while let Some((_, stream)) = client.accept().await {
            let mut hand = Hand::new(stream);
            hand.hear::<FromWorker>().await;
            hand.say(&future_of(b"future")).await;
            hand.write(&data(b"fut")).await;
        }
        std::future::pending().await
    };
    let fetched = tokio::select! {
        fetched = timeout(LONG, pair.worker.fetch(invitation)) => fetched.unwrap(),
        never = playing => never,
    };
    assert!(matches!(fetched, Err(TransferError::Stalled { what: Payload::Future, .. })), "{fetched:?}");
}

async fn a_worker_that_breaks_every_stream<S: Site>(site: &S) {
    let pair = Pair::with(site, unhurried()).await;
    let mut delivery = pair.grant(b"future");
    let (client, worker, ticket) = (pair.client.network(), pair.worker.network(), delivery.ticket);
    let playing = async {
        while let Ok((stream, _)) = worker.dial(client.id(), &client.addresses(), ANY).await {
            let mut hand = Hand::new(stream);
            hand.say(&FromWorker::Hello(hello(ticket, FETCH))).await;
            hand.hear::<FromClient>().await;
        }
        std::future::pending().await
    };
    let error = tokio::select! {
        error = failure(&mut delivery) => error,
        never = playing => never,
    };
    assert!(matches!(error, TransferError::Stalled { what: Payload::Future, .. }), "{error:?}");
}

async fn a_result_that_stalls<S: Site>(site: &S) {
    let pair = Pair::with(site, impatient()).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = running(&pair, delivery.ticket).await;
    hand.say(&result_of(b"result")).await;
    hand.write(&data(b"res")).await;
    let told = loop {
        hand.say(&FromWorker::Heartbeat).await;
        match hand.hear_all().await.unwrap() {
            Frame::Control(FromClient::Heartbeat) => {}
            frame => break refused(frame),
        }
    };
    assert!(matches!(told, Some(Refusal::GaveUp(_))), "{told:?}");
    assert!(matches!(failure(&mut delivery).await, TransferError::Stalled { what: Payload::Result, .. }));
}

fn nervous() -> TransferConfig {
    let short = Duration::from_millis(300);
    TransferConfig { silence: short, grace: short * 2, ..TransferConfig::default() }
}

async fn a_silent_client<S: Site>(site: &S) {
    let (fetched, ()) = with_hand(site, nervous(), async |hand| {
        hand.say(&future_of(b"future")).await;
        while hand.hear::<FromWorker>().await.is_some() {}
    })
    .await;
    assert!(matches!(fetched, Err(TransferError::ClientGone { .. })), "{fetched:?}");
}

/// A future turns out to be wrong when its stream has ended already, and its client waits for another one: there it is told why
/// there will be no third. Whether the end is seen first is up to the threads, so it is tried until it is.
#[tokio::test]
async fn what_was_wrong_is_told_on_the_next_stream() {
    let mut broken = zstd::bulk::compress(&bytes(MAX_DATA), 1).unwrap();
    broken.truncate(MAX_DATA - 1);
    for _ in 0..200 {
        let site = Memory::default();
        let pair = Pair::new(&site).await;
        let client = hand_client(&site, pair.worker.network().id()).await;
        let mut invitation = pair.invitation(Ticket([1; 16]));
        (invitation.client, invitation.addresses) = (client.id().clone(), client.addresses());
        let over = CancellationToken::new();
        let fetching = async {
            let fetched = pair.worker.fetch(invitation).await;
            over.cancel();
            fetched
        };
        let playing = async {
            let (_, stream) = timeout(LONG, client.accept()).await.unwrap().unwrap();
            let mut hand = Hand::new(stream);
            assert!(matches!(hand.hear().await, Some(Frame::Control(FromWorker::Hello(_)))));
            hand.say(&future_of(&bytes(2 * MAX_DATA))).await;
            hand.write(&encode_body(Kind::Packed, &broken).unwrap()).await;
            drop(hand);
            let next = tokio::select! { biased;
                next = client.accept() => next,
                () = over.cancelled() => None,
            };
            let mut hand = Hand::new(next?.1);
            let Some(Frame::Control(FromWorker::Hello(hello))) = hand.hear().await else { panic!("no hello") };
            hand.say(&future_of(&bytes(2 * MAX_DATA))).await;
            Some((hello.stage, hand.hear().await))
        };
        let (fetched, told) = tokio::join!(fetching, playing);
        assert!(matches!(fetched, Err(TransferError::Protocol(_))), "{fetched:?}");
        if let Some((stage, told)) = told {
            assert!(matches!(stage, Stage::Fetch { held: None }), "{stage:?}");
            assert!(matches!(told, Some(Frame::Control(FromWorker::Refuse(Refusal::Protocol(_))))), "{told:?}");
            return;
        }
    }
    panic!("the end of the stream was never seen first");
}

/// Where the kernel closes a connection for a process that was killed, nobody waits for silence.
#[tokio::test]
async fn the_end_of_a_workers_connection_is_seen_at_once() {
    let config = TransferConfig { silence: 100 * LONG, ..TransferConfig::default() };
    let pair = Pair::with(&Tcp, config).await;
    let mut delivery = pair.grant(b"future");
    let hand = running(&pair, delivery.ticket).await;
    let Pair { client: _client, worker, directory: _directory } = pair;
    drop((hand, worker));
    wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Disconnected(_)).then_some(())).await;
}

#[test]
fn a_worker_that_vanished_is_in_doubt_within_five_seconds() {
    let config = TransferConfig::default();
    assert!(config.silence >= 3 * config.heartbeat, "a heartbeat may be lost");
    assert!(config.silence + posting::ABSENCE <= Duration::from_secs(5));
}

async fn a_silent_worker<S: Site>(site: &S) {
    let pair = Pair::with(site, nervous()).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = running(&pair, delivery.ticket).await;
    while hand.hear::<FromClient>().await.is_some() {}
    let error = failure(&mut delivery).await;
    assert!(matches!(error, TransferError::WorkerSilent { .. }), "{error:?}");
}

async fn both_sides_beat_whatever_they_do<S: Site>(site: &S) {
    let config = TransferConfig { heartbeat: Duration::from_millis(20), ..TransferConfig::default() };
    let pair = Pair::with(site, config).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = running(&pair, delivery.ticket).await;
    let beats = async |hand: &mut Hand<_>| {
        for _ in 0..3 {
            while hand.hear_all().await.expect("a frame") != Frame::Control(FromClient::Heartbeat) {}
        }
    };
    beats(&mut hand).await;
    wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Begun(_)).then_some(())).await;
    hand.say(&result_of(b"result")).await;
    beats(&mut hand).await;

    let (fetched, ()) = with_hand(site, config, async |hand| {
        let beats = async |hand: &mut Hand<_>| {
            for _ in 0..3 {
                while hand.hear_all().await.expect("a frame") != Frame::Control(FromWorker::Heartbeat) {}
            }
        };
        hand.say(&FromClient::Heartbeat).await;
        hand.say(&future_of(b"future")).await;
        beats(hand).await;
        hand.write(&data(b"future")).await;
        hand.until(|frame| matches!(frame, Frame::Control(FromWorker::Received)).then_some(())).await;
        beats(hand).await;
    })
    .await;
    assert_eq!(read(&fetched.unwrap().0), b"future");
}

async fn an_acknowledgement_that_was_lost<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let mut hand = running(&pair, delivery.ticket).await;
    hand.say(&result_of(b"result")).await;
    hand.write(&data(b"result")).await;
    // The result arrives, the stream breaks before the worker reads that it did.
    let events = all_events(&mut delivery).await;
    assert!(matches!(events.last(), Some(DeliveryEvent::Done { .. })), "{events:?}");
    drop(hand);
    let mut hand = pair.hand().await;
    hand.say(&FromWorker::Hello(hello(delivery.ticket, Stage::Resume))).await;
    assert_eq!(hand.hear().await, Some(Frame::Control(FromClient::Acknowledge)));
}

async fn a_worker_that_dials_again_before_the_break_is_seen<S: Site>(site: &S) {
    let pair = Pair::new(site).await;
    let mut delivery = pair.grant(b"future");
    let mut dead = running(&pair, delivery.ticket).await;
    wait_for(&mut delivery, |event| matches!(event, DeliveryEvent::Begun(_)).then_some(())).await;
    let mut hand = pair.hand().await;
    hand.say(&FromWorker::Hello(hello(delivery.ticket, Stage::Resume))).await;
    assert_eq!(hand.hear().await, Some(Frame::Control(FromClient::Resume { held: None })));
    while dead.hear::<FromClient>().await.is_some() {}
    hand.say(&result_of(b"result")).await;
    hand.write(&data(b"result")).await;
    hand.until(|frame| matches!(frame, Frame::Control(FromClient::Acknowledge)).then_some(())).await;
    assert!(matches!(all_events(&mut delivery).await.last(), Some(DeliveryEvent::Done { .. })));
}
