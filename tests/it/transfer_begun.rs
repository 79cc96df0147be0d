//! Futures that begin as the last two did, whose beginning was made ready before they came.

use std::{fs, path::Path, sync::Arc};

use futures_util::future::join_all;
use p2p_worker::{
    spool::Spooled,
    transfer::{Begun, Cache, DeliveryEvent, Network},
};
use tokio::sync::watch;

use crate::{
    transfer::contract,
    transfer_support::{Memory, Pair, Site, all_events, bytes, provenance, read},
};

contract!(
    a_future_that_begins_as_the_last_ones_has_their_beginning,
    one_that_begins_otherwise_comes_as_ever,
    what_was_made_ready_needs_no_piece_that_was_kept,
    streams_that_break_at_any_byte,
);

const MIB: u64 = 1 << 20;
/// What one future costs in names, heartbeats and the pieces around what is its own.
const EACH: u64 = 300_000;

/// A future with something of its own behind what it has in common with others.
fn before(common: &[u8], number: u8) -> Vec<u8> {
    [common, &vec![number; 50_000 + usize::from(number)]].concat()
}

/// A worker fetches a future that may begin so, and brings it back as its result. The future, and the bytes that the worker
/// read for it.
async fn run<N: Network>(pair: &Pair<N>, payload: &[u8], begun: Option<Begun>) -> (Spooled, u64) {
    let earlier = pair.worker.network().bytes_read();
    let mut delivery = pair.grant(payload);
    let invitation = pair.invitation(delivery.ticket);
    let (_, stays) = watch::channel(invitation.addresses.clone());
    let (future, session) = pair.worker.fetch_from(invitation, stays, begun).await.unwrap();
    assert_eq!(read(&future), payload);
    assert_eq!(future.digest().0, *blake3::hash(payload).as_bytes());
    let there = pair.worker.network().bytes_read() - earlier;
    let (delivered, events) =
        tokio::join!(async { session.deliver(&future, provenance()).await }, all_events(&mut delivery));
    delivered.unwrap();
    let Some(DeliveryEvent::Done { result, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(read(result), payload);
    (future, there)
}

/// A worker with a cache that has had two such futures, and what it made ready after them.
async fn two_alike<S: Site>(site: &S, common: &[u8]) -> (Pair<S::Net>, Cache, Begun) {
    let Pair { client, worker, directory } = Pair::new(site).await;
    let cache = Cache::new(directory.path().to_owned(), 256 * MIB);
    let pair = Pair { client, worker: worker.keeping(cache.clone()), directory };
    let (first, _) = run(&pair, &before(common, 1), None).await;
    let (second, _) = run(&pair, &before(common, 2), None).await;
    let begun = pair.worker.begin_alike(&first, &second, pair.directory.path()).unwrap().expect("they are alike");
    let bytes = begun.beginning().bytes();
    let most = common.len() as u64;
    assert!((most - 128 * 1024..=most).contains(&bytes), "{bytes}");
    (pair, cache, begun)
}

async fn a_future_that_begins_as_the_last_ones_has_their_beginning<S: Site>(site: &S) {
    let common = bytes(5 << 20);
    let (pair, _, begun) = two_alike(site, &common).await;
    let beginning = begun.beginning().clone();
    let (third, there) = run(&pair, &before(&common, 3), Some(begun)).await;
    assert!(third.beginning().is_some_and(|own| own.is(&beginning)));
    assert!(there < EACH, "{there}");
    // And so on, with what that one had.
    let (fourth, _) = run(&pair, &before(&common, 4), None).await;
    assert!(fourth.beginning().is_none());
    let again = pair.worker.begin_alike(&third, &fourth, pair.directory.path()).unwrap().unwrap();
    assert!(!again.beginning().is(&beginning));
    let (fifth, _) = run(&pair, &before(&common, 5), Some(again)).await;
    assert!(fifth.beginning().is_some());
}

async fn one_that_begins_otherwise_comes_as_ever<S: Site>(site: &S) {
    let common = bytes(3 << 20);
    let (pair, _, begun) = two_alike(site, &common).await;
    let mut other = before(&common, 3);
    other[17] ^= 1;
    let (future, there) = run(&pair, &other, Some(begun)).await;
    assert!(future.beginning().is_none());
    assert!(there < EACH, "the pieces that were kept are of use all the same: {there}");
    // A small one has no pieces that could be the same.
    let (one, _) = run(&pair, &before(&common, 4), None).await;
    let (two, _) = run(&pair, &before(&common, 5), None).await;
    let begun = pair.worker.begin_alike(&one, &two, pair.directory.path()).unwrap();
    let (small, _) = run(&pair, b"small", begun).await;
    assert!(small.beginning().is_none());
    // Nothing is made ready of futures that are small, that have nothing in common, or for a worker without a cache.
    let directory = pair.directory.path();
    assert!(pair.worker.begin_alike(&two, &small, directory).unwrap().is_none());
    let (third, _) = run(&pair, &other[10..], None).await;
    assert!(pair.worker.begin_alike(&two, &third, directory).unwrap().is_none());
    assert!(pair.client.begin_alike(&one, &two, directory).unwrap().is_none());
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0, "and none of it has a name");
}

async fn what_was_made_ready_needs_no_piece_that_was_kept<S: Site>(site: &S) {
    let common = bytes(3 << 20);
    let (pair, cache, begun) = two_alike(site, &common).await;
    cache.clear();
    let (third, there) = run(&pair, &before(&common, 3), Some(begun)).await;
    assert!(third.beginning().is_some());
    assert!(there < EACH, "{there}");
    cache.clear();
    let (_, there) = run(&pair, &before(&common, 4), None).await;
    assert!(there > 3 * MIB, "{there}");
}

async fn streams_that_break_at_any_byte<S: Site>(site: &S) {
    let common = &bytes(2 << 20);
    let runs = (0..6u64).map(|number| async move {
        let (pair, _, begun) = two_alike(site, common).await;
        let mut own = vec![0; 1 << 20];
        blake3::Hasher::new().update(b"own").finalize_xof().fill(&mut own);
        let changed = [&common[..], &own].concat();
        pair.worker.network().cut_at(&[900 + 1700 * number, 40_000 + 130_000 * number]);
        let (third, there) = run(&pair, &changed, Some(begun)).await;
        assert!(there < MIB + 3 * EACH, "{there}");
        // Whether it is the one that was begun depends on what came before the first cut.
        drop(third);
        assert_eq!(pair.worker.network().cuts_left(), 0);
    });
    join_all(runs).await;
}

#[tokio::test]
async fn too_little_or_too_much_is_not_made_ready_and_neither_is_anything_without_room() {
    let pair = Pair::keeping(&Memory::default(), 512 * MIB).await;
    let alike = |common: &[u8]| {
        let futures = [1, 2].map(|number| {
            let future = pair.spool(&before(common, number));
            let name = |bytes: &[u8]| p2p_worker::ids::PieceName {
                length: u32::try_from(bytes.len()).unwrap(),
                digest: p2p_worker::ids::Digest(*blake3::hash(bytes).as_bytes()),
            };
            let names: Arc<[_]> = read(&future).chunks(60_000).map(name).collect();
            future.pieces().set(names).unwrap();
            future
        });
        pair.worker.begin_alike(&futures[0], &futures[1], pair.directory.path())
    };
    assert!(alike(&bytes(1_000_000)).unwrap().is_none());
    assert!(alike(&bytes(1_200_000)).unwrap().is_some());
    assert!(alike(&vec![0; 66 << 20]).unwrap().is_none());
    let nowhere = Path::new("/nonexistent");
    let future = pair.spool(b"");
    assert!(pair.worker.begin_alike(&future, &future, nowhere).unwrap().is_none());
}
