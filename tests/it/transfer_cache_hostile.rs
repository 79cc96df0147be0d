//! Pieces between peers of which one does not keep to the protocol, played frame by frame, over every network.

use p2p_worker::{
    ids::{Digest, Ticket},
    proto::{
        frames::{Frame, FromClient, FromWorker, Hello, Kind, MAX_DATA, encode, encode_body},
        manifest::{MAX_PIECE, MAX_PIECES, MIN_PIECE, PieceName, PieceSet},
        refusal::{Payload, Refusal},
    },
    spool::Spooled,
    transfer::{Network, Session, TransferConfig, TransferError},
};
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    transfer::contract,
    transfer_support::{
        Breakable, FETCH, Hand, LONG, Pair, Site, bytes, failure, hand_client, hello, provenance, read,
    },
};

contract!(
    lists_that_lie_are_refused_before_any_data,
    pieces_that_nobody_asked_for_are_refused,
    a_piece_that_is_not_the_one_of_its_name,
    a_future_that_is_not_its_pieces,
    names_of_what_another_client_sent_tell_nothing,
    more_data_than_was_lacking,
    answers_that_lie_are_refused,
    a_worker_that_keeps_nothing_is_named_nothing,
);

const LENGTH: usize = 2 << 20;
const SIZE: u64 = 2 << 20;

fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Pieces of the same length, but for the last one.
fn names(bytes: &[u8]) -> Vec<PieceName> {
    let name = |piece: &[u8]| PieceName { length: u32::try_from(piece.len()).unwrap(), digest: digest(piece) };
    bytes.chunks(MAX_PIECE as usize).map(name).collect()
}

fn announced(size: u64, digest: Digest, pieces: usize) -> FromClient {
    let pieces = u32::try_from(pieces).unwrap();
    FromClient::Future { size, digest, max_result: 1 << 20, start: 0, pieces, whole: None }
}

fn refused_by_worker(frame: Frame<FromWorker>) -> Option<Refusal> {
    match frame {
        Frame::Control(FromWorker::Refuse(refusal)) => Some(refusal),
        _ => None,
    }
}

fn lacks(frame: Frame<FromWorker>) -> Option<PieceSet> {
    match frame {
        Frame::Control(FromWorker::Lacks(lacks)) => Some(lacks),
        _ => None,
    }
}

fn data(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(MAX_DATA).flat_map(|piece| encode_body(Kind::Data, piece).unwrap()).collect()
}

type Fetched = Result<(Spooled, Session), TransferError>;

/// A worker that keeps pieces fetches from a client that is played by hand, for as many streams as it takes.
async fn with_hand<S: Site, T>(
    site: &S,
    limit: u64,
    play: impl AsyncFn(&mut Hand<<S::Net as Network>::Stream>, u32) -> Option<T>,
) -> (Fetched, T) {
    let pair = Pair::keeping(site, limit).await;
    let client = hand_client(site, pair.worker.network().id()).await;
    let mut invitation = pair.invitation(Ticket([1; 16]));
    (invitation.client, invitation.addresses) = (client.id().clone(), client.addresses());
    let playing = async {
        let mut count = 0;
        loop {
            let (_, stream) = timeout(LONG, client.accept()).await.unwrap().unwrap();
            let mut hand = Hand::new(stream);
            assert!(matches!(hand.hear().await, Some(Frame::Control(FromWorker::Hello(_)))));
            if let Some(played) = play(&mut hand, count).await {
                break played;
            }
            count += 1;
        }
    };
    tokio::join!(pair.worker.fetch(invitation), playing)
}

async fn lists_that_lie_are_refused_before_any_data<S: Site>(site: &S) {
    let payload = bytes(LENGTH);
    let right = names(&payload);
    let with = |change: &dyn Fn(&mut Vec<PieceName>)| {
        let mut names = right.clone();
        change(&mut names);
        names
    };
    let cases: Vec<(u64, usize, Vec<PieceName>)> = vec![
        // More pieces than there can be of this size, or at all.
        (SIZE, LENGTH / MIN_PIECE as usize + 2, vec![]),
        (60 << 20, MAX_PIECES + 1, vec![]),
        // Too short, too long, of no length, together too long and too short.
        (SIZE, right.len(), with(&|names| names[3].length = MIN_PIECE - 1)),
        (SIZE, right.len(), with(&|names| names[3].length = MAX_PIECE + 1)),
        (SIZE, right.len(), with(&|names| names[3].length = u32::MAX)),
        (SIZE, right.len(), with(&|names| names.last_mut().unwrap().length = 0)),
        (SIZE - 1, right.len(), right.clone()),
        (SIZE + 1, right.len(), right.clone()),
        // More names than were announced, and none.
        (SIZE, right.len() - 1, right.clone()),
        (SIZE, right.len(), vec![]),
    ];
    for (size, count, names) in cases {
        let (fetched, told) = with_hand(site, 256 << 20, async |hand, _| {
            hand.say(&announced(size, digest(&payload), count)).await;
            hand.say(&FromClient::Pieces(names.clone())).await;
            Some(hand.until(refused_by_worker).await)
        })
        .await;
        assert!(matches!(told, Refusal::Protocol(_)), "{told:?}");
        assert!(matches!(fetched, Err(TransferError::Manifest(_))), "{fetched:?} of {count}");
    }
}

async fn pieces_that_nobody_asked_for_are_refused<S: Site>(site: &S) {
    let payload = bytes(LENGTH);
    let names = names(&payload);
    // The cache is off, or too small for this future.
    for limit in [0, SIZE] {
        let (fetched, told) = with_hand(site, limit, async |hand, _| {
            hand.say(&announced(SIZE, digest(&payload), names.len())).await;
            hand.say(&FromClient::Pieces(names.clone())).await;
            Some(hand.until(refused_by_worker).await)
        })
        .await;
        assert!(matches!(told, Refusal::Protocol(_)), "{told:?}");
        assert!(matches!(fetched, Err(TransferError::Protocol(_))), "{fetched:?}");
    }
    // None were announced, or data come instead, or a whole future beside them.
    let whole = |pieces| FromClient::Future {
        size: 4,
        digest: digest(b"four"),
        max_result: 1 << 20,
        start: 0,
        pieces,
        whole: Some(b"four".to_vec()),
    };
    let cases: Vec<Vec<Vec<u8>>> = vec![
        vec![
            encode(&announced(SIZE, digest(&payload), 0)).unwrap(),
            encode(&FromClient::Pieces(names.clone())).unwrap(),
        ],
        vec![encode(&announced(SIZE, digest(&payload), names.len())).unwrap(), data(&payload[..1000])],
        vec![encode(&whole(1)).unwrap()],
    ];
    for frames in cases {
        let (fetched, told) = with_hand(site, 256 << 20, async |hand, _| {
            for frame in &frames {
                hand.write(frame).await;
            }
            Some(hand.until(refused_by_worker).await)
        })
        .await;
        assert!(matches!(told, Refusal::Protocol(_)), "{told:?}");
        assert!(matches!(fetched, Err(TransferError::Protocol(_))), "{fetched:?}");
    }
}

async fn a_piece_that_is_not_the_one_of_its_name<S: Site>(site: &S) {
    let payload = bytes(LENGTH);
    let mut wrong = payload.clone();
    wrong[100_000] ^= 1;
    let names = names(&payload);
    // The client is still sending when the worker finds it, or nothing follows.
    for sent in [LENGTH, 200_000] {
        let (fetched, told) = with_hand(site, 256 << 20, async |hand, _| {
            hand.say(&announced(SIZE, digest(&wrong), names.len())).await;
            hand.say(&FromClient::Pieces(names.clone())).await;
            let lacks = hand.until(lacks).await;
            assert!((0..names.len()).all(|index| lacks.has(index)));
            Some(hand.pour(&data(&wrong[..sent]), refused_by_worker).await)
        })
        .await;
        assert_eq!(told, Refusal::Digest(Payload::Future));
        assert!(matches!(fetched, Err(TransferError::Digest { what: Payload::Future })), "{fetched:?}");
    }
}

/// Plays one honest future, and then one whose digest is not that of its pieces, which are all kept: the worker trusts
/// neither, and asks for all of it once more without the cache.
async fn a_future_that_is_not_its_pieces<S: Site>(site: &S) {
    let payload = bytes(LENGTH);
    let names = names(&payload);
    let pair = Pair::keeping(site, 256 << 20).await;
    let client = hand_client(site, pair.worker.network().id()).await;
    let invitation = || {
        let mut invitation = pair.invitation(Ticket([1; 16]));
        (invitation.client, invitation.addresses) = (client.id().clone(), client.addresses());
        invitation
    };
    let next = async || {
        let (_, stream) = timeout(LONG, client.accept()).await.unwrap().unwrap();
        let mut hand = Hand::new(stream);
        let Some(Frame::Control(FromWorker::Hello(hello))) = hand.hear().await else { panic!("no hello") };
        (hand, hello)
    };
    for told in [digest(&payload), digest(b"something else")] {
        let playing = async {
            let (mut hand, Hello { keeps, .. }) = next().await;
            assert!(keeps >= SIZE);
            hand.say(&announced(SIZE, told, names.len())).await;
            hand.say(&FromClient::Pieces(names.clone())).await;
            // A worker that has all of it may find that it is not right, and end the stream, before it said so.
            let lacks = hand.before_end(lacks).await;
            if told == digest(&payload) {
                assert!(lacks.unwrap().has(0));
                hand.write(&data(&payload)).await;
                hand.until(|frame| matches!(frame, Frame::Control(FromWorker::Received)).then_some(())).await;
                return (hand, None);
            }
            assert!(lacks.is_none_or(|lacks| (0..names.len()).all(|index| !lacks.has(index))));
            let (mut hand, hello) = next().await;
            assert_eq!((hello.keeps, hello.stage), (0, FETCH));
            hand.say(&announced(SIZE, told, 0)).await;
            hand.write(&data(&payload)).await;
            let refused = hand.until(refused_by_worker).await;
            (hand, Some(refused))
        };
        let (fetched, (mut hand, refused)) = tokio::join!(pair.worker.fetch(invitation()), playing);
        if told == digest(&payload) {
            assert_eq!((read(&fetched.unwrap().0), refused), (payload.clone(), None));
            // The session ends before its stream does, or it would dial again.
            assert!(matches!(hand.until(refused_by_worker).await, Refusal::GaveUp(_)));
        } else {
            assert_eq!(refused, Some(Refusal::Digest(Payload::Future)));
            assert!(matches!(fetched, Err(TransferError::Digest { .. })), "{fetched:?}");
        }
    }
}

async fn names_of_what_another_client_sent_tell_nothing<S: Site>(site: &S) {
    let payload = bytes(LENGTH);
    let names = names(&payload);
    let pair = Pair::keeping(site, 256 << 20).await;
    for _ in 0..2 {
        let client = hand_client(site, pair.worker.network().id()).await;
        let mut invitation = pair.invitation(Ticket([1; 16]));
        (invitation.client, invitation.addresses) = (client.id().clone(), client.addresses());
        let playing = async {
            let (_, stream) = timeout(LONG, client.accept()).await.unwrap().unwrap();
            let mut hand = Hand::new(stream);
            hand.hear::<FromWorker>().await;
            hand.say(&announced(SIZE, digest(&payload), names.len())).await;
            hand.say(&FromClient::Pieces(names.clone())).await;
            let all: PieceSet = names.iter().map(|_| true).collect();
            assert_eq!(hand.until(lacks).await, all);
            hand.write(&data(&payload)).await;
            hand.until(|frame| matches!(frame, Frame::Control(FromWorker::Received)).then_some(())).await;
        };
        let (fetched, ()) = tokio::join!(pair.worker.fetch(invitation), playing);
        assert_eq!(read(&fetched.unwrap().0), payload);
    }
}

async fn more_data_than_was_lacking<S: Site>(site: &S) {
    let payload = bytes(LENGTH);
    let names = names(&payload);
    let (fetched, told) = with_hand(site, 256 << 20, async |hand, _| {
        hand.say(&announced(SIZE, digest(&payload), names.len())).await;
        hand.say(&FromClient::Pieces(names.clone())).await;
        hand.until(lacks).await;
        hand.write(&data(&payload[..LENGTH - 1])).await;
        hand.write(&data(b"xyz")).await;
        Some(hand.until(refused_by_worker).await)
    })
    .await;
    assert!(matches!(told, Refusal::Protocol(_)), "{told:?}");
    assert!(matches!(fetched, Err(TransferError::Protocol(_))), "{fetched:?}");
}

/// A worker by hand to whom a future of 3 MiB is announced; the names of its pieces.
async fn named<N: Network>(pair: &Pair<N>, ticket: Ticket, keeps: u64) -> (Hand<Breakable<N::Stream>>, Vec<PieceName>) {
    let mut hand = pair.hand().await;
    let hello = Hello { keeps, max_future: 64 << 20, ..hello(ticket, FETCH) };
    hand.say(&FromWorker::Hello(hello)).await;
    let count = hand.until(|frame| match frame {
        Frame::Control(FromClient::Future { pieces, .. }) => Some(pieces as usize),
        _ => None,
    });
    let count = count.await;
    let mut names = Vec::new();
    while names.len() < count {
        let more = hand.until(|frame| match frame {
            Frame::Control(FromClient::Pieces(names)) => Some(names),
            _ => None,
        });
        names.extend(more.await);
    }
    (hand, names)
}

/// An answer as a hostile worker's own encoder would write it.
#[derive(Serialize)]
struct Raw(u8, Vec<u8>);

async fn answers_that_lie_are_refused<S: Site>(site: &S) {
    let payload = bytes(3 << 20);
    let pair = Pair::new(site).await;
    let delivery = pair.grant(&payload);
    let (hand, names) = named(&pair, delivery.ticket, 64 << 20).await;
    drop((hand, delivery));
    assert_eq!(names.iter().map(|name| u64::from(name.length)).sum::<u64>(), 3 << 20);
    let lacks = 7;
    let all = vec![0xff; names.len().div_ceil(8)];
    assert_eq!(encode(&FromWorker::Lacks(PieceSet::default())).unwrap()[5], lacks);
    let too_few = Raw(lacks, all[1..].to_vec());
    let too_many = Raw(lacks, [all.clone(), vec![0]].concat());
    let huge = Raw(lacks, vec![0xff; 50_000]);
    for wrong in [too_few, too_many, huge] {
        let mut delivery = pair.grant(&payload);
        let (mut hand, _) = named(&pair, delivery.ticket, 64 << 20).await;
        hand.say(&wrong).await;
        let error = failure(&mut delivery).await;
        assert!(matches!(error, TransferError::Protocol(_)), "{error:?}");
    }
    // An answer that nobody asked for, two of them, and a future that was received before it was sent.
    let none: PieceSet = names.iter().map(|_| false).collect();
    for (keeps, answers) in [
        (0, vec![FromWorker::Lacks(none.clone())]),
        (64 << 20, vec![FromWorker::Lacks(none.clone()), FromWorker::Lacks(none.clone())]),
        (64 << 20, vec![FromWorker::Received]),
        (64 << 20, vec![FromWorker::Begin { provenance: provenance() }]),
    ] {
        let mut delivery = pair.grant(&payload);
        let (mut hand, _) = named(&pair, delivery.ticket, keeps).await;
        for answer in answers {
            hand.say(&answer).await;
        }
        let error = failure(&mut delivery).await;
        assert!(matches!(error, TransferError::Protocol(_)), "{error:?}");
    }
}

async fn a_worker_that_keeps_nothing_is_named_nothing<S: Site>(site: &S) {
    let payload = bytes(3 << 20);
    let pair = Pair::with(site, TransferConfig::default()).await;
    for keeps in [0, (3 << 20) - 1] {
        let delivery = pair.grant(&payload);
        let (_, names) = named(&pair, delivery.ticket, keeps).await;
        assert!(names.is_empty());
    }
    // A small future is not cut.
    let delivery = pair.grant(&payload[..1_000_000]);
    let (_, names) = named(&pair, delivery.ticket, u64::MAX).await;
    assert!(names.is_empty());
}
